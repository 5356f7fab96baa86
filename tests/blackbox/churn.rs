//! Clients connect, wait, time out, give up, disconnect and release in random order: never do two
//! hold one lock, and in the end there are no holders and no waiters.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::support::server::Server;
use crate::support::socket::reset;
use serde_json::json;

const NAMES: [&str; 2] = ["a", "b"];

/// The number of holders of each name, by the clients' own knowledge.
#[derive(Default)]
struct Holders([AtomicUsize; NAMES.len()]);

impl Holders {
    /// To be called by a client that has been granted the name.
    fn enter(&self, name: usize) {
        assert_eq!(self.0[name].fetch_add(1, SeqCst), 0, "two hold {}", NAMES[name]);
        std::thread::yield_now();
    }

    /// To be called by a client that is about to release the name.
    fn leave(&self, name: usize) {
        self.0[name].fetch_sub(1, SeqCst);
    }
}

/// A text client that waits for a hundredth of a second at most, and sometimes disconnects.
fn text_client(server: &Server, holders: &Holders, seed: usize) {
    let mut client = server.glockd();
    for round in 0..200 {
        let name = (seed + round) % NAMES.len();
        let reply = client.ask(&format!("gw 0.0{} {}", round % 3, NAMES[name]));
        let granted = reply.starts_with('1');
        if granted {
            holders.enter(name);
            holders.leave(name);
        }
        if (seed + round).is_multiple_of(7) {
            client = server.glockd();
        } else if granted {
            assert!(client.ask(&format!("r {}", NAMES[name])).starts_with('1'));
        }
    }
}

/// A client that disconnects while it waits or at the moment of the grant.
fn vanishing_client(server: &Server, seed: usize) {
    for round in 0..200 {
        let mut client = server.glockd();
        client.send(format!("gw - {}\n", NAMES[(seed + round) % NAMES.len()]));
        if round % 2 == 0 { drop(client) } else { reset(client.into_socket()) }
    }
}

/// A client that takes both names at once, or gives up with an unlock at the moment of the grant.
fn message_client(server: &Server, holders: &Holders, seed: usize) {
    let mut client = server.message();
    for round in 0..200 {
        if (seed + round).is_multiple_of(3) {
            let id = client.request_lock(NAMES[round % NAMES.len()]);
            assert_eq!(client.unlock(NAMES[round % NAMES.len()])["result"], "ok", "request {id}");
            continue;
        }
        let limit = if round % 2 == 0 { json!(0.01) } else { json!(false) };
        let result = client.call("lock", json!({"lockNames": NAMES, "timeLimit": limit}));
        if result["status"] == "ok" {
            (0..NAMES.len()).for_each(|name| holders.enter(name));
            (0..NAMES.len()).for_each(|name| holders.leave(name));
            assert_eq!(client.call("unlock", json!({"lockNames": NAMES}))["status"], "ok");
        } else {
            assert_eq!(result["status"], "timeout", "{result}");
        }
    }
}

#[test]
fn under_churn_no_lock_is_held_twice_and_no_lock_is_lost() {
    let server = Server::start();
    let holders = Holders::default();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (server, holders) = (&server, &holders);
            scope.spawn(move || text_client(server, holders, seed));
            scope.spawn(move || vanishing_client(server, seed));
            scope.spawn(move || message_client(server, holders, seed));
        }
    });
    server.await_no_locks();
    for name in NAMES {
        server.await_waiters(name, 0);
        assert_eq!(server.message().try_lock(name)["status"], "ok");
    }
}
