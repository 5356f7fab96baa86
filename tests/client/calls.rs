//! What each call does, alone and at the same time as other calls of the same session.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use lockd::broker::{
    AcquireError, Attempt, Broker, Cycle, Held, Inspection, LockName, Mode, ReleaseError, Released,
};
use lockd::client::InspectError;
use lockd::server::{Config, Server, Service};
use lockd::wire::message::ListedLock;
use lockd::{Session, client};

use crate::support::*;

#[test]
fn no_increment_is_lost() {
    let (_server, url) = serve();
    let (count, last_token) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let increment = || {
            let session = connect(&url);
            for _ in 0..250 {
                let grant = session.acquire(b"counter", Mode::Exclusive, Some(SOON)).unwrap();
                let token = usize::try_from(grant.token).unwrap();
                assert!(last_token.swap(token, SeqCst) < token, "tokens rise");
                let seen = count.load(SeqCst);
                thread::yield_now();
                count.store(seen + 1, SeqCst);
                assert_eq!(session.release(b"counter"), Ok(Released::Hold));
            }
        };
        let threads = [(); 8].map(|()| scope.spawn(increment));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(count.load(SeqCst), 2000);
}

#[test]
fn a_blocked_acquire_delays_no_other_call() {
    let (_server, url) = serve();
    let (holder, session) = (connect(&url), connect(&url));
    holder.acquire(b"a", Mode::Exclusive, NOW).unwrap();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| session.acquire(b"a", Mode::Exclusive, None));
        until(&session, b"a", |a| a.waiters == 1);
        assert_eq!(session.acquire(b"a", Mode::Exclusive, None), Err(AcquireError::AlreadyWaiting));
        for _ in 0..100 {
            session.acquire(b"b", Mode::Exclusive, NOW).unwrap();
            session.release(b"b").unwrap();
        }
        assert_eq!(session.acquire(b"a", Mode::Exclusive, NOW), Err(AcquireError::AlreadyWaiting));
        assert!(!blocked.is_finished());
        holder.release(b"a").unwrap();
        blocked.join().unwrap().unwrap();
    });
}

#[test]
fn two_threads_of_one_session_never_both_win() {
    let (_server, url) = serve();
    let session = connect(&url);
    for _ in 0..200 {
        let results = thread::scope(|scope| {
            let ask = || session.acquire(b"one", Mode::Exclusive, Some(SOON));
            [scope.spawn(ask), scope.spawn(ask)].map(|thread| thread.join().unwrap())
        });
        let refused = |result: &Result<_, AcquireError>| {
            matches!(result, Err(AcquireError::AlreadyHeld(_) | AcquireError::AlreadyWaiting))
        };
        assert!(results.iter().any(Result::is_ok) && results.iter().any(refused), "{results:?}");
        session.release(b"one").unwrap();
    }
}

#[test]
fn modes_conversions_and_inspection() {
    let (_server, url) = serve();
    let (one, two) = (connect(&url), connect(&url));
    assert_eq!(one.inspect(b"a"), Ok(Inspection::default()));
    let first = one.acquire(b"a", Mode::Shared, NOW).unwrap();
    let second = two.acquire(b"a", Mode::Shared, NOW).unwrap();
    assert_eq!((first.holders, second.holders), (1, 2));
    assert_eq!(one.convert(b"a", Mode::Exclusive, NOW), Err(AcquireError::TimedOut));
    let short = Some(Duration::from_millis(20));
    assert_eq!(one.convert(b"a", Mode::Exclusive, short), Err(AcquireError::TimedOut));
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| one.convert(b"a", Mode::Exclusive, None));
        until(&two, b"a", |a| a.waiters == 1);
        let circle = two.convert(b"a", Mode::Exclusive, None);
        assert!(matches!(circle, Err(AcquireError::Deadlock(_))), "{circle:?}");
        two.release(b"a").unwrap();
        assert!(upgrade.join().unwrap().unwrap().token > second.token);
    });
    let seen = one.inspect(b"a").unwrap();
    assert_eq!((seen.mode, seen.holders, seen.waiters), (Some(Mode::Exclusive), 1, 0));
    assert_eq!(seen.held.map(|held| held.mode), Some(Mode::Exclusive));
    assert_eq!(two.inspect(b"a").unwrap().held, None);
    assert_eq!(one.convert(b"a", Mode::Exclusive, NOW).map(|grant| grant.holders), Ok(1));
    one.convert(b"a", Mode::Shared, NOW).unwrap();
    two.acquire(b"a", Mode::Shared, NOW).unwrap();
    assert_eq!(one.convert(b"b", Mode::Shared, NOW), Err(AcquireError::NotHeld));
    assert_eq!(one.release(b"b"), Err(ReleaseError::NotHeld));
}

