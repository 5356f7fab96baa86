//! Calls that the server does not answer, or whose bytes it does not even take. Each ends by itself
//! within a bound, and soon after it is cancelled or the session is closed.

use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::wire::message::ListRequest;

/// Longer than any call takes.
const BOUND: Duration = Duration::from_secs(60);

type Call = fn(&RemoteSession) -> String;

/// Every call that waits only for the server's answer. The locks `shared` and `exclusive` are held
/// in these modes.
const CALLS: [(&str, Call); 7] = [
    ("release", |session| format!("{:?}", session.release(b"exclusive"))),
    ("release_all", |session| format!("{:?}", session.release_all(&["exclusive".into(), "shared".into()]))),
    ("convert", |session| format!("{:?}", session.convert(b"exclusive", Mode::Shared, None))),
    ("inspect", |session| format!("{:?}", session.inspect(b"exclusive"))),
    ("list", |session| {
        let request = ListRequest { prefix: LockName::new(b""), limit: 1, after: None, waiting: false };
        format!("{:?}", session.list(&request))
    }),
    ("enqueue", |session| format!("{:?}", session.enqueue(b"other", Mode::Exclusive))),
    ("enqueue_convert", |session| format!("{:?}", session.enqueue_convert(b"shared", Mode::Exclusive))),
];

/// Whether the call gives something up, so that the session ends if it is not confirmed.
fn gives_up(call: &str) -> bool {
    ["release", "release_all", "convert"].contains(&call)
}

/// A session that holds `exclusive` and `shared`, on a server that answers no further request.
struct Unanswered {
    session: Arc<RemoteSession>,
    server: JoinHandle<()>,
    asked: Receiver<()>,
}

impl Unanswered {
    fn new() -> Self {
        let (is_asked, asked) = channel();
        let (url, server) = serve(move |mut peer| {
            let hello = peer.expect("hello");
            peer.accept_hello_for(&hello, 12);
            peer.expect("identify");
            for token in 1..=2 {
                let lock = peer.expect("lock");
                peer.reply(lock.id, &granted(token));
            }
            while peer.next().is_some() {
                let _ = is_asked.send(());
            }
        });
        let session = connect(&url);
        session.acquire(b"exclusive", Mode::Exclusive, None).unwrap();
        session.acquire(b"shared", Mode::Shared, None).unwrap();
        Self { session, server, asked }
    }

    /// Makes the call in a thread of its own, and returns the channel with its result.
    fn call(&self, call: Call) -> Receiver<String> {
        let (done, result) = channel();
        let session = self.session.clone();
        thread::spawn(move || done.send(call(&session)));
        self.asked.recv_timeout(SOON).unwrap();
        result
    }

    fn end(self) {
        drop(self.session);
        self.server.join().unwrap();
    }
}

#[test]
fn cancelling_ends_every_call() {
    for (name, call) in CALLS {
        let unanswered = Unanswered::new();
        let result = unanswered.call(call);
        unanswered.session.cancel();
        let result = result.recv_timeout(BOUND).unwrap_or_else(|_| panic!("{name} does not end"));
        if gives_up(name) {
            assert!(result.contains("Lost") && result.contains("cancelled"), "{name}: {result}");
            assert!(!unanswered.session.is_alive(), "{name}: it is unknown what the session holds");
        } else {
            assert_eq!(result, "Err(Cancelled)", "{name}");
            assert!(unanswered.session.is_alive(), "{name}");
            let held = unanswered.session.acquire(b"exclusive", Mode::Shared, NOW);
            assert!(matches!(held, Err(AcquireError::AlreadyHeld(_))), "{name}: {held:?}");
        }
        unanswered.end();
    }
}

