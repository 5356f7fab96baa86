//! Servers that stop, hang or do not exist.

use std::thread;
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::{AcquireError, Attempt, Broker, Mode, ReleaseError, Released};
use lockd::client::{self, InspectError};
use lockd::server::{Config, Server, Service};

use crate::support::*;

#[test]
fn after_the_end_of_the_server_every_call_reports_it() {
    // A server that stops cleanly would hand the locks of the first connection it closes to the
    // others.
    let server = Process::start();
    let (holder, session) = (connect(&server.1), connect(&server.1));
    holder.acquire_all(&exclusive(&["a", "b", "c"]), NOW).unwrap();
    session.acquire(b"s", Mode::Shared, NOW).unwrap();
    holder.acquire(b"s", Mode::Shared, NOW).unwrap();
    assert_eq!(session.enqueue(b"c", Mode::Exclusive), Ok(Attempt::Queued));
    thread::scope(|scope| {
        let acquire = scope.spawn(|| session.acquire(b"a", Mode::Exclusive, Some(SOON)));
        let all = scope.spawn(|| session.acquire_all(&exclusive(&["b", "d"]), None));
        let convert = scope.spawn(|| session.convert(b"s", Mode::Exclusive, None));
        let wait = scope.spawn(|| session.wait(b"c", None));
        for name in ["a", "b", "s"] {
            until(&holder, name.as_bytes(), |seen| seen.waiters == 1);
        }
        assert!(session.is_alive());
        drop(server);
        for blocked in [acquire, all, convert, wait] {
            let result = blocked.join().unwrap();
            assert!(is_lost(&result), "{result:?}");
        }
    });
    assert!(!session.is_alive());
    assert!(!holder.is_alive(), "found out without another call");
    assert!(is_lost(&holder.acquire(b"a", Mode::Exclusive, NOW)), "and not that it is held already");
    assert!(matches!(holder.release(b"a"), Err(ReleaseError::Lost(_))));
    assert!(matches!(holder.inspect(b"a"), Err(InspectError::Lost(_))));
}

#[test]
fn the_end_of_a_session_frees_its_locks_and_orphans_none_if_it_is_orderly() {
    let (_server, url) = serve();
    let other = connect(&url);
    let ends: [(fn(client::RemoteSession), bool); 4] = [
        (|session| session.close(), false),
        (drop, false),
        (|session| session.abandon(), true),
        (
            |session| {
                let thread = std::thread::spawn(move || {
                    let _dropped_on_the_way_out = session;
                    std::panic::resume_unwind(Box::new("the work has failed"));
                });
                assert!(thread.join().is_err());
            },
            true,
        ),
    ];
    for (at, (end, orphaned)) in ends.into_iter().enumerate() {
        let session = connect(&url);
        session.acquire(b"a", Mode::Exclusive, NOW).unwrap();
        // Unread replies must not keep the session's goodbye from the server.
        other.acquire(b"b", Mode::Exclusive, NOW).unwrap();
        assert_eq!(session.enqueue(b"b", Mode::Exclusive), Ok(Attempt::Queued));
        other.release(b"b").unwrap();
        end(session);
        let grant = other.acquire(b"a", Mode::Exclusive, Some(SOON)).unwrap();
        assert_eq!(grant.orphaned, orphaned, "{at}");
        other.release(b"a").unwrap();
    }
    other.close();
    assert!(is_lost(&other.acquire(b"a", Mode::Exclusive, NOW)));
}

