//! The ways in which the session of a client ends without its doing, and how another client gets
//! its locks then.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::calls::EXCLUSIVE;
use crate::certificates::{text, with_certificate};
use crate::driver::{Driver, HANG};
use crate::outcome::Word;
use crate::relay::{Direction, End, Relay};
use crate::server::Server;
use crate::stage::Stage;
use crate::verdict::Verdict;
use crate::witness::Witness;

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// An operator kicks the client.
    Kick,
    /// The server stops cleanly, and is started again.
    ServerStops,
    /// The server is killed, and is started again.
    ServerIsKilled,
    /// The stream ends between the two.
    Fin,
    /// The connection is reset between the two.
    Reset,
}

pub(super) const LOSSES: [Loss; 5] =
    [Loss::Kick, Loss::ServerStops, Loss::ServerIsKilled, Loss::Fin, Loss::Reset];

/// How the client reaches its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp,
    Unix,
    Tls,
}

/// A server whose session with a driver is going to be lost.
pub(super) struct Scene {
    pub(super) server: Rc<Server>,
    pub(super) driver: Driver,
    relay: Option<Relay>,
    loss: Loss,
}

impl Scene {
    pub(super) fn new(stage: &Stage, loss: Loss) -> Verdict<Self> {
        Self::at(stage, loss, Place::Tcp)
    }

    pub(super) fn at(stage: &Stage, loss: Loss, place: Place) -> Verdict<Self> {
        stage.transcript.add(format!("the session, over {place:?}, will be lost by: {loss:?}"));
        let (server, authority) = match place {
            Place::Tls => with_certificate(stage),
            Place::Tcp | Place::Unix => (stage.server(), PathBuf::new()),
        };
        let relay = matches!(loss, Loss::Fin | Loss::Reset).then(|| match place {
            Place::Tcp => stage.relay(&server),
            Place::Tls => Relay::start(&stage.host, "tls", &server.tls_address(), &stage.transcript),
            Place::Unix => {
                let to = server.socket(stage.protocol());
                Relay::start_unix(&to.with_extension("relay"), &to, &stage.transcript)
            }
        });
        let url = match (&relay, place) {
            (Some(relay), _) => relay.url().to_owned(),
            (None, Place::Tcp) => stage.url(&server),
            (None, Place::Unix) => server.unix_url(stage.protocol()),
            (None, Place::Tls) => server.tls_url(),
        };
        let trusts = [("CONFORMANCE_CA", text(&authority))];
        let variables = if place == Place::Tls { &trusts[..] } else { &[] };
        Ok(Self { driver: stage.connected_with(&url, variables)?, server, relay, loss })
    }

    /// The relay before the server, if the session is lost between the two.
    pub(super) fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// How many bytes of replies have reached the client, as far as a relay can tell.
    pub(super) fn replies_passed(&self) -> Option<u64> {
        Some(self.relay.as_ref()?.passed(Direction::Replies))
    }

    /// Waits until more replies than that have reached the client.
    pub(super) fn until_more_replies(&self, before: Option<u64>) -> Verdict {
        match (&self.relay, before) {
            (Some(relay), Some(before)) => relay.until_passed(Direction::Replies, before),
            _ => Ok(()),
        }
    }

    /// Ends the session, of which the driver holds `name` or waits for it. Gives new witnesses, as
    /// many as were given, of which each is connected to a server that can grant the name.
    pub(super) fn lose(&self, name: &str, mut witnesses: Vec<Witness>) -> Verdict<Vec<Witness>> {
        let addresses: Vec<_> = witnesses.iter().map(Witness::address).collect();
        let signal = match self.loss {
            Loss::Kick => {
                witnesses[0].kick_the_other(name, &addresses)?;
                return Ok(witnesses);
            }
            Loss::Fin | Loss::Reset => {
                let end = if self.loss == Loss::Fin { End::Fin } else { End::Reset };
                if let Some(relay) = &self.relay {
                    relay.end(end)?;
                }
                return Ok(witnesses);
            }
            Loss::ServerStops => Signal::TERM,
            Loss::ServerIsKilled => Signal::KILL,
        };
        self.server.end(signal);
        self.server.start_again();
        witnesses.iter().map(|_| self.server.witness()).collect()
    }
}

/// A wait was lost, and `witness` has the lock: the client must say that its session is lost. One
/// that waits on in a new session must not have the lock before the witness has released it.
pub(super) fn is_lost_or_waits_again(driver: &Driver, witness: &mut Witness, name: &str) -> Verdict {
    if !driver.can("patient") {
        return driver.hear()?.must_be_lost().map(drop);
    }
    let end = Instant::now() + HANG;
    while driver.has_no_outcome().is_ok() && Instant::now() < end {
        if witness.counts(name).1 == 1 {
            witness.release(name)?;
            driver.hear()?.must_be(Word::Granted)?;
            return witness.cannot_acquire(name, EXCLUSIVE);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    driver.hear()?.must_be_lost().map(drop)
}
