//! The trials: what is done to each client, and what it must say then.

mod addresses;
mod contract;
mod crossing;
mod doubt;
mod ends;
mod forking;
mod hung;
mod liars;
mod losing;
mod modes;
mod names;
mod network;
mod pauses;
mod places;
mod refusals;
mod resume_storm;
mod resuming;
mod sets;
mod several;
mod stale;
mod stale_answers;
mod storm;
mod text_liars;

use crate::arguments::Arguments;
use crate::stage::Stage;
use crate::verdict::Verdict;

/// One row of the table.
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    /// In one sentence.
    pub(crate) shows: &'static str,
    /// The abilities without which it is not applicable.
    pub(crate) needs: &'static [&'static str],
    /// Abilities with which it is not applicable.
    pub(crate) unless: &'static [&'static str],
    pub(crate) pace: Pace,
    /// Why it cannot be done on this machine, if it cannot.
    pub(crate) impossible: fn() -> Option<String>,
    pub(crate) run: fn(&Stage) -> Verdict,
}

/// How a trial spends its time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Busy,
    /// It mostly waits, for example for a time limit of seconds.
    Waits,
    /// It takes long, and runs only if it is asked for.
    Deep,
}

impl Trial {
    const fn new(
        name: &'static str,
        shows: &'static str,
        needs: &'static [&'static str],
        run: fn(&Stage) -> Verdict,
    ) -> Self {
        Self { name, shows, needs, unless: &[], pace: Pace::Busy, impossible: || None, run }
    }

    const fn unless(self, unless: &'static [&'static str]) -> Self {
        Self { unless, ..self }
    }

    const fn pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    const fn unless_impossible(self, impossible: fn() -> Option<String>) -> Self {
        Self { impossible, ..self }
    }
}

const ALL: &[&[Trial]] = &[
    contract::TRIALS,
    modes::TRIALS,
    sets::TRIALS,
    names::TRIALS,
    places::TRIALS,
    refusals::TRIALS,
    several::TRIALS,
    forking::TRIALS,
    stale::TRIALS,
    stale_answers::TRIALS,
    losing::TRIALS,
    pauses::TRIALS,
    storm::TRIALS,
    crossing::TRIALS,
    hung::TRIALS,
    liars::TRIALS,
    text_liars::TRIALS,
    addresses::TRIALS,
    network::TRIALS,
    resuming::TRIALS,
    resume_storm::TRIALS,
    doubt::TRIALS,
];

/// The names of all trials.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().copied().flatten().map(|trial| trial.name)
}

/// The trials that the arguments choose.
pub(crate) fn chosen(arguments: &Arguments, clients: &[&str]) -> Vec<&'static Trial> {
    let mut trials: Vec<_> = ALL.iter().copied().flatten().collect();
    let chosen = arguments.choose(&names().collect::<Vec<_>>(), clients);
    trials.retain(|trial| chosen.contains(&trial.name));
    // One that is asked for by its whole name is wanted.
    trials.retain(|trial| {
        trial.pace != Pace::Deep || arguments.deep || arguments.words.iter().any(|word| word == trial.name)
    });
    trials
}
