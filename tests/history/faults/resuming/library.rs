//! A client whose session resumes, through the library. As with the other clients that resume, what
//! is logged was seen at a moment at which the session certainly stood, or was within its limit.

use std::time::Duration;

use lockd::broker::{AcquireError, ReleaseError};
use lockd::client::SessionState;
use socket2::Socket;

use super::riding::Rider;
use super::session::Standing;
use crate::faults::log::{Log, now};
use crate::faults::wire::{Answer, Lost, text};
use crate::history::{CallKind, Mode, Name, Nanos, Outcome};
use crate::plan::Step;

pub(crate) struct LibrarySession {
    session: lockd::Session,
    held: Vec<(Name, Mode)>,
    /// Before it was last seen to stand.
    stood_at: Nanos,
    /// In doubt: until when it believes in its locks.
    limit: Option<Nanos>,
}

impl LibrarySession {
    pub(crate) fn connect(url: &str, owner: &str) -> Result<Self, Lost> {
        let session = lockd::Session::connect(url, Some(owner), Duration::from_secs(10)).map_err(|_| Lost)?;
        Ok(Self { session, held: Vec::new(), stood_at: now(), limit: None })
    }

    fn acquire(&mut self, wants: &[(Name, Mode)], limit: Option<Nanos>, log: &mut Log) -> Answer {
        log.calling(CallKind::Acquire { limit }, wants);
        let within = limit.map(Duration::from_nanos);
        let names: Vec<String> = wants.iter().map(|(name, _)| text(*name)).collect();
        let grant = match (names.as_slice(), wants) {
            ([name], [(_, mode)]) => self.session.acquire(name.as_bytes(), *mode, within),
            _ => {
                let wants: Vec<(&[u8], Mode)> =
                    names.iter().zip(wants).map(|(name, (_, mode))| (name.as_bytes(), *mode)).collect();
                self.session.acquire_all(&wants, within)
            }
        };
        let outcome = match grant {
            Ok(grant) => {
                // It counts if it is not lost by now: then it was held at this time.
                let at = now();
                if self.look(log) == Standing::Lost {
                    return Err(Lost);
                }
                self.held.extend_from_slice(wants);
                log.answered_at(at, Outcome::Granted(Some(grant.token)));
                return Ok(Outcome::Granted(Some(grant.token)));
            }
            // The request may have been granted on a connection that has ended.
            Err(AcquireError::TimedOut | AcquireError::Doubt(_)) => Outcome::GivenUp,
            Err(AcquireError::Deadlock(_)) => Outcome::Deadlock,
            Err(AcquireError::Refused(_) | AcquireError::NotYet(_) | AcquireError::Stopping(_)) => {
                Outcome::Refused
            }
            Err(AcquireError::Lost(_)) => return Err(Lost),
            Err(error) => panic!("a correct call failed: {error}"),
        };
        log.answered(outcome);
        Ok(outcome)
    }

    fn release(&mut self, names: &[(Name, Mode)], log: &mut Log) -> Answer {
        let start = now();
        if self.look(log) == Standing::Lost {
            return Err(Lost);
        }
        log.calling_at(start, CallKind::Release, names);
        let texts: Vec<String> = names.iter().map(|(name, _)| text(*name)).collect();
        let released = match texts.as_slice() {
            [name] => self.session.release(name.as_bytes()).map(drop),
            _ => self.session.release_all(&texts.iter().map(String::as_bytes).collect::<Vec<_>>()),
        };
        self.held.retain(|(held, _)| names.iter().all(|(name, _)| name != held));
        let outcome = match released {
            Ok(()) => Outcome::Released,
            Err(ReleaseError::NotHeld) => Outcome::NotHeld,
            // It happens later, or its session is lost later.
            Err(ReleaseError::Doubt(_)) => return Ok(Outcome::GivenUp),
            Err(ReleaseError::Lost(_)) => return Err(Lost),
        };
        log.answered(outcome);
        Ok(outcome)
    }
}

impl Rider for LibrarySession {
    fn look(&mut self, log: &mut Log) -> Standing {
        let at = now();
        match self.session.state() {
            SessionState::Alive => {
                if self.limit.take().is_some() {
                    log.resumed();
                }
                self.stood_at = at;
                Standing::Alive
            }
            SessionState::InDoubt { left, .. } => {
                // One that holds nothing believes in nothing.
                if let (Some(left), None) = (left, self.limit) {
                    let limit = at + u64::try_from(left.as_nanos()).unwrap();
                    self.limit = Some(limit);
                    log.in_doubt(limit);
                }
                Standing::InDoubt
            }
            SessionState::Lost { .. } => {
                // It may have been told long before this call returned.
                log.believed_until(self.limit.map_or(self.stood_at, |limit| limit.min(at)));
                Standing::Lost
            }
        }
    }

    fn holds(&self) -> Vec<(Name, Mode)> {
        self.held.clone()
    }

    fn carry_out(&mut self, step: Step, log: &mut Log) -> Answer {
        match step {
            Step::Acquire { wants, limit, .. } => self.acquire(&wants, limit, log),
            Step::Release => {
                let held = self.held.clone();
                self.release(&held, log)
            }
            Step::StrayRelease(name) => self.release(&[(name, Mode::Exclusive)], log),
            Step::Convert { .. } | Step::Inspect(_) => Ok(Outcome::Refused),
        }
    }

    fn close(self: Box<Self>) {
        self.session.close();
    }

    fn into_socket(self: Box<Self>) -> Option<Socket> {
        self.session.close();
        None
    }
}
