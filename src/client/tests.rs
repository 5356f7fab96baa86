//! Sessions and clients with a server that answers what a test tells it to: late, crossed, wrong,
//! or not at all. The behaviour with a real server is tested in `tests/client`.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::fake_server::{Peer, SOON, STANDBY, serve, serve_session, signal};
use super::{ConnectError, MessageClient, RemoteSession, RpcError};
use crate::broker::{AcquireError, Attempt, Cycle, Grant, Held, LockName, Mode, ReleaseError, Released};

mod groups;
mod limited;
mod places;
mod unanswered;
// Model checkers have no sockets that a session could be polled by.
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod wind_down;

const SHORT: Duration = Duration::from_millis(50);
const NOW: Option<Duration> = Some(Duration::ZERO);
const OK: &str = r#"{"status":"ok"}"#;

fn connect(url: &str) -> Arc<RemoteSession> {
    Arc::new(RemoteSession::connect(url, Some("test"), SOON).unwrap())
}

/// A session and the server that runs `script` for it.
fn session(script: impl FnOnce(Peer) + Send + 'static) -> (Arc<RemoteSession>, JoinHandle<()>) {
    let (url, server) = serve_session(script);
    (connect(&url), server)
}

fn granted(token: u64) -> String {
    format!(r#"{{"status":"ok","token":{token}}}"#)
}

fn grant(token: u64) -> Grant {
    Grant { token, orphaned: false, holders: 1 }
}

/// Runs `call` in a thread of its own.
fn spawn<R: Send + 'static>(
    session: &Arc<RemoteSession>,
    call: impl FnOnce(&RemoteSession) -> R + Send + 'static,
) -> JoinHandle<R> {
    let session = session.clone();
    thread::spawn(move || call(&session))
}

fn lost<T: std::fmt::Debug>(result: Result<T, AcquireError>) -> String {
    match result {
        Err(AcquireError::Lost(reason)) => reason,
        other => panic!("not lost: {other:?}"),
    }
}

#[test]
fn a_server_that_does_not_announce_bye_is_not_sent_one() {
    let (session, server) = session(|mut peer| assert!(peer.next().is_none()));
    session.close();
    server.join().unwrap();
}

#[test]
fn a_server_that_is_not_lockd_is_distinguished_from_an_absent_one() {
    let refused = |url: &str, timeout| match RemoteSession::connect(url, None, timeout) {
        Err(error) => (!error.kind().is_absence(), error.to_string()),
        Ok(_) => panic!("a session"),
    };
    let (silent, server) = serve(|mut peer| peer.outlast());
    let (is_mistake, words) = refused(&silent, SHORT);
    assert!(!is_mistake && words.contains("not answered in time"), "{words}");
    server.join().unwrap();
    let (hung_up, server) = serve(drop);
    let (is_mistake, words) = refused(&hung_up, SOON);
    assert!(!is_mistake, "{words}");
    server.join().unwrap();
    let (other, server) = serve(|mut peer| {
        let hello = peer.expect("hello");
        peer.reply(hello.id, r#"{"status":"unknown","command":"hello"}"#);
        peer.outlast();
    });
    let (is_mistake, words) = refused(&other, SOON);
    assert!(is_mistake && words.contains("no lockd"), "{words}");
    server.join().unwrap();

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("tcp://{free}"), "unix:/nonexistent/socket".to_owned()] {
        assert!(
            matches!(RemoteSession::connect(&url, None, SOON), Err(ConnectError::Unreachable { .. })),
            "{url}"
        );
        assert!(!refused(&url, SOON).0, "{url}");
    }
    assert!(matches!(RemoteSession::connect("localhost", None, SOON), Err(ConnectError::Url(_))));
    assert!(refused("localhost", SOON).0 && refused("tcp://no..such.host:1", SOON).0);
}

