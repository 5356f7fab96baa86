//! Where the broker under test that can be given a defect takes its fencing tokens from: correct
//! counters of two kinds, and defects in them. Knows nothing of holders and queues.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::Name;
use crate::random::Random;

/// One defect in how tokens are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenDefect {
    /// Sometimes gives a token that is lower than the last one of its name.
    GoesBack,
    /// Sometimes gives the last token of the name again.
    Repeats,
    /// Does not raise the table's counter when a name moves there from its lane.
    GoesBackInTable,
    /// Does not raise the lane's counter when a name returns from the table.
    GoesBackInLane,
    /// Raises the table's counter for the first name of a set alone.
    SetIsTooLow,
    /// Starts the counter of a name again after nobody had held it or waited for it.
    StartsAgain,
}

/// Which names count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counters {
    /// As in the real broker: the names of a lane, and those that are in the table.
    Lanes,
    /// Each name by itself, so that tokens of different names are often the same.
    Names,
}

const LANES: usize = 2;

/// Every counter starts here and counts in steps, so that defects can give numbers in between.
const START: u64 = 10_000;
const STEP: u64 = 100;

/// The counters.
pub(crate) struct Tokens {
    defect: Option<TokenDefect>,
    random: Random,
    counters: Counters,
    lanes: [u64; LANES],
    table: u64,
    in_table: BTreeSet<Name>,
    names: BTreeMap<Name, u64>,
}

fn lane_of(name: Name) -> usize {
    name as usize % LANES
}

impl Tokens {
    pub(crate) fn new(defect: Option<TokenDefect>, counters: Counters, random: Random) -> Self {
        let (in_table, names) = (BTreeSet::new(), BTreeMap::new());
        Self { defect, random, counters, lanes: [START; LANES], table: START, in_table, names }
    }

    /// Whether it makes its mistake this time.
    fn errs(&mut self, defect: TokenDefect) -> bool {
        self.defect == Some(defect) && self.random.one_in(6)
    }

    /// A second session is concerned with the names, or a set contains them: they move to the
    /// table.
    pub(crate) fn contend(&mut self, names: &[Name]) {
        for (at, &name) in names.iter().enumerate() {
            let is_raised = match self.defect {
                Some(TokenDefect::GoesBackInTable) => false,
                Some(TokenDefect::SetIsTooLow) => at == 0,
                _ => true,
            };
            if self.in_table.insert(name) && is_raised {
                self.table = self.table.max(self.lanes[lane_of(name)]);
            }
        }
    }

    /// Nobody holds the name or waits for it any more.
    pub(crate) fn forget(&mut self, name: Name) {
        if self.in_table.remove(&name) && self.defect != Some(TokenDefect::GoesBackInLane) {
            let lane = &mut self.lanes[lane_of(name)];
            *lane = self.table.max(*lane);
        }
        if self.defect == Some(TokenDefect::StartsAgain) {
            self.names.remove(&name);
        }
    }

    /// The token of a grant of these names, all at once.
    pub(crate) fn next(&mut self, names: &[Name]) -> u64 {
        let last = names.iter().filter_map(|name| self.names.get(name)).max().copied();
        if let Some(last) = last {
            if self.errs(TokenDefect::Repeats) {
                return last;
            }
            if self.errs(TokenDefect::GoesBack) {
                return last - STEP / 2;
            }
        }
        let token = match self.counters {
            Counters::Names => last.unwrap_or(START) + STEP,
            Counters::Lanes => {
                let is_deferred = names.iter().any(|name| self.in_table.contains(name));
                let counter = if is_deferred { &mut self.table } else { &mut self.lanes[lane_of(names[0])] };
                *counter += STEP;
                *counter
            }
        };
        self.names.extend(names.iter().map(|&name| (name, token)));
        token
    }
}
