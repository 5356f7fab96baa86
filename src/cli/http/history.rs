//! Samples of the last minutes, one a second, so that the page shows the past as soon as it is
//! opened.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use lockd::server::{ServerStats, StatsReader};
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

/// How many samples are kept: those of five minutes.
const SAMPLES: usize = 300;
const INTERVAL: Duration = Duration::from_secs(1);

/// One second.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sample {
    /// One more than that of the second before. Numbers begin with the time in seconds since 1970,
    /// so that they also rise from one run of the server to the next.
    number: u64,
    connections: usize,
    locks: usize,
    waiting: usize,
    grants_per_second: f64,
    waits_per_second: f64,
    orphans_per_second: f64,
}

impl Sample {
    /// The state `now`, and what has been done in the `span` since `before`.
    fn new(number: u64, before: &ServerStats, now: &ServerStats, span: Duration) -> Self {
        let (before, connections, now) = (&before.broker, now.connections, &now.broker);
        Self {
            number,
            connections,
            locks: now.locks + now.shared_locks,
            waiting: now.waiting,
            grants_per_second: rate(before.grants, now.grants, span),
            waits_per_second: rate(before.waits, now.waits, span),
            orphans_per_second: rate(
                before.orphans + before.shared_orphans,
                now.orphans + now.shared_orphans,
                span,
            ),
        }
    }
}

/// By how much a counter has risen in a second, to a tenth.
#[expect(clippy::cast_precision_loss, reason = "a rate is shown with one decimal")]
fn rate(before: u64, now: u64, span: Duration) -> f64 {
    let more = now.saturating_sub(before) as f64;
    (more / span.as_secs_f64().max(f64::EPSILON) * 10.0).round() / 10.0
}

/// The samples of the last minutes, the newest last.
#[derive(Default)]
pub(super) struct History {
    samples: Mutex<VecDeque<Sample>>,
}

impl History {
    /// Takes samples for ever.
    pub(super) fn keep(&self, stats: &StatsReader) {
        let (mut before, mut at) = (stats.read(), Instant::now());
        let first = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        for number in first.. {
            std::thread::sleep((at + INTERVAL).saturating_duration_since(Instant::now()));
            let (now, is_at) = (stats.read(), Instant::now());
            self.add(Sample::new(number, &before, &now, is_at - at));
            (before, at) = (now, is_at);
        }
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.samples();
        if samples.len() >= SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The samples with higher numbers than `after`, or all.
    pub(super) fn to_json(&self, after: Option<u64>) -> String {
        let is_asked_for = |sample: &&Sample| after.is_none_or(|after| sample.number > after);
        let samples: Vec<Sample> = self.samples().iter().filter(is_asked_for).cloned().collect();
        // It cannot fail: numbers under keys that are strings.
        let samples = serde_json::to_string(&samples).unwrap_or_default();
        format!("{{\"samples\":{samples}}}")
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.samples.lock()
    }
}

#[cfg(test)]
mod tests {
    use lockd::broker::Stats;

    use super::*;

    fn sample(number: u64) -> Sample {
        let before = Stats { grants: 10, waits: 3, orphans: 1, ..Stats::default() };
        let now =
            Stats { grants: 25, waits: 4, orphans: 2, shared_orphans: 1, locks: 2, waiting: 1, ..before };
        let [before, now] =
            [before, now].map(|broker| ServerStats { connections: 7, broker, ..ServerStats::default() });
        Sample::new(number, &before, &now, Duration::from_millis(1500))
    }

    #[test]
    fn rates_are_per_second_whatever_time_a_sample_took() {
        let history = History::default();
        history.add(sample(1));
        let expected = concat!(
            r#"{"samples":[{"number":1,"connections":7,"locks":2,"waiting":1,"#,
            r#""grantsPerSecond":10.0,"waitsPerSecond":0.7,"orphansPerSecond":1.3}]}"#,
        );
        assert_eq!(history.to_json(None), expected);
    }

    #[test]
    fn the_newest_samples_are_kept_and_can_be_asked_for_alone() {
        let history = History::default();
        (1..=500).for_each(|number| history.add(sample(number)));
        let numbers = |after| {
            let json: serde_json::Value = serde_json::from_str(&history.to_json(after)).unwrap();
            let samples = json["samples"].as_array().unwrap().iter();
            samples.map(|sample| sample["number"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(None), (201..=500).collect::<Vec<_>>());
        assert_eq!(numbers(Some(498)), [499, 500]);
        assert_eq!(numbers(Some(500)), Vec::<u64>::new());
        assert_eq!(numbers(Some(9)).len(), 300);
    }
}
