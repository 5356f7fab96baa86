//! Correct histories with something changed, and small ones checked in two ways: the checker's fast
//! answer must be the same as the answer from trying all orders. `controls` tests the parts of the
//! checker that this cannot test.

use proptest::prelude::*;

use crate::checker::search::is_possible;
use crate::checker::{Model, Rules, Verdict, check};
use crate::history::{CallKind, History, MILLISECOND, Mode, NEVER, Nanos, Outcome, SECOND};
use crate::plan::Mix;
use crate::random::Random;
use crate::sim::faulty::FaultyBroker;
use crate::sim::tokens::Counters;
use crate::sim::{GRANT_DELAY_MAX, Setup, StaleGrants, run};

const RULES: Rules = Rules { grant_delay_max: GRANT_DELAY_MAX, end_notice_max: 0, clock_lead: 0 };

/// A short history of a broker without a defect, with slow clients on few names, so that many calls
/// overlap.
fn small(seed: u64, mix: Mix) -> History {
    let mix =
        Mix { names: 2, hold: (0, MILLISECOND / 4), idle: (0, MILLISECOND / 4), stray_releases: 5, ..mix };
    let setup = Setup {
        seed,
        clients: 3,
        length: 2 * MILLISECOND,
        mix,
        kills: 25,
        hang_ups: 0,
        stale_grants: StaleGrants::Discarded,
    };
    let counters = if seed.is_multiple_of(2) { Counters::Lanes } else { Counters::Names };
    run(setup, &mut FaultyBroker::with_counters(counters, None, seed))
}

/// Changes one or two things.
fn mutate(history: &mut History, random: &mut Random) {
    for _ in 0..random.between(1, 2) {
        let count = history.calls.len() as u64;
        if count == 0 {
            return;
        }
        let at = usize::try_from(random.below(count)).unwrap();
        match random.below(7) {
            0 => move_call(history, at, random),
            1 => {
                let other = usize::try_from(random.below(count)).unwrap();
                swap_tokens(history, at, other);
            }
            6 => {
                let other = usize::try_from(random.below(count)).unwrap();
                repeat_token(history, at, other);
            }
            // A call without an end must stay without a reply.
            2 | 5 if history.calls[at].end == NEVER => {}
            2 => invert_outcome(history, at),
            3 => {
                let modes = [Some(Mode::Exclusive), Mode::at_most(2), Mode::at_most(3), Some(Mode::Shared)];
                history.calls[at].wants[0].1 = random.one_of(&modes).unwrap();
            }
            4 => {
                let other = usize::try_from(random.below(count)).unwrap();
                let name = history.calls[other].wants[0].0;
                if history.calls[at].wants.len() == 1 {
                    history.calls[at].wants[0].0 = name;
                }
            }
            _ => {
                let call = &mut history.calls[at];
                let outcome = if call.kind == CallKind::Release { Outcome::Released } else { Outcome::Busy };
                call.outcome = outcome;
            }
        }
    }
}

/// Moves a call within the gap that its session's other calls and end leave: a session makes one
/// call after the other.
fn move_call(history: &mut History, at: usize, random: &mut Random) {
    let session = history.calls[at].session;
    let own = |index: &usize| history.calls[*index].session == session;
    let before = (0..at).rev().find(own).map_or(0, |index| history.calls[index].end);
    let after = (at + 1..history.calls.len()).find(own).map_or(SECOND, |index| history.calls[index].start);
    let after = after.min(history.alive_until(session));
    let call = &history.calls[at];
    if call.end == NEVER || before == NEVER || after < before + 3 {
        return;
    }
    let start = random.between(before + 1, after - 2);
    let end: Nanos = random.between(start + 1, after - 1);
    (history.calls[at].start, history.calls[at].end) = (start, end);
}

fn swap_tokens(history: &mut History, one: usize, other: usize) {
    if let (Some(first), Some(second)) = (history.calls[one].token(), history.calls[other].token()) {
        history.calls[one].outcome = Outcome::Granted(Some(second));
        history.calls[other].outcome = Outcome::Granted(Some(first));
    }
}

fn repeat_token(history: &mut History, one: usize, other: usize) {
    if let (Some(_), Some(token)) = (history.calls[one].token(), history.calls[other].token()) {
        history.calls[one].outcome = Outcome::Granted(Some(token));
    }
}

/// Turns a success into a failure and a failure into a success.
fn invert_outcome(history: &mut History, at: usize) {
    let call = &mut history.calls[at];
    call.outcome = match (call.kind, call.outcome) {
        (CallKind::Acquire { .. }, Outcome::Granted(_)) => Outcome::Busy,
        (CallKind::Acquire { .. }, Outcome::Busy | Outcome::TimedOut) => Outcome::Granted(None),
        (CallKind::Release, Outcome::Released) => Outcome::NotHeld,
        (CallKind::Release, Outcome::NotHeld) => Outcome::Released,
        (_, other) => other,
    };
}

/// Whether the parts of the checker that answer the same question as the search convict.
fn convicts(verdict: &Verdict) -> bool {
    [Model::Mutex, Model::ReadWrite, Model::Limit, Model::Fencing, Model::Sets]
        .iter()
        .any(|model| verdict.convicts(*model))
}

/// Removes inspections, which the search does not consider.
fn without_inspections(mut history: History) -> History {
    history.calls.retain(|call| call.kind != CallKind::Inspect);
    history
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_checker_agrees_with_trying_all_orders(seed in any::<u64>(), mix in 0..4, mutated in 0..4) {
        let mix = [Mix::MUTEX, Mix::READ_WRITE, Mix::SETS, Mix::LIMITED][usize::try_from(mix).unwrap()];
        let mut history = without_inspections(small(seed, mix));
        if mutated > 0 {
            mutate(&mut history, &mut Random::for_part(seed, 3));
        }
        let verdict = check(&history, &RULES);
        let all: Vec<usize> = (0..history.calls.len()).collect();
        prop_assert_eq!(
            !convicts(&verdict),
            is_possible(&history),
            "{}\nof\n{}",
            verdict.report(&history),
            history.excerpt(&all, 100)
        );
    }
}