#[test]
fn closing_the_session_ends_every_call_that_is_not_answered() {
    for (name, call) in CALLS {
        let unanswered = Unanswered::new();
        let result = unanswered.call(call);
        unanswered.session.close();
        let result = result.recv_timeout(BOUND).unwrap_or_else(|_| panic!("{name} does not end"));
        assert_eq!(result, r#"Err(Lost("it was closed"))"#, "{name}");
        unanswered.end();
    }
}

/// All calls run at the same time, so this takes as long as the shortest dead-peer timeout.
#[test]
fn every_call_that_is_not_answered_ends_by_itself() {
    let begin = |(name, call): (&'static str, Call)| {
        let unanswered = Unanswered::new();
        let result = unanswered.call(call);
        (name, unanswered, result)
    };
    let limited: Call = |session| format!("{:?}", session.convert(b"exclusive", Mode::Shared, Some(SHORT)));
    let calls: Vec<_> = CALLS.into_iter().chain([("convert", limited)]).map(begin).collect();
    for (name, unanswered, result) in calls {
        let result = result.recv_timeout(BOUND).unwrap_or_else(|_| panic!("{name} does not end"));
        assert_eq!(unanswered.session.is_alive(), !gives_up(name), "{name}");
        match gives_up(name) {
            true => assert!(result.contains("Lost") && result.contains("in time"), "{name}: {result}"),
            false => assert_eq!(result, "Err(TimedOut)", "{name}"),
        }
        unanswered.end();
    }
}

/// Nobody knows which request it is for, and that one will never be answered.
#[test]
fn an_error_without_an_id_ends_the_session_also_if_the_server_keeps_the_connection() {
    let (url, server) = serve_session(|mut peer| {
        peer.expect("lock");
        peer.say(r#"{"error":"the message is not JSON"}"#);
        peer.outlast();
    });
    let session = connect(&url);
    let result = session.acquire(b"x", Mode::Exclusive, None);
    assert_eq!(
        result,
        Err(AcquireError::Lost("the server reported an error: the message is not JSON".to_owned()))
    );
    drop(session);
    server.join().unwrap();
}

/// Server and session do not agree, so the session must not go on to say that it holds the lock.
#[test]
fn a_conversion_of_a_lock_that_the_server_does_not_know_ends_the_session() {
    let (url, server) = serve_session(|mut peer| {
        let lock = peer.expect("lock");
        peer.reply(lock.id, &granted(1));
        let convert = peer.expect("convert");
        peer.reply(convert.id, r#"{"status":"notFound"}"#);
        peer.outlast();
    });
    let session = connect(&url);
    session.acquire(b"x", Mode::Exclusive, None).unwrap();
    let result = session.convert(b"x", Mode::Shared, None);
    assert!(matches!(result, Err(AcquireError::Lost(_))), "{result:?}");
    assert!(!session.is_alive());
    drop(session);
    server.join().unwrap();
}

/// Names that make a request of nearly a megabyte.
fn long_set(set: usize) -> Vec<(LockName, Mode)> {
    let name = |n| format!("{set}.{n}{}", "\u{1}".repeat(120));
    (0..1000).map(|n| (LockName::from(name(n).as_str()), Mode::Exclusive)).collect()
}

#[test]
fn cancelling_does_not_wait_for_a_server_that_takes_no_bytes() {
    /// More than the buffers of both ends can take.
    const SETS: usize = 16;
    let (take, may_take) = signal();
    let (session, server) = session(|mut peer| {
        may_take();
        let mut locked = std::collections::BTreeSet::new();
        loop {
            let asked = peer.next().unwrap();
            let first = &asked.parameters["lockNames"][0];
            let first = first.as_str().or_else(|| first["lockName"].as_str()).unwrap_or_default().to_owned();
            match asked.command.as_str() {
                "lock" => assert!(locked.insert(first)),
                // It comes in several requests; the first has the first name.
                "unlock" => drop(locked.remove(&first)),
                "inspect" => {
                    assert!(locked.is_empty(), "everything that was cancelled is taken back first");
                    peer.reply(asked.id, r#"{"status":"ok","holders":0,"waiters":0,"orphaned":false}"#);
                    return peer.outlast();
                }
                other => panic!("{other}"),
            }
        }
    });
    let waits: Vec<_> = (0..SETS)
        .map(|set| spawn(&session, move |session| session.acquire_all(&long_set(set), None)))
        .collect();
    while session.waiting() < SETS {
        thread::yield_now();
    }
    session.cancel();
    for wait in waits {
        assert_eq!(wait.join().unwrap(), Err(AcquireError::Cancelled));
    }
    assert!(session.is_alive());
    // Only now does the server read, so nothing above has waited for it.
    take();
    assert!(session.inspect(b"x").is_ok());
    drop(session);
    server.join().unwrap();
}
