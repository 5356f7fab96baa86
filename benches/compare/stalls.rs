//! Whether one client's large request delays other clients: the latencies of a bystander that
//! acquires and releases a lock of its own while a million locks are freed, while they are listed,
//! and while ten thousand connections wait for one name.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::figures::table;
use crate::servers::{LOCKD, Server};

const LOCKS: usize = 1_000_000;
const WAITERS: usize = 10_000;
const REPEATS: usize = 5;
const CALM: Duration = Duration::from_millis(500);

/// A blocking connection that speaks `glockd`.
struct Client {
    reader: BufReader<TcpStream>,
    line: String,
}

impl Client {
    fn connect(server: &Server) -> Self {
        let address = server.address_for("glockd").trim_start_matches("glockd://");
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::with_capacity(1 << 20, stream), line: String::new() }
    }

    fn send(&self, text: &str) {
        self.reader.get_ref().write_all(text.as_bytes()).unwrap();
    }

    fn read_line(&mut self) -> &str {
        self.line.clear();
        assert!(self.reader.read_line(&mut self.line).unwrap() > 0, "the server has closed the connection");
        &self.line
    }

    /// Acquires this number of locks.
    fn hold(&mut self, locks: usize) {
        for first in (0..locks).step_by(1000) {
            self.send(&(first..first + 1000).map(|number| format!("g stall:{number}\n")).collect::<String>());
            for _ in 0..1000 {
                assert!(self.read_line().starts_with('1'));
            }
        }
    }

    /// One of the server's counters.
    fn counter(&mut self, name: &str) -> usize {
        self.send("q\n");
        let mut found = 0;
        // This is the last counter.
        while !self.read_line().starts_with("shared_orphans") {
            if let Some(value) = self.line.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")) {
                found = value.trim().parse().unwrap();
            }
        }
        found
    }
}

/// When a request was made, and how long it took.
type Sample = (Instant, Duration);

/// Makes requests and records how long each takes, until `stop` is set.
fn bystand(server: &Server, samples: &Mutex<Vec<Sample>>, stop: &AtomicBool) {
    let mut client = Client::connect(server);
    let mut batch = Vec::new();
    while !stop.load(Relaxed) {
        for request in ["g bystander\n", "r bystander\n"] {
            let start = Instant::now();
            client.send(request);
            assert!(client.read_line().starts_with('1'));
            batch.push((start, start.elapsed()));
        }
        if batch.len() >= 100 {
            samples.lock().unwrap().append(&mut batch);
        }
    }
    samples.lock().unwrap().append(&mut batch);
}

/// The 99th percentile and the maximum, in microseconds, of the requests that were unanswered at
/// some point in these spans.
fn p99_and_longest(samples: &[Sample], spans: &[(Instant, Instant)]) -> (f64, f64) {
    let is_in =
        |&&(start, took): &&Sample| spans.iter().any(|&(from, to)| start <= to && start + took >= from);
    let mut latencies: Vec<Duration> = samples.iter().filter(is_in).map(|(_, took)| *took).collect();
    latencies.sort_unstable();
    let micros = |latency: Option<&Duration>| latency.map_or(f64::NAN, |it| it.as_secs_f64() * 1e6);
    (micros(latencies.get(latencies.len() * 99 / 100)), micros(latencies.last()))
}

/// Runs `disturb`, which returns when its disturbances began and ended, and compares the
/// bystander's latencies in these spans with those before them.
fn row(what: &str, server: &Server, disturb: impl FnOnce() -> Vec<(Instant, Instant)>) -> Vec<String> {
    let (samples, stop) = (Mutex::default(), AtomicBool::new(false));
    let (calm, disturbed) = std::thread::scope(|scope| {
        let bystander = scope.spawn(|| bystand(server, &samples, &stop));
        let start = Instant::now();
        std::thread::sleep(CALM);
        let calm = [(start, Instant::now())];
        let disturbed = disturb();
        stop.store(true, Relaxed);
        bystander.join().unwrap();
        (calm, disturbed)
    });
    let samples = samples.into_inner().unwrap();
    let took: Duration = disturbed.iter().map(|(from, to)| *to - *from).sum();
    let millis = took.as_secs_f64() * 1e3 / disturbed.len() as f64;
    let (before, longest_before) = p99_and_longest(&samples, &calm);
    let (then, longest) = p99_and_longest(&samples, &disturbed);
    vec![
        what.to_owned(),
        format!("{millis:.0}"),
        format!("{before:.0} · {longest_before:.0}"),
        format!("{then:.0} · {longest:.0}"),
        format!("{:+.2}", (then - before) / 1e3),
    ]
}

pub(crate) fn measure() -> String {
    let server = Server::lockd(&[]);
    let rows = [
        row("a connection ends that held a million locks", &server, || repeat(|| end_of_a_million(&server))),
        row("`d` lists a million locks", &server, || list_a_million(&server)),
        row("10,000 wait for one name and get it one after another", &server, || many_waiters(&server)),
    ];
    let head = [
        "meanwhile",
        "takes, ms",
        "others wait when all is calm (99 % within · longest), µs",
        "others wait then (99 % within · longest), µs",
        "99 % within, more, ms",
    ];
    table(&head.map(str::to_owned), &rows)
}

fn repeat(mut disturb: impl FnMut() -> (Instant, Instant)) -> Vec<(Instant, Instant)> {
    (0..REPEATS).map(|_| disturb()).collect()
}

fn end_of_a_million(server: &Server) -> (Instant, Instant) {
    let (mut holder, mut observer) = (Client::connect(server), Client::connect(server));
    holder.hold(LOCKS);
    let start = Instant::now();
    drop(holder);
    // The bystander may hold one lock.
    while observer.counter("locks") > 1 {
        std::thread::sleep(Duration::from_millis(2));
    }
    (start, Instant::now())
}

fn list_a_million(server: &Server) -> Vec<(Instant, Instant)> {
    let mut holder = Client::connect(server);
    holder.hold(LOCKS);
    repeat(|| {
        let mut reader = Client::connect(server);
        let start = Instant::now();
        reader.send("d\n");
        // The lines are only counted: the server is measured, and not this reader.
        let (mut lines, mut scratch) = (0, vec![0; 1 << 20]);
        while lines < LOCKS {
            let read = reader.reader.get_mut().read(&mut scratch).unwrap();
            assert!(read > 0, "the server has closed the connection");
            lines += memchr::memchr_iter(b'\n', &scratch[..read]).count();
        }
        (start, Instant::now())
    })
}

fn many_waiters(server: &Server) -> Vec<(Instant, Instant)> {
    let mut observer = Client::connect(server);
    let mut load = Command::new(LOCKD)
        .args(["bench", "--contended", "--rounds=1", "--seconds=3", "--json"])
        .args([&format!("--connections={WAITERS}"), "--server", server.address_for("glockd")])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while observer.counter("connections") < WAITERS {
        assert!(load.try_wait().unwrap().is_none(), "the load has ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Until all of them have made their requests.
    std::thread::sleep(CALM);
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    let span = (start, Instant::now());
    assert!(load.wait().unwrap().success());
    vec![span]
}
