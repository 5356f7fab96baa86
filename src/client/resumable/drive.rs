//! Does what the [machine](super::machine) says: notices the end of the connection, connects again
//! step by step, and puts a connection that was accepted in the place of the last one. Waits for
//! nothing.

use std::path::Path;

use serde_json::value::RawValue;

use super::machine::{Answer, Condition, MachineStep, SessionVerdict};
use super::reconnect::{Problem, Reconnect, ReconnectProgress};
use super::{ReconnectingSession, Shared};
use crate::client::connect_error::ConnectErrorKind;
use crate::client::pacing::random_fraction;
use crate::client::session::{RemoteSession, ResumeTerms, read_hello};
use crate::os::Keepalive;
use crate::os::boot_clock::BootTime;
use crate::os::socket::PollFlags;
use crate::os::sync::Arc;
use crate::wire::message::{HelloResult, LockResult, Status};

/// What a server has said to an attempt.
enum ResumeReply {
    Accepted(Box<HelloResult>),
    /// Not now; perhaps later.
    NotNow(String),
    /// The session is over, for good.
    Ended(String),
}

impl ReconnectingSession {
    /// Does all that can be done now.
    pub(super) fn step(&self, shared: &mut Shared) {
        loop {
            let now = BootTime::now();
            match shared.machine.step(now) {
                MachineStep::Stand => match shared.current.check() {
                    Ok(()) => return,
                    Err(lost) => self.leave_connection(shared, lost.0),
                },
                MachineStep::Pause(_) => return,
                MachineStep::Lost => {
                    if let Some(attempt) = self.take_attempt(shared) {
                        shared.left_open.push(attempt);
                        shared.tell();
                    }
                    return;
                }
                MachineStep::Begin => self.begin(shared),
                MachineStep::GiveUp => {
                    let stage = shared.attempt.as_ref().map(Reconnect::stage);
                    if self.go_on(shared) {
                        // Something has come, and nobody has looked until now.
                    } else if shared.attempt.as_ref().map(Reconnect::stage) != stage {
                        shared.machine.has_gone_on(now);
                    } else {
                        self.give_up_attempt(shared);
                        self.note_failure(shared, "the server has not answered in time".to_owned());
                    }
                }
                MachineStep::GoOn(_) => {
                    if !self.go_on(shared) {
                        return;
                    }
                }
            }
        }
    }

    /// Sets when the session becomes readable for a program that polls it.
    pub(super) fn arm(&self, shared: &mut Shared) {
        let now = BootTime::now();
        let at = match shared.machine.step(now) {
            MachineStep::Stand => shared.current.proof_step_at(),
            MachineStep::GoOn(at) | MachineStep::Pause(at) => Some(at),
            MachineStep::Begin | MachineStep::GiveUp | MachineStep::Lost => Some(now),
        };
        self.watch.set_timer(if shared.has_news { Some(now) } else { at });
    }

    /// The present connection is lost.
    fn leave_connection(&self, shared: &mut Shared, reason: String) {
        let (proof, belief) = (shared.current.proof(), shared.current.belief());
        let is_unconfirmed = shared.unconfirmed > 0;
        shared.machine.ended(BootTime::now(), proof, belief, is_unconfirmed, reason, random_fraction());
        (shared.failures, shared.last_failure) = (0, None);
        self.watch.remove(&*shared.current);
        if let Condition::Away { limit: None, .. } = shared.machine.condition() {
            // Nothing is held: the server may know at once that nothing more comes.
            shared.current.close();
        }
        shared.tell();
    }

    fn begin(&self, shared: &mut Shared) {
        let now = BootTime::now();
        let next = shared.rounds.next();
        let Some(opening) = shared.machine.begin(now, next.is_last) else { return };
        let timeout = shared.machine.dead_peer_timeout().unwrap_or(Keepalive::DEAD_PEER_TIMEOUT);
        let begun = match (self.url.places().get(next.place), next.address) {
            (Some(place), Some(address)) => {
                let keepalive = Keepalive::client(timeout);
                Reconnect::begin(&self.url, place, &address, &self.options(), &keepalive, opening)
            }
            _ => Err(Problem::Failed("the host has no address".to_owned())),
        };
        match begun {
            Ok(attempt) => {
                self.watch.add(&**attempt.stream(), attempt.waits_for());
                shared.attempt = Some(attempt);
            }
            Err(problem) => self.stop(shared, problem),
        }
    }

    /// Goes on with the attempt. False if nothing more can be done now.
    fn go_on(&self, shared: &mut Shared) -> bool {
        let Some(attempt) = &mut shared.attempt else {
            // Another part of this session has ended it.
            self.note_failure(shared, "it was ended by another part of this session".to_owned());
            return true;
        };
        match attempt.step() {
            ReconnectProgress::Pending => {
                self.watch.add(&**attempt.stream(), attempt.waits_for());
                return false;
            }
            ReconnectProgress::Stopped(problem) => self.stop(shared, problem),
            ReconnectProgress::Answered(reply) => self.judge(shared, &reply),
        }
        true
    }

