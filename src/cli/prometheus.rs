//! The text format of Prometheus, version 0.0.4, with its conventions for names and units. Pure.

use std::fmt::{Display, Write};

use lockd::broker::Histogram;
use lockd::server::{STATISTICS, Statistic, StatisticKind};

/// Metrics in this format, each with its help and its type.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

// Writing to a string cannot fail.
impl Exposition {
    /// The metric that says which version runs.
    pub(super) fn build_info(&mut self, version: &str) {
        let version = version.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        self.begin("lockd_build_info", "gauge", "the server's version; always 1");
        self.value("lockd_build_info", &format!("{{version=\"{version}\"}}"), 1);
    }

    /// Adds every number of the server's statistics for which `value` has one.
    pub(super) fn statistics(&mut self, value: impl Fn(&Statistic) -> Option<u64>) {
        let mut last = "";
        for statistic in &STATISTICS {
            let Some(value) = value(statistic) else { continue };
            let Statistic { metric, mode, help, .. } = *statistic;
            // Both modes are values of one metric, which has one help.
            if metric != last {
                let kind = if statistic.kind == StatisticKind::Counter { "counter" } else { "gauge" };
                self.begin(metric, kind, mode.map_or(help, |(_, both)| both));
            }
            let labels = mode.map_or_else(String::new, |(mode, _)| format!("{{mode=\"{mode}\"}}"));
            self.value(metric, &labels, value);
            last = metric;
        }
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.begin(name, "gauge", help);
        self.value(name, "", value);
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.begin(name, "counter", help);
        self.value(name, "", value);
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, times: &Histogram) {
        self.begin(name, "histogram", help);
        for (end, count) in times.up_to() {
            self.value(name, &format!("_bucket{{le=\"{}\"}}", end.as_secs_f64()), count);
        }
        self.value(name, "_bucket{le=\"+Inf\"}", times.count());
        self.value(name, "_sum", times.sum().as_secs_f64());
        self.value(name, "_count", times.count());
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// Begins a metric. Its help is a phrase, which becomes a sentence here.
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let mut rest = help.chars();
        let first = rest.next().map(|first| first.to_ascii_uppercase());
        let sentence: String = first.into_iter().chain(rest).collect();
        let _ = write!(self.0, "# HELP {name} {sentence}.\n# TYPE {name} {kind}\n");
    }

    fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}
