//! Attacks with listings, by clients that read and by clients that do not: what is kept for them is
//! bounded, and only they wait for the work that a listing takes.

use std::io::{Read, Write};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::hoards::{await_end_of_hoard, hold};
use crate::siege::{Attack, no_options};
use crate::support::eventually;
use crate::support::frame_client::frame;
use crate::support::server::Server;
use serde_json::json;
use socket2::Socket;

const NAMED: &[u8] = b"iam somebody with a name of some length\n";

/// The requests that take the longest to answer, in each protocol.
fn long_questions() -> [(&'static str, Vec<u8>); 5] {
    let list = frame(r#"{"command":"list","parameters":{"limit":1000},"id":1}"#);
    [
        ("glockd", b"d\n".to_vec()),
        ("glockd", b"dump\n".to_vec()),
        ("glockd", b"who\n".to_vec()),
        ("lockd", b"q full\n".to_vec()),
        ("message", list),
    ]
}

/// Two clients for each request repeat it for a given time. Those that read do so as fast as they
/// can.
fn ask_all_the_time(server: &Server, reading: bool, time: Duration) {
    let end = Instant::now() + time;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (protocol, question) in long_questions().into_iter().chain(long_questions()) {
            let socket = server.tcp(protocol);
            socket.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let over = &over;
            scope.spawn(move || {
                if protocol == "glockd" {
                    socket.send(NAMED).unwrap();
                }
                let (mut stream, mut scratch) = (&socket, vec![0; 1 << 20]);
                while !over.load(Relaxed) && Instant::now() < end {
                    // Once the server has stopped reading, a part of a request is as good as a
                    // whole one.
                    let _ = stream.write_all(&question);
                    while reading
                        && Instant::now() < end
                        && stream.read(&mut scratch).is_ok_and(|read| read > 0)
                    {}
                }
            });
        }
    });
}

pub(crate) const LISTINGS_READ: Attack = Attack {
    name: "ten clients have a million locks listed again and again, in every way, and read",
    options: no_options,
    newcomers: false,
    short: 10_000,
    full: 1_000_000,
    growth_max_kib: |size| size as u64 / 2 + (16 << 10),
    run: |server, size| list_for_a_while(server, size, true),
};

pub(crate) const LISTINGS_UNREAD: Attack = Attack {
    name: "ten clients have a million locks listed again and again, in every way, and never read",
    options: no_options,
    newcomers: false,
    short: 10_000,
    full: 1_000_000,
    growth_max_kib: |size| size as u64 / 2 + (16 << 10),
    run: |server, size| list_for_a_while(server, size, false),
};

fn list_for_a_while(server: &Server, size: usize, reading: bool) {
    let mut holder = server.lockd();
    hold(&mut holder, size);
    let time = if size < 100_000 { Duration::from_millis(500) } else { Duration::from_secs(5) };
    ask_all_the_time(server, reading, time);
    drop(holder);
    await_end_of_hoard(server);
}

pub(crate) const GRANTS_UNREAD: Attack = Attack {
    name: "grants by the thousand are due to ten clients that never read",
    options: |_| vec!["--outbox-max=65536".to_owned()],
    newcomers: false,
    short: 300,
    full: 10_000,
    growth_max_kib: |size| size as u64 * 20,
    run: |server, size| {
        let mut holder = server.lockd();
        hold(&mut holder, size);
        let deaf: Vec<Socket> = (0..10).map(|_| server.unix("message")).collect();
        let mut observer = server.message();
        for (number, mut socket) in deaf.iter().enumerate() {
            let id = "i".repeat(1000);
            let request = |name: usize| {
                let request =
                    json!({"command": "lock", "parameters": {"lockName": format!("hoard:{name}")}, "id": id});
                frame(request.to_string())
            };
            (0..size).for_each(|name| socket.write_all(&request(name)).unwrap());
            eventually("all of them wait", || {
                let waiting = observer.call("stats", json!({}))["waiting"].as_u64().unwrap();
                usize::try_from(waiting).unwrap() >= (number + 1) * size
            });
        }
        // One client after another is sent all of it, and is cut off.
        drop(holder);
        eventually("all have had their turn", || {
            observer.call("stats", json!({}))["waiting"].as_u64().unwrap() <= 1
        });
        drop(deaf);
        await_end_of_hoard(server);
    },
};