#[test]
fn a_goodbye_is_read_even_if_replies_can_no_longer_be_sent() {
    let broker = Broker::default();
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("message+unix:{}", directory.path().join("sock").display());
    let listen = vec!["message://127.0.0.1:0".parse().unwrap(), unix.parse().unwrap()];
    let config = Config { listen, ..Config::default() };
    let server = Server::start(&broker, config, Service::locks()).unwrap();
    let (holder, next) = (broker.open(None), broker.open(None));
    holder.acquire(b"busy", Mode::Exclusive, NOW).unwrap();
    for address in server.addresses() {
        for _ in 0..200 {
            let session = connect(&address.to_string());
            session.acquire(b"a", Mode::Exclusive, NOW).unwrap();
            assert_eq!(session.enqueue(b"busy", Mode::Exclusive), Ok(Attempt::Queued));
            // No call waits for the reply to this request, and the server may be sending it when
            // the session ends.
            session.cancel();
            drop(session);
            next.acquire(b"a", Mode::Exclusive, Some(SOON)).unwrap();
            next.release(b"a").unwrap();
        }
        assert_eq!(broker.stats().orphans, 0, "{address}");
    }
}

#[test]
fn the_descriptor_tells_of_a_lost_server() {
    let ((one, url_of_one), (two, url_of_two)) = (serve(), serve());
    let urls = format!("{url_of_one},{url_of_two}");
    let alone = Session::connect(&url_of_one, None, SOON).unwrap();
    let both = Session::connect(&urls, None, SOON).unwrap();
    for session in [&alone, &both] {
        session.acquire(b"a", Mode::Exclusive, NOW).unwrap();
        session.release(b"a").unwrap();
        assert!(!is_readable(session.lost_fd().unwrap(), Duration::ZERO));
        assert!(session.is_alive());
    }
    two.stop();
    assert!(is_readable(both.lost_fd().unwrap(), SOON));
    assert!(both.is_alive() && alone.is_alive(), "nothing is held on that server");
    one.stop();
    for session in [&alone, &both] {
        assert!(is_readable(session.lost_fd().unwrap(), SOON) && !session.is_alive());
    }
    assert!(Session::open(&Broker::default(), None).lost_fd().is_none());
}

#[test]
fn a_paused_server_keeps_no_call_past_its_limit_and_loses_nothing() {
    let server = Process::start();
    let (session, other) = (connect(&server.1), connect(&server.1));
    session.acquire(b"kept", Mode::Exclusive, NOW).unwrap();
    session.acquire(b"shared", Mode::Shared, NOW).unwrap();
    server.pause();
    let start = Instant::now();
    let wanted = exclusive(&["b", "c"]);
    thread::scope(|scope| {
        let acquire = scope.spawn(|| session.acquire(b"a", Mode::Exclusive, NOW));
        let all = scope.spawn(|| session.acquire_all(&wanted, Some(Duration::from_millis(100))));
        let convert = scope.spawn(|| session.convert(b"shared", Mode::Exclusive, NOW));
        for late in [acquire, all, convert] {
            assert_eq!(late.join().unwrap(), Err(AcquireError::TimedOut));
        }
        let cancelled = scope.spawn(|| session.acquire(b"d", Mode::Exclusive, None));
        while !cancelled.is_finished() {
            session.cancel();
        }
        assert_eq!(cancelled.join().unwrap(), Err(AcquireError::Cancelled));
    });
    assert!((Duration::from_secs(1)..SOON).contains(&start.elapsed()));
    assert!(session.is_alive(), "its kernel answers for it");
    server.resume();
    // Every requested lock was granted meanwhile, and was given back.
    let all = exclusive(&["a", "b", "c", "d"]);
    other.acquire_all(&all, Some(SOON)).unwrap();
    // Until the server has handled what it was sent meanwhile, the two may wait for each other.
    let deadline = Instant::now() + SOON;
    let shared = loop {
        match other.acquire(b"shared", Mode::Shared, Some(SOON)) {
            Err(AcquireError::Deadlock(_)) if Instant::now() < deadline => thread::yield_now(),
            result => break result,
        }
    };
    shared.unwrap();
    assert_eq!(other.acquire(b"kept", Mode::Shared, NOW), Err(AcquireError::TimedOut));
    assert_eq!(session.release(b"shared"), Ok(Released::Hold));
    assert_eq!(session.release(b"kept"), Ok(Released::Hold));
    assert_eq!(session.acquire(b"a", Mode::Exclusive, NOW), Err(AcquireError::TimedOut));
}
