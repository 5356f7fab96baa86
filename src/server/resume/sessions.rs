//! The sessions of a server that can resume, and the one connection that each belongs to. A session
//! stays while its connections change: requests of an earlier connection do nothing more, and only
//! the present one can end it. Knows connections by their numbers; handles no request.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

use super::secret_key::random_id;
use crate::broker::ObservedSession;
use crate::os::Keepalive;
use crate::os::sync::{Arc, AtomicU64, Mutex, MutexGuard, RwLock};
use crate::server::client_knows::ClientState;
use crate::server::keeper::Resumption;
use crate::server::send_queue::SendQueue;
use crate::wire::message::{ResumeGrant, ResumeId};

/// All sessions of a server that can resume, also those that have no connection now.
#[derive(Default)]
pub(in crate::server) struct ResumableSessions {
    /// None if the server offers this to nobody.
    resumption: RwLock<Option<Resumption>>,
    all: Mutex<HashMap<ResumeId, Arc<ResumableSession>>>,
    /// How many have resumed since the start, and how many were told that they have ended.
    pub(in crate::server) resumed: AtomicU64,
    pub(in crate::server) refused: AtomicU64,
}

/// A session that can resume.
pub(in crate::server) struct ResumableSession {
    pub(in crate::server) id: ResumeId,
    /// Held while requests of the session are handled, and while it gets another connection or
    /// ends.
    turn: Mutex<()>,
    /// Locked for moments only.
    owner: Mutex<Owner>,
}

/// Which connection a session belongs to.
struct Owner {
    connection: u64,
    send_queue: Arc<SendQueue>,
    session: Arc<ObservedSession>,
    /// The number of the last attempt to resume.
    attempt: u64,
    /// Its client is told that it has ended, whatever it still holds.
    is_over: bool,
    has_ended: bool,
}

/// The connection of a session before the present one.
pub(in crate::server) struct FormerOwner {
    pub(in crate::server) connection: u64,
    pub(in crate::server) send_queue: Arc<SendQueue>,
    pub(in crate::server) session: Arc<ObservedSession>,
    pub(in crate::server) is_over: bool,
}

/// Why a session cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum NotTaken {
    /// The client has made another attempt since.
    Superseded,
    HasEnded,
}

/// How the attempt to end a session ended.
#[derive(Debug)]
pub(in crate::server) enum Ended {
    Now,
    /// It belongs to another connection.
    MovedOn,
    /// That its locks are given away could not be written down, so they must stay.
    NotWritten(io::Error),
}

impl ResumableSession {
    fn new(id: ResumeId, owner: Owner) -> Self {
        Self { id, turn: Mutex::new(()), owner: Mutex::new(owner) }
    }

    /// Locks the session for requests of this connection. `None` if it belongs to another one, or
    /// has ended.
    pub(in crate::server) fn turn_of(&self, connection: u64) -> Option<MutexGuard<'_, ()>> {
        let turn = self.turn.lock();
        self.belongs_to(connection).then_some(turn)
    }

    pub(in crate::server) fn belongs_to(&self, connection: u64) -> bool {
        let owner = self.owner.lock();
        owner.connection == connection && !owner.has_ended
    }

    /// From now on its client is told that it has ended.
    pub(in crate::server) fn set_over(&self) {
        self.owner.lock().is_over = true;
    }

    pub(in crate::server) fn attempt(&self) -> u64 {
        self.owner.lock().attempt
    }

    pub(in crate::server) fn is_over(&self) -> bool {
        self.owner.lock().is_over
    }

    /// Makes it the session of another connection, for attempt number `attempt` of its client.
    /// Requests of the former connection do nothing from now on, once those that are being handled
    /// are done; that connection is reset, so that nobody waits for its client.
    pub(in crate::server) fn take_over(
        &self,
        connection: u64,
        send_queue: &Arc<SendQueue>,
        attempt: u64,
    ) -> Result<(FormerOwner, MutexGuard<'_, ()>), NotTaken> {
        let mut owner = self.owner.lock();
        if owner.has_ended {
            return Err(NotTaken::HasEnded);
        }
        if attempt <= owner.attempt {
            return Err(NotTaken::Superseded);
        }
        owner.attempt = attempt;
        let former = FormerOwner {
            connection: std::mem::replace(&mut owner.connection, connection),
            send_queue: std::mem::replace(&mut owner.send_queue, send_queue.clone()),
            session: owner.session.clone(),
            is_over: owner.is_over,
        };
        drop(owner);
        former.send_queue.cut_off();
        match self.turn_of(connection) {
            Some(turn) => Ok((former, turn)),
            // It has ended meanwhile, or its client has made another attempt.
            None if self.owner.lock().has_ended => Err(NotTaken::HasEnded),
            None => Err(NotTaken::Superseded),
        }
    }
}

impl ResumableSessions {
    /// From now on sessions can resume, if there is a state directory. To be called before anything
    /// is served.
    pub(in crate::server) fn set_resumption(&self, resumption: Option<Resumption>) {
        *self.resumption.write() = resumption;
    }

    pub(in crate::server) fn resumption(&self) -> Option<Resumption> {
        self.resumption.read().clone()
    }

    /// Makes the session of a connection one that can resume. `None` if that is not offered.
    pub(in crate::server) fn begin(
        &self,
        connection: u64,
        send_queue: &Arc<SendQueue>,
        session: &Arc<ObservedSession>,
    ) -> Option<Arc<ResumableSession>> {
        self.resumption.read().as_ref()?;
        let id = random_id().inspect_err(|error| log::warn!("no session can resume: {error}")).ok()?;
        let begun = Arc::new(ResumableSession::new(id, Owner::new(connection, send_queue, session, 0)));
        self.all.lock().insert(id, begun.clone());
        Some(begun)
    }