#[test]
fn invalid_arguments_are_refused_with_an_explanation() {
    let (_server, url) = serve();
    let session = connect(&url);
    let long = [b'x'; 2000];
    assert!(matches!(session.acquire(&long, Mode::Shared, NOW), Err(AcquireError::Invalid(_))));
    assert_eq!(session.inspect(&long).unwrap(), Inspection::default());
    let twice = session.acquire_all(&exclusive(&["a", "a"]), NOW);
    assert!(matches!(twice, Err(AcquireError::Invalid(_))));
    assert!(matches!(session.acquire_all(&[], NOW), Err(AcquireError::Invalid(_))));
    // More than a server accepts in one message: refused before it would cost the connection.
    let megabyte: Vec<_> = (0..200).map(|n| (LockName::new(&[n; 6000]), Mode::Shared)).collect();
    assert!(matches!(session.acquire_all(&megabyte, NOW), Err(AcquireError::Invalid(_))));
    for name in [b"".as_slice(), b"\xff\0\n", "ä\u{1F512}".as_bytes(), &[0; 1024]] {
        session.acquire(name, Mode::Exclusive, NOW).unwrap();
        assert_eq!(session.inspect(name).unwrap().holders, 1);
        session.release(name).unwrap();
    }
    assert!(session.is_alive());
}

#[test]
fn a_deadlock_names_the_owners() {
    let (_server, url) = serve();
    let open = |owner| client::RemoteSession::connect(&url, Some(owner), SOON).unwrap();
    let (ann, bob) = (open("ann"), open("bob"));
    ann.acquire(b"a", Mode::Exclusive, NOW).unwrap();
    bob.acquire(b"b", Mode::Exclusive, NOW).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ann.acquire(b"b", Mode::Exclusive, None));
        until(&bob, b"b", |b| b.waiters == 1);
        let refused = bob.acquire(b"a", Mode::Exclusive, None);
        let is_named = |cycle: &Cycle| cycle.sessions == ["bob", "ann"] && cycle.size == 2;
        assert!(matches!(&refused, Err(AcquireError::Deadlock(cycle)) if is_named(cycle)), "{refused:?}");
        bob.close();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn a_set_that_is_too_large_is_refused_locally_and_by_a_server() {
    let (_server, url) = serve();
    let sessions = [Session::open(&Broker::default(), None), Session::connect(&url, None, SOON).unwrap()];
    // Not UTF-8, and so twice as long on the wire; and six times as long.
    for filling in [0xff, 1] {
        for (count, length, fits) in
            [(1024, 1024, false), (1024, 128, true), (1024, 129, false), (1025, 4, false)]
        {
            let name = |n: usize| [&vec![filling; length - 4], format!("{n:04}").as_bytes()].concat();
            let names: Vec<Vec<u8>> = (0..count).map(name).collect();
            let wants: Vec<(&[u8], Mode)> =
                names.iter().map(|name| (name.as_slice(), Mode::Exclusive)).collect();
            let [here, there] = sessions.each_ref().map(|session| {
                let answer = session.acquire_all(&wants, NOW);
                wants.iter().for_each(|(name, _)| drop(session.release(name)));
                answer.map(|_| ())
            });
            assert_eq!(here.is_ok(), fits, "{count} of {length} bytes: {here:?}");
            assert_eq!(here, there);
        }
    }
}

#[test]
fn an_owner_with_a_long_name_is_called_by_its_beginning() {
    let (_server, url) = serve();
    let owner = "\u{df}".repeat(200);
    let sessions = [
        Session::open(&Broker::default(), Some(&owner)),
        Session::connect(&url, Some(&owner), SOON).unwrap(),
    ];
    for session in sessions {
        session.acquire(b"a", Mode::Exclusive, NOW).unwrap();
        let page = session.list(b"", None, 1).unwrap();
        assert_eq!(page.locks[0].holders[0].name, Some("\u{df}".repeat(128)));
    }
}

