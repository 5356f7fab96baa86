//! Fenced mutex: for each name by itself, tokens rise in the order of the grants, also over restarts,
//! and no token is given twice. The token of a set counts for each of its names. Between different
//! names nothing is promised: they may have the same tokens, in any order.
//!
//! Proves: no token of a name is seen twice, and none is lower than that of a grant of the name that
//! had been reported before the call for it began. (Whether the tokens also fit the order that the
//! holds force is decided in `exclusion`.) Cannot see: grants whose token was not reported to a
//! client.

use super::exclusion::Fitted;
use super::verdict::{Model, Verdict};
use crate::history::{History, Name};

pub(crate) fn check(history: &History, fitted: &Fitted, verdict: &mut Verdict) {
    let holds = &fitted.holds;
    let call_of = |at: usize| holds.order.instants[at].call;
    let mut granted: Vec<(Name, u64, usize)> =
        holds.tokens.iter().map(|&(name, token, at)| (name, token, call_of(at))).collect();
    verdict.count(Model::Fencing, granted.len());
    granted.sort_unstable();
    for of_name in granted.chunk_by(|one, other| one.0 == other.0) {
        check_name(history, of_name, verdict);
    }
}

/// Checks the grants of one name, which are in the order of their tokens.
fn check_name(history: &History, granted: &[(Name, u64, usize)], verdict: &mut Verdict) {
    for pair in granted.windows(2) {
        let ((name, token, first), (_, next, second)) = (pair[0], pair[1]);
        if token == next {
            let what = format!("the token {token} was given twice for n{name}");
            verdict.convict(Model::Fencing, what, vec![first, second]);
        }
    }
    // Of all grants with a lower token, the one whose call began last.
    let mut latest: Option<usize> = None;
    for &(name, _, index) in granted {
        let start = history.calls[index].start;
        match latest {
            Some(lower) if history.calls[lower].start > history.calls[index].end => {
                let what = format!("the later grant of n{name} has the lower token");
                verdict.convict(Model::Fencing, what, vec![index, lower]);
            }
            Some(lower) if history.calls[lower].start >= start => continue,
            _ => latest = Some(index),
        }
    }
}
