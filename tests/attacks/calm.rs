//! Well-behaved clients and their latencies: one acquires and releases a lock of its own, and a
//! pair hands one lock back and forth, so that one of the two is always waiting. Every reply must
//! come within the deadline; how long each took is recorded.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::support::server::Server;
use serde_json::json;

/// The pause between two rounds: calm clients are no load.
const PAUSE: Duration = Duration::from_micros(500);

/// When a request was sent and how long its reply took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    start: Instant,
    pub(crate) took: Duration,
}

/// The latencies so far: for an uncontended lock, and for one with a waiter.
#[derive(Default)]
pub(crate) struct Felt {
    pub(crate) alone: Mutex<Vec<Sample>>,
    pub(crate) in_turns: Mutex<Vec<Sample>>,
    /// For a new connection that asks for the server's statistics.
    pub(crate) anew: Mutex<Vec<Sample>>,
}

/// The requests that were in progress between two moments.
pub(crate) fn between(samples: &Mutex<Vec<Sample>>, from: Instant, to: Instant) -> Vec<Duration> {
    let samples = samples.lock().unwrap();
    let is_in = |sample: &&Sample| sample.start <= to && sample.start + sample.took >= from;
    samples.iter().filter(is_in).map(|sample| sample.took).collect()
}

/// Acquires and releases one uncontended lock until told to stop.
pub(crate) fn work_alone(server: &Server, felt: &Felt, stop: &AtomicBool) {
    let mut client = server.glockd();
    let mut round = |request: &str, reply: &str| {
        let start = Instant::now();
        assert_eq!(client.ask(request), reply);
        felt.alone.lock().unwrap().push(Sample { start, took: start.elapsed() });
    };
    while !stop.load(Relaxed) {
        round("g calm", "1 Lock Get Success: calm\r\n");
        round("r calm", "1 Lock Release Success: calm\r\n");
        std::thread::sleep(PAUSE);
    }
}

/// Connects, asks for the server's statistics and disconnects, repeatedly until told to stop.
pub(crate) fn work_anew(server: &Server, felt: &Felt, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let start = Instant::now();
        assert!(server.message().call("stats", json!({}))["locks"].is_u64());
        felt.anew.lock().unwrap().push(Sample { start, took: start.elapsed() });
        std::thread::sleep(10 * PAUSE);
    }
}

/// Two connections hand one lock back and forth until told to stop. Measures from the release by
/// one to the grant to the other.
pub(crate) fn work_in_turns(server: &Server, felt: &Felt, stop: &AtomicBool) {
    const GRANTED: &str = "1 Lock Get Success: to and fro\r\n";
    let (mut holder, mut waiter) = (server.glockd(), server.glockd());
    assert_eq!(holder.ask("g to and fro"), GRANTED);
    while !stop.load(Relaxed) {
        waiter.send("gw - to and fro\n");
        std::thread::sleep(PAUSE);
        let start = Instant::now();
        assert_eq!(holder.ask("r to and fro"), "1 Lock Release Success: to and fro\r\n");
        assert_eq!(waiter.line(), GRANTED);
        felt.in_turns.lock().unwrap().push(Sample { start, took: start.elapsed() });
        std::mem::swap(&mut holder, &mut waiter);
    }
}
