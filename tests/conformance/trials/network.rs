//! What networks do, and no process can: they swallow packets, in one direction or in both. The
//! client and its server are in network namespaces of their own, with a switch between them
//! (`tests/cable/network.rs`). Where the system refuses namespaces, these trials are skipped, and
//! the table says so.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::ends::is_lost_or_waits_again;
use super::{Pace, Trial};
use crate::calls::EXCLUSIVE;
use crate::driver::{Driver, HANG};
use crate::network::{EVERYBODY, Network, Passing, SERVER};
use crate::outcome::Word;
use crate::server::Server;
use crate::stage::Stage;
use crate::support::socket::Endpoint;
use crate::transcript::Transcript;
use crate::verdict::{Failure, Verdict, ensure};
use crate::witness::Witness;

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "cut-held",
        "When the cable is cut, a client knows that its lock is lost before another one is granted it.",
        &["check"],
        |stage| held(stage, Cut::Switch(Passing::NONE)),
    )
    .pace(Pace::Waits)
    .unless_impossible(refusal),
    Trial::new(
        "cut-held-replies",
        "The same, if only what the server sends is swallowed.",
        &["check"],
        |stage| held(stage, Cut::Switch(Passing::TO_SERVER)),
    )
    .pace(Pace::Deep)
    .unless_impossible(refusal),
    Trial::new(
        "cut-held-requests",
        "The same, if only what the client sends is swallowed.",
        &["check"],
        |stage| held(stage, Cut::Switch(Passing::TO_CLIENTS)),
    )
    .pace(Pace::Deep)
    .unless_impossible(refusal),
    Trial::new(
        "cut-held-silent",
        "The same, if the client's own kernel cannot notice it.",
        &["check"],
        |stage| held(stage, Cut::OwnHost),
    )
    .pace(Pace::Deep)
    .unless_impossible(refusal_of_silence),
    Trial::new(
        "cut-noticed",
        "A client learns of the cut without a call, before another one is granted its lock.",
        &["notice"],
        noticed,
    )
    .pace(Pace::Deep)
    .unless_impossible(refusal),
    Trial::new(
        "cut-waiting",
        "A wait that the server has given up while the cable was cut is lost, and never granted.",
        &["wait"],
        |stage| waiting(stage, Passing::NONE),
    )
    .pace(Pace::Waits)
    .unless_impossible(refusal),
    Trial::new(
        "cut-waiting-replies",
        "The same, if only what the server sends is swallowed.",
        &["wait"],
        |stage| waiting(stage, Passing::TO_SERVER),
    )
    .pace(Pace::Deep)
    .unless_impossible(refusal),
    Trial::new(
        "cut-stale",
        "A grant that came before the cable was cut is not believed by a client that was stopped.",
        &["wait"],
        |stage| stale(stage, Cut::Switch(Passing::NONE)),
    )
    .pace(Pace::Waits)
    .unless_impossible(refusal),
    Trial::new(
        "cut-stale-silent",
        "The same, if the client's own kernel cannot notice it.",
        &["wait"],
        |stage| stale(stage, Cut::OwnHost),
    )
    // Its wait would go on, and have no outcome, until the host sends again.
    .unless(&["patient"])
    .pace(Pace::Deep)
    .unless_impossible(refusal_of_silence),
    Trial::new(
        "network-pause",
        "On a network that works, no timer takes a lock from a client that is stopped.",
        &["check"],
        pause,
    )
    .pace(Pace::Deep)
    .unless_impossible(refusal),
];

/// Longer than the dead-peer timeout of the servers.
const LONG: Duration = Duration::from_secs(14);

/// What swallows packets.
#[derive(Clone, Copy)]
enum Cut {
    /// The switch between the hosts lets only these through.
    Switch(Passing),
    /// The switch, and the client's own host. That host's kernel counts only probes that it could
    /// send, so it never gives the connection up. For the rest of the trial.
    OwnHost,
}

/// How late the outcome of a driver may come that has had it when it was awaited.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Longer than anything that a trial waits for.
const NEVER: Duration = Duration::from_secs(600);

