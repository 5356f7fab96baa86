//! Tests of the checker: brokers with one defect each must be convicted under the right model; the
//! same broker without a defect, and the real one, must be acquitted.

use crate::checker::{Model, Rules, Verdict, check};
use crate::history::{Call, History, MILLISECOND, Mode, Name, SECOND};
use crate::plan::Mix;
use crate::random::seed_or;
use crate::sim::broker_under_test::BrokerUnderTest;
use crate::sim::faulty::{Defect, FaultyBroker};
use crate::sim::real::RealBroker;
use crate::sim::tokens::{Counters, TokenDefect};
use crate::sim::{GRANT_DELAY_MAX, Setup, StaleGrants, run};

/// The number of seeds each defect is tried with.
const SEEDS: u64 = 40;

pub(crate) const RULES: Rules = Rules { grant_delay_max: GRANT_DELAY_MAX, end_notice_max: 0, clock_lead: 0 };

pub(crate) const ALL_MIXES: [Mix; 4] = [Mix::MUTEX, Mix::READ_WRITE, Mix::LIMITED, Mix::SETS];

pub(crate) fn setup(seed: u64, mix: Mix) -> Setup {
    Setup {
        seed,
        clients: 5,
        length: SECOND / 3,
        mix,
        kills: 40,
        hang_ups: 0,
        stale_grants: StaleGrants::Discarded,
    }
}

/// The same with a server that hangs up on clients, which often want the same few names.
pub(crate) fn with_hang_ups(seed: u64, mix: Mix) -> Setup {
    let mix = Mix { names: 2, hold: (0, 4 * MILLISECOND), ..mix };
    Setup { length: 3 * SECOND, hang_ups: 4, kills: 200, ..setup(seed, mix) }
}

pub(crate) fn judge(setup: Setup, broker: &mut impl BrokerUnderTest) -> (History, Verdict) {
    let history = run(setup, broker);
    let verdict = check(&history, &RULES);
    (history, verdict)
}

/// Runs a broker with this defect under many seeds: each run must be convicted under one of these
/// models.
fn must_convict(defect: Defect, mix: Mix, models: &[Model]) {
    must_convict_of(&format!("{defect:?}"), models, |seed| {
        judge(setup(seed, mix), &mut FaultyBroker::new(Some(defect), seed))
    });
}

/// The same for anything that has a defect.
fn must_convict_of(defect: &str, models: &[Model], judge: impl Fn(u64) -> (History, Verdict)) {
    for seed in (0..SEEDS).map(|seed| seed_or(0) + seed) {
        let (history, verdict) = judge(seed);
        assert!(
            models.iter().any(|model| verdict.convicts(*model)),
            "{defect} was not convicted under {models:?}, with LOCKD_SEED={seed}: {} calls, {}",
            history.calls.len(),
            verdict.report(&history),
        );
        assert!(verdict.report(&history).contains('#'), "the report names the calls");
    }
}

/// Runs the broker that `judge` tests under many seeds: each run must be acquitted.
fn must_acquit(mix: Mix, judge: impl Fn(Setup) -> (History, Verdict)) {
    for seed in (0..SEEDS).map(|seed| seed_or(1000) + seed) {
        let (history, verdict) = judge(setup(seed, mix));
        assert!(history.calls.len() > 100, "only {} calls", history.calls.len());
        assert!(verdict.acquits(), "with LOCKD_SEED={seed}:\n{}", verdict.report(&history));
    }
}

#[test]
fn two_holders_of_one_lock_are_a_broken_mutex() {
    must_convict(Defect::GrantsTwice, Mix::MUTEX, &[Model::Mutex]);
}

#[test]
fn shared_and_exclusive_holders_at_once_are_a_broken_read_write_lock() {
    must_convict(Defect::SharedWithExclusive, Mix::READ_WRITE, &[Model::ReadWrite]);
    must_convict(Defect::ExclusiveWithShared, Mix::READ_WRITE, &[Model::ReadWrite]);
    must_convict(Defect::ConvertsWithOtherHolders, Mix::READ_WRITE, &[Model::ReadWrite]);
}

