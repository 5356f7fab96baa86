//! The wait between the end of a connection and the end of its session, in which its locks are
//! kept. How long it lasts is decided in `client_knows`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::client_knows::{ClientState, LEAVE_POLL, NextStep, TELL_LIMIT};
use super::parking::ParkedState;
use super::resume::sessions::{Ended, ResumableSession};
use super::send_queue::SendQueue;
use super::server_state::ServerState;
use crate::broker::ObservedSession;
use crate::os::socket::{PollFd, PollFlags, Waker, wait_for};

/// After what time to try again to write down that locks are given away.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// What has become of the session of a connection that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterHold {
    /// Its locks may go to other sessions.
    Release,
    /// It goes on with another connection.
    MovedOn,
}

/// A connection that has ended.
pub(super) struct EndedConnection<'a> {
    pub(super) id: u64,
    pub(super) send_queue: &'a SendQueue,
    pub(super) session: &'a ObservedSession,
    pub(super) resumable: Option<&'a ResumableSession>,
    pub(super) server: &'a ServerState,
}

/// Counts a session that is in doubt, until it is dropped.
struct InDoubt<'a>(&'a ServerState);

impl<'a> InDoubt<'a> {
    fn count(server: &'a ServerState) -> Self {
        server.in_doubt_now.fetch_add(1, Relaxed);
        Self(server)
    }
}

impl Drop for InDoubt<'_> {
    fn drop(&mut self) {
        self.0.in_doubt_now.fetch_sub(1, Relaxed);
    }
}

impl EndedConnection<'_> {
    /// Returns once the client cannot believe any more that it holds a lock, and its work has ended
    /// or had its time; or once it has resumed its session on another connection. Ends its waits at
    /// once, since no grant can reach it any more. Returns early if the server is stopping and its
    /// broker grants nothing any more. (A server that stops first shuts its broker and then counts
    /// the holders, so until it is stopping the locks are kept.) `tell_deadline` is of a connection
    /// that had ended in an earlier image of the program.
    pub(super) fn hold_locks_until_client_knows(&self, tell_deadline: Option<Instant>) -> AfterHold {
        let Self { send_queue, session, server, .. } = self;
        if !send_queue.with_end(|end| end.has_said_hello())
            || send_queue.client_state() == ClientState::HasLeft
        {
            return self.try_to_end().unwrap_or(AfterHold::Release);
        }
        if self.has_moved_on() {
            return AfterHold::MovedOn;
        }
        send_queue.hang_up();
        send_queue.note_silence();
        self.end_waits();
        if session.info().locks_held() == 0 {
            // A session that can resume has nothing to resume, either.
            return self.try_to_end().unwrap_or(AfterHold::Release);
        }
        let _counted = self.resumable.map(|_| InDoubt::count(server));
        self.note_doubt(tell_deadline.is_none());
        let tell_deadline = tell_deadline.unwrap_or_else(|| Instant::now() + TELL_LIMIT);
        loop {
            server.parking.park_if_requested(|| Some((self.id, ParkedState::Ending { tell_deadline })));
            // Before anything is checked, so that no signal is missed.
            let waker = self.resumable.and_then(|_| send_queue.waker().ok());
            if self.has_moved_on() {
                return AfterHold::MovedOn;
            }
            // The client's own end may follow requests that are not handled any more.
            let may_say_more = send_queue.discard_input();
            let step = send_queue.next_step(tell_deadline);
            let wait = match step {
                _ if server.is_stopped() => Duration::ZERO,
                NextStep::CheckAgain(interval) | NextStep::KeepLocks(interval) => interval,
                NextStep::Reset => {
                    send_queue.reset();
                    continue;
                }
                NextStep::Release => Duration::ZERO,
            };
            let wait = match wait {
                Duration::ZERO => match self.try_to_end() {
                    Ok(ended) => return ended,
                    Err(again) => again,
                },
                wait => wait,
            };
            self.sleep(wait, waker, may_say_more);
        }
    }

    /// Sleeps, for `limit` at most. With a waker, the client's end and all that happens to its
    /// session end this. Interrupted or not, everything is checked again.
    fn sleep(&self, limit: Duration, waker: Option<&Waker>, may_say_more: bool) {
        let Some(waker) = waker else {
            let _ = wait_for(&mut [], Some(limit.min(LEAVE_POLL)));
            return;
        };
        let mut fds = vec![waker.poll_fd()];
        if may_say_more {
            fds.push(PollFd::new(&self.send_queue.stream, PollFlags::IN));
        }
        let _ = wait_for(&mut fds, Some(limit));
        waker.reset();
    }

    fn has_moved_on(&self) -> bool {
        self.resumable.is_some_and(|resumable| !resumable.belongs_to(self.id))
    }

    fn end_waits(&self) {
        match self.resumable {
            None => self.session.end_waits(),
            // Otherwise they may be those of another connection.
            Some(resumable) => {
                if let Some(_turn) = resumable.turn_of(self.id) {
                    self.session.end_waits();
                }
            }
        }
    }

    /// Notes that the session of a client is in doubt, and logs it if that is new.
    fn note_doubt(&self, is_new: bool) {
        let Some(resumable) = self.resumable else { return };
        let info = self.session.info();
        {
            let Some(_turn) = resumable.turn_of(self.id) else { return };
            info.set_in_doubt(true);
        }
        let locks = info.locks_held();
        if !is_new || self.server.is_stopped() {
            return;
        }
        let how = self.send_queue.with_end(|end| end.cause().in_words());
        let text = || format!("{} {how}; it may resume; locks it holds: {locks}", info.address());
        self.server.in_doubt.info(locks as u64, text);
    }

    /// Ends a session that can resume, if it is still that of this connection. The error is the time
    /// after which to try again.
    fn try_to_end(&self) -> Result<AfterHold, Duration> {
        let Some(resumable) = self.resumable else { return Ok(AfterHold::Release) };
        let (client, is_stopped) = (self.send_queue.client_state(), self.server.is_stopped());
        match self.server.resumable.end(resumable, self.id, client, is_stopped) {
            Ended::Now => Ok(AfterHold::Release),
            Ended::MovedOn => Ok(AfterHold::MovedOn),
            Ended::NotWritten(error) => {
                let text = || {
                    format!(
                        "the locks of {} stay: the state directory, or etcd, cannot be written: {error}",
                        self.session.info().address()
                    )
                };
                self.server.not_written.warn(text);
                Err(WRITE_AGAIN)
            }
        }
    }
}
