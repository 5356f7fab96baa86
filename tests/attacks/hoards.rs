//! Attacks with many locks and many waits: one client takes as many as the limits allow, and
//! vanishes.

use crate::siege::{Attack, no_options};
use crate::support::eventually;
use crate::support::frame_client::{FrameClient, frame};
use crate::support::line_client::LineClient;
use crate::support::server::Server;
use serde_json::json;

/// How many requests are sent before the replies are read.
const BATCH: usize = 1000;
/// How many waits a connection may have.
const WAITS: usize = 10_000;

/// Waits until only the calm clients hold locks.
pub(crate) fn await_end_of_hoard(server: &Server) {
    let mut observer = server.message();
    eventually("what the attacker held and waited for is gone", || {
        let stats = observer.call("stats", json!({}));
        let gauge = |name: &str| stats[name].as_u64().unwrap();
        gauge("locks") + gauge("sharedLocks") <= 2 && gauge("waiting") <= 1
    });
}

/// Acquires `count` locks, named by their numbers, a batch at a time.
pub(crate) fn hold(client: &mut LineClient, locks: usize) {
    for first in (0..locks).step_by(BATCH) {
        let batch = first..locks.min(first + BATCH);
        client.send(batch.clone().map(|number| format!("g hoard:{number}\n")).collect::<String>());
        batch.for_each(|_| assert!(client.line_bytes().starts_with(b"1 ")));
    }
}

