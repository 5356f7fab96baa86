//! Rounds of `lockd bench`, each server by turns, and what they come to.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::servers::{LOCKD, Server};

/// One server in one protocol, to be measured by turns with others.
pub(crate) struct Subject<'a> {
    pub(crate) name: String,
    pub(crate) address: &'a str,
    pub(crate) pid: u32,
    /// For `lockd bench`, beside what all are given.
    pub(crate) options: Vec<String>,
}

impl<'a> Subject<'a> {
    /// A server by its own name, at its first address.
    pub(crate) fn of(server: &'a Server) -> Self {
        Self::at(&server.address, server, &server.name)
    }

    /// The same at another one of its addresses, or by another name.
    pub(crate) fn at(address: &'a str, server: &Server, name: &str) -> Self {
        Self { name: name.to_owned(), address, pid: server.pid(), options: Vec::new() }
    }

    pub(crate) fn with(self, options: &[&str]) -> Self {
        Self { options: options.iter().map(|&option| option.to_owned()).collect(), ..self }
    }
}

/// What was measured of one subject: a report for each round.
#[derive(Default)]
pub(crate) struct Measured {
    rounds: Vec<Value>,
}

impl Measured {
    /// The median over the rounds of a figure, by its path in the report.
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

/// Measures all subjects by turns, so often. `None` for one that cannot do what is asked.
pub(crate) fn by_turns(subjects: &[Subject<'_>], rounds: usize, options: &[&str]) -> Vec<Option<Measured>> {
    let mut measured: Vec<Option<Measured>> = subjects.iter().map(|_| Some(Measured::default())).collect();
    for round in 0..rounds {
        for turn in 0..subjects.len() {
            // Another one begins each time: nobody always comes behind the same one.
            let at = (round + turn) % subjects.len();
            measured[at] = measured[at].take().and_then(|mut so_far| {
                so_far.rounds.push(one_round(&subjects[at], options)?);
                Some(so_far)
            });
            calm_down(subjects);
        }
    }
    measured
}

/// Waits until no server has anything to do any more: what one has to clean up behind a round must not fall
/// into the next one's.
fn calm_down(subjects: &[Subject<'_>]) {
    const LOOK: Duration = Duration::from_millis(100);
    const LONGEST: u32 = 300;
    let ticks = || -> u64 { subjects.iter().map(|subject| processor_ticks(subject.pid)).sum() };
    let mut before = ticks();
    for _ in 0..LONGEST {
        std::thread::sleep(LOOK);
        let now = ticks();
        // Some have chores that they look after now and then.
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
        let is_ours = ["echo", "glockd", "message"].iter().any(|own| subject.address.starts_with(own));
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

/// A number as people read it: 1,234,567.
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
