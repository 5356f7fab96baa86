//! Sessions that resume: what becomes of them when a server, or the network, fails and comes back.

use std::path::PathBuf;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::doubt::LONGER_THAN_DOUBT;
use super::ends::Place;
use super::{Pace, Trial};
use crate::calls::EXCLUSIVE;
use crate::certificates::{certificate, text};
use crate::driver::{Driver, HANG, NOW};
use crate::outcome::Word;
use crate::relay::{Direction, End, Relay};
use crate::server::Server;
use crate::stage::Stage;
use crate::verdict::{Verdict, ensure};
use crate::witness::Witness;

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "resume-killed",
        "A session goes on with its locks after the server was killed, and is in doubt until then.",
        &["resume", "check"],
        killed,
    ),
    Trial::new(
        "resume-stopped",
        "A session goes on with its locks after the server was stopped and started again.",
        &["resume", "check"],
        |stage| {
            stopped(stage, Place::Tcp)?;
            if stage.can("unix") { stopped(stage, Place::Unix) } else { Ok(()) }
        },
    ),
    Trial::new("resume-tls", "The same in TLS.", &["resume", "check", "tls"], |stage| {
        stopped(stage, Place::Tls)
    }),
    Trial::new(
        "resume-reset",
        "A session goes on with its locks after its connection was reset, on either side.",
        &["resume", "check"],
        reset,
    ),
    Trial::new(
        "resume-fin",
        "A client does not end its stream when the server has ended its own, and so keeps its locks.",
        &["resume", "check"],
        fin,
    ),
    Trial::new(
        "resume-waiting",
        "A wait goes on after the connection was lost, and is granted once.",
        &["resume", "wait"],
        waiting,
    ),
    Trial::new(
        "resume-stale",
        "A grant on a connection that has ended since is not believed: the client asks again.",
        &["resume", "wait"],
        stale,
    ),
    Trial::new(
        "resume-kicked",
        "A session that was kicked is lost, and its locks are free when it is closed.",
        &["resume", "check"],
        kicked,
    ),
    Trial::new(
        "resume-nothing",
        "A session that holds nothing begins anew, and its wait goes on.",
        &["resume", "wait"],
        nothing,
    ),
    Trial::new(
        "resume-away",
        "A session that cannot resume in time is lost before another client can get its locks.",
        &["resume", "check"],
        away,
    )
    .pace(Pace::Waits),
    Trial::new(
        "resume-paused",
        "A client that was stopped for too long in doubt does not resume.",
        &["resume", "check"],
        paused,
    )
    .pace(Pace::Deep),
    Trial::new(
        "resume-paused-holder",
        "A client that was stopped for long holds its locks if its connection is open, and only then.",
        &["resume", "check"],
        paused_holder,
    )
    .pace(Pace::Deep),
];

/// A server whose sessions can resume.
pub(super) fn resumable(stage: &Stage, more: &[&str]) -> Rc<Server> {
    let name = format!("state-{}", stage.servers());
    let path = stage.directory.path().join(name);
    stage.server_with(&[&["--state-dir", text(&path), "--first-start"], more].concat())
}

fn killed(stage: &Stage) -> Verdict {
    let server = resumable(stage, &[]);
    let driver = stage.connected_to(&resuming(server.url("message")))?;
    driver.hold("a", EXCLUSIVE)?;
    server.end(Signal::KILL);
    driver.until_doubt()?;
    driver.check("a")?.must_be(Word::Doubt)?;
    driver.acquire("b", EXCLUSIVE, NOW)?.must_be(Word::Doubt)?;
    server.start_again();
    driver.certain(HANG)?.must_be(Word::Alive)?;
    driver.check("a")?.must_be(Word::Held)?;
    let mut witness = server.witness()?;
    witness.begin_acquire("a", EXCLUSIVE);
    witness.until("a", 1, 1)?;
    driver.check("a")?.must_be(Word::Held)?;
    driver.release("a")?.must_be(Word::Ok)?;
    // It is granted when the grace of the server is over.
    witness.until("a", 0, 1)?;
    driver.close()
}

pub(super) fn resuming(url: String) -> String {
    url + "?resume"
}

/// The driver, which is in doubt about `a` or is going to be, has it when the session is resumed, and
/// no one else does. After its release another client gets it.
fn goes_on(server: &Server, driver: &Driver) -> Verdict {
    driver.certain(HANG)?.must_be(Word::Alive)?;
    driver.check("a")?.must_be(Word::Held)?;
    let mut witness = server.witness()?;
    let waiting = witness.begin_acquire("a", EXCLUSIVE);
    witness.until("a", 1, 1)?;
    driver.check("a")?.must_be(Word::Held)?;
    driver.release("a")?.must_be(Word::Ok)?;
    let status = witness.status(waiting);
    ensure(status == "ok", || format!("another client does not get the lock after that: {status}"))?;
    driver.check("a")?.must_be(Word::NotHeld)?;
    driver.close()
}

