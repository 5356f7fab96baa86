//! Being active: saying so again and again, and until when that counts. Knows etcd and the clock; has
//! no thread, and knows nothing of what the server does with its time.

use std::io;
use std::time::Duration;

use super::consensus::{Consensus, ConsensusError};
use super::keys::{Keys, LeaderKey};
use super::observation::Seen;
use super::times::ClusterTimes;
use crate::etcd::{Condition, Write};
use crate::os::boot_clock::BootTime;
use crate::os::sync::Arc;

/// What ends the process when its time is over, or, in tests, notes when that would be.
pub(super) trait Limiter: Send + Sync {
    /// The process must have ended by then.
    ///
    /// # Errors
    /// If that cannot be made sure of.
    fn end_at(&self, limit: BootTime) -> io::Result<()>;

    /// The process must not say a word more.
    fn silence(&self);
}

/// How an attempt to say that the server is still active has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    Renewed,
    /// It has come to nothing, or nobody knows.
    Failed(String),
    /// The key is another's: the server is not active any more.
    Superseded(String),
}

/// The time of an active server.
pub(super) struct Leadership {
    consensus: Arc<dyn Consensus>,
    keys: Keys,
    times: ClusterTimes,
    limiter: Arc<dyn Limiter>,
    key: LeaderKey,
    /// The revision of the leader's key after the last write of this server that is known to have
    /// succeeded.
    revision: i64,
    /// The revision of the term's key.
    term: i64,
    /// When that write was sent: the time counts from then.
    sent: BootTime,
    /// Later writes of which nobody knows what has become, and when they were sent.
    unknown: Vec<(u64, BootTime)>,
    /// When the last attempt was begun.
    attempted: BootTime,
    /// Whether the key says something new, which is not to wait for the next regular write.
    has_news: bool,
    has_failed: bool,
}

impl Leadership {
    /// Replaces the leader's key. It must be as it was seen, and the settings must have this revision.
    /// `None` if that is not so, or if the answer comes too late: then another server may have taken
    /// over.
    ///
    /// # Errors
    /// If etcd has not answered, or the process's end cannot be made sure of.
    pub(super) fn take_over(
        consensus: Arc<dyn Consensus>,
        keys: Keys,
        times: ClusterTimes,
        limiter: Arc<dyn Limiter>,
        key: LeaderKey,
        (seen, settings): (Seen, i64),
    ) -> Result<Option<Self>, String> {
        let sent = BootTime::now();
        let mut conditions = vec![Condition { key: &keys.settings, revision: settings }];
        match seen {
            Seen::Leader(revision) => conditions.push(Condition { key: &keys.leader, revision }),
            Seen::NoLeader { term } => conditions.extend([
                Condition { key: &keys.leader, revision: 0 },
                Condition { key: &keys.term, revision: term },
            ]),
        }
        let value = key.encode();
        let writes = [
            Write::Put { key: &keys.leader, value: &value },
            Write::Put { key: &keys.term, value: key.server.as_bytes() },
        ];
        let done = consensus.transact(&conditions, &writes, times.request_limit());
        let done = done.map_err(|error| error.text)?;
        if !done.succeeded || BootTime::now() >= sent + times.give_up() {
            return Ok(None);
        }
        let end = limiter.end_at(sent + times.speak());
        end.map_err(|error| format!("no timer can be set that ends this process: {error}"))?;
        let (revision, term) = (done.revision, done.revision);
        let unknown = Vec::new();
        Ok(Some(Self {
            consensus,
            keys,
            times,
            limiter,
            key,
            revision,
            term,
            sent,
            unknown,
            attempted: sent,
            has_news: false,
            has_failed: false,
        }))
    }

    /// The revision that the term's key has while no other server has become active.
    pub(super) fn term(&self) -> i64 {
        self.term
    }

    /// Has the key tell the number of the run, from now on.
    pub(super) fn set_epoch(&mut self, epoch: u64) {
        self.key.epoch = Some(epoch);
        self.has_news = true;
    }

    /// Until when the server may speak.
    pub(super) fn limit(&self) -> BootTime {
        self.sent + self.times.speak()
    }

