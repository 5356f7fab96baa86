//! Runs scenarios under the model checker, and reports how many orders were tried. A scenario
//! asserts what must hold; that no thread is stuck at its end, the checker verifies.
//!
//! - loom tries every order in which threads are preempted at most `LOOM_MAX_PREEMPTIONS` (1)
//!   times. It also lets loads return old values, as the memory model allows.
//! - shuttle tries `LOCKD_ITERATIONS` (1000) orders from the seed `LOCKD_SEED`: half of them
//!   random, half with few preemptions at random places.

use std::env;
use std::time::Duration;

use crate::os::sync::model_checked::Time;

/// Runs `scenario` in every order, or in many.
pub(crate) fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    Time::set_passes(false);
    check(0, scenario);
}

/// The same for a scenario of many steps: with one preemption fewer.
pub(crate) fn explore_large(scenario: impl Fn() + Send + Sync + 'static) {
    Time::set_passes(false);
    check(1, scenario);
}

/// The same for a scenario in which time [passes](Time::pass).
pub(crate) fn explore_with_time(scenario: impl Fn() + Send + Sync + 'static) {
    Time::set_passes(true);
    check(0, scenario);
}

fn number<T: std::str::FromStr>(variable: &str, otherwise: T) -> T {
    env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Prints what was tried, with the name of the test, which is the name of its thread.
fn report(what: &str, took: Duration) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{}: {what} in {:.1} s", name.rsplit("::").next().unwrap_or_default(), took.as_secs_f64());
}

#[cfg(explore = "loom")]
#[expect(clippy::disallowed_methods, reason = "to report the duration")]
fn check(fewer: usize, scenario: impl Fn() + Send + Sync + 'static) {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Instant;

    let executions = Arc::new(AtomicU64::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(number("LOOM_MAX_PREEMPTIONS", 1_usize).saturating_sub(fewer));
    builder.max_branches = 100_000;
    let begun = Instant::now();
    let counted = executions.clone();
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        scenario();
    });
    report(&format!("{} orders", executions.load(Relaxed)), begun.elapsed());
}

#[cfg(explore = "shuttle")]
#[expect(clippy::disallowed_methods, reason = "for a seed, and to report the duration")]
fn check(_fewer: usize, scenario: impl Fn() + Send + Sync + 'static) {
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    use shuttle::Runner;
    use shuttle::scheduler::{PctScheduler, RandomScheduler};

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed: u64 = number("LOCKD_SEED", u64::from(now.subsec_nanos()));
    let iterations: usize = number("LOCKD_ITERATIONS", 1000);
    println!("LOCKD_SEED={seed}");
    let mut config = shuttle::Config::new();
    config.silence_warnings = true;
    config.stack_size = 256 << 10;
    let scenario = std::sync::Arc::new(scenario);
    let begun = Instant::now();
    let random = RandomScheduler::new_from_seed(seed, iterations.div_ceil(2));
    Runner::new(random, config.clone()).run({
        let scenario = scenario.clone();
        move || scenario()
    });
    let sparing = PctScheduler::new_from_seed(seed, 3, iterations.div_ceil(2));
    Runner::new(sparing, config).run(move || scenario());
    report(&format!("{iterations} orders"), begun.elapsed());
}