fn stopped(stage: &Stage, place: Place) -> Verdict {
    let (chain, key) = match place {
        Place::Tls => certificate(stage, "server"),
        Place::Tcp | Place::Unix => <(PathBuf, PathBuf)>::default(),
    };
    let tls = ["--tls-cert", text(&chain), "--tls-key", text(&key)];
    let server = resumable(stage, if place == Place::Tls { &tls } else { &[] });
    let url = match place {
        Place::Tcp => server.url("message"),
        Place::Unix => server.unix_url("message"),
        Place::Tls => server.tls_url(),
    };
    let trusts = [("CONFORMANCE_CA", text(&chain))];
    let variables = if place == Place::Tls { &trusts[..] } else { &[] };
    let driver = stage.connected_with(&resuming(url), variables)?;
    driver.hold("a", EXCLUSIVE)?;
    server.end(Signal::TERM);
    driver.until_doubt()?;
    server.start_again();
    goes_on(&server, &driver)
}

/// A server, a relay before it, and a driver with a session that can resume.
fn behind_relay(stage: &Stage) -> Verdict<(Rc<Server>, Relay, Driver)> {
    let server = resumable(stage, &[]);
    let relay = stage.relay(&server);
    let driver = stage.connected_to(&resuming(relay.url().to_owned()))?;
    Ok((server, relay, driver))
}

fn reset(stage: &Stage) -> Verdict {
    for reset in [Relay::reset_client_side, Relay::reset_server_side] {
        let (server, relay, driver) = behind_relay(stage)?;
        driver.hold("a", EXCLUSIVE)?;
        reset(&relay)?;
        driver.state()?.must_be_one_of(&[Word::Doubt, Word::Alive])?;
        goes_on(&server, &driver)?;
    }
    Ok(())
}

fn fin(stage: &Stage) -> Verdict {
    let (server, relay, driver) = behind_relay(stage)?;
    driver.hold("a", EXCLUSIVE)?;
    let mut witness = server.witness()?;
    relay.refuse(true);
    // What the client sends, and an end of its stream, still come to the server.
    relay.end_replies()?;
    driver.until_doubt()?;
    driver.certain(Duration::from_millis(500))?.must_be(Word::Doubt)?;
    witness.cannot_acquire("a", EXCLUSIVE)?;
    relay.refuse(false);
    goes_on(&server, &driver)
}

fn waiting(stage: &Stage) -> Verdict {
    let (server, relay, driver) = behind_relay(stage)?;
    let mut witness = server.witness()?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.hold("b", EXCLUSIVE)?;
    waits_on(&relay, Relay::reset_client_side, &driver, &mut witness)?;
    witness.cannot_acquire("b", EXCLUSIVE)?;
    driver.close()
}

fn stale(stage: &Stage) -> Verdict {
    let (server, relay, driver) = behind_relay(stage)?;
    let (mut witness, mut next) = (server.witness()?, server.witness()?);
    witness.acquire("a", EXCLUSIVE)?;
    driver.hold("b", EXCLUSIVE)?;
    driver.begin_acquire("a", EXCLUSIVE)?;
    witness.until("a", 1, 1)?;
    driver.stop()?;
    let before = relay.passed(Direction::Replies);
    witness.release("a")?;
    witness.until("a", 1, 0)?;
    relay.until_passed(Direction::Replies, before)?;
    let waits = next.begin_acquire("a", EXCLUSIVE);
    witness.until("a", 1, 1)?;
    relay.reset_client_side()?;
    driver.resume();
    // The session does not claim the lock, so the server gives it to the next one.
    let end = Instant::now() + HANG;
    while witness.addresses_of_holders("a") != [next.address()] {
        driver.has_no_outcome()?;
        ensure(Instant::now() < end, || "another client does not get the lock".to_owned())?;
        thread::sleep(Duration::from_millis(2));
    }
    let status = next.status(waits);
    ensure(status == "ok", || format!("another client does not get the lock: {status}"))?;
    witness.until("a", 1, 1)?;
    driver.has_no_outcome()?;
    next.release("a")?;
    driver.hear()?.must_be(Word::Granted)?;
    for name in ["a", "b"] {
        witness.cannot_acquire(name, EXCLUSIVE)?;
    }
    driver.close()
}