#[test]
fn several_names_at_once_or_none_of_them() {
    let (_server, url) = serve();
    let (one, two) = (connect(&url), connect(&url));
    let all = one.acquire_all(&exclusive(&["a", "b", "c"]), NOW).unwrap();
    assert_eq!(one.inspect(b"c").unwrap().held.unwrap().token, all.token);
    assert_eq!(two.acquire_all(&exclusive(&["x", "c"]), NOW), Err(AcquireError::TimedOut));
    assert_eq!(two.inspect(b"x").unwrap().mode, None);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| two.acquire_all(&exclusive(&["x", "a", "b"]), None));
        until(&one, b"x", |x| x.waiters == 1);
        one.release_all(&names(&["a", "b"])).unwrap();
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(one.release_all(&names(&["c", "nothing"])), Err(ReleaseError::NotHeld));
    assert_eq!(two.inspect(b"c").unwrap().mode, None, "what there was to release is released");
    let many: Vec<_> = (0..1000).map(|n| (LockName::from(format!("n{n}").as_str()), Mode::Shared)).collect();
    two.acquire_all(&many, NOW).unwrap();
    two.release_all(&many.into_iter().map(|(name, _)| name).collect::<Vec<_>>()).unwrap();
    assert_eq!(two.inspect(b"n999").unwrap().mode, None);
}

#[test]
fn a_place_of_many_names_is_given_up_whole_and_reported() {
    let (_server, url) = serve();
    let (holder, session) = (connect(&url), connect(&url));
    let many: Vec<_> =
        (0..1000).map(|n| (LockName::from(format!("n{n}").as_str()), Mode::Exclusive)).collect();
    holder.acquire(b"n999", Mode::Exclusive, NOW).unwrap();
    let with_one = |session: &client::RemoteSession| session.release(b"n500").map(drop);
    let with_all = |session: &client::RemoteSession| {
        session.release_all(&many.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())
    };
    for give_up in [&with_one as &dyn Fn(&client::RemoteSession) -> _, &with_all] {
        thread::scope(|scope| {
            let waiting = scope.spawn(|| session.acquire_all(&many, None));
            until(&holder, b"n0", |n0| n0.waiters == 1);
            assert_eq!(give_up(&session), Ok(()));
            assert_eq!(waiting.join().unwrap(), Err(AcquireError::Cancelled));
        });
        assert_eq!(with_one(&session), Err(ReleaseError::NotHeld));
    }
    assert_eq!(holder.inspect(b"n999").unwrap().waiters, 0);
}

#[test]
fn a_place_of_several_names_is_given_up_whole_in_this_process_too() {
    let broker = Broker::default();
    let (holder, session) = (Session::open(&broker, None), Session::open(&broker, None));
    holder.acquire(b"a", Mode::Exclusive, NOW).unwrap();
    let both = [(b"a".as_slice(), Mode::Exclusive), (b"b", Mode::Exclusive)];
    thread::scope(|scope| {
        let waiting = scope.spawn(|| session.acquire_all(&both, None));
        while holder.inspect(b"b").unwrap().waiters == 0 {
            thread::yield_now();
        }
        assert_eq!(session.release_all(&[b"a", b"b"]), Ok(()));
        assert_eq!(waiting.join().unwrap(), Err(AcquireError::Cancelled));
    });
    assert_eq!(session.release_all(&[b"a", b"b"]), Err(ReleaseError::NotHeld));
}