/// The error for a cycle of `size` sessions, of which the server has named `sessions`.
fn deadlock(sessions: &[&str], size: usize) -> AcquireError {
    let sessions = sessions.iter().map(|&session| session.to_owned()).collect();
    AcquireError::Deadlock(Box::new(Cycle { sessions, addresses: Vec::new(), size }))
}

#[test]
fn every_status_has_its_error() {
    let cases = [
        (r#"{"status":"timeout"}"#, AcquireError::TimedOut),
        (r#"{"status":"deadlock","circle":["a","b"]}"#, deadlock(&["a", "b"], 2)),
        (r#"{"status":"deadlock","circle":["a"],"circleSize":40}"#, deadlock(&["a"], 40)),
        (r#"{"status":"deadlock","circleSize":3}"#, deadlock(&[], 3)),
        (r#"{"status":"invalid","reason":"x"}"#, AcquireError::Invalid("x".into())),
        (r#"{"status":"refused","reason":"y"}"#, AcquireError::Refused("y".into())),
        (r#"{"status":"refused","reason":"y","cause":"rain"}"#, AcquireError::Refused("y".into())),
        (r#"{"status":"refused","reason":"y","cause":"grace"}"#, AcquireError::NotYet("y".into())),
        (r#"{"status":"refused","reason":"y","cause":"stopping"}"#, AcquireError::Stopping("y".into())),
        (r#"{"status":"cancelled"}"#, AcquireError::Cancelled),
        (
            r#"{"status":"ok","token":4,"already":true}"#,
            AcquireError::AlreadyHeld(Held { mode: Mode::Exclusive, token: 4 }),
        ),
    ];
    let replies = cases.clone();
    let (session, server) = session(move |mut peer| {
        for (reply, _) in replies {
            let lock = peer.expect("lock");
            peer.reply(lock.id, reply);
        }
        let lock = peer.expect("lock");
        peer.reply(lock.id, r#"{"status":"ok","token":5,"holders":3,"orphaned":true}"#);
        peer.outlast();
    });
    for (index, (_, error)) in cases.into_iter().enumerate() {
        let name = index.to_string();
        assert_eq!(session.acquire(name.as_bytes(), Mode::Exclusive, NOW), Err(error));
    }
    let shared = session.acquire(b"s", Mode::Shared, None);
    assert_eq!(shared, Ok(Grant { token: 5, orphaned: true, holders: 3 }));
    let already = AcquireError::AlreadyHeld(Held { mode: Mode::Shared, token: 5 });
    assert_eq!(
        session.acquire(b"s", Mode::Exclusive, None),
        Err(already),
        "the session knows this without asking the server"
    );
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_blocked_call_does_not_delay_another() {
    let (is_asked, asked) = signal();
    let (session, server) = session(|mut peer| {
        let first = peer.expect("lock");
        is_asked();
        let second = peer.expect("lock");
        peer.reply(second.id, &granted(2));
        let unlock = peer.expect("unlock");
        peer.reply(unlock.id, OK);
        peer.reply(first.id, &granted(3));
        peer.outlast();
    });
    let blocked = spawn(&session, |session| session.acquire(b"a", Mode::Exclusive, None));
    asked();
    assert_eq!(session.acquire(b"a", Mode::Exclusive, None), Err(AcquireError::AlreadyWaiting));
    assert_eq!(session.acquire(b"b", Mode::Exclusive, None), Ok(grant(2)));
    assert_eq!(session.release(b"b"), Ok(Released::Hold));
    assert_eq!(blocked.join().unwrap(), Ok(grant(3)));
    drop(session);
    server.join().unwrap();
}

#[test]
fn one_waiting_thread_reads_for_all() {
    const THREADS: u64 = 16;
    let (session, server) = session(|mut peer| {
        let mut asked: Vec<_> = (0..THREADS).map(|_| peer.expect("lock")).collect();
        // Answered in reverse order, so that reading passes from thread to thread.
        asked.reverse();
        for lock in asked {
            let name: u64 = lock.parameters["lockName"].as_str().unwrap().parse().unwrap();
            peer.reply(lock.id, &granted(100 + name));
        }
        peer.outlast();
    });
    let ask = |n: u64| {
        spawn(&session, move |session| session.acquire(n.to_string().as_bytes(), Mode::Exclusive, None))
    };
    let threads: Vec<_> = (0..THREADS).map(ask).collect();
    for (token, thread) in (100..).zip(threads) {
        assert_eq!(thread.join().unwrap(), Ok(grant(token)));
    }
    drop(session);
    server.join().unwrap();
}

#[test]
fn every_waiting_call_returns_why_the_connection_was_lost() {
    type End = fn(&mut Peer);
    let ends: [(End, &str); 6] = [
        (|_| {}, "closed the connection"),
        (|peer| peer.say(r#"{"error":"a message too long"}"#), "a message too long"),
        (|peer| peer.send(b"HTTP/1.1 400 Bad Request"), "announced"),
        (|peer| peer.say("[]"), "not an object"),
        (|peer| peer.reply(4, r#"{"status":"wonderful"}"#), "makes no sense"),
        (|peer| peer.reply(4, STANDBY), "is a standby"),
    ];
    for (end, expected) in ends {
        let (session, server) = session(move |mut peer| {
            for _ in 0..3 {
                peer.expect("lock");
            }
            end(&mut peer);
            if ["makes no sense", "is a standby"].contains(&expected) {
                peer.outlast();
            }
        });
        let ask = |name: &'static [u8]| spawn(&session, move |s| s.acquire(name, Mode::Shared, None));
        let blocked: Vec<_> = [b"a".as_slice(), b"b", b"c"].map(ask).into();
        let reasons: Vec<String> = blocked.into_iter().map(|thread| lost(thread.join().unwrap())).collect();
        assert!(reasons[0].contains(expected), "{reasons:?}");
        assert!(reasons.iter().all(|reason| *reason == reasons[0]), "{reasons:?}");
        assert!(!session.is_alive());
        assert_eq!(lost(session.acquire(b"a", Mode::Shared, NOW)), reasons[0]);
        assert_eq!(lost(session.convert(b"x", Mode::Shared, NOW)), reasons[0]);
        assert_eq!(lost(session.wait(b"x", NOW)), reasons[0]);
        assert_eq!(session.release(b"a"), Err(ReleaseError::Lost(reasons[0].clone())));
        assert!(session.inspect(b"a").is_err());
        server.join().unwrap();
    }
}

#[test]
fn closing_ends_every_call_in_progress() {
    let (is_asked, asked) = signal();
    let (session, server) = session(|mut peer| {
        peer.expect("lock");
        peer.expect("lock");
        is_asked();
        peer.outlast();
    });
    let ask = |name: &'static [u8]| spawn(&session, move |s| s.acquire(name, Mode::Shared, None));
    let blocked = [b"a".as_slice(), b"b"].map(ask);
    asked();
    session.close();
    for thread in blocked {
        assert_eq!(lost(thread.join().unwrap()), "it was closed");
    }
    server.join().unwrap();
}

#[test]
fn without_an_answer_a_call_ends_a_second_after_its_limit() {
    let (session, server) = session(|mut peer| {
        let late = peer.expect("lock");
        assert_eq!(late.parameters["timeLimit"], 0);
        let unlock = peer.expect("unlock");
        assert_eq!(unlock.parameters["lockName"], "a");
        let again = peer.expect("lock");
        peer.reply(late.id, &granted(1));
        peer.reply(unlock.id, OK);
        peer.reply(again.id, &granted(2));
        peer.outlast();
    });
    let start = Instant::now();
    assert_eq!(session.acquire(b"a", Mode::Exclusive, NOW), Err(AcquireError::TimedOut));
    assert!((Duration::from_secs(1)..SOON).contains(&start.elapsed()));
    assert_eq!(session.release(b"a"), Err(ReleaseError::NotHeld));
    assert_eq!(session.acquire(b"a", Mode::Exclusive, NOW), Ok(grant(2)), "not the late grant");
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_grant_that_crosses_a_cancel_is_given_back() {
    let (is_asked, asked) = signal();
    let (session, server) = session(|mut peer| {
        let lock = peer.expect("lock");
        is_asked();
        let unlock = peer.expect("unlock");
        assert_eq!(unlock.parameters["lockNames"].as_array().unwrap().len(), 2);
        peer.reply(lock.id, &granted(1));
        peer.reply(unlock.id, OK);
        let next = peer.expect("lock");
        peer.reply(next.id, &granted(2));
        peer.outlast();
    });
    let wants = [(LockName::from("a"), Mode::Exclusive), (LockName::from("b"), Mode::Shared)];
    let blocked = spawn(&session, move |session| session.acquire_all(&wants, None));
    asked();
    session.cancel();
    assert_eq!(blocked.join().unwrap(), Err(AcquireError::Cancelled));
    assert_eq!(session.release(b"b"), Err(ReleaseError::NotHeld));
    assert_eq!(session.acquire(b"a", Mode::Exclusive, NOW), Ok(grant(2)));
    drop(session);
    server.join().unwrap();
}

#[test]
fn releasing_one_name_cancels_another_threads_whole_request() {
    let (is_asked, asked) = signal();
    let (session, server) = session(|mut peer| {
        peer.expect("lock");
        is_asked();
        let unlock = peer.expect("unlock");
        assert_eq!(unlock.parameters["lockNames"].as_array().unwrap().len(), 2);
        peer.reply(unlock.id, OK);
        peer.outlast();
    });
    let wants = [(LockName::from("a"), Mode::Exclusive), (LockName::from("b"), Mode::Shared)];
    let blocked = spawn(&session, move |session| session.acquire_all(&wants, None));
    asked();
    assert_eq!(session.release(b"b"), Ok(Released::Place));
    assert_eq!(blocked.join().unwrap(), Err(AcquireError::Cancelled));
    assert_eq!(session.release(b"a"), Err(ReleaseError::NotHeld));
    drop(session);
    server.join().unwrap();
}

#[test]
fn cancelling_an_upgrade_keeps_the_shared_lock() {
    let (is_asked, asked) = signal();
    let (session, server) = session(|mut peer| {
        let lock = peer.expect("lock");
        peer.reply(lock.id, &granted(1));
        let upgrade = peer.expect("convert");
        is_asked();
        let cancel = peer.expect("cancel");
        assert_eq!(cancel.parameters["id"], upgrade.id);
        // It was granted just before the cancel: the client converts it back to shared.
        peer.reply(upgrade.id, &granted(2));
        peer.reply(cancel.id, r#"{"status":"notFound"}"#);
        let back = peer.expect("convert");
        assert_eq!((&back.parameters["lockName"], &back.parameters["mode"]), (&"a".into(), &"shared".into()));
        peer.reply(back.id, &granted(2));
        let unlock = peer.expect("unlock");
        peer.reply(unlock.id, OK);
        peer.outlast();
    });
    session.acquire(b"a", Mode::Shared, None).unwrap();
    let blocked = spawn(&session, |session| session.convert(b"a", Mode::Exclusive, None));
    asked();
    assert_eq!(session.convert(b"a", Mode::Exclusive, None), Err(AcquireError::AlreadyWaiting));
    session.cancel();
    assert_eq!(blocked.join().unwrap(), Err(AcquireError::Cancelled));
    let held = AcquireError::AlreadyHeld(Held { mode: Mode::Shared, token: 1 });
    assert_eq!(session.acquire(b"a", Mode::Shared, None), Err(held));
    assert_eq!(session.release(b"a"), Ok(Released::Hold));
    drop(session);
    server.join().unwrap();
}

#[test]
fn rpc_carries_any_command() {
    let (is_asked, asked) = signal();
    let (go, may_go) = signal();
    let (url, server) = serve(|mut peer| {
        let slow = peer.expect("slow");
        is_asked();
        let quick = peer.expect("quick");
        peer.reply(quick.id, r#"{"n":2}"#);
        peer.reply(slow.id, "[1]");
        let unknown = peer.expect("dance");
        peer.reply(unknown.id, r#"{"status":"unknown","command":"dance"}"#);
        let refused = peer.expect("fail");
        peer.say(&format!(r#"{{"id":{},"error":"no"}}"#, refused.id));
        peer.expect("nothing");
        may_go();
    });
    let client = Arc::new(MessageClient::connect(&url, SOON).unwrap());
    let slow = {
        let client = client.clone();
        thread::spawn(move || client.rpc("slow", &["x"], Some(SOON)).unwrap().get().to_owned())
    };
    asked();
    let quick = client.rpc("quick", &(), None).unwrap();
    assert_eq!((quick.get(), slow.join().unwrap().as_str()), (r#"{"n":2}"#, "[1]"));
    assert_eq!(client.rpc("dance", &(), None).unwrap_err(), RpcError::Unknown);
    assert_eq!(client.rpc("fail", &(), None).unwrap_err(), RpcError::Refused("no".to_owned()));
    assert!(client.is_alive());
    assert_eq!(client.rpc("nothing", &(), Some(SHORT)).unwrap_err(), RpcError::TimedOut);
    go();
    server.join().unwrap();
    assert!(matches!(client.rpc("late", &(), None), Err(RpcError::Lost(_))));
    let no_json = std::collections::BTreeMap::from([(vec![1], 1)]);
    assert!(matches!(client.rpc("x", &no_json, None), Err(RpcError::Invalid(_))));
}

/// Requests and replies fill the buffers in both directions at once, so the thread that writes must
/// also read.
#[test]
fn a_server_that_takes_nothing_until_its_replies_are_read_causes_no_deadlock() {
    /// Each request is as long as allowed, and all together are far more than sockets buffer.
    const SETS: usize = 88;
    let (session, server) = session(|mut peer| {
        for token in 0..SETS {
            let lock = peer.expect("lock");
            peer.reply(lock.id, &granted(token as u64));
        }
        let unasked = format!(r#"{{"id":99999999,"result":"{}"}}"#, "x".repeat(900_000));
        (0..40).for_each(|_| peer.say(&unasked));
        while let Some(unlock) = peer.next() {
            peer.reply(unlock.id, OK);
        }
    });
    let name = |set: usize, n: usize| LockName::new(format!("{set:400}{n:400}").as_bytes());
    for set in 0..SETS {
        let wants: Vec<_> = (0..160).map(|n| (name(set, n), Mode::Exclusive)).collect();
        session.acquire_all(&wants, None).unwrap();
    }
    let names: Vec<_> = (0..SETS).flat_map(|set| (0..160).map(move |n| name(set, n))).collect();
    assert_eq!(session.release_all(&names), Ok(()));
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_session_counts_as_held_what_its_calls_have_returned() {
    // The grant and the end of the stream arrive together; either may be read first.
    for _ in 0..100 {
        let (session, server) = session(|mut peer| {
            let lock = peer.expect("lock");
            peer.reply(lock.id, &granted(1));
        });
        let acquired = session.acquire(b"a", Mode::Exclusive, None);
        assert_eq!(session.holds_or_waits(), acquired.is_ok(), "{acquired:?}");
        server.join().unwrap();
        let asked = session.enqueue(b"b", Mode::Exclusive);
        assert!(matches!(asked, Err(AcquireError::Lost(_))), "{asked:?}");
        assert_eq!(session.holds_or_waits(), acquired.is_ok(), "a lock that was not granted is not held");
    }
}
