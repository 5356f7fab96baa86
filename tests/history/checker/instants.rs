//! Decides whether instants can be chosen within their bounds so that some come before others: the
//! exact core of the checker. Knows nothing of locks or calls.
//!
//! Every instant is put as early as its own bound and its predecessors allow. If that is too late
//! for one of them, no choice exists, because no other choice puts any instant earlier. So the
//! answer is exact, and it takes one pass.
//!
//! There is also a *least* choice: it puts some instants as late as possible, and the others as
//! early as possible. It is a choice too, unless one of the first kind must come before one of the
//! second kind and can be later.

use crate::history::Nanos;

/// Something that happened at one moment between `low` and `high`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instant {
    pub(crate) low: Nanos,
    pub(crate) high: Nanos,
    /// The call it is part of.
    pub(crate) call: usize,
    pub(crate) least: Least,
}

/// Where the least choice puts an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Least {
    AsLateAsPossible,
    AsEarlyAsPossible,
}

/// Instants, and which of them come before which. Two may fall on the same moment.
#[derive(Debug, Default)]
pub(crate) struct Order {
    pub(crate) instants: Vec<Instant>,
    edges: Vec<(usize, usize)>,
}

/// The bounds of every instant, given all its predecessors and successors.
#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) earliest: Vec<Nanos>,
    pub(crate) latest: Vec<Nanos>,
}

/// Instants that contradict each other: each comes before the next, and the last one is too late,
/// or they form a cycle.
#[derive(Debug)]
pub(crate) struct Conflict {
    pub(crate) instants: Vec<usize>,
}

impl Order {
    pub(crate) fn instant(&mut self, (low, high): (Nanos, Nanos), call: usize, least: Least) -> usize {
        self.instants.push(Instant { low, high, call, least });
        self.instants.len() - 1
    }

    /// Where the least choice puts this instant.
    pub(crate) fn least(&self, bounds: &Bounds, at: usize) -> Nanos {
        match self.instants[at].least {
            Least::AsLateAsPossible => bounds.latest[at],
            Least::AsEarlyAsPossible => bounds.earliest[at],
        }
    }

    pub(crate) fn before(&mut self, first: usize, second: usize) {
        if first != second {
            self.edges.push((first, second));
        }
    }

    /// The bounds of all instants, and the conflicts. The bounds are computed as if the conflicts
    /// were resolved.
    pub(crate) fn solve(&self) -> (Bounds, Vec<Conflict>) {
        let after = Successors::of(self);
        let mut earliest: Vec<Nanos> = self.instants.iter().map(|instant| instant.low).collect();
        let mut because: Vec<Option<usize>> = vec![None; self.instants.len()];
        let mut open = after.predecessors.clone();
        let mut sorted: Vec<usize> = (0..open.len()).filter(|&at| open[at] == 0).collect();
        let mut conflicts = Vec::new();
        let mut next = 0;
        while let Some(&at) = sorted.get(next) {
            next += 1;
            if earliest[at] > self.instants[at].high {
                conflicts.push(Conflict { instants: chain(&because, at) });
                // Instants that follow must not be reported because of this conflict.
                earliest[at] = self.instants[at].high;
            }
            for &later in after.of_instant(at) {
                if earliest[at] > earliest[later] {
                    (earliest[later], because[later]) = (earliest[at], Some(at));
                }
                open[later] -= 1;
                if open[later] == 0 {
                    sorted.push(later);
                }
            }
        }
        if sorted.len() < open.len() {
            conflicts.push(Conflict { instants: self.cycle(&open) });
        }
        let latest = self.latest(&after, &sorted);
        (Bounds { earliest, latest }, conflicts)
    }

    fn latest(&self, after: &Successors, sorted: &[usize]) -> Vec<Nanos> {
        let mut latest: Vec<Nanos> = self.instants.iter().map(|instant| instant.high).collect();
        for &at in sorted.iter().rev() {
            let bound = after.of_instant(at).iter().map(|&later| latest[later]).min();
            latest[at] = bound.map_or(latest[at], |bound| bound.min(latest[at]));
        }
        latest
    }

    /// A cycle among the instants that were never reached because some predecessor was not.
    fn cycle(&self, open: &[usize]) -> Vec<usize> {
        let mut before = vec![None; open.len()];
        for &(first, second) in &self.edges {
            if open[first] > 0 && open[second] > 0 {
                before[second] = Some(first);
            }
        }
        let mut seen = vec![false; open.len()];
        let mut at = before.iter().position(Option::is_some).unwrap_or(0);
        while !seen[at] {
            seen[at] = true;
            at = before[at].unwrap_or(at);
        }
        let mut cycle = vec![at];
        let mut back = before[at].unwrap_or(at);
        while back != at {
            cycle.push(back);
            back = before[back].unwrap_or(at);
        }
        cycle.reverse();
        cycle
    }
}

/// From the instant whose bound forces the conflict to the one that is too late.
fn chain(because: &[Option<usize>], last: usize) -> Vec<usize> {
    let mut chain: Vec<usize> = std::iter::successors(Some(last), |&at| because[at]).collect();
    chain.reverse();
    chain
}

/// For each instant the ones that come after it, all in one list.
struct Successors {
    starts: Vec<usize>,
    successors: Vec<usize>,
    predecessors: Vec<usize>,
}

impl Successors {
    fn of(order: &Order) -> Self {
        let count = order.instants.len();
        let mut starts = vec![0; count + 1];
        let mut predecessors = vec![0; count];
        for &(first, second) in &order.edges {
            starts[first + 1] += 1;
            predecessors[second] += 1;
        }
        for at in 0..count {
            starts[at + 1] += starts[at];
        }
        let mut next = starts.clone();
        let mut successors = vec![0; order.edges.len()];
        for &(first, second) in &order.edges {
            successors[next[first]] = second;
            next[first] += 1;
        }
        Self { starts, successors, predecessors }
    }

    fn of_instant(&self, at: usize) -> &[usize] {
        &self.successors[self.starts[at]..self.starts[at + 1]]
    }
}