#[test]
fn a_name_that_is_given_twice_is_released_once() {
    let broker = Broker::default();
    let listen = vec!["message://127.0.0.1:0".parse().unwrap()];
    let config = Config { listen, ..Config::default() };
    let server = Server::start(&broker, config, Service::locks()).unwrap();
    let url = server.addresses()[0].to_string();
    let holder = Session::open(&broker, None);
    holder.acquire(b"a", Mode::Exclusive, NOW).unwrap();
    let both = [(b"a".as_slice(), Mode::Exclusive), (b"b", Mode::Exclusive)];
    for session in [Session::open(&broker, None), Session::connect(&url, None, SOON).unwrap()] {
        let twice = |name: &[u8]| session.release_all(&[name, name]);
        session.acquire(b"held", Mode::Exclusive, NOW).unwrap();
        assert_eq!(twice(b"held"), Err(ReleaseError::NotHeld));
        assert_eq!(session.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Queued));
        assert_eq!(twice(b"a"), Err(ReleaseError::NotHeld));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| session.acquire_all(&both, None));
            while holder.inspect(b"b").unwrap().waiters == 0 {
                thread::yield_now();
            }
            assert_eq!(session.release_all(&[b"a", b"b", b"a"]), Err(ReleaseError::NotHeld));
            assert_eq!(waiting.join().unwrap(), Err(AcquireError::Cancelled));
        });
        assert_eq!((holder.inspect(b"a").unwrap().waiters, holder.inspect(b"b").unwrap().waiters), (0, 0));
    }
}

#[test]
fn a_place_in_the_queue_is_kept_collected_or_given_up() {
    let (_server, url) = serve();
    let (holder, first, second) = (connect(&url), connect(&url), connect(&url));
    assert!(matches!(holder.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Granted(_))));
    assert_eq!(first.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Queued));
    assert_eq!(second.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Queued));
    for limit in [0, 10] {
        let waited = first.wait(b"a", Some(Duration::from_millis(limit)));
        assert_eq!(waited, Err(AcquireError::TimedOut), "and the place is kept");
    }
    assert_eq!(holder.inspect(b"a").unwrap().waiters, 2);
    assert_eq!(first.release(b"a"), Ok(Released::Place));
    assert_eq!(first.wait(b"a", None), Err(AcquireError::NotHeld));
    assert_eq!(first.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Queued), "behind the second now");
    holder.release(b"a").unwrap();
    second.wait(b"a", Some(SOON)).unwrap();
    assert_eq!(first.wait(b"a", NOW), Err(AcquireError::TimedOut));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| first.wait(b"a", None));
        first.cancel();
        assert_eq!(waiting.join().unwrap(), Err(AcquireError::Cancelled));
    });
    until(&holder, b"a", |a| a.waiters == 0);
    assert_eq!(first.wait(b"a", None), Err(AcquireError::NotHeld));
}

#[test]
fn a_place_to_convert_is_kept_and_given_up_without_the_lock() {
    let (_server, url) = serve();
    let (session, reader) = (connect(&url), connect(&url));
    reader.acquire(b"a", Mode::Shared, NOW).unwrap();
    let first = session.acquire(b"a", Mode::Shared, NOW).unwrap();
    assert_eq!(session.enqueue_convert(b"a", Mode::Exclusive), Ok(Attempt::Queued));
    assert!(matches!(reader.enqueue_convert(b"a", Mode::Exclusive), Err(AcquireError::Deadlock(_))));
    assert_eq!(session.wait(b"a", Some(Duration::from_millis(10))), Err(AcquireError::TimedOut));
    session.cancel();
    let seen = session.inspect(b"a").unwrap();
    assert_eq!((seen.held.map(|held| held.token), seen.waiting, seen.waiters), (Some(first.token), false, 0));
    assert_eq!(session.wait(b"a", None), Err(AcquireError::Cancelled));
    assert_eq!(session.enqueue_convert(b"a", Mode::Exclusive), Ok(Attempt::Queued));
    reader.release(b"a").unwrap();
    let grant = session.wait(b"a", None).unwrap();
    assert_eq!(session.inspect(b"a").unwrap().held, Some(Held { mode: Mode::Exclusive, token: grant.token }));
}

