//! What the checker says: which model a history does not fit, why, and the calls that show it.
//! Values and their display; decides nothing.

use std::collections::BTreeMap;

use crate::history::{History, Nanos};

/// What a broker promises, part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Model {
    /// One exclusive holder, who alone releases, and for as long as it likes.
    Mutex,
    /// Exclusive holders alone, shared ones together, and conversions that never let go.
    ReadWrite,
    /// Tokens rise in the order of the grants, whatever the name, and none is given twice.
    Fencing,
    /// Nobody overtakes who waits.
    Fifo,
    /// Several at once: all in one instant or none, and nothing held before.
    Sets,
    /// Who can be granted what it waits for is granted it.
    Stuck,
    /// A server that was not stopped cleanly grants nothing until old holders have found out.
    Recovery,
}

/// One reason why the history fits a model not.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) model: Model,
    pub(crate) what: String,
    /// The calls that show it, as indices.
    pub(crate) calls: Vec<usize>,
}

/// How many violations of one model are noted; the first ones say it all.
const NOTED_MAX: usize = 10;

/// What came of a check.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<Violation>,
    /// How many calls each model was asked about.
    pub(crate) checked: BTreeMap<Model, usize>,
}

impl Verdict {
    pub(crate) fn convict(&mut self, model: Model, what: impl Into<String>, calls: Vec<usize>) {
        if self.of(model).count() < NOTED_MAX {
            self.violations.push(Violation { model, what: what.into(), calls });
        }
    }

    pub(crate) fn count(&mut self, model: Model, calls: usize) {
        *self.checked.entry(model).or_default() += calls;
    }

    pub(crate) fn of(&self, model: Model) -> impl Iterator<Item = &Violation> {
        self.violations.iter().filter(move |violation| violation.model == model)
    }

    pub(crate) fn convicts(&self, model: Model) -> bool {
        self.of(model).next().is_some()
    }

    pub(crate) fn acquits(&self) -> bool {
        self.violations.is_empty()
    }

    /// All of it, for people.
    pub(crate) fn report(&self, history: &History) -> String {
        let one = |violation: &Violation| {
            let Violation { model, what, calls } = violation;
            format!("{model:?}: {what}\n{}", history.excerpt(calls, 12))
        };
        let all: Vec<String> = self.violations.iter().map(one).collect();
        if all.is_empty() { "no violation".to_owned() } else { all.join("\n") }
    }
}

/// What the checker takes for granted about a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How long a broker may take to do what it can do.
    pub(crate) patience: Nanos,
    /// How long it may take to notice that a session has ended.
    pub(crate) notice: Nanos,
}
