//! The real broker, under test in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use lockd::broker::{
    AcquireError, Attempt, Broker, BrokerSnapshot, BrokerSnapshotError, Key, Limits, LockName,
    ObservedSession, Observer, Outcome, SessionSnapshot, Space, Wait,
};

use super::broker_under_test::{Answer, BrokerUnderTest, End};
use crate::history::{Mode, Name, Nanos};

type Ends = Arc<Mutex<Vec<(usize, u64, End)>>>;

/// Records the ends of one session's waits.
struct Notes {
    session: usize,
    ends: Ends,
}

impl Observer for Notes {
    fn decided(&self, ticket: u64, outcome: Outcome) {
        let end = match outcome {
            Outcome::Granted(grant) => End::Granted(grant.token),
            Outcome::Lost => End::Lost,
            Outcome::TimedOut | Outcome::Cancelled | Outcome::Stopping => End::Cancelled,
        };
        self.ends.lock().unwrap().push((self.session, ticket, end));
    }

    fn deliver(&self) {}
}

/// The broker and its sessions.
#[derive(Default)]
pub(crate) struct RealBroker {
    broker: Broker,
    sessions: HashMap<usize, ObservedSession>,
    ends: Ends,
}

impl RealBroker {
    pub(crate) fn snapshot(&self) -> BrokerSnapshot {
        self.broker.snapshot().expect("no thread is in a call of the broker")
    }

    /// Puts a broker that is made from this snapshot in the place of this one. What this one has
    /// decided so far is still reported; the end of its sessions is not.
    pub(crate) fn become_restored(&mut self, snapshot: &BrokerSnapshot) -> Result<(), BrokerSnapshotError> {
        let ends = Ends::default();
        let number = |session: &SessionSnapshot| session.address.parse().expect("the session's number");
        let observer = |session: &SessionSnapshot| -> Arc<dyn Observer> {
            Arc::new(Notes { session: number(session), ends: Arc::clone(&ends) })
        };
        let (broker, sessions) = Broker::restore(snapshot, Limits::default(), u64::MAX, observer)?;
        ends.lock().unwrap().append(&mut self.ends.lock().unwrap());
        let sessions = snapshot.sessions.iter().map(number).zip(sessions).collect();
        *self = Self { broker, sessions, ends };
        Ok(())
    }

    /// Reports that a wait was granted, whatever the broker knows of it.
    pub(crate) fn report_grant(&mut self, session: usize, ticket: u64, token: u64) {
        self.ends.lock().unwrap().push((session, ticket, End::Granted(token)));
    }
}

pub(crate) fn bytes(name: Name) -> Vec<u8> {
    format!("n{name}").into_bytes()
}

fn wait(ticket: Option<u64>) -> Option<Wait> {
    ticket.map(|ticket| Wait { ticket, limit: None })
}

fn answer(attempt: Result<Attempt, AcquireError>) -> Answer {
    match attempt {
        Ok(Attempt::Granted(grant)) => Answer::Granted(grant.token),
        Ok(Attempt::Queued) => Answer::Queued,
        Err(AcquireError::TimedOut) => Answer::Busy,
        Err(AcquireError::Deadlock(_)) => Answer::Deadlock,
        Err(AcquireError::NotHeld) => Answer::NotHeld,
        Err(_) => Answer::Refused,
    }
}

impl BrokerUnderTest for RealBroker {
    fn open(&mut self, session: usize) {
        let notes = Notes { session, ends: Arc::clone(&self.ends) };
        self.sessions.insert(session, self.broker.attach(&session.to_string(), Arc::new(notes)));
    }

    fn acquire(&mut self, session: usize, wants: &[(Name, Mode)], ticket: Option<u64>) -> Answer {
        // One name is tried first, as every caller does.
        if let [(name, mode)] = wants {
            let tried = self.sessions[&session].try_acquire(Space::Main, &bytes(*name), *mode);
            if tried != Err(AcquireError::TimedOut) || ticket.is_none() {
                return answer(tried.map(Attempt::Granted));
            }
        }
        let wants: Vec<_> =
            wants.iter().map(|(name, mode)| (Key::main(LockName::new(&bytes(*name))), *mode)).collect();
        answer(self.sessions[&session].acquire(&wants, wait(ticket)))
    }

    fn convert(&mut self, session: usize, name: Name, mode: Mode, ticket: Option<u64>) -> Answer {
        answer(self.sessions[&session].convert(Space::Main, &bytes(name), mode, wait(ticket)))
    }

    fn release(&mut self, session: usize, name: Name) -> bool {
        self.sessions[&session].release(Space::Main, &bytes(name)).is_ok()
    }

    fn cancel(&mut self, session: usize, ticket: u64) {
        // The session may have ended in the meantime.
        if let Some(session) = self.sessions.get(&session) {
            session.cancel(ticket);
        }
    }

    fn holders(&mut self, session: usize, name: Name) -> u32 {
        u32::try_from(self.sessions[&session].inspect(Space::Main, &bytes(name)).holders).unwrap()
    }

    fn hang_up(&mut self, session: usize) {
        // The session may have ended in the meantime.
        if let Some(session) = self.sessions.get(&session) {
            session.end_waits();
        }
    }

    fn own_reset(&mut self, _session: usize) {}

    fn end(&mut self, session: usize) {
        self.sessions.remove(&session);
    }

    fn pass_time(&mut self, _now: Nanos) {}

    fn decided(&mut self) -> Vec<(usize, u64, End)> {
        std::mem::take(&mut *self.ends.lock().unwrap())
    }
}