#[test]
fn a_page_of_locks_is_the_same_locally_and_from_a_server() {
    let broker = Broker::default();
    let listen = vec!["message://127.0.0.1:0".parse().unwrap()];
    let config = Config { listen, ..Config::default() };
    let server = Server::start(&broker, config, Service::locks()).unwrap();
    let here = Session::open(&broker, Some("here"));
    let there = Session::connect(&server.addresses()[0].to_string(), Some("there"), SOON).unwrap();
    here.acquire(b"a/1", Mode::Exclusive, NOW).unwrap();
    there.acquire(b"a/\xff\0", Mode::Shared, NOW).unwrap();
    assert_eq!(there.enqueue(b"a/1", Mode::Shared), Ok(Attempt::Queued));
    here.acquire(b"b", Mode::Shared, NOW).unwrap();
    for session in [&here, &there] {
        let page = session.list(b"a/", None, 0).unwrap();
        let names: Vec<LockName> = page.locks.iter().filter_map(ListedLock::name).collect();
        assert_eq!((names, page.more), (vec![LockName::from("a/1"), LockName::new(b"a/\xff\0")], false));
        let [one, other] = page.locks.as_slice() else { unreachable!() };
        assert_eq!((one.mode, other.mode), (Some(Mode::Exclusive), Some(Mode::Shared)));
        assert_eq!(one.holders[0].name.as_deref(), Some("here"));
        assert!(one.holders[0].address.starts_with("local:"));
        assert_eq!((one.waiters[0].name.as_deref(), one.waiters[0].mode), (Some("there"), Mode::Shared));
        let next = session.list(b"", Some(b"a/\xff\0"), 1).unwrap();
        assert_eq!((next.locks[0].lock_name.as_str(), next.more), ("b", false));
    }
    let endless = vec![b'x'; 2 << 20];
    assert!(matches!(there.list(&endless, None, 1), Err(InspectError::Invalid(_))));
    assert_eq!(here.list(&endless, None, 1).unwrap().locks, []);
    here.close();
    assert!(matches!(here.list(b"", None, 1), Err(InspectError::Lost(_))));
    there.close();
    assert!(matches!(there.list(b"", None, 1), Err(InspectError::Lost(_))));
}

#[test]
fn a_server_without_listings_says_so() {
    let listen = vec!["message://127.0.0.1:0".parse().unwrap()];
    let config = Config { listen, dump: false, ..Config::default() };
    let server = Server::start(&Broker::default(), config, Service::locks()).unwrap();
    let session = Session::connect(&server.addresses()[0].to_string(), None, SOON).unwrap();
    let refused = InspectError::Refused("listing is disabled on this server (no-dump)".to_owned());
    assert_eq!(session.list(b"", None, 1), Err(refused));
    assert!(session.is_alive());
}

#[test]
fn the_limit_in_force_the_holders_and_the_free_slots_are_shown() {
    let broker = Broker::default();
    let listen = vec!["message://127.0.0.1:0".parse().unwrap()];
    let server = Server::start(&broker, Config { listen, ..Config::default() }, Service::locks()).unwrap();
    let url = server.addresses()[0].to_string();
    let at_most = |holders| Mode::at_most(holders).unwrap();
    let holders: Vec<Session> = (0..3).map(|_| Session::connect(&url, None, SOON).unwrap()).collect();
    let lookers = [Session::open(&broker, None), Session::connect(&url, None, SOON).unwrap()];
    let shown = |limit, holders, free| {
        for session in &lookers {
            let seen = session.inspect(b"a").unwrap();
            assert_eq!((seen.limit(), seen.holders, seen.free_slots()), (limit, holders, free));
        }
    };
    shown(None, 0, None);
    holders[0].acquire(b"a", Mode::Shared, NOW).unwrap();
    shown(None, 1, None);
    holders[1].acquire(b"a", at_most(5), NOW).unwrap();
    shown(Some(5), 2, Some(3));
    assert_eq!(holders[2].acquire(b"a", at_most(3), NOW).map(|grant| grant.holders), Ok(3));
    shown(Some(3), 3, Some(0));
    assert_eq!(holders[1].held(b"a").unwrap().map(|held| held.mode), Some(at_most(5)));
    holders[2].convert(b"a", at_most(4), NOW).unwrap();
    shown(Some(4), 3, Some(1));
    holders[0].release(b"a").unwrap();
    holders[1].release(b"a").unwrap();
    holders[2].convert(b"a", Mode::Exclusive, NOW).unwrap();
    shown(Some(1), 1, Some(0));
    let page = lookers[1].list(b"a", None, 0).unwrap();
    assert_eq!((page.locks[0].mode, page.locks[0].holders[0].limit), (Some(Mode::Exclusive), None));
}
