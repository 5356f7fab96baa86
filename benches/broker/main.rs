//! How fast locks within one process are, compared with what a program might use instead. Run with
//! `cargo bench --bench broker`; `-- SERIES…` runs only these series.
//!
//! Prints `SERIES/SUBJECT/PARAMETER VALUE UNIT` lines, and nothing else on standard output. Values
//! are medians over rounds, and in each round every subject is measured: on a machine with other
//! work, only values of the same minute can be compared. Benchmark frameworks measure one subject
//! after the other, and would fill a table of ten million names for each of them; hence this loop.

#![expect(clippy::unwrap_used, reason = "a panic is how a benchmark fails")]

mod from_c;
mod memory;
mod names;
mod parts;
mod report;
mod subjects;
mod threads;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::{Broker, Mode};

use names::{Name, Random};
use report::Rounds;
use subjects::{LookUp, Subject as _};

const HELD: [usize; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// How many free names are used in turn.
const FREE: usize = 64;

/// How many pairs of acquire and release are timed together: few enough to fit between two time
/// slices of other programs.
const PAIRS: usize = 1_024;

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let series: [(&str, fn()); 7] = [
        ("one", one_name),
        ("parts", parts::parts),
        ("threads", threads::threads),
        ("c", from_c),
        ("end", end_of_a_session),
        ("held", names_held),
        ("memory", memory::memory),
    ];
    for (name, run) in series {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            run();
        }
    }
}

/// `one`: the same name over and over, with no other name held.
fn one_name() {
    let subjects = subjects::all();
    let name = names::free(0..1).repeat(PAIRS);
    let mut rounds = Rounds::default();
    for _ in 0..201 {
        for subject in &subjects {
            rounds.add(subject.label(), subject.pairs(&name));
        }
    }
    rounds.report("one", "1", "ns");
}

/// `free`: acquires and releases free names while many others are held. `held`: releases and
/// acquires held names at random. Both also measure what it costs merely to find a name in a table
/// of that size.
fn names_held() {
    let subjects = subjects::all();
    let mut look_up = LookUp::default();
    let mut random = Random::default();
    let free = names::free(0..FREE).repeat(PAIRS / FREE);
    let mut before = 0;
    for held in HELD {
        subjects.iter().for_each(|subject| subject.hold(before..held));
        look_up.hold(before..held);
        before = held;
        let (mut on_free, mut on_held) = (Rounds::default(), Rounds::default());
        for _ in 0..15 {
            let sample: Vec<Name> = (0..PAIRS).map(|_| names::held(random.below(held))).collect();
            on_free.add("look-up", look_up.find(&free));
            on_held.add("look-up", look_up.find(&sample));
            for subject in &subjects {
                on_free.add(subject.label(), subject.pairs(&free));
                on_held.add(subject.label(), subject.pairs_of_held(&sample));
            }
        }
        on_free.report("free", &held.to_string(), "ns");
        on_held.report("held", &held.to_string(), "ns");
    }
}

/// `c`: the same pairs, called by a program in C and by one in Rust.
fn from_c() {
    let program = from_c::PairsProgram::compile();
    let broker = Broker::default();
    let rust = subjects::Lockd::new(&broker);
    let names = names::free(0..FREE).repeat(PAIRS / FREE);
    let mut rounds = Rounds::default();
    for _ in 0..15 {
        rounds.add("rust", (0..20).map(|_| rust.pairs(&names)).fold(f64::MAX, f64::min));
        rounds.add("c", program.pairs());
    }
    rounds.report("c", "1", "ns");
}

/// `end`: the longest pair of another session while a session with a million locks ends, and for
/// comparison after that.
fn end_of_a_session() {
    let mut rounds = Rounds::default();
    for _ in 0..5 {
        let broker = Broker::default();
        let session = Session::open(&broker, None);
        for number in 0..1_000_000 {
            session.acquire(&names::held(number), Mode::Exclusive, None).unwrap();
        }
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| longest(&broker, &ended));
            let start = Instant::now();
            session.close();
            rounds.add("whole", start.elapsed().as_secs_f64() * 1e6);
            ended.store(true, Relaxed);
            rounds.add("while-ending", other.join().unwrap().as_secs_f64() * 1e6);
            ended.store(false, Relaxed);
            let alone = scope.spawn(|| longest(&broker, &ended));
            std::thread::sleep(Duration::from_millis(150));
            ended.store(true, Relaxed);
            rounds.add("alone", alone.join().unwrap().as_secs_f64() * 1e6);
        });
    }
    rounds.report("end", "1000000", "us");
}

fn longest(broker: &Broker, ended: &AtomicBool) -> Duration {
    let session = Session::open(broker, None);
    let names = names::free(0..1_000);
    let mut longest = Duration::ZERO;
    for name in names.iter().cycle() {
        let start = Instant::now();
        session.acquire(name, Mode::Exclusive, None).unwrap();
        session.release(name).unwrap();
        longest = longest.max(start.elapsed());
        if ended.load(Relaxed) {
            break;
        }
    }
    longest
}
