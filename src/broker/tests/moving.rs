//! A session that goes on with another observer, at another address, and with some of its locks.

use crate::broker::tests::sequences::Recorder;
use crate::broker::*;
use Mode::{Exclusive, Shared};

fn attach(broker: &Broker) -> (ObservedSession, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    (broker.attach("first", recorder.clone()), recorder)
}

fn hold(session: &ObservedSession, name: &str, mode: Mode) -> Grant {
    session.try_acquire(Space::Main, name.as_bytes(), mode).unwrap()
}

/// Waits without a time limit.
fn wait(session: &ObservedSession, ticket: Ticket, name: &str) {
    let attempt = session.acquire(&[(Key::main(name), Exclusive)], Some(Wait { ticket, limit: None }));
    assert_eq!(attempt, Ok(Attempt::Queued));
}

fn held(session: &ObservedSession, name: &str) -> Option<Held> {
    session.held(Space::Main, name.as_bytes())
}

#[test]
fn an_observer_is_told_what_was_decided_while_it_was_the_sessions_and_nothing_else() {
    let broker = Broker::default();
    let (holder, _) = attach(&broker);
    let (waiter, first) = attach(&broker);
    hold(&holder, "a", Exclusive);
    hold(&holder, "b", Exclusive);
    wait(&waiter, 1, "a");
    holder.release(Space::Main, b"a").unwrap();
    wait(&waiter, 2, "b");
    waiter.end_waits();
    let second = Arc::new(Recorder::default());
    waiter.set_observer(second.clone());
    let told = first.take();
    assert!(matches!(told[..], [(1, Outcome::Granted(_)), (2, Outcome::Lost)]), "{told:?}");
    wait(&waiter, 3, "b");
    holder.release(Space::Main, b"b").unwrap();
    assert!(first.take().is_empty());
    let told = second.take();
    assert!(matches!(told[..], [(3, Outcome::Granted(_))]), "{told:?}");
    waiter.abandon();
    waiter.set_observer(first.clone());
    assert!(first.take().is_empty() && second.take().is_empty());
}

#[test]
fn a_session_is_listed_by_its_latest_address() {
    let broker = Broker::default();
    let (session, _) = attach(&broker);
    hold(&session, "a", Exclusive);
    session.info().set_address("second");
    assert_eq!((&*session.info().address(), &*session.info().label()), ("second", "second"));
    let lock = broker.lock_info(Space::Main, b"a").unwrap();
    assert_eq!(&*lock.holders[0].session.address(), "second");
    let snapshot = broker.snapshot().unwrap();
    assert_eq!(snapshot.sessions[0].address, "second");
}

#[test]
fn what_a_session_holds_is_told_in_its_lane_and_in_the_table() {
    let broker = Broker::default();
    let ((one, _), (other, _)) = (attach(&broker), attach(&broker));
    let tokens = ["lane", "table"].map(|name| hold(&one, name, Shared).token);
    hold(&other, "table", Shared);
    for (name, token) in ["lane", "table"].into_iter().zip(tokens) {
        assert_eq!(held(&one, name), Some(Held { mode: Shared, token }));
    }
    assert_eq!((held(&other, "lane"), held(&one, "free")), (None, None));
    one.close();
    assert_eq!(held(&one, "lane"), None);
}

#[test]
fn a_session_that_forsakes_locks_keeps_the_others_and_leaves_a_mark_on_what_it_held_exclusively() {
    let broker = Broker::default();
    let [(session, told), (other, others), (sharer, _)] = [0, 1, 2].map(|_| attach(&broker));
    // In their lanes, and in the table.
    for name in ["lane kept", "lane", "table kept", "table", "waited for"] {
        hold(&session, name, Exclusive);
    }
    for name in ["shared kept", "shared"] {
        hold(&session, name, Shared);
        hold(&sharer, name, Shared);
    }
    for (ticket, name) in [(1, "table kept"), (2, "table"), (3, "waited for")] {
        wait(&other, ticket, name);
    }
    assert!(other.cancel(1) && other.cancel(2));
    others.take();
    // A conversion that waits ends with the waits.
    let convert = session.convert(Space::Main, b"shared", Exclusive, Some(Wait { ticket: 9, limit: None }));
    assert_eq!(convert, Ok(Attempt::Queued));
    session.forsake(|key| key.name.as_bytes().ends_with(b"kept"));
    assert_eq!(told.take(), [(9, Outcome::Lost)]);
    let told = others.take();
    assert!(matches!(told[..], [(3, Outcome::Granted(grant))] if grant.orphaned), "{told:?}");
    for name in ["lane kept", "table kept", "shared kept"] {
        assert!(held(&session, name).is_some(), "{name}");
    }
    for name in ["lane", "table", "shared", "waited for"] {
        assert_eq!(held(&session, name), None, "{name}");
    }
    assert!(hold(&other, "lane", Exclusive).orphaned && hold(&other, "table", Exclusive).orphaned);
    assert_eq!(
        (session.info().locks_held(), broker.stats().orphans, broker.stats().shared_orphans),
        (3, 3, 1)
    );
    assert!(session.is_alive());
    hold(&session, "later", Exclusive);
}

#[test]
fn a_session_that_has_ended_forsakes_nothing_of_another_one_in_its_slot() {
    let broker = Broker::default();
    let (session, _) = attach(&broker);
    hold(&session, "a", Exclusive);
    session.close();
    let (next, _) = attach(&broker);
    hold(&next, "a", Exclusive);
    session.forsake(|_| false);
    assert!(held(&next, "a").is_some());
}

#[test]
fn thousands_of_locks_are_forsaken() {
    let broker = Broker::default();
    let (session, _) = attach(&broker);
    for name in 0..5000 {
        hold(&session, &name.to_string(), Exclusive);
    }
    session.forsake(|key| key.name.as_bytes().ends_with(b"7"));
    assert_eq!((session.info().locks_held(), broker.stats().orphans), (500, 4500));
}
