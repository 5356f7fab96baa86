//! Clients that ask for the longest possible answers and read nothing: whatever a listing would
//! show, and however long its names are, what the server keeps for such a client is bounded.

use std::io::Write;
use std::mem::MaybeUninit;
use std::time::Duration;

use crate::hoards::await_end_of_hoard;
use crate::support::eventually;
use crate::support::frame_client::{FrameClient, frame};
use crate::support::line_client::LineClient;
use crate::support::server::{Launch, Server, raise_descriptor_limit};
use crate::vitals::{Vitals, forget_peak, peak_kib};
use serde_json::json;
use socket2::Socket;

/// How many clients send each request: with a dozen requests, nearly fifty clients in all.
const ASKERS: usize = 4;
/// How much memory all of them together may cost. With this many clients the bound distinguishes
/// growth from what an allocator keeps for the threads of a busy machine.
const MOST_KIB: u64 = 50 << 10;
/// A client stops asking when the server has taken nothing from it for this long.
const STALLED: Duration = Duration::from_millis(500);

/// Registers the longest allowed name for the client, in characters that take the most room in
/// JSON.
fn name_itself(client: &mut FrameClient) {
    let is_taken = |length| {
        let name = "\u{1}".repeat(length);
        client.call("identify", json!({ "name": name }))["status"] == "ok"
    };
    assert!([4096, 256].into_iter().any(is_taken));
}

/// A lock name of the maximum length.
fn long(kind: &str, number: usize) -> String {
    format!("{kind}:{number:0>1000}")
}

/// Holds `count` locks of the longest names, exclusive ones and shared ones.
fn hold_long_names(server: &Server, count: usize) -> LineClient {
    let mut holder = server.lockd();
    for first in (0..count).step_by(100) {
        let names = first..first + 100;
        let ask = |number| format!("g {}\nsg {}\n", long("x", number), long("s", number));
        holder.send(names.clone().map(ask).collect::<String>());
        names.for_each(|_| (0..2).for_each(|_| assert_eq!(holder.line(), "1 Got Lock\r\n")));
    }
    holder
}

/// Many clients that wait for each other in a chain. The last one waits for all of the asking
/// clients, and all of them also wait for one name.
fn chain(server: &Server, length: usize, askers: &mut [FrameClient]) -> Vec<FrameClient> {
    let mut chain: Vec<FrameClient> = (0..length).map(|_| server.message()).collect();
    for (number, client) in chain.iter_mut().chain(&mut *askers).enumerate() {
        name_itself(client);
        assert_eq!(client.lock(&format!("link:{number}"))["status"], "ok");
    }
    let mut holder = server.message();
    name_itself(&mut holder);
    assert_eq!(holder.lock("crowded")["status"], "ok");
    // Start at the end of the chain: in the queue, too, each must wait only for those after it.
    for (number, client) in chain.iter_mut().enumerate().rev() {
        client.request_lock("crowded");
        if number + 1 < length {
            client.request_lock(&format!("link:{}", number + 1));
        } else {
            (length..length + askers.len()).for_each(|asker| {
                client.request_lock(&format!("link:{asker}"));
            });
        }
        assert!(client.is_served());
    }
    server.await_waiters("crowded", length);
    chain.push(holder);
    chain
}

/// Sends requests until the server takes no more, and never reads, not even the first answer.
fn ask_without_reading(mut socket: &Socket, question: &[u8]) {
    socket.set_write_timeout(Some(STALLED)).unwrap();
    let questions = question.repeat(1 + 4096 / question.len());
    while socket.write_all(&questions).is_ok() {}
    socket.peek(&mut [MaybeUninit::uninit()]).expect("an answer, or an end");
    while socket.write_all(&questions).is_ok() {}
}

/// The memory, in KiB, that it costs when `ASKERS` clients send each of these requests, all at the
/// same time.
fn cost_of(server: &Server, questions: Vec<(Vec<Socket>, Vec<u8>)>) -> u64 {
    forget_peak(server);
    let before = Vitals::of(server).resident_kib;
    std::thread::scope(|scope| {
        for (sockets, question) in &questions {
            for socket in sockets {
                scope.spawn(|| ask_without_reading(socket, question));
            }
        }
    });
    let mut other = server.message();
    assert_eq!(other.try_lock("others are served")["status"], "ok");
    peak_kib(server).saturating_sub(before)
}

#[expect(clippy::print_stderr, reason = "the figures, for those who ask for them")]
fn cost_of_unread_answers(names: usize, sessions: usize) {
    raise_descriptor_limit();
    let launch = Launch::everywhere().option("--http", "127.0.0.1:0").expecting(1);
    let server = launch.start();
    let mut askers: Vec<FrameClient> =
        (0..ASKERS).map(|_| FrameClient::new(server.unix("message"))).collect();
    let chain = chain(&server, sessions, &mut askers);
    let holder = hold_long_names(&server, names);
    let list = |parameters| frame(json!({"command": "list", "parameters": parameters, "id": 1}).to_string());
    let circle = json!({"command": "lock", "parameters": {"lockName": "link:0"}, "id": 1}).to_string();
    let http = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
    let to = |protocol| (0..ASKERS).map(|_| server.unix(protocol)).collect::<Vec<_>>();
    let pages = || (0..ASKERS).map(|_| server.tcp("http")).collect::<Vec<_>>();
    let mut questions = vec![
        (askers.into_iter().map(FrameClient::into_socket).collect(), frame(circle)),
        (to("message"), list(json!({"limit": 1000}))),
        (to("message"), list(json!({"prefix": "crowded"}))),
        (to("lockd"), b"q full\n".to_vec()),
    ];
    for listing in ["d\n", "sd\n", "who\n", "dump\n", "dump shared\n"] {
        questions.push((to("glockd"), listing.as_bytes().to_vec()));
    }
    for path in ["/locks?limit=1000", "/locks?waiting=1", "/history"] {
        questions.push((pages(), http(path)));
    }
    let kinds = questions.len();
    let cost = cost_of(&server, questions);
    eprintln!("{ASKERS} each of {kinds} kinds, unread: {cost} KiB at the peak");
    assert!(cost <= MOST_KIB, "{cost} KiB");
    drop((chain, holder));
    await_end_of_hoard(&server);
    let mut observer = server.message();
    eventually("all are gone", || observer.call("stats", json!({}))["sessions"] == 1);
}

#[test]
fn unread_listings_cycles_and_dumps_cost_little() {
    cost_of_unread_answers(5000, 100);
}

#[test]
#[ignore = "takes minutes: make check-deep"]
fn unread_listings_cycles_and_dumps_of_very_many_locks_cost_little() {
    cost_of_unread_answers(60_000, 1000);
}