/// Why there can be no network here, if there cannot.
fn refusal() -> Option<String> {
    static REFUSAL: OnceLock<Option<String>> = OnceLock::new();
    let asked = || Network::new().err().map(|refused| format!("no network namespaces here: {refused}"));
    let refusal = REFUSAL.get_or_init(asked).clone()?;
    let hint = "; `unshare --user --map-root-user` around this program may help";
    Some(refusal + if rustix::process::geteuid().is_root() { "" } else { hint })
}

/// Why a host cannot be made to drop what it sends, if it cannot.
fn refusal_of_silence() -> Option<String> {
    static REFUSAL: OnceLock<Option<String>> = OnceLock::new();
    let asked = || {
        let drops = Network::new().is_ok_and(|network| network.drop_what_clients_send());
        (!drops).then(|| "no traffic control (tc) here".to_owned())
    };
    refusal().or_else(|| REFUSAL.get_or_init(asked).clone())
}

/// A server, and clients at the other end of a cable.
struct Cable {
    network: Network,
    server: Server,
    transcript: Transcript,
}

impl Cable {
    fn new(stage: &Stage) -> Verdict<Self> {
        let network = Network::new().map_err(Failure)?;
        let (sockets, transcript) = (stage.directory.path().join("far"), stage.transcript.clone());
        let start = || Server::start(SERVER, sockets, &["--allow", EVERYBODY], &transcript);
        let server = network.server.within(start);
        Ok(Self { network, server, transcript })
    }

    /// A driver at the far end, with a session.
    fn driver(&self, stage: &Stage, owner: &str) -> Verdict<Driver> {
        let driver = stage.driver_by(|name, command, transcript| {
            self.network.clients.within(|| Driver::start(name, command, transcript))
        })?;
        driver.connect(owner, &[&self.server.url(stage.protocol())])?.must_be(Word::Ok)?;
        Ok(driver)
    }

    /// No cable is between the witness and the server: it uses the Unix socket.
    fn witness(&self) -> Verdict<Witness> {
        Witness::connect(&Endpoint::Unix(self.server.socket("message")), &self.transcript)
    }

    fn pass(&self, passing: Passing) {
        self.transcript.add(format!("the cable: {passing:?}"));
        self.network.pass(passing);
    }

    fn cut(&self, cut: Cut) -> Verdict {
        let Cut::Switch(passing) = cut else {
            self.transcript.add("the clients' host sends nothing any more");
            self.pass(Passing::NONE);
            return ensure(self.network.drop_what_clients_send(), || "the host sends on".to_owned());
        };
        self.pass(passing);
        Ok(())
    }

    fn repair(&self, cut: Cut) {
        if let Cut::Switch(_) = cut {
            self.pass(Passing::ALL);
        }
    }

