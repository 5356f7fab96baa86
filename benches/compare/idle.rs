//! What ten thousand idle connections cost, each of which holds a lock: in memory, and in the speed
//! of busy connections.

use crate::figures::{Subject, by_turns, grouped, table};
use crate::servers::Server;

const IDLE: f64 = 10_000.0;
const ROUNDS: usize = 5;

/// Measures each server twice: one process with idle connections, and one that never has any.
pub(crate) fn measure() -> String {
    let pairs: Vec<[Server; 2]> = [
        Some([Server::echo(), Server::echo()]),
        Some([Server::lockd(&[]), Server::lockd(&[])]),
        Server::redis().zip(Server::redis()).map(Into::into),
        Server::memcached().zip(Server::memcached()).map(Into::into),
    ]
    .into_iter()
    .flatten()
    .collect();
    let subjects: Vec<Subject<'_>> = pairs
        .iter()
        .flat_map(|[crowded, empty]| {
            [Subject::of(crowded).with(&[&format!("--idle={IDLE}")]), Subject::of(empty)]
        })
        .collect();
    let measured = by_turns(&subjects, ROUNDS, &["--seconds=1", "--connections=16"]);
    let rows: Vec<Vec<String>> = subjects
        .chunks(2)
        .zip(measured.chunks(2))
        .filter_map(|(subjects, measured)| {
            let (crowded, empty) = (measured[0].as_ref()?, measured[1].as_ref()?);
            let kib = (crowded.median("/resident") - empty.median("/resident")) * 1024.0 / IDLE;
            let (slower, before) = (crowded.requests_per_second(), empty.requests_per_second());
            Some(vec![
                subjects[0].name.clone(),
                format!("{kib:.1}"),
                grouped(before),
                grouped(slower),
                format!("{:.2}", slower / before),
            ])
        })
        .collect();
    let head = [
        "10,000 idle connections",
        "KiB resident for each",
        "requests a second on 16 others without them",
        "with them",
        "ratio",
    ];
    table(&head.map(str::to_owned), &rows)
}
