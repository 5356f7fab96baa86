//! How a connection asks the broker for a lock: the one place for all protocols. Knows requests and
//! the order of replies; no bytes of any protocol.
//!
//! A request for one name is first tried without a place in the queue ([`Connection::try_first`]).
//! Only if the name is taken, and the client is ready to wait, is it asked for with one
//! ([`Connection::ask_or_queue`]). Nearly every name is free, and trying first saves such a request
//! the copy of what a queued request's reply needs (the name, the id), which must be noted
//! beforehand. A taken name is looked up once more; its request is about to wait anyway.

use std::time::Duration;

use super::connection::Connection;
use crate::broker::{AcquireError, Attempt, Grant, Mode, ObservedSession, Space, Ticket, Wait};

impl Connection {
    /// Acquires one name without waiting. `None` if the name cannot be had now and `limit` lets the
    /// request wait. A `limit` of `None` is a wait without limit.
    pub(super) fn try_first(
        &self,
        space: Space,
        name: &[u8],
        mode: Mode,
        limit: Option<Duration>,
    ) -> Option<Result<Grant, AcquireError>> {
        let answer = self.session.try_acquire(space, name, mode);
        let would_wait = matches!(answer, Err(AcquireError::TimedOut | AcquireError::NotYet(_)));
        (!would_wait || limit == Some(Duration::ZERO)).then_some(answer)
    }

    /// Makes a `request`, which may be queued unless `limit` is zero. `None` if it was. `note`
    /// keeps, under the ticket, what the reply will need; `forget` drops that again if the request
    /// was not queued.
    ///
    /// The reply is noted *before* the broker is asked. Once the request is in the queue, another
    /// thread may release the lock, which grants it to this session, and send the reply before
    /// `request` returns here.
    pub(super) fn ask_or_queue(
        &mut self,
        limit: Option<Duration>,
        note: impl FnOnce(Ticket),
        request: impl FnOnce(&ObservedSession, Option<Wait>) -> Result<Attempt, AcquireError>,
        forget: impl FnOnce(Ticket),
    ) -> Option<Result<Grant, AcquireError>> {
        if limit == Some(Duration::ZERO) {
            return answer_of(request(&self.session, None));
        }
        let ticket = self.next_ticket();
        note(ticket);
        let answer = answer_of(request(&self.session, Some(Wait { ticket, limit })));
        if answer.is_none() {
            self.expect_expiry(limit);
        } else {
            forget(ticket);
        }
        answer
    }
}

/// `None` if the request was queued.
fn answer_of(attempt: Result<Attempt, AcquireError>) -> Option<Result<Grant, AcquireError>> {
    match attempt {
        Ok(Attempt::Granted(grant)) => Some(Ok(grant)),
        Ok(Attempt::Queued) => None,
        Err(error) => Some(Err(error)),
    }
}
