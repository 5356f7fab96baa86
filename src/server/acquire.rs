//! How a connection asks the broker for a lock that may be taken: the one place for all protocols. Knows
//! requests, replies and their order; no bytes and no reply of any protocol.
//!
//! A request for one name is first tried without a place in the queue ([`Connection::try_first`]), and
//! waits only if that fails ([`Connection::ask_with_wait`]). Trying first is for the free name, which
//! nearly every name is: a request that may wait costs more even when it is granted at once, since what
//! its reply needs (the name, the id) must be copied and noted beforehand. For a taken name, the broker
//! looks at the name again; that request is about to sleep anyway.

use std::time::Duration;

use super::connection::Connection;
use crate::broker::{AcquireError, Attempt, Mode, ObservedSession, Space, Ticket, Wait};

impl Connection {
    /// Acquires one name without waiting. `None` if the name is not to be had now and `limit` lets the
    /// request wait; `limit` is `None` for a wait without a limit.
    pub(super) fn try_first(
        &self,
        space: Space,
        name: &[u8],
        mode: Mode,
        limit: Option<Duration>,
    ) -> Option<Result<Attempt, AcquireError>> {
        let attempt = self.session.try_acquire(space, name, mode);
        let would_wait = matches!(attempt, Ok(Attempt::Busy) | Err(AcquireError::NotYet(_)));
        (!would_wait || limit == Some(Duration::ZERO)).then_some(attempt)
    }

    /// Makes a `request` that may get a place in a queue. `note` keeps, under the ticket, what the reply will
    /// need; `forget` drops it again if the request does not have to wait.
    ///
    /// The reply is noted *before* the broker is asked: from the moment the request is in the queue, another
    /// thread may release the lock, grant it to this session and send the reply, before `request` returns here.
    pub(super) fn ask_with_wait(
        &mut self,
        limit: Option<Duration>,
        note: impl FnOnce(Ticket),
        request: impl FnOnce(&ObservedSession, Wait) -> Result<Attempt, AcquireError>,
        forget: impl FnOnce(Ticket),
    ) -> Result<Attempt, AcquireError> {
        let ticket = self.next_ticket();
        note(ticket);
        let attempt = request(&self.session, Wait { ticket, limit });
        if attempt == Ok(Attempt::Queued) {
            self.expect_expiry(limit);
        } else {
            forget(ticket);
        }
        attempt
    }
}
