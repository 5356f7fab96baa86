//! Whether the checker can be believed: brokers with one defect each must be convicted, of the right thing; the
//! same broker without a defect, and the real one, must be acquitted; and where everything can be tried, the
//! checker must say what trying everything says.

use crate::checker::{Model, Rules, Verdict, check};
use crate::dice::seed_or;
use crate::history::{History, SECOND};
use crate::plan::Mix;
use crate::sim::broken::{Broken, Defect};
use crate::sim::real::Real;
use crate::sim::subject::Subject;
use crate::sim::{PATIENCE, Setup, run};

/// How many seeds each defect is tried with.
const SEEDS: u64 = 40;

const RULES: Rules = Rules { patience: PATIENCE, notice: 0 };

fn setup(seed: u64, mix: Mix) -> Setup {
    Setup { seed, clients: 5, length: SECOND / 3, mix, kills: 40 }
}

fn judge(setup: Setup, subject: &mut impl Subject) -> (History, Verdict) {
    let history = run(setup, subject);
    let verdict = check(&history, &RULES);
    (history, verdict)
}

/// Runs a broker with this defect under many seeds: each must be convicted under one of these models.
fn must_convict(defect: Defect, mix: Mix, models: &[Model]) {
    for seed in (0..SEEDS).map(|seed| seed_or(0) + seed) {
        let (history, verdict) = judge(setup(seed, mix), &mut Broken::new(Some(defect), seed));
        assert!(
            models.iter().any(|model| verdict.convicts(*model)),
            "{defect:?} was not convicted under {models:?}, with LOCKD_SEED={seed}: {} calls, {}",
            history.calls.len(),
            verdict.report(&history),
        );
        assert!(verdict.report(&history).contains('#'), "a verdict names the calls");
    }
}

/// Runs a broker that `judge` puts to the test under many seeds: each must be acquitted.
fn must_acquit(mix: Mix, judge: impl Fn(Setup) -> (History, Verdict)) {
    for seed in (0..SEEDS).map(|seed| seed_or(1000) + seed) {
        let (history, verdict) = judge(setup(seed, mix));
        assert!(history.calls.len() > 100, "something happened: {} calls", history.calls.len());
        assert!(verdict.acquits(), "with LOCKD_SEED={seed}:\n{}", verdict.report(&history));
    }
}

#[test]
fn two_holders_of_one_lock_are_a_broken_mutex() {
    must_convict(Defect::GrantsTwice, Mix::MUTEX, &[Model::Mutex]);
}

#[test]
fn a_shared_holder_beside_an_exclusive_one_is_a_broken_read_write_lock() {
    must_convict(Defect::SharedBesideExclusive, Mix::READ_WRITE, &[Model::ReadWrite]);
    must_convict(Defect::ExclusiveBesideShared, Mix::READ_WRITE, &[Model::ReadWrite]);
    must_convict(Defect::ConvertsBesideOthers, Mix::READ_WRITE, &[Model::ReadWrite]);
}

#[test]
fn tokens_that_do_not_rise_are_broken_fencing() {
    must_convict(Defect::TokenGoesBack, Mix::MUTEX, &[Model::Fencing]);
    must_convict(Defect::TokenRepeats, Mix::MUTEX, &[Model::Fencing]);
}

#[test]
fn overtaking_breaks_first_come_first_served() {
    must_convict(Defect::Overtakes, Mix::MUTEX, &[Model::Fifo]);
    must_convict(Defect::TryOvertakes, Mix { tries: 50, ..Mix::READ_WRITE }, &[Model::Fifo]);
}

#[test]
fn a_wait_that_nobody_ends_is_stuck() {
    must_convict(Defect::LosesWakeUp, Mix::MUTEX, &[Model::Stuck]);
    must_convict(Defect::KeepsTheDead, Mix::MUTEX, &[Model::Stuck]);
}

#[test]
fn a_set_in_part_is_a_broken_set() {
    must_convict(Defect::GrantsInPart, Mix::SETS, &[Model::Sets]);
    must_convict(Defect::HoldsWhileWaiting, Mix::SETS, &[Model::Sets]);
}

#[test]
fn a_lock_that_is_freed_by_a_timer_is_a_broken_mutex() {
    must_convict(Defect::FreesByTimer, Mix::MUTEX, &[Model::Mutex]);
}

#[test]
fn a_release_by_somebody_else_is_a_broken_mutex() {
    must_convict(Defect::ReleasesForAnybody, Mix { strays: 15, ..Mix::MUTEX }, &[Model::Mutex]);
    must_convict(Defect::SaysYes, Mix { strays: 15, ..Mix::MUTEX }, &[Model::Mutex]);
}

#[test]
fn a_broker_without_a_defect_is_acquitted() {
    for mix in [Mix::MUTEX, Mix::READ_WRITE, Mix::SETS] {
        must_acquit(mix, |setup| judge(setup, &mut Broken::new(None, setup.seed)));
    }
}

#[test]
fn the_real_broker_is_acquitted() {
    for mix in [Mix::MUTEX, Mix::READ_WRITE, Mix::SETS] {
        must_acquit(mix, |setup| judge(setup, &mut Real::default()));
    }
}
