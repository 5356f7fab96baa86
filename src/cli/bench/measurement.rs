//! What a load has measured, and the figures that are derived from it.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies up to a minute, in nanoseconds, to three digits.
const LATENCY_MAX: u64 = 60_000_000_000;

/// The raw results of one round.
pub(super) struct Measurement {
    pub(super) elapsed: Duration,
    pub(super) requests: u64,
    /// How many of these were refused.
    pub(super) refused: u64,
    /// From a request to its reply.
    pub(super) latency: Histogram<u64>,
    /// From sending a holder's release to reading the next holder's grant, where all wait for one
    /// name.
    pub(super) hand_over: Histogram<u64>,
    /// The CPU time that the server used in the round, and its resident memory in bytes at the end.
    pub(super) server: Option<(Duration, u64)>,
    pub(super) own_cpu: Duration,
}

impl Measurement {
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

    pub(super) fn figures(&self) -> RoundFigures {
        let seconds = self.elapsed.as_secs_f64();
        let requests = self.requests as f64;
        let percentiles = |histogram: &Histogram<u64>| Percentiles {
            p50: micros(histogram, 0.5),
            p99: micros(histogram, 0.99),
            p999: micros(histogram, 0.999),
        };
        RoundFigures {
            requests_per_second: requests / seconds,
            refused_share: self.refused as f64 / requests,
            latency: percentiles(&self.latency),
            hand_overs_per_second: self.hand_over.len() as f64 / seconds,
            hand_over: (!self.hand_over.is_empty()).then(|| percentiles(&self.hand_over)),
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
pub(super) struct RoundFigures {
    pub(super) requests_per_second: f64,
    /// The share of requests that were refused because another connection held the lock, from 0 to
    /// 1.
    pub(super) refused_share: f64,
    /// From a request to its reply, in microseconds.
    pub(super) latency: Percentiles,
    pub(super) hand_overs_per_second: f64,
    /// From the release by one holder to the grant to the next, in microseconds.
    pub(super) hand_over: Option<Percentiles>,
    /// CPU time of the server for each request, in microseconds.
    pub(super) server_cpu: Option<f64>,
    /// Resident memory of the server at the end, in MiB.
    pub(super) resident: Option<f64>,
    /// CPU time of the load itself for each request, in microseconds. If it is close to the time
    /// between two requests, the load is the bottleneck, and not the server.
    pub(super) own_cpu: f64,
}

/// The median, the 99th and the 99.9th percentile, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
}

impl RoundFigures {
    /// The median of each figure, taken separately; `None` without any rounds.
    pub(super) fn median(rounds: &[Self]) -> Option<Self> {
        let median_of = |figure: &dyn Fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        let median_of_some =
            |figure: &dyn Fn(&Self) -> Option<f64>| median(rounds.iter().filter_map(figure).collect());
        let percentiles = |of: &dyn Fn(&Self) -> Option<Percentiles>| {
            Some(Percentiles {
                p50: median_of_some(&|figures| Some(of(figures)?.p50))?,
                p99: median_of_some(&|figures| Some(of(figures)?.p99))?,
                p999: median_of_some(&|figures| Some(of(figures)?.p999))?,
            })
        };
        Some(Self {
            requests_per_second: median_of(&|figures| figures.requests_per_second)?,
            refused_share: median_of(&|figures| figures.refused_share)?,
            latency: percentiles(&|figures| Some(figures.latency))?,
            hand_overs_per_second: median_of(&|figures| figures.hand_overs_per_second)?,
            hand_over: percentiles(&|figures| figures.hand_over),
            server_cpu: median_of_some(&|figures| figures.server_cpu),
            resident: median_of_some(&|figures| figures.resident),
            own_cpu: median_of(&|figures| figures.own_cpu)?,
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
    fn the_median_is_the_middle_value() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn figures_are_derived_from_the_measurement() {
        let mut measurement = Measurement::new().unwrap();
        measurement.elapsed = Duration::from_secs(2);
        measurement.requests = 1000;
        measurement.refused = 10;
        measurement.latency.record_n(50_000, 990).unwrap();
        measurement.latency.record_n(900_000, 10).unwrap();
        measurement.server = Some((Duration::from_millis(20), 3 << 20));
        let figures = measurement.figures();
        assert_eq!((figures.requests_per_second, figures.refused_share), (500.0, 0.01));
        assert_eq!((figures.server_cpu, figures.resident), (Some(20.0), Some(3.0)));
        assert!((figures.latency.p50 - 50.0).abs() < 0.1 && (figures.latency.p999 - 900.0).abs() < 1.0);
        assert!(figures.hand_over.is_none());
        let median = RoundFigures::median(&[figures.clone(), figures]).unwrap();
        assert_eq!((median.requests_per_second, median.server_cpu), (500.0, Some(20.0)));
    }
}