/// Sends requests without time limit for these names, and waits until they are in the queues.
pub(crate) fn wait_for_names(client: &mut FrameClient, names: impl Iterator<Item = usize>) {
    let mut requests = Vec::new();
    for number in names {
        let request =
            format!(r#"{{"command":"lock","parameters":{{"lockName":"hoard:{number}"}},"id":{number}}}"#);
        requests.extend(frame(request));
    }
    client.send_bytes(requests);
    // This client's turn comes after these; and two clients that queue at the same time could do so
    // in different orders.
    assert!(client.is_served());
}

pub(crate) const LOCKS: Attack = Attack {
    name: "one client takes a million locks, and vanishes",
    options: no_options,
    newcomers: false,
    short: 20_000,
    full: 1_000_000,
    // A name, its slot in a lane, and twice as much while a lane grows.
    growth_max_kib: |size| size as u64 / 4,
    run: |server, size| {
        let mut client = server.lockd();
        hold(&mut client, size);
        drop(client);
        await_end_of_hoard(server);
    },
};

pub(crate) const SETS: Attack = Attack {
    name: "one client takes a million locks in sets of a thousand, and vanishes",
    options: no_options,
    newcomers: false,
    short: 20_000,
    full: 1_000_000,
    growth_max_kib: |size| size as u64 * 3 / 4,
    run: |server, size| {
        let mut client = server.message();
        for set in 0..size / BATCH {
            let names: Vec<String> = (0..BATCH).map(|number| format!("hoard:{set}:{number}")).collect();
            assert_eq!(client.call("lock", json!({ "lockNames": names }))["status"], "ok");
        }
        drop(client);
        await_end_of_hoard(server);
    },
};

/// As many waiting clients as it takes for `waits` waits of `each` names each. `names` gives each
/// its names.
fn waiters(
    server: &Server,
    waits: usize,
    each: usize,
    names: impl Fn(usize, usize) -> usize,
) -> Vec<FrameClient> {
    let waiters: Vec<FrameClient> = (0..waits.div_ceil(each))
        .map(|waiter| {
            let mut client = server.message();
            wait_for_names(&mut client, (0..each).map(|wait| names(waiter, wait)));
            client
        })
        .collect();
    let mut observer = server.message();
    eventually("all of them wait", || {
        let waiting = observer.call("stats", json!({}))["waiting"].as_u64().unwrap();
        usize::try_from(waiting).unwrap() >= waiters.len() * each
    });
    waiters
}

pub(crate) const WAITS_APART: Attack = Attack {
    name: "a hundred clients wait for a million names, and vanish",
    options: no_options,
    newcomers: false,
    short: 20_000,
    full: 1_000_000,
    growth_max_kib: |size| size as u64 * 3 / 2,
    run: |server, size| {
        let mut holder = server.lockd();
        hold(&mut holder, size);
        drop(waiters(server, size, WAITS, |waiter, wait| waiter * WAITS + wait));
        drop(holder);
        await_end_of_hoard(server);
    },
};

pub(crate) const HOLDER_VANISHES: Attack = Attack {
    name: "a hundred clients wait for a million names, and who holds them vanishes",
    options: no_options,
    newcomers: false,
    short: 20_000,
    full: 1_000_000,
    growth_max_kib: |size| size as u64 * 3 / 2,
    run: |server, size| {
        let mut holder = server.lockd();
        hold(&mut holder, size);
        let waiters = waiters(server, size, WAITS, |waiter, wait| waiter * WAITS + wait);
        drop(holder);
        let mut observer = server.message();
        eventually("all have been granted", || {
            observer.call("stats", json!({}))["waiting"].as_u64().unwrap() <= 1
        });
        drop(waiters);
        await_end_of_hoard(server);
    },
};

pub(crate) const WAITS_TOGETHER: Attack = Attack {
    name: "a hundred clients wait for the same ten thousand names, and vanish one after another",
    options: no_options,
    newcomers: false,
    short: 20,
    full: 100,
    growth_max_kib: |size| size as u64 * 10_000,
    run: |server, size| {
        let names = if size < 100 { WAITS / 10 } else { WAITS };
        let mut holder = server.lockd();
        hold(&mut holder, names);
        let waiters = waiters(server, size * names, names, |_, wait| wait);
        drop(holder);
        // Each time the next waiter gets all of them.
        drop(waiters);
        await_end_of_hoard(server);
    },
};

pub(crate) const TIME_OUTS: Attack = Attack {
    name: "a hundred clients have ten thousand waits each, which all end at the same time",
    options: no_options,
    newcomers: false,
    short: 2,
    full: 100,
    growth_max_kib: |size| size as u64 * 10_000,
    run: |server, size| {
        let mut holder = server.lockd();
        hold(&mut holder, WAITS);
        let limit = if size < 100 { 2 } else { 12 };
        let mut waiters: Vec<FrameClient> = (0..size)
            .map(|_| {
                let mut client = server.message();
                let request = |number: usize| {
                    let name = format!("hoard:{number}");
                    frame(json!({"command": "lock", "parameters": {"lockName": name, "timeLimit": limit}, "id": number}).to_string())
                };
                client.send_bytes((0..WAITS).flat_map(request).collect::<Vec<u8>>());
                // This client's turn comes after these: see `wait_for_names`.
                assert!(client.is_served());
                client
            })
            .collect();
        for waiter in &mut waiters {
            (0..WAITS).for_each(|_| assert_eq!(waiter.receive()["result"]["status"], "timeout"));
        }
        drop((holder, waiters));
        await_end_of_hoard(server);
    },
};

pub(crate) const ONE_NAME: Attack = Attack {
    name: "thousands of clients wait for one name, and all vanish",
    options: no_options,
    newcomers: false,
    short: 300,
    full: 8000,
    growth_max_kib: |size| size as u64 * 20,
    run: |server, size| {
        let mut holder = server.lockd();
        hold(&mut holder, 1);
        let waiters = waiters(server, size, 1, |_, _| 0);
        drop(holder);
        drop(waiters);
        await_end_of_hoard(server);
    },
};

pub(crate) const CANCELS_IN_VAIN: Attack = Attack {
    name: "a client with ten thousand waits cancels again and again what it never asked for",
    options: no_options,
    newcomers: true,
    short: 300,
    full: 9900,
    // The id exists in the reply, in the connection's list of waits, and while it is read.
    growth_max_kib: |size| size as u64 * 20,
    run: |server, size| {
        const CANCELS: usize = 500;
        // As long as an id of a waiting request may be, and the same except for the last bytes.
        let id = |number: usize| format!("{number:0>4000}");
        let mut holder = server.lockd();
        hold(&mut holder, size);
        let mut client = server.message();
        for number in 0..size {
            let parameters = json!({"lockName": format!("hoard:{number}")});
            client.send(&json!({"command": "lock", "parameters": parameters, "id": id(number)}));
        }
        assert!(client.is_served());
        let cancel = json!({"command": "cancel", "parameters": {"id": id(size)}, "id": "cancel"});
        client.send_bytes(frame(cancel.to_string()).repeat(CANCELS));
        // Meanwhile grants are reported to the session that cancels.
        let (mut cancels, mut grants) = (0, 0);
        for number in 0..CANCELS.min(size) {
            assert!(holder.ask(&format!("r hoard:{number}")).starts_with("1 "));
        }
        while cancels < CANCELS || grants < CANCELS.min(size) {
            let reply = client.receive();
            match reply["id"].as_str() {
                Some("cancel") => {
                    assert_eq!(reply["result"]["status"], "notFound");
                    cancels += 1;
                }
                _ => {
                    assert_eq!(reply["result"]["status"], "ok", "{reply}");
                    grants += 1;
                }
            }
        }
        drop((holder, client));
        await_end_of_hoard(server);
    },
};
