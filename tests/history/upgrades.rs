//! Upgrades in place of a broker in this process: the checker acquits a broker that is replaced by
//! what its snapshot gives, and convicts each upgrade that loses or changes a part of the state.

use crate::checker::{Model, check};
use crate::controls::{ALL_MIXES, RULES, judge, setup, with_hang_ups};
use crate::history::{CallKind, History, Outcome};
use crate::plan::Mix;
use crate::random::seed_or;
use crate::sim::run;
use crate::sim::upgrading::{UpgradeDefect, UpgradingBroker};

/// There is an upgrade before one in this many events. Fewer are enough if each of them is right.
const ONE_IN: u64 = 15;
const ONE_IN_IF_RIGHT: u64 = 60;
const ONE_IN_OF_LONG: u64 = 400;

/// The number of seeds each defect is tried with: to make a broker takes time without optimization.
const SEEDS: u64 = 10;
const SEEDS_OF_DEEP: u64 = 400;

/// Each defect, with clients that can suffer from it, and the models that it breaks.
fn defects() -> Vec<(UpgradeDefect, Mix, &'static [Model])> {
    let acked = Mix { acked: 100, ..Mix::MUTEX };
    let mut defects: Vec<(_, _, &[Model])> = vec![
        (UpgradeDefect::LosesWait, Mix::MUTEX, &[Model::Stuck]),
        (UpgradeDefect::LosesHolder, Mix::MUTEX, &[Model::Mutex]),
        (UpgradeDefect::GrantsTwice, Mix::MUTEX, &[Model::Mutex]),
        (UpgradeDefect::WeakensMode, Mix::READ_WRITE, &[Model::ReadWrite]),
        // A hold that came with others is judged with them.
        (UpgradeDefect::WeakensMode, Mix::LIMITED, &[Model::Limit, Model::Sets]),
        (UpgradeDefect::ReordersQueue, acked, &[Model::Fifo]),
    ];
    for mix in ALL_MIXES {
        defects.push((UpgradeDefect::ForgetsTokens, mix, &[Model::Fencing]));
        // With more to wait for at once, those that were lost may be each other's excuse.
        defects.push((UpgradeDefect::LosesWait, mix, &[Model::Stuck, Model::TimeLimit, Model::Fifo]));
    }
    defects
}

fn must_convict_each(seeds: u64) {
    for (defect, mix, models) in defects() {
        for seed in (0..seeds).map(|seed| seed_or(0) + seed) {
            let mut broker = UpgradingBroker::new(Some(defect), seed, ONE_IN);
            let (history, verdict) = judge(setup(seed, mix), &mut broker);
            assert!(broker.mistakes > 0, "{defect:?} was never possible, with LOCKD_SEED={seed}");
            assert!(
                models.iter().any(|model| verdict.convicts(*model)),
                "an upgrade that {defect:?} was not convicted under {models:?}, with LOCKD_SEED={seed}: {}",
                verdict.report(&history),
            );
        }
    }
}

fn must_acquit_each(seeds: u64) {
    for mix in ALL_MIXES {
        for seed in (0..seeds).map(|seed| seed_or(1000) + seed) {
            for (setup, one_in) in
                [(setup(seed, mix), ONE_IN_IF_RIGHT), (with_hang_ups(seed, mix), ONE_IN_OF_LONG)]
            {
                let mut broker = UpgradingBroker::new(None, seed, one_in);
                let (history, verdict) = judge(setup, &mut broker);
                assert!(broker.upgrades > 5, "only {} upgrades", broker.upgrades);
                assert!(verdict.acquits(), "with LOCKD_SEED={seed}:\n{}", verdict.report(&history));
            }
        }
    }
}

#[test]
fn an_upgrade_that_loses_or_changes_a_part_of_the_state_is_convicted() {
    must_convict_each(SEEDS);
}

#[test]
fn a_broker_that_is_upgraded_again_and_again_is_acquitted() {
    must_acquit_each(SEEDS);
}

#[test]
#[ignore = "takes a minute: make check-deep"]
fn deep_upgrades_with_many_seeds() {
    must_convict_each(SEEDS_OF_DEEP);
    must_acquit_each(SEEDS_OF_DEEP);
}

/// A history that is well, and in it a wait whose time limit has ended it.
fn timed_out() -> (History, usize) {
    let history = run(setup(1, Mix::MUTEX), &mut UpgradingBroker::new(None, 1, ONE_IN));
    assert!(check(&history, &RULES).acquits());
    let call = history.calls.iter().position(|call| call.outcome == Outcome::TimedOut);
    (history, call.expect("a wait that ended at its time"))
}

#[test]
fn a_wait_that_does_not_end_at_its_time_is_convicted() {
    let (mut early, call) = timed_out();
    let lasted = early.calls[call].end - early.calls[call].start;
    early.calls[call].kind = CallKind::Acquire { limit: Some(lasted + 1) };
    assert!(check(&early, &RULES).convicts(Model::TimeLimit));
    let (mut late, call) = timed_out();
    let CallKind::Acquire { limit: Some(limit) } = late.calls[call].kind else { panic!("a time limit") };
    late.calls[call].start = 0;
    late.calls[call].end = limit + RULES.grant_delay_max;
    assert!(!check(&late, &RULES).convicts(Model::TimeLimit));
    late.calls[call].end += 1;
    assert!(check(&late, &RULES).convicts(Model::TimeLimit));
}
