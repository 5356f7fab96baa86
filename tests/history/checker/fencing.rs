//! Fenced mutex: tokens rise in the order of the grants, over all names and over restarts, and no
//! token is given twice.
//!
//! Proves: no token is seen twice, and none is lower than that of a grant that had been reported
//! before the call for it began. (Whether the tokens also fit the order that the holds force is
//! decided in `exclusion`.) Cannot see: grants whose token was not reported to a client.

use super::verdict::{Model, Verdict};
use crate::history::{CallKind, History, Mode};

pub(crate) fn check(history: &History, verdict: &mut Verdict) {
    let mut granted: Vec<(u64, usize)> = Vec::new();
    for (index, call) in history.calls.iter().enumerate() {
        // A conversion to shared keeps the session's token.
        let is_new = !matches!(call.kind, CallKind::Convert { .. }) || call.wants[0].1 == Mode::Exclusive;
        granted.extend(call.token().filter(|_| is_new).map(|token| (token, index)));
    }
    granted.sort_unstable();
    verdict.count(Model::Fencing, granted.len());
    for pair in granted.windows(2) {
        if pair[0].0 == pair[1].0 {
            let what = format!("the token {} was given twice", pair[0].0);
            verdict.convict(Model::Fencing, what, vec![pair[0].1, pair[1].1]);
        }
    }
    // Of all grants with a lower token, the one whose call began last.
    let mut latest: Option<usize> = None;
    for &(_, index) in &granted {
        let start = history.calls[index].start;
        match latest {
            Some(lower) if history.calls[lower].start > history.calls[index].end => {
                let what = "the later grant has the lower token";
                verdict.convict(Model::Fencing, what, vec![index, lower]);
            }
            Some(lower) if history.calls[lower].start >= start => continue,
            _ => latest = Some(index),
        }
    }
}
