//! Correct histories with something changed, and small ones judged twice: the checker's fast answer
//! must be the one that trying all orders gives. What the checker's other parts cannot be asked
//! here, `controls` asks.

use proptest::prelude::*;

use crate::checker::search::is_possible;
use crate::checker::{Model, Rules, Verdict, check};
use crate::dice::Dice;
use crate::history::{Ask, History, MILLISECOND, Mode, NEVER, Nanos, Outcome, SECOND};
use crate::plan::Mix;
use crate::sim::broken::Broken;
use crate::sim::{Belief, PATIENCE, Setup, run};

const RULES: Rules = Rules { patience: PATIENCE, notice: 0 };

/// A short history of a broker without a defect, with slow clients on few names, so that much
/// overlaps.
fn small(seed: u64, mix: Mix) -> History {
    let mix = Mix { names: 2, hold: (0, MILLISECOND / 4), idle: (0, MILLISECOND / 4), strays: 5, ..mix };
    let setup = Setup {
        seed,
        clients: 3,
        length: 2 * MILLISECOND,
        mix,
        kills: 25,
        hang_ups: 0,
        belief: Belief::OfTheLiving,
    };
    run(setup, &mut Broken::new(None, seed))
}

/// Changes one thing, or two.
fn mutate(history: &mut History, dice: &mut Dice) {
    for _ in 0..dice.between(1, 2) {
        let count = history.calls.len() as u64;
        if count == 0 {
            return;
        }
        let at = usize::try_from(dice.below(count)).unwrap();
        match dice.below(6) {
            0 => move_call(history, at, dice),
            1 => {
                let other = usize::try_from(dice.below(count)).unwrap();
                swap_tokens(history, at, other);
            }
            // A call that has no end has no answer, whatever else is changed.
            2 | 5 if history.calls[at].end == NEVER => {}
            2 => turn_over(history, at),
            3 => {
                let want = &mut history.calls[at].wants[0].1;
                *want = if *want == Mode::Shared { Mode::Exclusive } else { Mode::Shared };
            }
            4 => {
                let other = usize::try_from(dice.below(count)).unwrap();
                let name = history.calls[other].wants[0].0;
                if history.calls[at].wants.len() == 1 {
                    history.calls[at].wants[0].0 = name;
                }
            }
            _ => {
                let call = &mut history.calls[at];
                let outcome = if call.ask == Ask::Release { Outcome::Released } else { Outcome::Busy };
                call.outcome = outcome;
            }
        }
    }
}

/// Moves a call, within what its session's other calls and its end leave room for: sessions make
/// one call after the other.
fn move_call(history: &mut History, at: usize, dice: &mut Dice) {
    let session = history.calls[at].session;
    let own = |index: &usize| history.calls[*index].session == session;
    let before = (0..at).rev().find(own).map_or(0, |index| history.calls[index].end);
    let after = (at + 1..history.calls.len()).find(own).map_or(SECOND, |index| history.calls[index].start);
    let after = after.min(history.stood_until(session));
    let call = &history.calls[at];
    if call.end == NEVER || before == NEVER || after < before + 3 {
        return;
    }
    let start = dice.between(before + 1, after - 2);
    let end: Nanos = dice.between(start + 1, after - 1);
    (history.calls[at].start, history.calls[at].end) = (start, end);
}

fn swap_tokens(history: &mut History, one: usize, other: usize) {
    if let (Some(first), Some(second)) = (history.calls[one].token(), history.calls[other].token()) {
        history.calls[one].outcome = Outcome::Granted(Some(second));
        history.calls[other].outcome = Outcome::Granted(Some(first));
    }
}

/// Makes a yes of a no, and the other way round.
fn turn_over(history: &mut History, at: usize) {
    let call = &mut history.calls[at];
    call.outcome = match (call.ask, call.outcome) {
        (Ask::Acquire { .. }, Outcome::Granted(_)) => Outcome::Busy,
        (Ask::Acquire { .. }, Outcome::Busy | Outcome::TimedOut) => Outcome::Granted(None),
        (Ask::Release, Outcome::Released) => Outcome::NotHeld,
        (Ask::Release, Outcome::NotHeld) => Outcome::Released,
        (_, other) => other,
    };
}

/// Whether the parts of the checker that answer the same question as the search convict.
fn convicts(verdict: &Verdict) -> bool {
    [Model::Mutex, Model::ReadWrite, Model::Fencing, Model::Sets].iter().any(|model| verdict.convicts(*model))
}

/// Only what the search looks at: no inspections.
fn without_looks(mut history: History) -> History {
    history.calls.retain(|call| call.ask != Ask::Inspect);
    history
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_checker_says_what_trying_all_orders_says(seed in any::<u64>(), mix in 0..3, mutated in 0..4) {
        let mix = [Mix::MUTEX, Mix::READ_WRITE, Mix::SETS][usize::try_from(mix).unwrap()];
        let mut history = without_looks(small(seed, mix));
        if mutated > 0 {
            mutate(&mut history, &mut Dice::of_part(seed, 3));
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
