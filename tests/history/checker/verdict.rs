//! The checker's result: which model a history does not fit, why, and the calls that show it.
//! Values and their display; decides nothing.

use std::collections::BTreeMap;

use crate::history::{History, Nanos};

/// The parts of what a broker promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Model {
    /// One exclusive holder. Only it can release the lock, and it can hold it for any length of
    /// time.
    Mutex,
    /// An exclusive holder is alone, shared holders hold together, and a conversion never releases
    /// the lock in between.
    ReadWrite,
    /// While a session holds a limited lock, there are never more holders than its limit, itself
    /// included, whatever the modes of the others.
    Limit,
    /// The tokens of each name rise in the order of its grants, and none is given twice for a name.
    Fencing,
    /// No request overtakes one that is waiting.
    Fifo,
    /// Several names at once: all are granted in one instant or none is, and nothing is held before
    /// that.
    Sets,
    /// A request that can be granted is granted.
    Stuck,
    /// A wait with a time limit ends at its time.
    TimeLimit,
    /// After an unclean stop, the next server grants nothing until old holders have found out.
    Recovery,
    /// A session that can resume does so if it comes back in time.
    Resume,
}

/// One reason why the history does not fit a model.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) model: Model,
    pub(crate) what: String,
    /// The calls that show it, as indices.
    pub(crate) calls: Vec<usize>,
}

/// The greatest number of violations recorded for one model; the first ones are enough.
const NOTED_MAX: usize = 10;

/// The result of a check.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<Violation>,
    /// How many calls were checked against each model.
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

    /// All violations, as text for people.
    pub(crate) fn report(&self, history: &History) -> String {
        let one = |violation: &Violation| {
            let Violation { model, what, calls } = violation;
            format!("{model:?}: {what}\n{}", history.excerpt(calls, 12))
        };
        let all: Vec<String> = self.violations.iter().map(one).collect();
        if all.is_empty() { "no violation".to_owned() } else { all.join("\n") }
    }
}

/// What the checker assumes about a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How long a broker may take to grant what it can grant.
    pub(crate) grant_delay_max: Nanos,
    /// How long a broker may take to notice that a session has ended.
    pub(crate) end_notice_max: Nanos,
    /// By how many thousandths a server's clock may run faster than those of its clients.
    pub(crate) clock_lead: u64,
}
