//! What every event of the rules is given, and what it returns. Plain values.

use crate::broker::clock::Stamp;
use crate::broker::limits::{Limits, NAMES_AT_ONCE_MAX};
use crate::broker::name::Key;
use crate::broker::outcome::{Held, Outcome};
use crate::broker::tokens::Tokens;
use crate::os::sync::IS_MODEL_CHECKED;

/// A session, as the table and the lanes know it: a small number, which another session gets only
/// when nothing of this one is left.
pub(crate) type Slot = u32;

/// What a session calls one of its waits by. Unique among the waits of that session.
pub type Ticket = u64;

/// A name and its hash. The table never computes a hash: the shell has done so already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HashedKey {
    pub(crate) key: Key,
    pub(crate) hash: u64,
}

/// What it costs to find, queue, grant or free one name. The unit is one step of the search for
/// cycles: a look at one place or one holder.
pub(crate) const NAME_COST: usize = 8;

/// The budget of an ordinary turn, while other threads wait for the table: about a tenth of a
/// millisecond.
pub(crate) const TURN_BUDGET: usize = if IS_MODEL_CHECKED { NAME_COST } else { 1_000 };

/// The budget of a bulk turn, of which there is one at a time: a few milliseconds. Enough for the
/// largest request that there can be, see [`Table::cost`](super::Table::cost). If a search for
/// cycles needs more, the wait is refused.
pub(crate) const BULK_BUDGET: usize = if IS_MODEL_CHECKED { 8 * NAME_COST } else { 25_000 };

const _: () = assert!(IS_MODEL_CHECKED || NAMES_AT_ONCE_MAX * NAME_COST <= BULK_BUDGET / 2);

/// What every event is given, and where its decisions go.
pub(crate) struct Step<'a> {
    pub(crate) now: Stamp,
    pub(crate) tokens: &'a mut Tokens,
    pub(crate) limits: &'a Limits,
    /// Whether anything may be granted: false during the grace, and once the broker has been shut.
    pub(crate) granting: bool,
    /// How much more may be done, in units of which a name costs [`NAME_COST`].
    pub(crate) budget: usize,
    /// The budget was too small. Then the event has either changed nothing, or done a part and goes
    /// on when it is repeated. What it returned means nothing; repeat it with a larger budget.
    pub(crate) is_exhausted: bool,
    /// Waits that ended through this event, in the order in which they did.
    pub(crate) decided: &'a mut Vec<Decision>,
    /// Names that left the table through this event.
    pub(crate) idle: &'a mut Vec<FreedName>,
}

impl Step<'_> {
    /// Takes `cost` from the budget. If not enough is left, takes nothing, notes that, and returns
    /// false.
    pub(super) fn spend(&mut self, cost: usize) -> bool {
        let rest = self.budget.checked_sub(cost);
        self.budget = rest.unwrap_or(self.budget);
        self.is_exhausted |= rest.is_none();
        rest.is_some()
    }
}

/// The end of one wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) slot: Slot,
    pub(crate) ticket: Ticket,
    pub(crate) outcome: Outcome,
    /// How many more names the session holds because of it. None for a conversion: it held the name
    /// already.
    pub(crate) acquired: usize,
}

/// A name that nobody holds and nobody waits for any more.
#[derive(Debug)]
pub(crate) struct FreedName {
    pub(crate) key: HashedKey,
    /// Whether its last exclusive holder vanished without releasing.
    pub(crate) orphaned: bool,
}

/// For how long a request may wait, and under which ticket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitSpec {
    pub(crate) ticket: Ticket,
    /// When the wait ends; `None`: never.
    pub(crate) deadline: Option<Stamp>,
}

/// Why a request was neither granted nor queued. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotGranted {
    /// The request would have to wait, and was not given a [`WaitSpec`].
    Busy,
    AlreadyHeld(Held),
    AlreadyWaiting,
    /// Only for a conversion.
    NotHeld,
    /// The session has reached its limit on waits.
    TooManyWaits,
    /// The sessions that would wait for each other, the asking one first.
    Deadlock(Vec<Slot>),
    /// It would cost more than the budget.
    TooLarge,
}

/// Why a session was not given back a lock. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotReclaimed {
    AlreadyHeld(Held),
    /// The session waits for a lock, so that others might come to wait in a cycle.
    Waiting,
    /// The token may still be given.
    TokenNotGivenYet,
    /// Too few holders are allowed, by its mode or by that of another holder.
    Conflict,
}

/// One session's share of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) token: u64,
    pub(crate) since: Stamp,
}