fn kicked(stage: &Stage) -> Verdict {
    let server = resumable(stage, &[]);
    let driver = stage.connected_to(&resuming(server.url("message")))?;
    driver.hold("a", EXCLUSIVE)?;
    let mut witness = server.witness()?;
    witness.kick_the_other("a", &[])?;
    driver.certain(HANG)?.must_be(Word::Lost)?;
    driver.check("a")?.must_be_lost()?;
    driver.ask("close", NOW)?.must_be_one_of(&[Word::Ok, Word::Lost])?;
    witness.until("a", 0, 0)
}

fn nothing(stage: &Stage) -> Verdict {
    let (server, relay, driver) = behind_relay(stage)?;
    let mut witness = server.witness()?;
    witness.acquire("a", EXCLUSIVE)?;
    waits_on(&relay, |relay| relay.end(End::Reset), &driver, &mut witness)?;
    driver.close()
}

/// The driver waits for `a`, which the witness holds, and loses its connection.
fn waits_on(
    relay: &Relay,
    lose: impl FnOnce(&Relay) -> Verdict,
    driver: &Driver,
    witness: &mut Witness,
) -> Verdict {
    driver.begin_acquire("a", EXCLUSIVE)?;
    witness.until("a", 1, 1)?;
    let before = relay.server_side();
    lose(relay)?;
    let end = Instant::now() + HANG;
    while relay.server_side().iter().all(|address| before.contains(address)) {
        ensure(Instant::now() < end, || "the client does not connect again".to_owned())?;
        thread::sleep(Duration::from_millis(2));
    }
    let now = relay.server_side();
    witness.until_waits("a", &now)?;
    driver.has_no_outcome()?;
    witness.release("a")?;
    driver.hear()?.must_be(Word::Granted)?;
    witness.cannot_acquire("a", EXCLUSIVE)?;
    driver.release("a")?.must_be(Word::Ok)?;
    witness.until("a", 0, 0)
}

fn away(stage: &Stage) -> Verdict {
    let (server, relay, driver) = behind_relay(stage)?;
    driver.hold("a", EXCLUSIVE)?;
    relay.refuse(true);
    server.end(Signal::KILL);
    driver.until_doubt()?;
    server.start_again();
    let mut witness = server.witness()?;
    witness.begin_acquire("a", EXCLUSIVE);
    driver.certain(Duration::from_secs(12))?.must_be(Word::Lost)?;
    // It is granted when the grace of the server is over.
    let counts = witness.counts("a");
    ensure(counts == (0, 1), || "another client got the lock before the session was lost".to_owned())?;
    driver.check("a")?.must_be_lost()?;
    driver.release("a")?.must_be(Word::Lost)?;
    relay.refuse(false);
    driver.state()?.must_be(Word::Lost)?;
    let ends = relay.ended_by_clients();
    ensure(!ends.contains(&End::Fin), || format!("the client has ended streams before close: {ends:?}"))?;
    driver.ask("close", NOW)?.must_be_one_of(&[Word::Ok, Word::Lost]).map(drop)
}

fn paused(stage: &Stage) -> Verdict {
    let server = resumable(stage, &[]);
    let driver = stage.connected_to(&resuming(server.url("message")))?;
    driver.hold("a", EXCLUSIVE)?;
    server.end(Signal::KILL);
    driver.until_doubt()?;
    let begun = Instant::now();
    driver.stop()?;
    // It would still take the session back: its grace is longer.
    server.start_again();
    thread::sleep(LONGER_THAN_DOUBT.saturating_sub(begun.elapsed()));
    driver.resume();
    driver.state()?.must_be(Word::Lost)?;
    driver.check("a")?.must_be_lost()?;
    driver.certain(HANG)?.must_be(Word::Lost).map(drop)
}

fn paused_holder(stage: &Stage) -> Verdict {
    let server = resumable(stage, &[]);
    let other = resumable(stage, &[]);
    let holder = stage.connected_to(&resuming(server.url("message")))?;
    let loser = stage.connected_to(&resuming(other.url("message")))?;
    for driver in [&holder, &loser] {
        driver.hold("a", EXCLUSIVE)?;
        driver.stop()?;
    }
    thread::sleep(LONGER_THAN_DOUBT);
    other.end(Signal::KILL);
    other.start_again();
    loser.resume();
    loser.state()?.must_be(Word::Lost)?;
    holder.resume();
    holder.check("a")?.must_be(Word::Held)?;
    server.witness()?.cannot_acquire("a", EXCLUSIVE)?;
    holder.release("a")?.must_be(Word::Ok)?;
    holder.close()
}