    /// All clients but `witness` have ended, and it holds so many locks: there are no others.
    fn has_only(&self, locks: u64) -> Verdict {
        let mut witness = self.witness()?;
        let end = Instant::now() + HANG;
        loop {
            let left = witness.held_in_all();
            if left == (locks, 0, 0) {
                return Ok(());
            }
            ensure(Instant::now() < end, || format!("A LOCK LEFT BEHIND: {left:?}, not {locks} locks"))?;
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The witness waits for what the client holds. When it is granted, the client is asked.
fn held(stage: &Stage, cut: Cut) -> Verdict {
    let cable = Cable::new(stage)?;
    let (driver, mut witness) = (cable.driver(stage, "driver")?, cable.witness()?);
    driver.hold("a", EXCLUSIVE)?;
    let next = witness.begin_acquire("a", EXCLUSIVE);
    cable.witness()?.until("a", 1, 1)?;
    driver.check("a")?.must_be(Word::Held)?;
    cable.cut(cut)?;
    ensure(witness.status(next) == "ok", || "the witness does not get the lock".to_owned())?;
    driver.check("a")?.must_be_lost()?;
    cable.repair(cut);
    driver.check("a")?.must_be_lost()?;
    driver.release("a")?.must_be_one_of(&[Word::Lost, Word::NotHeld])?;
    driver.end()?;
    cable.has_only(1)
}

/// The client awaits the news of its loss, and must have it when the witness is granted the lock.
fn noticed(stage: &Stage) -> Verdict {
    let cable = Cable::new(stage)?;
    let (driver, mut witness) = (cable.driver(stage, "driver")?, cable.witness()?);
    driver.hold("a", EXCLUSIVE)?;
    let next = witness.begin_acquire("a", EXCLUSIVE);
    cable.witness()?.until("a", 1, 1)?;
    driver.say(&format!("notice {}", NEVER.as_millis()), Some(NEVER))?;
    cable.pass(Passing::NONE);
    ensure(witness.status(next) == "ok", || "the witness does not get the lock".to_owned())?;
    driver.hear_within(AT_ONCE)?.must_be(Word::Lost)?;
    cable.pass(Passing::ALL);
    driver.release("a")?.must_be_one_of(&[Word::Lost, Word::NotHeld])?;
    driver.end()?;
    cable.has_only(1)
}

/// Two clients wait. One of them is granted its lock when the cable has been cut.
fn waiting(stage: &Stage, passing: Passing) -> Verdict {
    let cable = Cable::new(stage)?;
    let mut witness = cable.witness()?;
    let mut drivers = Vec::new();
    for name in ["a", "b"] {
        witness.acquire(name, EXCLUSIVE)?;
        let driver = cable.driver(stage, name)?;
        driver.begin_acquire(name, EXCLUSIVE)?;
        witness.until(name, 1, 1)?;
        drivers.push(driver);
    }
    cable.pass(passing);
    let cut = Instant::now();
    witness.release("b")?;
    // The grant is on its way, and does not arrive.
    witness.until("b", 1, 0)?;
    witness.acquire("b", EXCLUSIVE)?;
    witness.until("a", 1, 0)?;
    cable.pass(Passing::ALL);
    for (driver, name) in drivers.iter().zip(["a", "b"]) {
        if stage.can("patient") {
            is_lost_or_waits_again(driver, &mut witness, name)?;
        } else {
            // The cable was the fault, not its repair.
            driver.hear_within(HANG.saturating_sub(cut.elapsed()))?.must_be_lost()?;
        }
        driver.end()?;
    }
    drop(witness);
    cable.has_only(0)
}

fn stale(stage: &Stage, cut: Cut) -> Verdict {
    let cable = Cable::new(stage)?;
    let (driver, mut witness) = (cable.driver(stage, "driver")?, cable.witness()?);
    witness.acquire("a", EXCLUSIVE)?;
    driver.begin_acquire("a", EXCLUSIVE)?;
    witness.until("a", 1, 1)?;
    driver.stop()?;
    witness.release("a")?;
    witness.until("a", 1, 0)?;
    until_unread(&driver)?;
    cable.cut(cut)?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.resume();
    if stage.can("patient") {
        // It cannot wait again before it can connect again.
        cable.repair(cut);
        is_lost_or_waits_again(&driver, &mut witness, "a")?;
    } else {
        driver.hear()?.must_be_lost()?;
        cable.repair(cut);
    }
    drop(driver);
    drop(witness);
    cable.has_only(0)
}

/// Waits until a connection in the driver's namespace has bytes that its program has not read.
fn until_unread(driver: &Driver) -> Verdict {
    let path = format!("/proc/{}/net/tcp", driver.pid().as_raw_nonzero());
    let end = Instant::now() + HANG;
    loop {
        let connections = std::fs::read_to_string(&path).map_err(|error| Failure(error.to_string()))?;
        // In the fifth column are the sizes of both queues, that of received bytes last.
        let queues = connections.lines().skip(1).filter_map(|line| line.split_whitespace().nth(4));
        if queues.filter_map(|queues| queues.split_once(':')).any(|(_, unread)| unread != "00000000") {
            return Ok(());
        }
        ensure(Instant::now() < end, || "the grant does not reach the client".to_owned())?;
        thread::sleep(Duration::from_millis(1));
    }
}

fn pause(stage: &Stage) -> Verdict {
    let cable = Cable::new(stage)?;
    let (driver, mut witness) = (cable.driver(stage, "driver")?, cable.witness()?);
    driver.hold("a", EXCLUSIVE)?;
    driver.stop()?;
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        witness.cannot_acquire("a", EXCLUSIVE)?;
        thread::sleep(Duration::from_millis(200));
    }
    driver.resume();
    driver.check("a")?.must_be(Word::Held)?;
    witness.cannot_acquire("a", EXCLUSIVE)?;
    driver.release("a")?.must_be(Word::Ok)?;
    driver.end()?;
    cable.has_only(0)
}
