//! One run of a broker: its record in the store, what is known of the sessions of earlier runs, and
//! when the grace is over. What the keeper's thread does; has no thread itself.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::burial::Burial;
use super::next_run::{EarlierSessions, NextRun, TOKENS_RESERVED};
use super::record::{Record, RunEnd, SessionsRecord};
use super::store::Store;
use super::tombstones::Tombstones;
use crate::broker::Broker;
use crate::os::sync::{Condvar, Mutex};
use crate::server::resume::secret_key::SecretKey;
use crate::wire::message::ResumeId;

/// The interval at which the keeper checks how many tokens are left.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How soon it tries again to end the grace, if that could not be written down.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// While the keeper cannot write, it logs that at this interval.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// What the keeper shares with its thread.
pub(super) struct KeeperState {
    pub(super) broker: Broker,
    /// The number of this run.
    pub(super) epoch: u64,
    pub(super) key: SecretKey,
    /// The store, and the record that was last written there.
    pub(super) kept: Mutex<(Box<dyn Store>, Record)>,
    pub(super) sessions: Mutex<SessionsState>,
    burial: Burial,
    pub(super) progress: Mutex<Progress>,
    pub(super) changed: Condvar,
}

/// What is known of sessions that can resume.
pub(super) struct SessionsState {
    /// Of earlier runs; `None` as soon as their sessions cannot resume any more.
    pub(super) earlier: Option<EarlierSessions>,
    /// Those that have got a tombstone in the grace of this run.
    pub(super) buried: Vec<ResumeId>,
    /// When the server has stopped: those that held something.
    pub(super) held: Vec<ResumeId>,
}

pub(super) struct Progress {
    /// When the grace will be over; `None` once it is over.
    pub(super) grace_ends: Option<Instant>,
    /// Whether the thread is to end.
    pub(super) stop: bool,
    /// Whether the thread is to begin nothing.
    pub(super) rest: bool,
    /// Whether the thread writes, or calls the broker.
    pub(super) is_busy: bool,
}

impl Progress {
    fn new(grace_ends: Option<Instant>) -> Self {
        Self { grace_ends, stop: false, rest: false, is_busy: false }
    }
}

/// What a keeper knows, as data: for [`go_on`](crate::server::state_dir::go_on).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeeperSnapshot {
    /// Every fencing token of the run is lower than this, as the record in the store says.
    pub tokens_end: u64,
    /// The recorded time until all clients know of the end of the run, in seconds.
    pub dead_peer_timeout: u64,
    /// Whether nothing is granted yet.
    pub in_grace: bool,
    /// None if a version has written it that knew of no sessions that resume.
    #[serde(default)]
    pub sessions: Option<KeeperSessionsSnapshot>,
}

/// The part of a [`KeeperSnapshot`] that is about sessions that can resume. Sessions are written by
/// their ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeeperSessionsSnapshot {
    /// The number of this run.
    pub epoch: u64,
    /// The number of the last run that has granted anything.
    pub opened: u64,
    /// What secrets are made with.
    pub key: String,
    /// In the grace: the sessions that are still awaited, if these are all that hold something.
    pub awaited: Option<Vec<String>>,
    /// Those that have got a tombstone in the grace of this run.
    pub buried: Vec<String>,
}

/// How a run begins.
impl KeeperState {
    /// Begins a run of a broker, which has got the tokens and the grace of `next`. The record of
    /// `next` is in the store.
    pub(super) fn begin(store: Box<dyn Store>, next: NextRun, broker: &Broker) -> io::Result<Self> {
        let grace_ends = next.grace.and_then(|(grace, _)| Instant::now().checked_add(grace));
        let sessions = SessionsState { earlier: next.earlier, buried: Vec::new(), held: Vec::new() };
        Self::new(store, next.record, broker, grace_ends, sessions)
    }

