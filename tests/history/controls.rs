//! Whether the checker can be believed: brokers with one defect each must be convicted, of the
//! right thing; the same broker without a defect, and the real one, must be acquitted; and where
//! everything can be tried, the checker must say what trying everything says.

use crate::checker::{Model, Rules, Verdict, check};
use crate::dice::seed_or;
use crate::history::{History, MILLISECOND, SECOND};
use crate::plan::Mix;
use crate::sim::broken::{Broken, Defect};
use crate::sim::real::Real;
use crate::sim::subject::Subject;
use crate::sim::{Belief, PATIENCE, Setup, run};

/// How many seeds each defect is tried with.
const SEEDS: u64 = 40;

const RULES: Rules = Rules { patience: PATIENCE, notice: 0 };

fn setup(seed: u64, mix: Mix) -> Setup {
    Setup { seed, clients: 5, length: SECOND / 3, mix, kills: 40, hang_ups: 0, belief: Belief::OfTheLiving }
}

/// The same with a server that hangs up on clients, which want the same few names much of the time.
fn with_hang_ups(seed: u64, mix: Mix) -> Setup {
    let mix = Mix { names: 2, hold: (0, 4 * MILLISECOND), ..mix };
    Setup { length: 3 * SECOND, hang_ups: 4, kills: 200, ..setup(seed, mix) }
}

fn judge(setup: Setup, subject: &mut impl Subject) -> (History, Verdict) {
    let history = run(setup, subject);
    let verdict = check(&history, &RULES);
    (history, verdict)
}

/// Runs a broker with this defect under many seeds: each must be convicted under one of these
/// models.
fn must_convict(defect: Defect, mix: Mix, models: &[Model]) {
    must_convict_of(&format!("{defect:?}"), models, |seed| {
        judge(setup(seed, mix), &mut Broken::new(Some(defect), seed))
    });
}

/// The same for whatever has this defect.
fn must_convict_of(defect: &str, models: &[Model], judge: impl Fn(u64) -> (History, Verdict)) {
    for seed in (0..SEEDS).map(|seed| seed_or(0) + seed) {
        let (history, verdict) = judge(seed);
        assert!(
            models.iter().any(|model| verdict.convicts(*model)),
            "{defect} was not convicted under {models:?}, with LOCKD_SEED={seed}: {} calls, {}",
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
fn a_server_that_takes_its_own_kernels_reset_for_the_clients_word_is_a_broken_mutex() {
    must_convict_of("a server that trusts its own kernel", &[Model::Mutex], |seed| {
        let defect = Some(Defect::TakesOwnResetForWord);
        judge(with_hang_ups(seed, Mix::MUTEX), &mut Broken::new(defect, seed))
    });
}

#[test]
fn a_client_that_believes_a_stale_grant_is_a_broken_mutex() {
    must_convict_of("a client that believes a stale grant", &[Model::Mutex], |seed| {
        let setup = Setup { belief: Belief::Stale, ..with_hang_ups(seed, Mix::MUTEX) };
        judge(setup, &mut Broken::new(None, seed))
    });
    must_convict_of("such a client of the real broker", &[Model::Mutex], |seed| {
        let setup = Setup { belief: Belief::Stale, ..with_hang_ups(seed, Mix::MUTEX) };
        judge(setup, &mut Real::default())
    });
}

#[test]
fn a_server_that_hangs_up_and_clients_that_look_first_are_acquitted() {
    for mix in [Mix::MUTEX, Mix::READ_WRITE, Mix::SETS] {
        let hung_up = |setup: Setup| with_hang_ups(setup.seed, setup.mix);
        must_acquit(mix, |setup| {
            let (history, verdict) = judge(hung_up(setup), &mut Broken::new(None, setup.seed));
            let lost = history.sessions.iter().filter(|session| session.lost_at.is_some()).count();
            assert!(lost > 10, "hung up on {lost} clients");
            (history, verdict)
        });
        must_acquit(mix, |setup| judge(hung_up(setup), &mut Real::default()));
    }
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