#[test]
fn more_holders_than_one_of_them_allows_are_a_broken_limit() {
    let mix = Mix { sets: 0, converts: 35, ..Mix::LIMITED };
    must_convict(Defect::LimitIsTooHigh, mix, &[Model::Limit]);
    must_convict(Defect::IgnoresLimitsOfHolders, mix, &[Model::Limit]);
    must_convict(Defect::IgnoresLimitOfNewcomer, mix, &[Model::Limit]);
    must_convict(Defect::ConvertsWithOtherHolders, mix, &[Model::Limit]);
    let often = Mix { names: 2, converts: 60, ..mix };
    must_convict(Defect::ForgetsLimitOnConversion, often, &[Model::Limit]);
}

/// Limited locks that are held for so long that a request which could be granted is late.
const LONG: Mix = Mix {
    names: 1,
    sets: 0,
    converts: 0,
    shared: 0,
    limited: 100,
    tries: 0,
    unlimited: 100,
    hold: (3 * SECOND, 6 * SECOND),
    ..Mix::LIMITED
};

#[test]
fn a_slot_of_a_limited_lock_that_is_not_given_away_is_stuck() {
    // With more clients, one of those that wait could be a holder that was not told yet.
    let long = |seed| Setup { length: 40 * SECOND, clients: 2, kills: 0, ..setup(seed, LONG) };
    must_convict_of("a limit that is too low", &[Model::Stuck], |seed| {
        judge(long(seed), &mut FaultyBroker::new(Some(Defect::LimitIsTooLow), seed))
    });
    let mix = Mix { converts: 0, sets: 0, ..Mix::LIMITED };
    must_convict(Defect::LosesWakeup, mix, &[Model::Stuck]);
    must_convict(Defect::KeepsLocksOfEndedSessions, mix, &[Model::Stuck]);
    for seed in (0..SEEDS).map(|seed| seed_or(3000) + seed) {
        let (history, verdict) = judge(long(seed), &mut FaultyBroker::new(None, seed));
        assert!(verdict.acquits(), "with LOCKD_SEED={seed}:\n{}", verdict.report(&history));
        let (history, verdict) = judge(long(seed), &mut RealBroker::default());
        assert!(verdict.acquits(), "with LOCKD_SEED={seed}:\n{}", verdict.report(&history));
    }
}

#[test]
fn tokens_of_a_name_that_do_not_rise_are_broken_fencing() {
    for mix in ALL_MIXES {
        must_convict(Defect::Tokens(TokenDefect::GoesBack), mix, &[Model::Fencing]);
        must_convict(Defect::Tokens(TokenDefect::Repeats), mix, &[Model::Fencing]);
        must_convict(Defect::Tokens(TokenDefect::StartsAgain), mix, &[Model::Fencing]);
    }
}

/// Sets among so many names that most of them are in their lanes.
const CALM: Mix = Mix { names: 12, sets: 20, hold: (0, MILLISECOND / 2), ..Mix::SETS };

#[test]
fn a_token_that_goes_back_when_its_name_changes_counters_is_broken_fencing() {
    for mix in [Mix::MUTEX, Mix::READ_WRITE, CALM] {
        must_convict(Defect::Tokens(TokenDefect::GoesBackInTable), mix, &[Model::Fencing]);
        must_convict(Defect::Tokens(TokenDefect::GoesBackInLane), mix, &[Model::Fencing]);
    }
}

#[test]
fn a_set_whose_token_is_too_low_for_one_of_its_names_is_broken_fencing() {
    must_convict(Defect::Tokens(TokenDefect::SetIsTooLow), CALM, &[Model::Fencing]);
}

/// How many grants have the token of an earlier grant of other names, and how many a lower one.
fn repeated_and_lower(history: &History) -> (usize, usize) {
    let mut granted: Vec<_> = history.calls.iter().filter(|call| call.is_granted()).collect();
    granted.sort_by_key(|call| call.end);
    let pairs = granted.windows(2).filter(|pair| {
        let is_other = |&(name, _): &(Name, Mode)| pair[1].mode_of(name).is_none();
        pair[0].end < pair[1].start && pair[0].wants.iter().all(is_other)
    });
    let count = |is: fn(&u64, &u64) -> bool| {
        let is = |pair: &&[&Call]| {
            pair[0].token().zip(pair[1].token()).is_some_and(|(one, other)| is(&other, &one))
        };
        pairs.clone().filter(is).count()
    };
    (count(u64::eq), count(u64::lt))
}