    /// The session with this id. If there is none, `may_continue` is asked whether it may continue
    /// as that of the connection; nobody else can take it over before `continued` has returned.
    pub(in crate::server) fn find_or_continue<R, E>(
        &self,
        id: ResumeId,
        owner: (u64, &Arc<SendQueue>, &Arc<ObservedSession>, u64),
        may_continue: impl FnOnce() -> Result<(), E>,
        continued: impl FnOnce(&Arc<ResumableSession>) -> R,
    ) -> Result<Result<R, E>, Arc<ResumableSession>> {
        let mut all = self.all.lock();
        if let Some(found) = all.get(&id) {
            return Err(found.clone());
        }
        if let Err(refused) = may_continue() {
            return Ok(Err(refused));
        }
        let (connection, send_queue, session, attempt) = owner;
        let begun = Arc::new(ResumableSession::new(id, Owner::new(connection, send_queue, session, attempt)));
        let _turn = begun.turn.lock();
        all.insert(id, begun.clone());
        drop(all);
        Ok(Ok(continued(&begun)))
    }

    /// A session that has gone on in an earlier image of the program.
    pub(in crate::server) fn restore(
        &self,
        id: ResumeId,
        (connection, send_queue, session): (u64, &Arc<SendQueue>, &Arc<ObservedSession>),
        attempt: u64,
        is_over: bool,
    ) -> Arc<ResumableSession> {
        let owner = Owner { is_over, ..Owner::new(connection, send_queue, session, attempt) };
        let restored = Arc::new(ResumableSession::new(id, owner));
        self.all.lock().insert(id, restored.clone());
        restored
    }

    /// What the client of a session is told, with which it can resume.
    pub(in crate::server) fn grant(
        &self,
        session: &ResumableSession,
        keepalive: &Keepalive,
    ) -> Option<ResumeGrant> {
        let resumption = self.resumption()?;
        let secret = resumption.secret(session.id, keepalive.dead_peer_timeout);
        Some(ResumeGrant { session: session.id, epoch: resumption.epoch(), secret })
    }

    /// Ends a session whose connection has ended, since nobody has to keep its locks any longer.
    /// Unless its client has ended it, that is written down first.
    pub(in crate::server) fn end(
        &self,
        session: &ResumableSession,
        connection: u64,
        client: ClientState,
        is_stopped: bool,
    ) -> Ended {
        let Some(_turn) = session.turn_of(connection) else { return Ended::MovedOn };
        let holds = session.owner.lock().session.info().locks_held() > 0;
        let is_given_away = holds && client != ClientState::HasLeft && !is_stopped;
        if is_given_away
            && let Some(resumption) = self.resumption()
            && let Err(error) = resumption.bury(&[session.id])
        {
            return Ended::NotWritten(error);
        }
        self.remove(session);
        Ended::Now
    }

    /// From now on its client is told that the session has ended, and as far as the disk allows, also
    /// at a later run.
    pub(in crate::server) fn set_over(&self, session: &ResumableSession) {
        session.set_over();
        if let Some(resumption) = self.resumption()
            && let Err(error) = resumption.bury(&[session.id])
        {
            log::warn!("a session that was ended may resume at a later run: {error}");
        }
    }

    /// The session has ended: it cannot be taken over any more.
    pub(in crate::server) fn remove(&self, session: &ResumableSession) {
        session.owner.lock().has_ended = true;
        self.all.lock().remove(&session.id);
    }

    /// Those that hold something, with their connections.
    pub(in crate::server) fn holders(&self) -> Vec<(ResumeId, Arc<SendQueue>)> {
        let all: Vec<_> = self.all.lock().values().cloned().collect();
        let holder = |resumable: Arc<ResumableSession>| {
            let owner = resumable.owner.lock();
            let holds = owner.session.info().locks_held() > 0;
            holds.then(|| (resumable.id, owner.send_queue.clone()))
        };
        all.into_iter().filter_map(holder).collect()
    }

    /// How many have no connection now.
    pub(in crate::server) fn in_doubt(&self) -> usize {
        let all: Vec<_> = self.all.lock().values().cloned().collect();
        let is_in_doubt =
            |resumable: &&Arc<ResumableSession>| resumable.owner.lock().session.info().in_doubt().is_some();
        all.iter().filter(is_in_doubt).count()
    }

    /// The server has stopped. Those of these that their clients have not ended may come back at
    /// the next run.
    pub(in crate::server) fn note_held(&self, holders: &[(ResumeId, Arc<SendQueue>)]) {
        let Some(resumption) = self.resumption() else { return };
        let may_come_back =
            |(_, connection): &&(_, Arc<SendQueue>)| connection.client_state() != ClientState::HasLeft;
        let ids = holders.iter().filter(may_come_back).map(|&(id, _)| id).collect();
        resumption.note_held(ids);
    }

    pub(in crate::server) fn count(&self, is_resumed: bool) {
        let counter = if is_resumed { &self.resumed } else { &self.refused };
        counter.fetch_add(1, Relaxed);
    }
}

impl Owner {
    fn new(
        connection: u64,
        send_queue: &Arc<SendQueue>,
        session: &Arc<ObservedSession>,
        attempt: u64,
    ) -> Self {
        let (send_queue, session) = (send_queue.clone(), session.clone());
        Self { connection, send_queue, session, attempt, is_over: false, has_ended: false }
    }
}
