//! Locks within one process: the figures of the benchmark `broker`, which is run before this one, as a
//! table.

use std::collections::BTreeMap;
use std::fs;

use crate::document::Document;
use crate::figures::table;
use crate::flock;

/// What `cargo bench --bench broker` has printed: a value for each series, subject and parameter.
pub(crate) struct BrokerFigures(BTreeMap<[String; 3], f64>);

impl BrokerFigures {
    /// Reads the file that the environment names.
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

    /// The value of each parameter of one series and subject.
    pub(crate) fn series(&self, series: &str, subject: &str) -> Vec<(f64, f64)> {
        let of_it = self.0.iter().filter(|([s, of, _], _)| s == series && of == subject);
        let mut values: Vec<(f64, f64)> =
            of_it.filter_map(|([.., parameter], value)| Some((parameter.parse().ok()?, *value))).collect();
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        values
    }
}

pub(crate) fn measure(_: &Document) -> String {
    let Some(figures) = BrokerFigures::read() else {
        return "(`make bench` measures this)".to_owned();
    };
    let rows: Vec<Vec<String>> = figures
        .0
        .iter()
        .filter(|([series, ..], _)| series != "held" && series != "free")
        .map(|([series, subject, parameter], value)| {
            vec![series.clone(), subject.clone(), parameter.clone(), format!("{value:.1}")]
        })
        .chain([vec![
            "one".to_owned(),
            "flock(2)".to_owned(),
            "1".to_owned(),
            format!("{:.0}", flock::uncontended()),
        ]])
        .collect();
    table(&["series", "subject", "parameter", "value"].map(str::to_owned), &rows)
}
