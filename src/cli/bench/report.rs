//! The figures of all servers side by side, as a table for people or as JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::measurement::RoundFigures;

/// What has been measured.
#[derive(Serialize)]
pub(super) struct BenchReport {
    title: String,
    servers: Vec<Measured>,
}

/// One server's figures.
#[derive(Serialize)]
struct Measured {
    name: String,
    median: RoundFigures,
    rounds: Vec<RoundFigures>,
}

impl BenchReport {
    pub(super) fn new(title: String, servers: impl IntoIterator<Item = (String, Vec<RoundFigures>)>) -> Self {
        let measured = |(name, rounds): (String, Vec<RoundFigures>)| {
            Some(Measured { name, median: RoundFigures::median(&rounds)?, rounds })
        };
        Self { title, servers: servers.into_iter().filter_map(measured).collect() }
    }

    pub(super) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    pub(super) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}\n", self.title)?;
        write!(out, "{:22}", "")?;
        for server in &self.servers {
            write!(out, "{:>12}", server.name)?;
        }
        // The first server's figures are also given as multiples of each other server's.
        for server in self.servers.iter().skip(1) {
            write!(out, "{:>12}", format!("/ {}", server.name))?;
        }
        writeln!(out)?;
        for (label, digits, figure) in ROWS {
            let values: Vec<Option<f64>> = self.servers.iter().map(|server| figure(&server.median)).collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            write!(out, "{label:22}")?;
            for value in &values {
                match value {
                    Some(value) => write!(out, "{value:12.digits$}")?,
                    None => write!(out, "{:>12}", "-")?,
                }
            }
            for other in values.iter().skip(1) {
                match (values[0], other) {
                    (Some(own), Some(other)) => write!(out, "{:12.2}", own / other)?,
                    _ => write!(out, "{:>12}", "-")?,
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

type Row = (&'static str, usize, fn(&RoundFigures) -> Option<f64>);

/// The rows of the table: the label, the number of decimals, and the figure.
const ROWS: [Row; 12] = [
    ("requests/s", 0, |figures| Some(figures.requests_per_second)),
    ("p50 µs", 1, |figures| Some(figures.latency.p50)),
    ("p99 µs", 1, |figures| Some(figures.latency.p99)),
    ("p99.9 µs", 1, |figures| Some(figures.latency.p999)),
    ("hand-overs/s", 0, |figures| figures.hand_over.map(|_| figures.hand_overs_per_second)),
    ("hand-over p50 µs", 1, |figures| Some(figures.hand_over?.p50)),
    ("hand-over p99 µs", 1, |figures| Some(figures.hand_over?.p99)),
    ("hand-over p99.9 µs", 1, |figures| Some(figures.hand_over?.p999)),
    ("refused %", 1, |figures| Some(figures.refused_share * 100.0).filter(|share| *share > 0.0)),
    ("server CPU µs/request", 2, |figures| figures.server_cpu),
    ("load CPU µs/request", 2, |figures| Some(figures.own_cpu)),
    ("server resident MiB", 1, |figures| figures.resident),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::measurement::Measurement;

    #[test]
    fn the_table_shows_the_ratio_of_two_servers() {
        let figures = |requests| {
            let mut measurement = Measurement::new().unwrap();
            measurement.elapsed = std::time::Duration::from_secs(1);
            measurement.requests = requests;
            vec![measurement.figures()]
        };
        let report = BenchReport::new(
            "title".to_owned(),
            [("a".to_owned(), figures(150)), ("b".to_owned(), figures(100))],
        );
        let mut text = Vec::new();
        report.write_text(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("requests/s                     150         100        1.50"), "{text}");
        assert!(!text.contains("hand-over"), "{text}");
        let mut json = Vec::new();
        report.write_json(&mut json).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["servers"][0]["median"]["requestsPerSecond"], 150.0);
    }
}
