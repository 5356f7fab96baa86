//! The same clients as threads of this process, with sessions of a broker in it: many calls in a
//! short time, with only the broker's own locks between them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lockd::broker::Broker;

use super::child::{ClientOrders, DRAIN};
use super::client;
use super::gather::{Gathered, Life};
use super::log::now;
use super::wire::{Client, Protocol};
use crate::history::SECOND;
use crate::plan::Mix;

/// Runs threads against a broker until they have logged `bytes` bytes or `length` has passed.
pub(crate) fn run(
    seed: u64,
    mix: Mix,
    threads: u64,
    bytes: u64,
    length: Duration,
    directory: &Path,
) -> Gathered {
    let orders = ClientOrders {
        seed,
        process: 0,
        threads,
        directory: directory.to_owned(),
        endpoints: Vec::new(),
        mix,
        text_can_share: true,
        misbehaves: 500,
        stays: 0,
        has_standbys: false,
    };
    let broker = Broker::default();
    let connect = |_: &mut _| {
        let session = lockd::Session::open(&broker, None);
        Some((Protocol::Library, "in this process".to_owned(), Client::Library(session)))
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..threads)
            .map(|thread| {
                let (orders, connect, stop) = (&orders, &connect, &stop);
                scope.spawn(move || client::run(orders, thread, connect, stop))
            })
            .collect();
        let end = Instant::now() + length;
        let noted = || {
            let logs = std::fs::read_dir(directory).unwrap().flatten();
            logs.filter_map(|entry| entry.metadata().ok()).map(|about| about.len()).sum::<u64>()
        };
        while Instant::now() < end && noted() < bytes {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        let end = Instant::now() + DRAIN;
        while !clients.iter().all(|client| client.is_finished()) {
            assert!(
                Instant::now() < end,
                "a thread waits for a lock that no session holds, LOCKD_SEED={seed}"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let life = Life { process: 0, killed: None, gone: now(), pauses: Vec::new() };
    Gathered::of(&[life], directory, threads, now() + SECOND)
}
