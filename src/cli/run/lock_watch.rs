//! Looks at the lock of a running command, and decides when the command must end: when the lock is
//! lost, or when it is in doubt and the time is over in which it cannot be anybody else's. Says when
//! the doubt begins and ends. Starts, ends and signals nothing.
//!
//! A session that resumes is *in doubt* while it has no connection: the server may be away, or be
//! gone for good. Until a limit, which the session knows, no server gives its locks to others. So
//! the command goes on, but is ended so early that it is dead at the limit.

use std::time::{Duration, Instant};

use lockd::client::SessionState;

use super::acquire::HeldLocks;
use super::boot_clock::boot_clock;
use super::end::KILL_MARGIN;
use super::explain::printable_names;
use super::progress::Talk;
use super::watch::CHECK_INTERVAL;
use crate::cli::messages::MessageWriter;
use crate::cli::text::age;

/// A connection that ends again and again is reported at most this often.
const BETWEEN_DOUBTS: Duration = Duration::from_secs(60);

/// Why a command must end, and how.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LockLoss {
    /// The time between SIGTERM and SIGKILL; `None` if it is to be killed at once.
    pub(super) grace: Option<Duration>,
    pub(super) text: String,
}

/// The lock of a command, as it was seen last.
pub(super) struct LockWatch<'a> {
    locks: &'a HeldLocks,
    messages: &'a MessageWriter,
    talk: Talk,
    grace: Duration,
    /// When the lock was certainly not anybody else's, by [`boot_clock`].
    last_seen: Duration,
    /// The doubt that the command goes on in.
    doubt: Option<Doubt>,
    /// When a doubt was reported last.
    reported: Option<Instant>,
}

struct Doubt {
    since: Instant,
    /// When the command is to be ended.
    end_at: Instant,
    /// The attempts to resume that were reported as failed.
    failures: u64,
    is_reported: bool,
}

impl<'a> LockWatch<'a> {
    /// `last_seen`: the lock was held at this time, by [`boot_clock`].
    pub(super) fn new(
        locks: &'a HeldLocks,
        (messages, talk): (&'a MessageWriter, Talk),
        grace: Duration,
        last_seen: Duration,
    ) -> Self {
        Self { locks, messages, talk, grace, last_seen, doubt: None, reported: None }
    }

    /// When to [look](Self::look) again at the latest, if that is known.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.doubt.as_ref().map(|doubt| doubt.end_at)
    }

    /// Looks at the lock. Goes on with resuming the session, and asks the server now and then
    /// whether it is there; so it must be called about once a second.
    ///
    /// # Errors
    /// Why the command must end.
    pub(super) fn look(&mut self) -> Result<(), LockLoss> {
        // Before the state is known, so that what is counted from now is not too late.
        let (now, seen) = (Instant::now(), boot_clock());
        let state = self.locks.session.state();
        let unseen = seen.saturating_sub(self.last_seen);
        let rest = judge(&state, self.grace, unseen, self.doubt.is_some())?;
        self.last_seen = seen;
        match (state, rest) {
            (SessionState::InDoubt { reason, failures, last_failure, .. }, Some(rest)) => {
                self.go_on_in_doubt(now, rest, &reason);
                self.tell_failure(failures, last_failure.as_deref());
            }
            _ => self.end_doubt(),
        }
        Ok(())
    }

    fn go_on_in_doubt(&mut self, now: Instant, rest: Duration, reason: &str) {
        let end_at = now + rest;
        if let Some(doubt) = &mut self.doubt {
            doubt.end_at = end_at;
            return;
        }
        let is_reported = match self.talk {
            Talk::Quiet => false,
            Talk::Outages => self.reported.is_none_or(|last| last.elapsed() > BETWEEN_DOUBTS),
            Talk::Verbose => true,
        };
        self.doubt = Some(Doubt { since: now, end_at, failures: 0, is_reported });
        if is_reported {
            self.reported = Some(now);
            let (server, rest) = (self.locks.server(), age(rest.as_secs_f64()));
            self.say(&format!(
                "the connection to {server} is lost ({reason}), the lock may still be held: the command goes \
                 on, and is ended in {rest} unless the session resumes"
            ));
        }
    }

    fn tell_failure(&mut self, failures: u64, last_failure: Option<&str>) {
        let (Some(doubt), Some(reason)) = (&mut self.doubt, last_failure) else { return };
        if self.talk == Talk::Verbose && std::mem::replace(&mut doubt.failures, failures) < failures {
            self.say(&format!("attempt {failures} to resume has failed: {reason}"));
        }
    }

    fn end_doubt(&mut self) {
        if let Some(doubt) = self.doubt.take()
            && doubt.is_reported
        {
            let lasted = age(doubt.since.elapsed().as_secs_f64());
            self.say(&format!("the session has resumed after {lasted}, the lock is still held"));
        }
    }

