//! Random runs of several clusters side by side on one etcd, whose leader is stopped now and then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::run::say;
use super::clocks::Built;
use super::course::{ClusterInRun, Course, Event, Progress};
use crate::checker::{Model, Verdict};
use crate::etcd::EtcdCluster;
use crate::history::History;
use crate::plan::Mix;
use crate::random::{Random, fresh_seed};

/// For how long the leader of etcd is stopped, in milliseconds.
const ETCD_STOPS: (u64, u64) = (200, 3000);

/// Carries a run out. What each cluster has come to, judged.
fn run(course: Course) -> Vec<(History, Verdict)> {
    let seed = fresh_seed();
    let began = Instant::now();
    let mut etcd = EtcdCluster::start(course.etcd_members);
    let places: Vec<String> = (0..course.etcd_members).map(|index| etcd.place(index)).collect();
    let progress: Vec<Progress> = (0..course.clusters).map(|_| Progress::default()).collect();
    let is_over = AtomicBool::new(false);
    let built = (!course.clock_rates.is_empty()).then(Built::new);
    let results: Vec<(History, Verdict)> = std::thread::scope(|scope| {
        let clusters: Vec<_> = (0..course.clusters)
            .map(|number| {
                let (places, progress) = (&places, &progress);
                let clocks = built
                    .as_ref()
                    .map(|built| built.clocks(course.clock_rates[number % course.clock_rates.len()]));
                scope.spawn(move || {
                    let mut cluster = ClusterInRun::begin(course, number, seed, places, clocks, progress);
                    cluster.go();
                    cluster.finish()
                })
            })
            .collect();
        let stopping = scope.spawn(|| stop_leaders(&mut etcd, course, seed, &is_over));
        let ended: Vec<_> = clusters.into_iter().map(|cluster| cluster.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        let stops = stopping.join().expect("etcd goes on");
        let results: Vec<_> =
            ended.into_iter().map(|ended| ended.expect("the cluster is acquitted")).collect();
        let sum = |of: fn(&Progress) -> u64| progress.iter().map(of).sum::<u64>();
        say(&format!(
            "{}, LOCKD_SEED={seed}: {} clusters with {} servers each, {} calls, {} fail-overs, the leader of etcd \
             stopped {stops} times, in {:.1} s",
            course.name,
            course.clusters,
            course.servers,
            results.iter().map(|(history, _)| history.calls.len()).sum::<usize>(),
            sum(|one| one.fail_overs.load(Ordering::Relaxed)),
            began.elapsed().as_secs_f64(),
        ));
        results
    });
    results
}

/// Stops the leader of etcd again and again, until the run is over. How often it has.
fn stop_leaders(etcd: &mut EtcdCluster, course: Course, seed: u64, is_over: &AtomicBool) -> usize {
    let mut random = Random::for_part(seed, 8);
    let every = course.etcd_every;
    let wait = |millis: u64| {
        let until = Instant::now() + Duration::from_millis(millis);
        while Instant::now() < until && !is_over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let mut stops = 0;
    loop {
        wait(random.between(every / 2, every * 3 / 2));
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let leader = etcd.leader();
        etcd.stop(leader);
        wait(random.between(ETCD_STOPS.0, ETCD_STOPS.1));
        etcd.go_on(leader);
        stops += 1;
    }
    stops
}

const USUAL: Course = Course {
    name: "",
    mix: Mix {
        names: 48,
        // A wait without a limit is one call in the time of a hundred.
        unlimited: 0,
        hold: (0, 400_000),
        idle: (0, 200_000),
        limit: (1_000_000, 30_000_000),
        // The library asks again by itself, and does not say when: what an earlier request may have
        // got cannot be told from what the last one has.
        inspects: 0,
        ..Mix::READ_WRITE
    },
    clusters: 2,
    servers: 2,
    etcd_members: 1,
    processes: 2,
    threads: 5,
    millis: 40_000,
    calls: u64::MAX,
    fail_overs: u64::MAX,
    every: &[
        (Event::KillActive, 12_000),
        (Event::StopActive, 20_000),
        (Event::PauseActive, 8000),
        (Event::CutActiveFromEtcd, 12_000),
        (Event::SlowEtcd, 10_000),
        (Event::StandDown, 10_000),
        (Event::Terminate, 14_000),
        (Event::KillStandby, 9000),
        (Event::PauseStandby, 9000),
        (Event::KillClients, 2500),
        (Event::PauseClients, 9000),
        (Event::Reset, 500),
        (Event::ResetClientSide, 500),
        (Event::ResetServerSide, 500),
        (Event::Cut, 500),
        (Event::Outage, 12_000),
    ],
    etcd_every: 25_000,
    stays: 25,
    is_smooth: false,
    clock_rates: &[],
};

fn checked(results: &[(History, Verdict)], model: Model) -> usize {
    results.iter().map(|(_, verdict)| verdict.checked.get(&model).copied().unwrap_or_default()).sum()
}

#[test]
fn servers_that_take_over_from_one_another_break_nothing() {
    let results = run(Course { name: "a short run with fail-overs", ..USUAL });
    let calls: usize = results.iter().map(|(history, _)| history.calls.len()).sum();
    assert!(calls > 500, "only {calls} calls");
    let fail_overs: usize = results.iter().map(|(history, _)| history.servers.len() - 1).sum();
    assert!(fail_overs > 2, "only {fail_overs} fail-overs");
    let doubts = checked(&results, Model::Resume);
    assert!(doubts > 5, "only {doubts} times in doubt");
}

/// A number of the environment, or this one.
fn size(variable: &str, usual: u64) -> u64 {
    let text = std::env::var(variable);
    text.map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

#[test]
#[ignore = "takes minutes: make check-deep"]
fn deep_fail_overs() {
    let (calls, fail_overs) = (size("LOCKD_CALLS", 1_000_000), size("LOCKD_FAIL_OVERS", 200));
    let results = run(Course {
        name: "fail-overs",
        clusters: usize::try_from(size("LOCKD_CLUSTERS", 6)).unwrap(),
        servers: 3,
        etcd_members: 3,
        threads: 4,
        millis: 1_500_000,
        calls: calls * 11 / 10,
        fail_overs,
        stays: 25,
        mix: Mix { sets: 10, ..USUAL.mix },
        every: &[
            (Event::KillActive, 60_000),
            (Event::StopActive, 90_000),
            (Event::PauseActive, 20_000),
            (Event::CutActiveFromEtcd, 60_000),
            (Event::SlowEtcd, 30_000),
            (Event::StandDown, 25_000),
            (Event::Terminate, 40_000),
            (Event::KillStandby, 20_000),
            (Event::PauseStandby, 20_000),
            (Event::KillClients, 5000),
            (Event::PauseClients, 20_000),
            (Event::Reset, 1200),
            (Event::ResetClientSide, 1200),
            (Event::ResetServerSide, 1200),
            (Event::Cut, 1200),
            (Event::Outage, 60_000),
        ],
        etcd_every: 40_000,
        ..USUAL
    });
    let made: u64 = results.iter().map(|(history, _)| history.calls.len() as u64).sum();
    assert!(made >= calls, "only {made} calls");
    let taken: u64 = results.iter().map(|(history, _)| history.servers.len() as u64 - 1).sum();
    assert!(taken >= fail_overs, "only {taken} fail-overs");
}

#[test]
#[ignore = "takes minutes: make check-deep"]
fn deep_counters_across_fail_overs() {
    let every = &[
        (Event::KillActive, 90_000),
        (Event::StopActive, 120_000),
        (Event::PauseActive, 8000),
        (Event::CutActiveFromEtcd, 120_000),
        (Event::SlowEtcd, 60_000),
        (Event::StandDown, 30_000),
        (Event::Terminate, 45_000),
        (Event::KillStandby, 9000),
        (Event::KillClients, 6000),
        (Event::Reset, 600),
        (Event::ResetClientSide, 600),
        (Event::ResetServerSide, 600),
        (Event::Cut, 600),
        (Event::Outage, 30_000),
    ];
    let mix = Mix { shared: 0, converts: 0, ..USUAL.mix };
    let course = Course { mix, every, clusters: 4, servers: 3, millis: 150_000, stays: 12, ..USUAL };
    let results =
        run(Course { name: "counters across fail-overs", etcd_every: 90_000, is_smooth: true, ..course });
    let fail_overs: usize = results.iter().map(|(history, _)| history.servers.len() - 1).sum();
    assert!(fail_overs > 10, "only {fail_overs} fail-overs");
}

#[test]
#[ignore = "takes minutes: make check-deep"]
fn deep_fail_overs_with_clocks_that_differ() {
    let course = Course { clusters: 4, servers: 3, etcd_members: 3, millis: 180_000, stays: 12, ..USUAL };
    let clock_rates: &[&[u64]] = &[&[990, 1000, 995], &[1000, 1010, 1005]];
    let results =
        run(Course { name: "fail-overs, clocks that differ by a hundredth", clock_rates, ..course });
    let fail_overs: usize = results.iter().map(|(history, _)| history.servers.len() - 1).sum();
    assert!(fail_overs > 10, "only {fail_overs} fail-overs");
}