#[test]
fn tokens_of_different_names_may_repeat_and_cross() {
    for mix in ALL_MIXES {
        let (mut repeated, mut lower) = (0, 0);
        for seed in (0..SEEDS).map(|seed| seed_or(2000) + seed) {
            let mut broker = FaultyBroker::with_counters(Counters::Names, None, seed);
            let (history, verdict) = judge(setup(seed, mix), &mut broker);
            assert!(verdict.acquits(), "with LOCKD_SEED={seed}:\n{}", verdict.report(&history));
            let found = repeated_and_lower(&history);
            (repeated, lower) = (repeated + found.0, lower + found.1);
        }
        assert!(repeated > 0 && lower > 0, "{repeated} tokens repeated, {lower} crossed: nothing was tried");
    }
}

#[test]
fn overtaking_breaks_first_come_first_served() {
    must_convict(Defect::Overtakes, Mix::MUTEX, &[Model::Fifo]);
    must_convict(Defect::TryOvertakes, Mix { tries: 50, ..Mix::READ_WRITE }, &[Model::Fifo]);
    must_convict(Defect::Overtakes, Mix::LIMITED, &[Model::Fifo]);
    must_convict(Defect::LimitedOvertakesExclusive, Mix::LIMITED, &[Model::Fifo]);
}

#[test]
fn a_wait_that_is_never_ended_is_stuck() {
    must_convict(Defect::LosesWakeup, Mix::MUTEX, &[Model::Stuck]);
    must_convict(Defect::KeepsLocksOfEndedSessions, Mix::MUTEX, &[Model::Stuck]);
}

#[test]
fn a_set_that_is_granted_in_part_is_a_broken_set() {
    must_convict(Defect::GrantsPartOfSet, Mix::SETS, &[Model::Sets]);
    must_convict(Defect::HoldsWhileWaiting, Mix::SETS, &[Model::Sets]);
}

#[test]
fn a_lock_that_is_released_by_a_timer_is_a_broken_mutex() {
    must_convict(Defect::ReleasesByTimer, Mix::MUTEX, &[Model::Mutex]);
}

#[test]
fn a_release_by_a_session_that_does_not_hold_is_a_broken_mutex() {
    must_convict(Defect::ReleasesForNonHolder, Mix { stray_releases: 15, ..Mix::MUTEX }, &[Model::Mutex]);
    must_convict(Defect::ConfirmsFalseRelease, Mix { stray_releases: 15, ..Mix::MUTEX }, &[Model::Mutex]);
}

#[test]
fn a_server_that_takes_its_own_reset_for_the_clients_end_breaks_the_lock() {
    for (mix, model) in [(Mix::MUTEX, Model::Mutex), (Mix::LIMITED, Model::Limit)] {
        must_convict_of("a server that trusts its own kernel", &[model], |seed| {
            let defect = Some(Defect::TakesOwnResetForClientEnd);
            judge(with_hang_ups(seed, mix), &mut FaultyBroker::new(defect, seed))
        });
    }
}

#[test]
fn a_client_that_believes_a_stale_grant_breaks_the_lock() {
    for (mix, model) in [(Mix::MUTEX, Model::Mutex), (Mix::LIMITED, Model::Limit)] {
        let believing = |seed| Setup { stale_grants: StaleGrants::Believed, ..with_hang_ups(seed, mix) };
        must_convict_of("a client that believes a stale grant", &[model], |seed| {
            judge(believing(seed), &mut FaultyBroker::new(None, seed))
        });
        must_convict_of("a client of the real broker that believes a stale grant", &[model], |seed| {
            judge(believing(seed), &mut RealBroker::default())
        });
    }
}

#[test]
fn a_server_that_hangs_up_on_clients_that_check_for_the_end_is_acquitted() {
    for mix in ALL_MIXES {
        let hung_up = |setup: Setup| with_hang_ups(setup.seed, setup.mix);
        must_acquit(mix, |setup| {
            let (history, verdict) = judge(hung_up(setup), &mut FaultyBroker::new(None, setup.seed));
            let lost = history.sessions.iter().filter(|session| session.lost_at.is_some()).count();
            assert!(lost > 10, "hung up on only {lost} clients");
            (history, verdict)
        });
        must_acquit(mix, |setup| judge(hung_up(setup), &mut RealBroker::default()));
    }
}

#[test]
fn a_broker_without_a_defect_is_acquitted() {
    for mix in ALL_MIXES {
        must_acquit(mix, |setup| judge(setup, &mut FaultyBroker::new(None, setup.seed)));
    }
}

#[test]
fn the_real_broker_is_acquitted() {
    for mix in ALL_MIXES {
        must_acquit(mix, |setup| judge(setup, &mut RealBroker::default()));
    }
}