    fn say(&self, text: &str) {
        self.messages.write(&format!("{}: {text}", printable_names(&self.locks.names)));
    }
}

/// Decides about a command that needs up to `grace` and the [`KILL_MARGIN`] to end. It may go on:
/// without limit, or for the returned time. Its lock was held, or not anybody else's, `unseen` ago,
/// or later. `is_known`: the command has been going on in this doubt.
///
/// # Errors
/// Why it must end.
fn judge(
    state: &SessionState,
    grace: Duration,
    unseen: Duration,
    is_known: bool,
) -> Result<Option<Duration>, LockLoss> {
    let (grace, what, reason) = match state {
        SessionState::Alive => return Ok(None),
        SessionState::InDoubt { left: Some(left), reason, .. } => {
            let rest = left.saturating_sub(grace + KILL_MARGIN);
            if !rest.is_zero() {
                return Ok(Some(rest));
            }
            let (grace, why) = if is_known {
                let grace = grace.min(left.saturating_sub(KILL_MARGIN));
                (Some(grace), "the session has not resumed in time")
            } else {
                // It gets its whole grace, as in each loss: what it needs it for is not known here.
                (grace_left(grace, unseen), "there is no time to wait until the session resumes")
            };
            (grace, "the lock may soon be lost", format!("{reason}; {why}"))
        }
        SessionState::InDoubt { left: None, reason, .. } | SessionState::Lost { reason } => {
            (grace_left(grace, unseen), "the lock is lost", reason.clone())
        }
    };
    let how = if grace.is_some() { "ended" } else { "killed, since it could not be watched" };
    Err(LockLoss { grace, text: format!("{what}, the command is being {how}: {reason}") })
}

/// How much of the grace a command still has that lost its lock at most `unseen` ago; `None` if the
/// grace is over. Usually the loss is seen at once. But if this process was stopped, the server may
/// have granted the lock to others meanwhile, and the command must not work beside them.
fn grace_left(grace: Duration, unseen: Duration) -> Option<Duration> {
    grace.checked_sub(unseen.saturating_sub(CHECK_INTERVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn the_grace_counts_from_when_the_lock_was_last_known_to_be_held() {
        let left = |grace, unseen| grace_left(seconds(grace), seconds(unseen)).map(|left| left.as_secs());
        assert_eq!((left(5, 0), left(5, 1), left(0, 1)), (Some(5), Some(5), Some(0)));
        assert_eq!((left(5, 4), left(5, 6), left(5, 7), left(0, 2)), (Some(2), Some(0), None, None));
    }

    fn in_doubt(left: Option<Duration>) -> SessionState {
        SessionState::InDoubt { reason: "cut".to_owned(), left, failures: 0, last_failure: None }
    }

    #[test]
    fn a_command_in_doubt_goes_on_for_as_long_as_it_is_dead_at_the_limit() {
        let judge =
            |left, is_known| judge(&in_doubt(Some(seconds(left))), seconds(5), Duration::ZERO, is_known);
        for is_known in [false, true] {
            assert_eq!(judge(16, is_known), Ok(Some(seconds(10))));
            assert_eq!(judge(7, is_known), Ok(Some(seconds(1))));
            let loss = judge(6, is_known).unwrap_err();
            assert_eq!(loss.grace, Some(seconds(5)));
            assert!(loss.text.starts_with("the lock may soon be lost, the command is being ended: cut;"));
        }
        // This process was late. The command must be dead at the limit all the same.
        assert_eq!(judge(4, true).unwrap_err().grace, Some(seconds(3)));
        assert_eq!(judge(0, true).unwrap_err().grace, Some(seconds(0)));
    }

    #[test]
    fn a_command_that_cannot_be_dead_at_the_limit_is_ended_at_once_with_its_whole_grace() {
        let judge = |unseen| judge(&in_doubt(Some(seconds(16))), seconds(60), seconds(unseen), false);
        assert_eq!(judge(0).unwrap_err().grace, Some(seconds(60)));
        assert_eq!(judge(70).unwrap_err().grace, None);
    }

    #[test]
    fn a_lost_lock_ends_the_command_at_once() {
        let lost = SessionState::Lost { reason: "kicked".to_owned() };
        for state in [lost, in_doubt(None)] {
            let judge = |unseen| judge(&state, seconds(5), seconds(unseen), true).unwrap_err();
            assert_eq!(judge(0).grace, Some(seconds(5)));
            assert!(judge(0).text.starts_with("the lock is lost, the command is being ended: "));
            assert_eq!(judge(7).grace, None);
            assert!(judge(7).text.contains("killed, since it could not be watched"));
        }
        assert_eq!(judge(&SessionState::Alive, seconds(5), seconds(100), true), Ok(None));
    }
}
