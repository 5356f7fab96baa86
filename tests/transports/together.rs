//! Clients of all kinds compete for one lock: no two of them hold it at once.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use lockd::broker::Mode;
use lockd::client::RemoteSession;

use crate::authority::Authority;
use crate::clients::{GOT, HOST, RELEASED, TlsLines, WsLines, session, tls_url};
use crate::support::server::Launch;

const ROUNDS: u64 = 150;

/// Adds one in a way that loses concurrent additions.
fn increment(counter: &AtomicU64) {
    let seen = counter.load(SeqCst);
    std::thread::yield_now();
    counter.store(seen + 1, SeqCst);
}

#[test]
fn no_increment_is_lost_among_tls_websocket_and_plain() {
    let authority = Authority::new();
    let listeners = ["message", "message+tls", "glockd", "glockd+tls", "glockd+ws", "glockd+ws+tls"];
    let server = listeners
        .into_iter()
        .fold(Launch::new(), |launch, protocol| launch.listen(&format!("{protocol}://127.0.0.1:0")))
        .certified(&authority.issue(HOST))
        .start();
    let counter = AtomicU64::new(0);
    let ca = authority.ca();
    let by_words = |ask: &mut dyn FnMut(&str) -> String| {
        for _ in 0..ROUNDS {
            assert_eq!(ask("gw - x"), GOT);
            increment(&counter);
            assert_eq!(ask("r x"), RELEASED);
        }
    };
    let by_session = |url: &str| {
        let session = session(url);
        for _ in 0..ROUNDS {
            session.acquire(b"x", Mode::Exclusive, None).unwrap();
            increment(&counter);
            session.release(b"x").unwrap();
        }
    };
    let plain_url = format!("tcp://{}", crate::clients::address(&server, "message"));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = TlsLines::new(&server, "glockd+tls", &ca);
                by_words(&mut |request| client.ask(request));
            });
            scope.spawn(|| {
                let mut client = WsLines::new(&server);
                by_words(&mut |request| client.ask(request));
            });
            scope.spawn(|| {
                let mut client = WsLines::new_in_tls(&server, &ca);
                by_words(&mut |request| client.ask(request));
            });
            scope.spawn(|| {
                let mut client = server.glockd();
                by_words(&mut |request| client.ask(request));
            });
            scope.spawn(|| by_session(&tls_url(&server, &ca, "")));
            scope.spawn(|| by_session(&plain_url));
        }
    });
    assert_eq!(counter.load(SeqCst), 12 * ROUNDS);
}

#[test]
fn threads_of_one_tls_session_each_get_their_own_replies() {
    let authority = Authority::new();
    let server = Launch::new().listen("message+tls://127.0.0.1:0").certified(&authority.issue(HOST)).start();
    let url = tls_url(&server, &authority.ca(), "");
    let shared = session(&url);
    let counters: Vec<AtomicU64> = (0..8).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for (name, counter) in counters.iter().enumerate() {
            let name = format!("x{name}");
            let add = move |session: &RemoteSession| {
                for _ in 0..ROUNDS {
                    session.acquire(name.as_bytes(), Mode::Exclusive, None).unwrap();
                    increment(counter);
                    session.release(name.as_bytes()).unwrap();
                }
            };
            // In addition to a thread of the shared session, one that competes with it.
            let (url, shared, alone) = (&url, &shared, add.clone());
            scope.spawn(move || add(shared));
            scope.spawn(move || alone(&session(url)));
        }
    });
    assert!(counters.iter().all(|counter| counter.load(SeqCst) == 2 * ROUNDS));
}
