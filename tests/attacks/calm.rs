//! Clients that do nothing wrong, and what they feel: one that acquires and releases a lock of its own, and
//! a pair that hands one lock to and fro, so that one of the two is always waiting. Every reply is due within
//! the deadline; how long each took is kept for those who want to know.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::support::server::Server;
use serde_json::json;

/// Between two rounds: calm clients are no load.
const PAUSE: Duration = Duration::from_micros(500);

/// When a request was made and how long it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    start: Instant,
    pub(crate) took: Duration,
}

/// What calm clients felt so far: with a lock of their own, and with one that is waited for.
#[derive(Default)]
pub(crate) struct Felt {
    pub(crate) alone: Mutex<Vec<Sample>>,
    pub(crate) in_turns: Mutex<Vec<Sample>>,
    /// As a newcomer who has the server's figures shown.
    pub(crate) anew: Mutex<Vec<Sample>>,
}

/// Those under way between two moments.
pub(crate) fn between(samples: &Mutex<Vec<Sample>>, from: Instant, to: Instant) -> Vec<Duration> {
    let samples = samples.lock().unwrap();
    let is_in = |sample: &&Sample| sample.start <= to && sample.start + sample.took >= from;
    samples.iter().filter(is_in).map(|sample| sample.took).collect()
}

/// Acquires and releases one lock that nobody else wants, until told to stop.
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

/// Connects, asks for the server's figures and goes, again and again until told to stop.
pub(crate) fn work_anew(server: &Server, felt: &Felt, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let start = Instant::now();
        assert!(server.message().call("stats", json!({}))["locks"].is_u64());
        felt.anew.lock().unwrap().push(Sample { start, took: start.elapsed() });
        std::thread::sleep(10 * PAUSE);
    }
}

/// Two connections hand one lock to and fro, until told to stop: from the release by the one to the grant
/// to the other.
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