    /// Goes on with the run of a snapshot.
    pub(super) fn go_on(
        mut store: Box<dyn Store>,
        tombstones: Tombstones,
        snapshot: &KeeperSnapshot,
        broker: &Broker,
    ) -> io::Result<Self> {
        let sessions = match &snapshot.sessions {
            Some(KeeperSessionsSnapshot { epoch, opened, key, .. }) => {
                SessionsRecord { epoch: *epoch, opened: *opened, key: key.parse().map_err(invalid)? }
            }
            // The first run that knows of sessions that resume.
            None => {
                SessionsRecord { epoch: 1, opened: u64::from(!snapshot.in_grace), key: SecretKey::random()? }
            }
        };
        let is_new = snapshot.sessions.is_none();
        let (awaited, buried) = match &snapshot.sessions {
            Some(sessions) => (sessions.awaited.as_deref().map(ids), ids(&sessions.buried)?),
            None => (None, Vec::new()),
        };
        let awaited = awaited.transpose()?.map(|awaited| awaited.into_iter().collect());
        let earlier = match snapshot.in_grace {
            true => {
                Some(EarlierSessions { epochs: sessions.opened..sessions.epoch, buried: tombstones, awaited })
            }
            false => None,
        };
        let record = Record {
            tokens_end: snapshot.tokens_end,
            dead_peer_timeout: Duration::from_secs(snapshot.dead_peer_timeout),
            end: RunEnd::None,
            sessions: Some(sessions),
        };
        if is_new {
            store.write(&record)?;
        }
        let grace_ends = snapshot.in_grace.then(|| Instant::now() + broker.grace());
        Self::new(store, record, broker, grace_ends, SessionsState { earlier, buried, held: Vec::new() })
    }

    fn new(
        store: Box<dyn Store>,
        record: Record,
        broker: &Broker,
        grace_ends: Option<Instant>,
        sessions: SessionsState,
    ) -> io::Result<Self> {
        let Some(SessionsRecord { epoch, key, .. }) = record.sessions.clone() else {
            return Err(io::Error::other("a run without a number"));
        };
        Ok(Self {
            broker: broker.clone(),
            epoch,
            key,
            kept: Mutex::new((store, record)),
            sessions: Mutex::new(sessions),
            burial: Burial::default(),
            progress: Mutex::new(Progress::new(grace_ends)),
            changed: Condvar::new(),
        })
    }
}

/// The thread.
impl KeeperState {
    pub(super) fn run(&self) {
        let mut logged = None;
        while self.sleep() {
            let written = self.end_grace_if_due().and_then(|()| self.keep_ahead());
            if let Err(error) = written
                && logged.is_none_or(|logged: Instant| logged.elapsed() >= LOG_INTERVAL)
            {
                logged = Some(Instant::now());
                log::error!(
                    "the state of this run cannot be written; locks are granted until the fencing tokens run out, \
                     and none in the grace: {error}"
                );
            }
        }
    }

    /// Sleeps until the tokens are to be checked, or the grace is over. False once the thread is to
    /// end.
    fn sleep(&self) -> bool {
        let mut progress = self.progress.lock();
        progress.is_busy = false;
        self.changed.notify_all();
        if !progress.stop {
            let sleep = match progress.grace_ends {
                // Not at once if it is over already: then it could not be written down just now.
                Some(ends) => left(ends).clamp(RETRY_INTERVAL, CHECK_INTERVAL),
                None => CHECK_INTERVAL,
            };
            progress = self.changed.wait_timeout(progress, sleep).0;
        }
        while progress.rest && !progress.stop {
            progress = self.changed.wait_timeout(progress, CHECK_INTERVAL).0;
        }
        progress.is_busy = !progress.stop;
        progress.is_busy
    }

