//! What a load has measured, and the figures it amounts to.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies up to a minute, in nanoseconds, to three digits.
const LATENCY_MAX: u64 = 60_000_000_000;

/// What came of it.
pub(super) struct Tally {
    pub(super) elapsed: Duration,
    /// Requests answered, and among these refused.
    pub(super) requests: u64,
    pub(super) refused: u64,
    /// From a request to its reply.
    pub(super) latency: Histogram<u64>,
    /// From the release sent by a holder to the grant read by the next one: where all wait for one name.
    pub(super) hand_over: Histogram<u64>,
    /// The CPU time that the server has used meanwhile, and its memory in bytes at the end.
    pub(super) server: Option<(Duration, u64)>,
    /// CPU time of the load itself.
    pub(super) own_cpu: Duration,
}

impl Tally {
    pub(super) fn new() -> io::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX, 3).map_err(io::Error::other);
        Ok(Self {
            elapsed: Duration::ZERO,
            requests: 0,
            refused: 0,
            latency: histogram()?,
            hand_over: histogram()?,
            server: None,
            own_cpu: Duration::ZERO,
        })
    }

    pub(super) fn figures(&self) -> Figures {
        let seconds = self.elapsed.as_secs_f64();
        let requests = self.requests as f64;
        let spread = |histogram: &Histogram<u64>| Spread {
            p50: micros(histogram, 0.5),
            p99: micros(histogram, 0.99),
            p999: micros(histogram, 0.999),
        };
        Figures {
            requests_per_second: requests / seconds,
            refused_share: self.refused as f64 / requests,
            latency: spread(&self.latency),
            hand_overs_per_second: self.hand_over.len() as f64 / seconds,
            hand_over: (!self.hand_over.is_empty()).then(|| spread(&self.hand_over)),
            server_cpu: self.server.map(|(cpu, _)| cpu.as_secs_f64() * 1e6 / requests),
            resident: self.server.map(|(_, resident)| resident as f64 / f64::from(1 << 20)),
            own_cpu: self.own_cpu.as_secs_f64() * 1e6 / requests,
        }
    }
}

fn micros(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

/// The figures of one round, or the medians of several.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    pub(super) requests_per_second: f64,
    /// Which part of the requests was refused, because somebody else held the lock.
    pub(super) refused_share: f64,
    /// From a request to its reply, in microseconds.
    pub(super) latency: Spread,
    pub(super) hand_overs_per_second: f64,
    /// From the release by one holder to the grant to the next, in microseconds.
    pub(super) hand_over: Option<Spread>,
    /// CPU time of the server for each request, in microseconds.
    pub(super) server_cpu: Option<f64>,
    /// Resident memory of the server at the end, in MiB.
    pub(super) resident: Option<f64>,
    /// CPU time of the load itself for each request, in microseconds: where it comes near the time between
    /// two requests, it is the load that is measured.
    pub(super) own_cpu: f64,
}

/// How long it took half of all, 99 of a hundred, and 999 of a thousand.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
}

impl Figures {
    /// The median of each figure by itself.
    pub(super) fn median(rounds: &[Self]) -> Option<Self> {
        let of = |figure: &dyn Fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        let of_some =
            |figure: &dyn Fn(&Self) -> Option<f64>| median(rounds.iter().filter_map(figure).collect());
        let spread = |spread: &dyn Fn(&Self) -> Option<Spread>| {
            Some(Spread {
                p50: of_some(&|figures| Some(spread(figures)?.p50))?,
                p99: of_some(&|figures| Some(spread(figures)?.p99))?,
                p999: of_some(&|figures| Some(spread(figures)?.p999))?,
            })
        };
        Some(Self {
            requests_per_second: of(&|figures| figures.requests_per_second)?,
            refused_share: of(&|figures| figures.refused_share)?,
            latency: spread(&|figures| Some(figures.latency))?,
            hand_overs_per_second: of(&|figures| figures.hand_overs_per_second)?,
            hand_over: spread(&|figures| figures.hand_over),
            server_cpu: of_some(&|figures| figures.server_cpu),
            resident: of_some(&|figures| figures.resident),
            own_cpu: of(&|figures| figures.own_cpu)?,
        })
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn figures_are_by_the_request() {
        let mut tally = Tally::new().unwrap();
        tally.elapsed = Duration::from_secs(2);
        tally.requests = 1000;
        tally.refused = 10;
        tally.latency.record_n(50_000, 990).unwrap();
        tally.latency.record_n(900_000, 10).unwrap();
        tally.server = Some((Duration::from_millis(20), 3 << 20));
        let figures = tally.figures();
        assert_eq!((figures.requests_per_second, figures.refused_share), (500.0, 0.01));
        assert_eq!((figures.server_cpu, figures.resident), (Some(20.0), Some(3.0)));
        assert!((figures.latency.p50 - 50.0).abs() < 0.1 && (figures.latency.p999 - 900.0).abs() < 1.0);
        assert!(figures.hand_over.is_none());
        let median = Figures::median(&[figures.clone(), figures]).unwrap();
        assert_eq!((median.requests_per_second, median.server_cpu), (500.0, Some(20.0)));
    }
}
