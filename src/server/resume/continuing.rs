//! What is done with a session when its client shows `resume` on a new connection: at this run, or
//! as one of an earlier run. Afterwards the session has what its client claims and nothing else, and
//! belongs to the new connection; or it has ended, and its client is told so.

use std::collections::{HashMap, HashSet};

use super::sessions::{FormerOwner, NotTaken, ResumableSession};
use crate::broker::{ObservedSession, Observer, ReclaimError, Space};
use crate::os::sync::{Arc, MutexGuard};
use crate::server::keeper::Resumption;
use crate::server::send_queue::SendQueue;
use crate::server::server_state::ServerState;
use crate::wire::message::{Claim, ResumeRequest};

/// A connection on which a client shows `resume`. Nothing else has happened on it.
pub(in crate::server) struct NewConnection<'a> {
    pub(in crate::server) id: u64,
    pub(in crate::server) address: &'a str,
    pub(in crate::server) send_queue: &'a Arc<SendQueue>,
    /// Its own session, which has nothing.
    pub(in crate::server) session: &'a Arc<ObservedSession>,
    pub(in crate::server) observer: Arc<dyn Observer>,
    pub(in crate::server) server: &'a Arc<ServerState>,
}

/// How it went.
pub(in crate::server) enum Continued {
    /// The session belongs to the connection now.
    Resumed(Arc<ResumableSession>, Arc<ObservedSession>),
    /// The session belongs to the connection, but is over: its locks are kept until the client has
    /// ended the connection, or has found out by its own time.
    Over(Arc<ResumableSession>, Arc<ObservedSession>),
    /// The session has ended, and holds nothing. The text says why.
    Ended(&'static str),
    /// The client has made another attempt since: nobody waits for an answer.
    Superseded,
}

/// Why a session that its client claims is over.
pub(in crate::server) const OVER: &str = "it was ended by an operator, or has claimed what it does not hold";

impl NewConnection<'_> {
    /// Continues the session.
    pub(in crate::server) fn continue_session(&self, request: &ResumeRequest) -> Continued {
        let (id, epoch) = (request.grant.session, request.grant.epoch);
        let sessions = &self.server.resumable;
        let Some(resumption) = sessions.resumption() else {
            return Continued::Ended("this server lets no session resume");
        };
        if !resumption.is_secret(&request.grant.secret, id, epoch, request.dead_peer_timeout) {
            return Continued::Ended(
                "no server with this state directory, or of this cluster as etcd knows it, has told it this",
            );
        }
        let owner = (self.id, self.send_queue, self.session, request.attempt);
        let continued = sessions.find_or_continue(
            id,
            owner,
            || match epoch == resumption.epoch() {
                // Nothing that it believes in can have been given away. It may want to know that a
                // release has arrived.
                _ if request.claims.is_empty() => Ok(()),
                true => Err("its locks were given away, because it was not heard of for too long"),
                false => resumption.check_earlier(id, epoch),
            },
            |begun| self.reclaim_all(begun, &resumption, &request.claims),
        );
        match continued {
            Err(found) => self.take_over(&found, request),
            Ok(Ok(continued)) => continued,
            Ok(Err(reason)) => Continued::Ended(reason),
        }
    }