    /// From when on the server must end.
    pub(super) fn gives_up(&self) -> BootTime {
        self.sent + self.times.give_up()
    }

    /// When it is to say again that it is active.
    pub(super) fn due(&self) -> BootTime {
        if self.has_news {
            return self.attempted;
        }
        let interval = if self.has_failed { self.times.look_interval() } else { self.times.renew_interval() };
        self.attempted + interval
    }

    /// Says that the server is still active, once.
    pub(super) fn renew(&mut self) -> Renewal {
        self.attempted = BootTime::now();
        self.has_news = false;
        let renewal = match self.write() {
            Ok(true) => Renewal::Renewed,
            Ok(false) => self.look(),
            Err(error) => Renewal::Failed(error.text),
        };
        self.has_failed = renewal != Renewal::Renewed;
        renewal
    }

    /// Gives the key up, so that another server need not wait. The server must have told all its
    /// clients before, and grants nothing more.
    ///
    /// # Errors
    /// If it is not known to have succeeded within the server's time.
    pub(super) fn vacate(&mut self) -> Result<(), String> {
        self.key.vacated = true;
        loop {
            let failure = match self.renew() {
                Renewal::Renewed => return Ok(()),
                // Another server did not need to wait.
                Renewal::Superseded(_) => return Ok(()),
                Renewal::Failed(text) => text,
            };
            if BootTime::now() >= self.gives_up() {
                return Err(failure);
            }
            std::thread::sleep(self.times.look_interval());
        }
    }

    /// Nothing may be said any more: another server may be active.
    pub(super) fn silence(&self) {
        self.limiter.silence();
    }

    /// Writes the key, if it is as this server has last left it.
    fn write(&mut self) -> Result<bool, ConsensusError> {
        self.key.write += 1;
        let sent = BootTime::now();
        let condition = Condition { key: &self.keys.leader, revision: self.revision };
        let value = self.key.encode();
        let put = Write::Put { key: &self.keys.leader, value: &value };
        match self.consensus.transact(&[condition], &[put], self.request_limit(sent)) {
            Ok(done) if done.succeeded => {
                self.note_success(done.revision, sent);
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) => {
                if error.may_have_happened {
                    self.unknown.push((self.key.write, sent));
                }
                Err(error)
            }
        }
    }

    /// Looks whose the key is, after a write was refused. An earlier write of this server, of which
    /// nobody knew what had become, may have arrived.
    fn look(&mut self) -> Renewal {
        let limit = self.request_limit(BootTime::now());
        let found = match self.consensus.read_key(&self.keys.leader, limit) {
            Ok(found) => found,
            Err(error) => return Renewal::Failed(error.text),
        };
        let Some(found) = found else {
            return Renewal::Superseded("the leader's key has been deleted".to_owned());
        };
        let key = LeaderKey::parse(&found.value).filter(|key| key.server == self.key.server);
        let known = key.and_then(|key| self.unknown.iter().find(|(write, _)| *write == key.write).copied());
        match known {
            // What was to be vacated must be vacated, not only be there.
            Some((_, sent)) => {
                self.note_success(found.revision, sent);
                Renewal::Failed("an earlier write has arrived late".to_owned())
            }
            None => Renewal::Superseded("another server has replaced the leader's key".to_owned()),
        }
    }

    fn note_success(&mut self, revision: i64, sent: BootTime) {
        self.revision = revision;
        // One that was sent earlier cannot arrive any more: it needs an older revision.
        self.unknown.clear();
        // A success that comes when the time is over counts for nothing.
        if BootTime::now() < self.limit()
            && sent > self.sent
            && self.limiter.end_at(sent + self.times.speak()).is_ok()
        {
            self.sent = sent;
        }
    }

    /// How long a request may take: as long as its answer can be of use. A server that waited longer
    /// would be ended by the kernel before it could say why.
    fn request_limit(&self, now: BootTime) -> Duration {
        now.until(self.gives_up()).clamp(Duration::from_millis(1), self.times.request_limit())
    }
}
