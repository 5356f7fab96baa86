//! Attacks on the search for deadlocks: many sessions wait for each other, and one repeats a
//! request that makes the server examine all of them.

use crate::hoards::{await_end_of_hoard, hold, wait_for_names};
use crate::siege::{Attack, no_options};
use crate::support::eventually;
use crate::support::frame_client::{FrameClient, frame};
use crate::support::server::Server;
use serde_json::json;

/// Requests a lock that it cannot get, and gives up, `times` times.
fn ask_in_vain(client: &mut FrameClient, name: &str, times: usize) {
    for _ in 0..times {
        client.request_lock(name);
        assert_eq!(client.unlock(name)["result"], "ok");
    }
}

fn await_waiting(server: &Server, waits: usize) {
    let mut observer = server.message();
    eventually("all of them wait", || {
        usize::try_from(observer.call("stats", json!({}))["waiting"].as_u64().unwrap()).unwrap() >= waits
    });
}

pub(crate) const CHAIN: Attack = Attack {
    name: "thousands wait for each other in a chain, and the first asks again and again",
    options: no_options,
    newcomers: false,
    short: 200,
    full: 4000,
    growth_max_kib: |size| size as u64 * 20,
    run: |server, size| {
        let mut clients: Vec<FrameClient> = (0..size).map(|_| server.message()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.lock(&format!("hoard:{number}"))["status"], "ok");
        }
        for (number, client) in clients.iter_mut().enumerate().skip(1).take(size - 2) {
            wait_for_names(client, [number + 1].into_iter());
        }
        // So that the first session has a waiter.
        let mut behind = server.message();
        behind.request_lock("hoard:0");
        await_waiting(server, size - 1);
        ask_in_vain(&mut clients[0], "hoard:1", 500);
        assert_eq!(clients[size - 1].call("lock", json!({"lockName": "hoard:1"}))["status"], "deadlock");
        drop((clients, behind));
        await_end_of_hoard(server);
    },
};

pub(crate) const WIDE: Attack = Attack {
    name: "a hundred wait for the same ten thousand names, and one more asks again and again",
    options: no_options,
    newcomers: false,
    short: 10,
    full: 100,
    growth_max_kib: |size| size as u64 * 10_000,
    run: |server, size| {
        let names = if size < 100 { 1000 } else { 10_000 };
        let mut holder = server.lockd();
        hold(&mut holder, names);
        let mut clients: Vec<FrameClient> = (0..size).map(|_| server.message()).collect();
        clients.iter_mut().for_each(|client| wait_for_names(client, 0..names));
        let (mut asker, mut behind) = (server.message(), server.message());
        assert_eq!(asker.lock("asked for")["status"], "ok");
        behind.request_lock("asked for");
        await_waiting(server, size * names + 1);
        ask_in_vain(&mut asker, "hoard:0", 20);
        drop((holder, clients, asker, behind));
        await_end_of_hoard(server);
    },
};

pub(crate) const REFUSED_SEARCHES: Attack = Attack {
    name: "clients ask again and again for what would take too long to rule out as a deadlock",
    options: no_options,
    newcomers: true,
    short: 4,
    full: 500,
    growth_max_kib: |_| 100 << 10,
    // Few enough that a reply comes before a client gives up: replies are collected while there are
    // requests.
    run: |server, size| refuse_searches(server, size, (1000 / size).clamp(2, 25)),
};

/// Each client repeatedly requests a lock that eight sessions wait for, and those also wait for ten
/// thousand other locks. The requesting session has waiters and the lowest rank, so the server
/// would have to examine all of these places in queues to rule out a cycle.
fn refuse_searches(server: &Server, askers: usize, times: usize) {
    const NAMES: usize = 10_000;
    const WAITERS: usize = 8;
    let mut clients: Vec<FrameClient> = (0..askers).map(|_| server.message()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.lock(&format!("asker:{number}"))["status"], "ok");
    }
    let mut behind = server.message();
    for number in 0..askers {
        behind.request_lock(&format!("asker:{number}"));
    }
    await_waiting(server, askers);
    let mut holder = server.lockd();
    hold(&mut holder, NAMES);
    let mut waiters: Vec<FrameClient> = (0..WAITERS).map(|_| server.message()).collect();
    waiters.iter_mut().for_each(|client| wait_for_names(client, 0..NAMES));
    await_waiting(server, askers + WAITERS * NAMES);
    let request = frame(r#"{"command":"lock","parameters":{"lockName":"hoard:0"},"id":"asked"}"#);
    let requests = request.repeat(times);
    clients.iter_mut().for_each(|client| client.send_bytes(&requests));
    for client in &mut clients {
        for _ in 0..times {
            let result = client.receive()["result"].take();
            assert!(result["reason"].as_str().unwrap().starts_with("too many sessions wait"), "{result}");
        }
    }
    drop((holder, waiters, clients, behind));
    await_end_of_hoard(server);
}

pub(crate) const SETS_IN_VAIN: Attack = Attack {
    name: "ten clients try for a thousand names at once, again and again",
    options: no_options,
    newcomers: false,
    short: 10,
    full: 200,
    growth_max_kib: |_| 16 << 10,
    run: |server, size| {
        let mut holder = server.lockd();
        hold(&mut holder, 1);
        std::thread::scope(|scope| {
            for number in 0..10 {
                scope.spawn(move || {
                    let mut client = server.message();
                    let mut names: Vec<String> =
                        (1..1000).map(|name| format!("set {number}:{name}")).collect();
                    names.push("hoard:0".to_owned());
                    for _ in 0..size {
                        let result = client.call("lock", json!({"lockNames": names, "timeLimit": 0}));
                        assert_eq!(result["status"], "timeout");
                    }
                });
            }
        });
        drop(holder);
        await_end_of_hoard(server);
    },
};

pub(crate) const SHARED_SETS: Attack = Attack {
    name: "one release grants a thousand shared locks to each of hundreds",
    options: no_options,
    newcomers: false,
    short: 10,
    full: 500,
    growth_max_kib: |size| size as u64 * 1000,
    run: |server, size| {
        let mut holder = server.message();
        assert_eq!(holder.lock("gate")["status"], "ok");
        let shared = |name: String| json!({"lockName": name, "mode": "shared"});
        let names = (0..999).map(|name| format!("shared:{name}")).chain(["gate".to_owned()]);
        let wants: Vec<_> = names.map(shared).collect();
        let mut clients: Vec<FrameClient> = (0..size).map(|_| server.message()).collect();
        let ids: Vec<u64> =
            clients.iter_mut().map(|client| client.request("lock", json!({ "lockNames": wants }))).collect();
        await_waiting(server, size);
        assert_eq!(holder.unlock("gate")["result"], "ok");
        for (client, id) in clients.iter_mut().zip(ids) {
            assert_eq!(client.result(id)["status"], "ok");
        }
        drop(clients);
        await_end_of_hoard(server);
    },
};