    /// The attempt has come to nothing.
    fn stop(&self, shared: &mut Shared, problem: Problem) {
        let resumes = shared.attempt.as_ref().is_some_and(|attempt| attempt.resumes);
        self.give_up_attempt(shared);
        match problem {
            Problem::TooLong(reason) => self.lose(shared, reason),
            Problem::WrongProtocol(reason) if !resumes => self.lose(shared, reason),
            Problem::Failed(reason) | Problem::WrongProtocol(reason) => self.note_failure(shared, reason),
        }
    }

    /// The attempt has failed; another follows.
    fn note_failure(&self, shared: &mut Shared, reason: String) {
        let place = self.url.places().get(shared.rounds.current()).filter(|_| self.url.is_group());
        let reason = place.map_or_else(|| reason.clone(), |place| format!("{place}: {reason}"));
        log::debug!("{}: {reason}", self.url.address());
        shared.failures += 1;
        shared.last_failure = Some(reason);
        shared.machine.failed(BootTime::now(), random_fraction());
    }

    fn lose(&self, shared: &mut Shared, reason: String) {
        shared.machine.lose(reason);
        shared.tell();
    }

    /// The attempt has been answered.
    fn judge(&self, shared: &mut Shared, reply: &RawValue) {
        let Some(attempt) = self.take_attempt(shared) else { return };
        // After the answer was read.
        let now = BootTime::now();
        let hello = match read_reply(reply, attempt.resumes, attempt.secret_file.as_deref()) {
            ResumeReply::NotNow(reason) => {
                shared.left_open.extend(attempt.give_up());
                return self.note_failure(shared, reason);
            }
            ResumeReply::Ended(reason) => {
                shared.machine.answered(now, Answer::Ended(reason));
                // Its end tells the server that the work under the locks has ended.
                shared.left_open.push(attempt);
                return shared.tell();
            }
            ResumeReply::Accepted(hello) => hello,
        };
        let terms = ResumeTerms::of(&hello);
        match shared.machine.answered(now, Answer::Accepted(terms)) {
            SessionVerdict::Lost => shared.left_open.push(attempt),
            SessionVerdict::Standing { mut belief, unlocked, is_resumed } => {
                belief.forget_places_before(std::time::Instant::now());
                shared.rounds.found();
                let (connection, sent) = attempt.into_connection();
                let next = RemoteSession::go_on(connection, &hello, sent, belief, unlocked, &self.options());
                self.watch.add(&next, PollFlags::IN);
                if self.url.is_group() {
                    next.may_be_elsewhere();
                }
                let last = std::mem::replace(&mut shared.current, Arc::new(next));
                if is_resumed {
                    last.reset();
                }
                // The server has accepted a later one.
                shared.left_open.drain(..).for_each(|attempt| drop(attempt.give_up()));
            }
        }
        shared.tell();
    }

    fn take_attempt(&self, shared: &mut Shared) -> Option<Reconnect> {
        let attempt = shared.attempt.take()?;
        self.watch.remove(&**attempt.stream());
        Some(attempt)
    }

    fn give_up_attempt(&self, shared: &mut Shared) {
        let attempt = self.take_attempt(shared);
        shared.left_open.extend(attempt.and_then(Reconnect::give_up));
    }

    /// Ends the session by the client's word: the end of all its connections.
    pub(super) fn end(&self, end_connection: impl FnOnce(&RemoteSession)) {
        let mut shared = self.shared.lock();
        shared.machine.lose("it was closed".to_owned());
        self.watch.remove(&*shared.current);
        end_connection(&shared.current);
        let attempt = self.take_attempt(&mut shared);
        attempt.into_iter().for_each(Reconnect::end);
        shared.left_open.drain(..).for_each(Reconnect::end);
        shared.tell();
        self.arm(&mut shared);
    }
}

impl Shared {
    /// The state has changed.
    pub(super) fn tell(&mut self) {
        self.has_news = true;
        self.waiters.iter().for_each(|waker| waker.wake());
    }
}

/// Reads the answer to `resume`, or to `hello`.
fn read_reply(reply: &RawValue, resumes: bool, shown: Option<&Path>) -> ResumeReply {
    if !resumes {
        return match read_hello(reply, shown) {
            Ok(hello) => ResumeReply::Accepted(Box::new(hello)),
            Err(refusal) if matches!(refusal.kind, ConnectErrorKind::Closed | ConnectErrorKind::Standby) => {
                ResumeReply::NotNow(refusal.reason)
            }
            Err(refusal) => ResumeReply::Ended(refusal.reason),
        };
    }
    let no_sense = || ResumeReply::Ended("the server's answer to resume makes no sense".to_owned());
    let Ok(LockResult { status, reason, .. }) = serde_json::from_str(reply.get()) else { return no_sense() };
    let reason = reason.unwrap_or_else(|| format!("the server answered {status:?}"));
    match status {
        Status::Ok => match serde_json::from_str::<HelloResult>(reply.get()) {
            Ok(hello) if hello.resume.is_some() => ResumeReply::Accepted(Box::new(hello)),
            _ => no_sense(),
        },
        Status::Refused => ResumeReply::NotNow(reason),
        Status::Ended => ResumeReply::Ended(reason),
        Status::Unknown => ResumeReply::Ended("the server that had the session is gone".to_owned()),
        Status::Invalid => ResumeReply::Ended(format!("the server does not understand resume: {reason}")),
        Status::Timeout | Status::Deadlock | Status::NotFound | Status::Cancelled => no_sense(),
    }
}