    /// Ends the grace if it is over, or if all sessions that hold something have come back. That is
    /// on disk before anything is granted: otherwise a session of an earlier run, whose lock was
    /// given to another, could resume at the next run.
    fn end_grace_if_due(&self) -> io::Result<()> {
        let grace_ends = self.progress.lock().grace_ends;
        let Some(ends) = grace_ends else { return Ok(()) };
        let mut sessions = self.sessions.lock();
        let all_are_back = sessions
            .earlier
            .as_ref()
            .and_then(|earlier| earlier.awaited.as_ref())
            .is_some_and(BTreeSet::is_empty);
        if !left(ends).is_zero() && !all_are_back {
            return Ok(());
        }
        sessions.earlier = None;
        let buried = sessions.buried.clone();
        drop(sessions);
        self.update(|record| {
            if let Some(sessions) = &mut record.sessions {
                sessions.opened = sessions.epoch;
            }
        })?;
        self.progress.lock().grace_ends = None;
        self.broker.end_grace();
        log::info!("locks are granted from now on");
        // Those of earlier runs are of sessions that cannot resume any more.
        self.kept.lock().0.keep_tombstones(&buried)
    }

    /// Reserves more tokens when half of the reserved ones have been given.
    pub(super) fn keep_ahead(&self) -> io::Result<()> {
        let next = self.broker.next_token();
        let reserved = self.kept.lock().1.tokens_end;
        if reserved.saturating_sub(next) > TOKENS_RESERVED / 2 {
            return Ok(());
        }
        let end = next.saturating_add(TOKENS_RESERVED);
        debug_assert!(end >= reserved, "reserved tokens are never taken back");
        self.update(|record| record.tokens_end = end)?;
        // Only now: a token must not be given before the record in the store covers it.
        self.broker.set_tokens_end(end);
        Ok(())
    }

    /// Changes the record, in the store first.
    pub(super) fn update(&self, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        let mut kept = self.kept.lock();
        let (store, record) = &mut *kept;
        let mut changed = record.clone();
        change(&mut changed);
        if changed != *record {
            store.write(&changed)?;
            *record = changed;
        }
        Ok(())
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn ids(texts: &[String]) -> io::Result<Vec<ResumeId>> {
    texts.iter().map(|text| text.parse().map_err(invalid)).collect()
}

/// For [`Resumption`](super::resumption::Resumption).
impl KeeperState {
    pub(super) fn check_earlier(&self, id: ResumeId, epoch: u64) -> Result<(), &'static str> {
        let sessions = self.sessions.lock();
        let Some(earlier) = &sessions.earlier else {
            return Err("this run does not know it, and grants locks already");
        };
        if earlier.buried.is_damaged {
            return Err("the list of sessions whose locks were given away is damaged");
        }
        if earlier.buried.sessions.contains(&id) || sessions.buried.contains(&id) {
            return Err("its locks were given away, because it was not heard of for too long");
        }
        // One that held something when the last run stopped may not have heard that it had resumed
        // there, and so show an earlier epoch.
        let is_awaited = earlier.awaited.as_ref().is_some_and(|awaited| awaited.contains(&id));
        match is_awaited || earlier.epochs.contains(&epoch) {
            true => Ok(()),
            false => Err("locks were granted since to others, by a run that it did not resume at"),
        }
    }

    pub(super) fn settle(&self, id: ResumeId) {
        let mut sessions = self.sessions.lock();
        let awaited = sessions.earlier.as_mut().and_then(|earlier| earlier.awaited.as_mut());
        if awaited.is_some_and(|awaited| awaited.remove(&id) && awaited.is_empty()) {
            drop(sessions);
            self.changed.notify_all();
        }
    }

    pub(super) fn await_all(&self) {
        if let Some(earlier) = &mut self.sessions.lock().earlier {
            earlier.awaited = None;
        }
    }

    pub(super) fn bury(&self, ids: &[ResumeId]) -> io::Result<()> {
        self.burial.bury(ids, |ids| self.write_tombstones(ids))
    }

    fn write_tombstones(&self, ids: &[ResumeId]) -> io::Result<()> {
        // Locked in this order only here and where nothing else is locked.
        let mut sessions = self.sessions.lock();
        self.kept.lock().0.add_tombstones(ids)?;
        if sessions.earlier.is_some() {
            sessions.buried.extend_from_slice(ids);
        }
        Ok(())
    }

    pub(super) fn note_held(&self, ids: Vec<ResumeId>) {
        // A server may stop twice, and has nothing to note the second time.
        self.sessions.lock().held.extend(ids);
    }
}
