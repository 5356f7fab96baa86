//! `threads`: how many pairs of acquire and release several threads do, each with a session of its
//! own, in comparison with one thread.
//!
//! Threads that share names never wait for one: a thread that finds a name held takes its next one,
//! and only pairs that were done count. That is fair to all subjects, since one of them cannot wait
//! for a name. And the time that a thread waits until it is woken would be the kernel's.

use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::FREE;
use super::names::{self, Name, Random};
use super::report::Rounds;
use super::subjects::{self, Subject};

const THREADS: [usize; 5] = [1, 2, 4, 8, 16];

const ROUNDS: usize = 11;

/// How long a number of threads is measured: many time slices for each of them.
const SPAN: Duration = Duration::from_millis(80);

/// For each series, the names that the thread with this number uses in turn.
const SERIES: [(&str, &str, NamesOf); 3] = [
    ("threads-one-name", "threads-one-name-rate", |thread| own(thread, 1)),
    ("threads", "threads-rate", |thread| own(thread, FREE)),
    ("threads-shared", "threads-shared-rate", shared),
];

type NamesOf = fn(usize) -> Vec<Name>;

/// Names that no other thread uses, equally long for every thread.
fn own(thread: usize, count: usize) -> Vec<Name> {
    let first = thread * FREE.next_multiple_of(names::LENGTHS);
    names::free(first..first + count)
}

/// The same names for every thread, but for each in an order of its own, so that they do not follow
/// each other from name to name.
fn shared(thread: usize) -> Vec<Name> {
    let mut random = Random::default();
    let mut names = names::free(0..FREE);
    for _ in 0..=thread {
        (1..FREE).for_each(|last| names.swap(last, random.below(last + 1)));
    }
    names
}

pub(crate) fn threads() {
    for (series, series_rate, names_of) in SERIES {
        let mut rounds = THREADS.map(|threads| (threads, Rounds::default(), Rounds::default()));
        for _ in 0..ROUNDS {
            // New ones, with new keys for their hashes: which names meet in a part of a table is
            // chance, and must not be the same in all rounds.
            for subject in subjects::all() {
                let mut one = None;
                for (threads, ratios, rates) in &mut rounds {
                    let rate = pairs_per_second(&*subject, names_of, *threads);
                    rates.add(subject.label(), rate / 1e6);
                    ratios.add(subject.label(), rate / *one.get_or_insert(rate));
                }
            }
        }
        for (threads, ratios, rates) in rounds {
            ratios.report(series, &threads.to_string(), "x");
            rates.report(series_rate, &threads.to_string(), "M/s");
        }
    }
}

/// Pairs per second of all threads, from when the first one starts until the last one has finished.
/// If the time of each thread were taken separately, a thread that runs alone would count as if it
/// had run with the others.
fn pairs_per_second(subject: &dyn Subject, names_of: NamesOf, threads: usize) -> f64 {
    let (start, stop) = (Barrier::new(threads + 1), AtomicBool::new(false));
    let work = |thread: usize| {
        let other = subject.for_thread();
        let subject = other.as_deref().unwrap_or(subject);
        // Always as many, so that the look at `stop` costs the same share.
        let names: Vec<Name> = names_of(thread).into_iter().cycle().take(FREE).collect();
        start.wait();
        let (began, mut pairs) = (Instant::now(), 0);
        while !stop.load(Relaxed) {
            pairs += subject.pairs_of_free(&names);
        }
        (began, Instant::now(), pairs)
    };
    let work = &work;
    let done: Vec<(Instant, Instant, usize)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        start.wait();
        std::thread::sleep(SPAN);
        stop.store(true, Relaxed);
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let first = done.iter().map(|thread| thread.0).min().unwrap();
    let last = done.iter().map(|thread| thread.1).max().unwrap();
    done.iter().map(|thread| thread.2).sum::<usize>() as f64 / (last - first).as_secs_f64()
}
