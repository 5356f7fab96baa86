//! Runs `lockd bench` in rounds, for each server in turn, and computes the medians.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::servers::{LOCKD, Server};

/// One server with one protocol, to be measured in turn with others.
pub(crate) struct Subject<'a> {
    pub(crate) name: String,
    pub(crate) address: &'a str,
    pub(crate) pid: u32,
    /// Options for `lockd bench`, in addition to those for all subjects.
    pub(crate) options: Vec<String>,
}

impl<'a> Subject<'a> {
    /// A server with its own name, at its first address.
    pub(crate) fn of(server: &'a Server) -> Self {
        Self::at(&server.address, server, &server.name)
    }

    /// A server with this name, at this one of its addresses.
    pub(crate) fn at(address: &'a str, server: &Server, name: &str) -> Self {
        Self { name: name.to_owned(), address, pid: server.pid(), options: Vec::new() }
    }

    pub(crate) fn with(self, options: &[&str]) -> Self {
        Self { options: options.iter().map(|&option| option.to_owned()).collect(), ..self }
    }
}

/// The measurements of one subject: a report for each round.
#[derive(Default)]
pub(crate) struct Measured {
    rounds: Vec<Value>,
}

impl Measured {
    /// The median of a figure over all rounds. `path` is its place in the report.
    pub(crate) fn median(&self, path: &str) -> f64 {
        let mut values: Vec<f64> =
            self.rounds.iter().filter_map(|round| round.pointer(path)?.as_f64()).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn requests_per_second(&self) -> f64 {
        self.median("/requestsPerSecond")
    }

    pub(crate) fn server_cpu(&self) -> f64 {
        self.median("/serverCpu")
    }

    pub(crate) fn p99(&self) -> f64 {
        self.median("/latency/p99")
    }
}

/// Measures all subjects in turn, for this number of rounds. `None` for a subject that cannot do
/// what the options ask.
pub(crate) fn by_turns(subjects: &[Subject<'_>], rounds: usize, options: &[&str]) -> Vec<Option<Measured>> {
    let mut measured: Vec<Option<Measured>> = subjects.iter().map(|_| Some(Measured::default())).collect();
    for round in 0..rounds {
        for turn in 0..subjects.len() {
            // Each round begins with another subject, so that none always follows the same other
            // one.
            let at = (round + turn) % subjects.len();
            measured[at] = measured[at].take().and_then(|mut sum| {
                sum.rounds.push(one_round(&subjects[at], options)?);
                Some(sum)
            });
            wait_until_idle(subjects);
        }
    }
    measured
}

/// Waits until all servers are idle: cleaning up after a round must not slow the next round of
/// another server.
fn wait_until_idle(subjects: &[Subject<'_>]) {
    const INTERVAL: Duration = Duration::from_millis(100);
    const INTERVALS_MAX: u32 = 300;
    let ticks = || -> u64 { subjects.iter().map(|subject| processor_ticks(subject.pid)).sum() };
    let mut before = ticks();
    for _ in 0..INTERVALS_MAX {
        std::thread::sleep(INTERVAL);
        let now = ticks();
        // Some servers do periodic work even when they are idle.
        if now <= before + 1 {
            return;
        }
        before = now;
    }
}

/// The CPU time of a process so far, in hundredths of a second.
fn processor_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn one_round(subject: &Subject<'_>, options: &[&str]) -> Option<Value> {
    let output = Command::new(LOCKD)
        .args(["bench", "--json", "--rounds=1", "--server", subject.address])
        .args(["--pid", &subject.pid.to_string()])
        .args(&subject.options)
        .args(options)
        .output()
        .unwrap();
    if !output.status.success() {
        let is_ours =
            ["echo", "baton", "glockd", "message"].iter().any(|own| subject.address.starts_with(own));
        assert!(!is_ours, "{}: {}", subject.name, String::from_utf8_lossy(&output.stderr));
        eprintln!("{} cannot: {}", subject.name, String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    Some(report["servers"][0]["median"].clone())
}

/// A table of Markdown.
pub(crate) fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<String> =
        head.iter().enumerate().map(|(at, _)| if at == 0 { "---" } else { "--:" }.to_owned()).collect();
    line(head) + &line(&rule) + &rows.iter().map(|row| line(row)).collect::<String>()
}

/// A number with its digits grouped: 1,234,567.
pub(crate) fn grouped(number: f64) -> String {
    if !number.is_finite() {
        return "–".to_owned();
    }
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