    /// Gives the connection a session that this run has.
    fn take_over(&self, found: &Arc<ResumableSession>, request: &ResumeRequest) -> Continued {
        let (former, turn) = match found.take_over(self.id, self.send_queue, request.attempt) {
            Ok(taken) => taken,
            Err(NotTaken::Superseded) => return Continued::Superseded,
            Err(NotTaken::HasEnded) => {
                return Continued::Ended(
                    "its locks were given away, because it was not heard of for too long",
                );
            }
        };
        let FormerOwner { connection, send_queue, session, is_over } = former;
        self.server.forget_session(connection);
        // Nothing more is granted to it now, and what was granted before is seen below.
        session.end_waits();
        session.set_observer(self.observer.clone());
        session.info().set_address(self.address);
        session.info().set_in_doubt(false);
        let is_over = is_over || !self.has_what_it_claims(&session, &request.claims);
        if is_over {
            if !found.is_over() {
                found.set_over();
                log::warn!(
                    "{} claims a lock that its session does not hold: the session is over",
                    self.address
                );
            }
            // Its time began when it was answered for the last time.
            if let Some(since) = send_queue.with_end(|end| end.silent_since()) {
                self.send_queue.with_end(|end| end.note_silence(since));
            }
            return Continued::Over(found.clone(), session);
        }
        keep_claims(&session, &request.claims);
        drop::<MutexGuard<'_, ()>>(turn);
        Continued::Resumed(found.clone(), session)
    }

    /// Whether the session holds all that its client claims. A claim of a mode that allows more
    /// holders than the one held is of a conversion whose answer has not arrived; its token may be
    /// an earlier one of the same hold.
    fn has_what_it_claims(&self, session: &ObservedSession, claims: &[Claim]) -> bool {
        claims.iter().all(|claim| {
            let held = session.held(Space::Main, claim.name.as_bytes());
            held.is_some_and(|held| held.mode <= claim.mode && held.token >= claim.token)
        })
    }

    /// Gives the connection's own session what its client claims, as one of an earlier run.
    fn reclaim_all(
        &self,
        begun: &Arc<ResumableSession>,
        resumption: &Resumption,
        claims: &[Claim],
    ) -> Continued {
        if let Some(reason) = claims.iter().find_map(|claim| self.reclaim(claim, resumption).err()) {
            // Nothing is granted in the grace. It is not settled: if the grace ended early, others
            // could get what it claims before it knows.
            self.server.resumable.remove(begun);
            self.session.abandon();
            return Continued::Ended(reason);
        }
        resumption.settle(begun.id);
        Continued::Resumed(begun.clone(), self.session.clone())
    }

    fn reclaim(&self, claim: &Claim, resumption: &Resumption) -> Result<(), &'static str> {
        match self.session.reclaim(Space::Main, claim.name.as_bytes(), claim.mode, claim.token) {
            Ok(()) => Ok(()),
            Err(ReclaimError::Conflict(holders)) => {
                // One of them is wrong, and nobody knows which: none may go on. Those that have
                // resumed are kept until they know, and nothing is granted before the grace is over.
                log::error!(
                    "{} claims {:?} with token {}, which others hold that have resumed ({}): all of these \
                     sessions are ended",
                    self.address,
                    claim.name,
                    claim.token,
                    holders.len()
                );
                resumption.await_all();
                let others: HashSet<u64> = holders.iter().map(|holder| holder.session.id()).collect();
                self.server.kick(|info| others.contains(&info.id()));
                Err("another session has claimed one of its locks")
            }
            Err(ReclaimError::NoGrace) => Err("this run does not know it, and grants locks already"),
            Err(ReclaimError::Stopping(_) | ReclaimError::Lost(_)) => Err("the server is stopping"),
            Err(_) => Err("it claims what it cannot have held"),
        }
    }
}

/// Takes from the session what its client does not claim, and holds the rest as claimed.
fn keep_claims(session: &ObservedSession, claims: &[Claim]) {
    let claimed: HashMap<&[u8], &Claim> = claims.iter().map(|claim| (claim.name.as_bytes(), claim)).collect();
    session.forsake(|key| key.space == Space::Main && claimed.contains_key(key.name.as_bytes()));
    for claim in claims {
        let name = claim.name.as_bytes();
        let is_stricter = |mode| mode < claim.mode;
        if session.held(Space::Main, name).is_some_and(|held| is_stricter(held.mode)) {
            // To a mode that allows more holders it never waits, and cannot fail.
            let _ = session.convert(Space::Main, name, claim.mode, None);
        }
    }
}
