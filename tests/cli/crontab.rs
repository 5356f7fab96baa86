//! One crontab on several hosts whose clocks differ: a job that takes 10 ms runs exactly once in
//! each period.
//!
//! No host looks at a clock here: a minder tells each one when its period begins. So the clocks can
//! differ by what the minder likes, for example until the job of another host has ended.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::support::{DEADLINE, eventually};
use crate::tool::Site;

/// How many periods are shown: as many as an hour has of five minutes, for each kind of skew.
const PERIODS: usize = 36;

/// Longer than the hosts' clocks differ here, unless the machine is busy.
const AT_LEAST_MIN: Duration = Duration::from_millis(100);

/// What each host runs in each period.
const JOB: &str = "sleep 0.01; echo >> runs";

/// How often the job has run to its end.
fn runs(site: &Site) -> usize {
    std::fs::read_to_string(site.path("runs")).unwrap_or_default().lines().count()
}

/// The loop of one host: each period begins when the minder says so, with this `--at-least`.
/// Returns the exit statuses.
fn host(site: &Site, periods: &Receiver<Duration>, ended: &Sender<i32>) {
    while let Ok(at_least) = periods.recv() {
        let at_least = at_least.as_secs_f64().to_string();
        let arguments = ["run", "-nq", "--at-least", &at_least, "backup", "--", "sh", "-c", JOB];
        let (code, _, errors) = site.said(&arguments);
        assert!(matches!(code, 0 | 75), "exit status {code}: {errors}");
        assert_eq!(errors, "");
        ended.send(code).unwrap();
    }
}

/// Which host's clock is ahead in this period, and whether the others are behind by more than the
/// job takes.
fn skew(period: usize, hosts: usize) -> (usize, bool) {
    (period / 3 % hosts, !period.is_multiple_of(3))
}

/// Lets `hosts` go through this number of periods.
fn go_through_periods(hosts: usize, periods: usize) {
    let site = Site::start();
    std::thread::scope(|scope| {
        let (ended, results) = channel();
        let clocks: Vec<Sender<Duration>> = (0..hosts)
            .map(|_| {
                let (clock, periods) = channel();
                let (site, ended) = (&site, ended.clone());
                scope.spawn(move || host(site, &periods, &ended));
                clock
            })
            .collect();
        let mut at_least = AT_LEAST_MIN;
        let mut shown = 0;
        while shown < periods {
            let (first, are_behind) = skew(shown, hosts);
            let (start, before) = (Instant::now(), runs(&site));
            clocks[first].send(at_least).unwrap();
            if are_behind {
                eventually("the job has run", || runs(&site) > before);
            }
            for other in (0..hosts).filter(|&host| host != first) {
                clocks[other].send(at_least).unwrap();
            }
            let codes: Vec<i32> = (0..hosts).map(|_| results.recv_timeout(DEADLINE).unwrap()).collect();
            let took = start.elapsed();
            let ran = codes.iter().filter(|&&code| code == 0).count();
            assert_eq!(runs(&site) - before, ran, "{codes:?}");
            // The next period begins after the lock has been freed, so some host always gets it.
            assert!(ran >= 1, "none ran in one period: {codes:?}");
            if ran == 1 {
                shown += 1;
                at_least = AT_LEAST_MIN.max(at_least * 3 / 4);
                continue;
            }
            // A host that is later than `--at-least` runs the job again, which happens if this
            // machine is busy. But the lock of each that ran was kept for that long, so they have
            // taken twice as long together.
            assert!(took >= 2 * at_least, "{ran} ran in one period, {took:?}: {codes:?}");
            at_least *= 2;
            assert!(at_least < DEADLINE, "no period was shown");
        }
    });
}

#[test]
fn of_two_hosts_one_runs_the_job_in_each_period() {
    go_through_periods(2, PERIODS);
}

#[test]
fn of_three_hosts_one_runs_the_job_in_each_period() {
    go_through_periods(3, PERIODS);
}

/// An hour of minutes for each kind of skew; `LOCKD_PERIODS` sets another number of periods.
#[test]
#[ignore = "takes half a minute: make check-deep"]
fn of_four_hosts_one_runs_the_job_in_each_minute_of_three_hours() {
    let periods = std::env::var("LOCKD_PERIODS").map_or(180, |periods| periods.parse().unwrap());
    go_through_periods(4, periods);
}
