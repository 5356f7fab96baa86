//! Locks within one process: tables of the figures of the benchmark `broker`, which is run before
//! this one.

use std::collections::BTreeMap;
use std::fs;

use crate::document::Document;
use crate::figures::table;
use crate::flock;

/// The output of `cargo bench --bench broker`: a value for each series, subject and parameter.
pub(crate) struct BrokerFigures(BTreeMap<[String; 3], f64>);

impl BrokerFigures {
    /// Reads the file named by the variable `BROKER_FIGURES`.
    pub(crate) fn read() -> Option<Self> {
        let path = std::env::var_os("BROKER_FIGURES")?;
        let text = fs::read_to_string(path).ok()?;
        let figure = |line: &str| {
            let (key, rest) = line.split_once(' ')?;
            let key: Vec<String> = key.splitn(3, '/').map(str::to_owned).collect();
            Some((key.try_into().ok()?, rest.split(' ').next()?.parse().ok()?))
        };
        Some(Self(text.lines().filter_map(figure).collect()))
    }

    /// A value of the series `memory`, in bytes.
    pub(crate) fn memory(&self, subject: &str, parameter: &str) -> f64 {
        let key = ["memory", subject, parameter].map(str::to_owned);
        self.0.get(&key).copied().unwrap_or(f64::NAN)
    }

    /// The value of each parameter of one series and subject.
    pub(crate) fn series(&self, series: &str, subject: &str) -> Vec<(f64, f64)> {
        let of_it = self.0.iter().filter(|([s, of, _], _)| s == series && of == subject);
        let mut values: Vec<(f64, f64)> =
            of_it.filter_map(|([.., parameter], value)| Some((parameter.parse().ok()?, *value))).collect();
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        values
    }
}

/// The rows of the first table: the label and the figure.
const PAIRS: [(&str, [&str; 3]); 5] = [
    ("lockd", ["one", "lockd", "1"]),
    ("`lockmap`, a map of locks that knows no sessions, no queue and no tokens", ["one", "lockmap", "1"]),
    ("a `HashMap` behind one mutex, without anything else", ["one", "mutex-hashmap", "1"]),
    ("lockd, 64 names by turns, called from Rust", ["c", "rust", "1"]),
    ("lockd, 64 names by turns, called from C", ["c", "c", "1"]),
];

/// The parts that every acquire and release need.
const PARTS: [(&str, &str); 3] = [
    ("locking and unlocking a mutex, twice", "locks"),
    ("hashing the name", "hashes"),
    ("the time, to some milliseconds", "clock"),
];

/// What several threads are measured with, for the rows of their table.
const THREADS_SUBJECTS: [(&str, &str); 3] =
    [("lockd", "lockd"), ("`lockmap`", "lockmap"), ("a `HashMap` behind one mutex", "mutex-hashmap")];

/// The names that the threads use, and the series with the ratios and with the rates.
const THREADS_SERIES: [(&str, [&str; 2]); 3] = [
    ("a name each", ["threads-one-name", "threads-one-name-rate"]),
    ("64 names each, by turns", ["threads", "threads-rate"]),
    ("the same 64 names, each one if it is free", ["threads-shared", "threads-shared-rate"]),
];

pub(crate) fn measure(_: &Document) -> String {
    let Some(figures) = BrokerFigures::read() else {
        return "(`make bench` measures this)".to_owned();
    };
    let figure = |key: [&str; 3]| figures.0.get(&key.map(str::to_owned)).copied().unwrap_or(f64::NAN);
    let mut pairs: Vec<Vec<String>> =
        PAIRS.iter().map(|(name, key)| vec![(*name).to_owned(), format!("{:.0}", figure(*key))]).collect();
    pairs.push(vec!["flock(2) on an open file".to_owned(), format!("{:.0}", flock::uncontended())]);
    let parts: Vec<Vec<String>> = PARTS
        .iter()
        .map(|(name, part)| vec![(*name).to_owned(), format!("{:.0}", figure(["parts", part, "1"]))])
        .collect();
    let end = ["whole", "while-ending", "alone"]
        .map(|what| format!("{:.2}", figure(["end", what, "1000000"]) / 1000.0));
    let head = |head: &[&str]| head.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
    [
        table(&head(&["one thread, a name that nobody else has", "acquire + release, ns"]), &pairs),
        table(&head(&["of which cannot be done without", "ns"]), &parts),
        threads(&figures),
        table(
            &head(&[
                "a session ends that holds a million locks: takes, ms",
                "longest that another one waits meanwhile, ms",
                "and when nothing goes on, ms",
            ]),
            &[end.to_vec()],
        ),
    ]
    .join("\n")
}

/// Pairs per second of several threads, and in comparison with one.
fn threads(figures: &BrokerFigures) -> String {
    let mut head = vec!["million pairs a second of all threads (of one thread's)".to_owned()];
    let mut rows = Vec::new();
    for (names, [ratios, rates]) in THREADS_SERIES {
        for (name, subject) in THREADS_SUBJECTS {
            let mut row = vec![format!("{names}: {name}")];
            let both = figures.series(rates, subject).into_iter().zip(figures.series(ratios, subject));
            row.extend(both.map(|((_, rate), (_, ratio))| format!("{rate:.2} ({ratio:.2})")));
            rows.push(row);
        }
    }
    for (threads, _) in figures.series("threads", "lockd") {
        head.push(if threads == 1.0 { "1 thread".to_owned() } else { format!("{threads} threads") });
    }
    table(&head, &rows)
}
