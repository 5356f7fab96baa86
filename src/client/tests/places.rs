//! Places in queues that were taken without waiting there: which call gets their outcome, and what
//! is left when they are given up.

use super::*;

#[test]
fn a_place_is_kept_until_it_is_granted_or_given_up() {
    let (go, may_go) = signal();
    let (session, server) = session(|mut peer| {
        let (lock, ping) = (peer.expect("lock"), peer.expect("ping"));
        peer.reply(lock.id, &granted(1));
        peer.reply(ping.id, OK);
        let (lock, ping) = (peer.expect("lock"), peer.expect("ping"));
        peer.reply(ping.id, OK);
        may_go();
        peer.reply(lock.id, &granted(2));
        peer.outlast();
    });
    assert_eq!(session.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Granted(grant(1))));
    assert_eq!(session.enqueue(b"b", Mode::Exclusive), Ok(Attempt::Queued));
    assert_eq!(session.enqueue(b"b", Mode::Exclusive), Err(AcquireError::AlreadyWaiting));
    assert_eq!(session.wait(b"b", NOW), Err(AcquireError::TimedOut));
    assert_eq!(session.wait(b"b", Some(SHORT)), Err(AcquireError::TimedOut));
    go();
    assert_eq!(session.wait(b"b", None), Ok(grant(2)));
    assert_eq!(session.wait(b"b", None), Err(AcquireError::NotHeld));
    drop(session);
    server.join().unwrap();
}

#[test]
fn only_one_of_two_waiting_threads_gets_the_lock() {
    let (go, may_go) = signal();
    let (session, server) = session(|mut peer| {
        let (place, ping) = (peer.expect("lock"), peer.expect("ping"));
        peer.reply(ping.id, OK);
        let other = peer.expect("lock");
        may_go();
        peer.reply(place.id, &granted(1));
        let unlock = peer.expect("unlock");
        peer.reply(unlock.id, OK);
        peer.reply(other.id, &granted(2));
        peer.outlast();
    });
    assert_eq!(session.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Queued));
    // Usually the first thread reads for all, and leaves with its grant while the others wait, in
    // this order. The expected results hold in any order.
    let wait = || {
        let thread = spawn(&session, |session| session.wait(b"a", Some(SOON)));
        thread::sleep(SHORT);
        thread
    };
    let first = wait();
    let other = spawn(&session, |session| session.acquire(b"b", Mode::Exclusive, None));
    thread::sleep(SHORT);
    let second = wait();
    go();
    let results = [first, second].map(|thread| thread.join().unwrap());
    assert!(results.contains(&Ok(grant(1))), "{results:?}");
    let told = |result: &_| matches!(result, Err(AcquireError::Cancelled | AcquireError::NotHeld));
    assert!(results.iter().any(told), "{results:?}");
    assert_eq!(session.release(b"a"), Ok(Released::Hold));
    assert_eq!(other.join().unwrap(), Ok(grant(2)));
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_cancelled_place_is_reported_once() {
    let (session, server) = session(|mut peer| {
        for _ in 0..2 {
            let (_, ping) = (peer.expect("lock"), peer.expect("ping"));
            peer.reply(ping.id, OK);
            let unlock = peer.expect("unlock");
            peer.reply(unlock.id, OK);
        }
        peer.outlast();
    });
    assert_eq!(session.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Queued));
    session.cancel();
    assert_eq!(session.wait(b"a", None), Err(AcquireError::Cancelled));
    assert_eq!(session.wait(b"a", None), Err(AcquireError::NotHeld));
    assert_eq!(session.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Queued));
    assert_eq!(session.release(b"a"), Ok(Released::Place));
    assert_eq!(session.wait(b"a", None), Err(AcquireError::NotHeld));
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_place_to_convert_that_is_cancelled_leaves_the_lock_as_it_was_held() {
    let (session, server) = session(|mut peer| {
        let lock = peer.expect("lock");
        peer.reply(lock.id, &granted(1));
        let (upgrade, ping) = (peer.expect("convert"), peer.expect("ping"));
        assert_eq!(upgrade.parameters["mode"], "exclusive");
        assert!(upgrade.parameters["timeLimit"].is_null());
        peer.reply(ping.id, OK);
        let cancel = peer.expect("cancel");
        assert_eq!(cancel.parameters["id"], upgrade.id);
        // It was granted just before the cancel: the client converts it back to shared.
        peer.reply(upgrade.id, &granted(2));
        peer.reply(cancel.id, r#"{"status":"notFound"}"#);
        let back = peer.expect("convert");
        assert_eq!(back.parameters["mode"], "shared");
        peer.reply(back.id, &granted(2));
        let (again, ping) = (peer.expect("convert"), peer.expect("ping"));
        peer.reply(again.id, r#"{"status":"deadlock","circle":["a","b"]}"#);
        peer.reply(ping.id, OK);
        let (third, ping) = (peer.expect("convert"), peer.expect("ping"));
        peer.reply(ping.id, OK);
        peer.reply(third.id, &granted(3));
        peer.outlast();
    });
    let held = AcquireError::AlreadyHeld(Held { mode: Mode::Shared, token: 1 });
    session.acquire(b"a", Mode::Shared, None).unwrap();
    assert_eq!(session.enqueue_convert(b"a", Mode::Exclusive), Ok(Attempt::Queued));
    assert_eq!(session.enqueue_convert(b"a", Mode::Exclusive), Err(AcquireError::AlreadyWaiting));
    assert_eq!(session.enqueue_convert(b"b", Mode::Exclusive), Err(AcquireError::NotHeld));
    assert_eq!(session.wait(b"a", NOW), Err(AcquireError::TimedOut));
    session.cancel();
    assert_eq!(session.acquire(b"a", Mode::Shared, None), Err(held.clone()));
    assert_eq!(session.wait(b"a", None), Err(AcquireError::Cancelled));
    assert_eq!(session.wait(b"a", None), Err(AcquireError::NotHeld));
    let deadlock = deadlock(&["a", "b"], 2);
    assert_eq!(session.enqueue_convert(b"a", Mode::Exclusive), Err(deadlock));
    assert_eq!(session.acquire(b"a", Mode::Shared, None), Err(held));
    assert_eq!(session.enqueue_convert(b"a", Mode::Exclusive), Ok(Attempt::Queued));
    assert_eq!(session.wait(b"a", None), Ok(grant(3)));
    let held = AcquireError::AlreadyHeld(Held { mode: Mode::Exclusive, token: 3 });
    assert_eq!(session.acquire(b"a", Mode::Shared, None), Err(held));
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_grant_that_came_before_the_end_of_the_connection_is_lost_with_it() {
    let (go, may_go) = signal();
    let (session, server) = session(|mut peer| {
        let (lock, ping) = (peer.expect("lock"), peer.expect("ping"));
        peer.reply(ping.id, OK);
        may_go();
        peer.reply(lock.id, &granted(2));
    });
    assert_eq!(session.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Queued));
    go();
    server.join().unwrap();
    lost(session.wait(b"a", None));
}
