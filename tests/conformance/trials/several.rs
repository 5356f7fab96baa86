//! Several servers: each name belongs to one of them, for every client to the same one.

use std::rc::Rc;
use std::time::Duration;

use rustix::process::Signal;

use super::Trial;
use crate::calls::EXCLUSIVE;
use crate::driver::{Driver, NOW};
use crate::outcome::Word;
use crate::server::Server;
use crate::stage::Stage;
use crate::verdict::{Verdict, ensure};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new("several", "Every name goes to the server that the protocol says.", &["several"], spread),
    Trial::new(
        "several-absent",
        "The names of a server that is not there are lost, the others go on.",
        &["several"],
        absent,
    ),
    Trial::new(
        "several-lost",
        "The names of a server that ends are lost, the others go on.",
        &["several"],
        lost,
    ),
    Trial::new(
        "several-unneeded",
        "The end of a server that the client has no lock on is no loss of the session.",
        &["several", "notice"],
        unneeded,
    ),
];

/// The score of a server for a name, as docs/protocol.md defines it.
fn score(server: &str, name: &[u8]) -> u64 {
    let hash = |bytes: &[u8]| {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
    };
    hash(&hash(&[server.as_bytes(), b"\0", name].concat()).to_be_bytes())
}

/// The examples in docs/protocol.md.
const SCORES: [(&str, &[u8], u64); 6] = [
    ("tcp://10.0.0.1:20934", b"report", 0xfc72_f362_71ed_45e8),
    ("tcp://10.0.0.2:20934", b"report", 0x037e_82fd_e2d2_5d32),
    ("tcp://10.0.0.1:20934", b"user/8", 0xc82e_51ae_1b09_5ba0),
    ("tcp://10.0.0.2:20934", b"user/8", 0x8e7d_e9c2_7c25_4557),
    ("tcp://10.0.0.1:20934", b"\xff\x00", 0x22de_bd70_21ba_9ddc),
    ("tcp://10.0.0.2:20934", b"", 0x143f_bc89_21a1_14ec),
];

struct Servers {
    servers: [Rc<Server>; 3],
    urls: [String; 3],
}

impl Servers {
    fn start(stage: &Stage) -> Self {
        let servers = [stage.server(), stage.server(), stage.server()];
        let urls = [0, 1, 2].map(|number| stage.url(&servers[number]));
        Self { servers, urls }
    }

    /// The place of the server that the name belongs to.
    fn of(&self, name: &[u8]) -> usize {
        let place = (0..3).max_by_key(|&place| score(&self.urls[place], name));
        place.unwrap_or_default()
    }

    fn connected(&self, stage: &Stage, order: [usize; 3]) -> Verdict<Driver> {
        let driver = stage.driver()?;
        let urls: Vec<_> = order.iter().map(|&place| self.urls[place].as_str()).collect();
        driver.connect("driver", &urls)?.must_be(Word::Ok)?;
        Ok(driver)
    }
}

fn names(stage: &Stage) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = (0..24).map(|number| format!("name/{number}").into_bytes()).collect();
    if stage.can("names") {
        names.extend([b"".to_vec(), b"\xff\xfe".to_vec(), "ä ö".as_bytes().to_vec()]);
    }
    if stage.can("zero-byte") {
        names.push(b"\xff\x00".to_vec());
    }
    names
}

fn spread(stage: &Stage) -> Verdict {
    for (server, name, expected) in SCORES {
        ensure(score(server, name) == expected, || {
            "the kit computes other scores than the document".to_owned()
        })?;
    }
    let servers = Servers::start(stage);
    for order in [[0, 1, 2], [2, 0, 1]] {
        let driver = servers.connected(stage, order)?;
        for name in names(stage) {
            driver.hold(&name, EXCLUSIVE)?;
            for (place, server) in servers.servers.iter().enumerate() {
                server.witness()?.until(&name, u64::from(place == servers.of(&name)), 0)?;
            }
            driver.release(&name)?.must_be(Word::Ok)?;
        }
        driver.end()?;
    }
    Ok(())
}

/// Every name of the server at `gone` is lost, and those of the others can be locked, but not on
/// another server than theirs.
fn others_go_on(stage: &Stage, servers: &Servers, driver: &Driver, gone: usize) -> Verdict {
    for name in names(stage) {
        let place = servers.of(&name);
        let answer = driver.acquire(&name, EXCLUSIVE, NOW)?;
        // A new session for the lock may find the server there again.
        let may_be_back = stage.can("session-per-lock") && servers.servers[gone].runs();
        if place == gone && !may_be_back {
            answer.must_be(Word::Lost)?;
        } else {
            answer.must_be(Word::Granted)?;
            servers.servers[place].witness()?.until(&name, 1, 0)?;
            driver.release(&name)?.must_be(Word::Ok)?;
        }
        for (other, server) in servers.servers.iter().enumerate().filter(|(other, _)| *other != gone) {
            let free = server.witness()?.until(&name, 0, 0);
            free.map_err(|failure| failure.during(&format!("on server {other}")))?;
        }
    }
    Ok(())
}

fn absent(stage: &Stage) -> Verdict {
    let servers = Servers::start(stage);
    servers.servers[1].end(Signal::TERM);
    let driver = servers.connected(stage, [0, 1, 2])?;
    others_go_on(stage, &servers, &driver, 1)?;
    // It does not come back in silence, either.
    servers.servers[1].start_again();
    others_go_on(stage, &servers, &driver, 1)?;
    driver.end()
}

fn lost(stage: &Stage) -> Verdict {
    let servers = Servers::start(stage);
    let driver = servers.connected(stage, [0, 1, 2])?;
    let name_of = |place| names(stage).into_iter().find(|name| servers.of(name) == place).unwrap_or_default();
    let (gone, stays) = (name_of(1), name_of(0));
    driver.hold(&gone, EXCLUSIVE)?;
    driver.hold(&stays, EXCLUSIVE)?;
    servers.servers[1].end(Signal::KILL);
    servers.servers[1].start_again();
    let mut witness = servers.servers[1].witness()?;
    witness.acquire(&gone, EXCLUSIVE)?;
    if stage.can("check") {
        driver.check(&gone)?.must_be(Word::Lost)?;
        driver.check(&stays)?.must_be(Word::Held)?;
    }
    driver.release(&gone)?.must_be(Word::Lost)?;
    driver.release(&stays)?.must_be(Word::Ok)?;
    witness.release(&gone)?;
    others_go_on(stage, &servers, &driver, 1)?;
    driver.end()
}

fn unneeded(stage: &Stage) -> Verdict {
    let servers = Servers::start(stage);
    let driver = servers.connected(stage, [0, 1, 2])?;
    let name_of = |place| names(stage).into_iter().find(|name| servers.of(name) == place).unwrap_or_default();
    let (gone, stays) = (name_of(1), name_of(0));
    driver.hold(&stays, EXCLUSIVE)?;
    servers.servers[1].end(Signal::KILL);
    for _ in 0..2 {
        driver.notice(Duration::from_millis(200))?.must_be(Word::Alive)?;
        if stage.can("check") {
            driver.check(&stays)?.must_be(Word::Held)?;
        }
        // After this, the client knows that the server has gone.
        driver.acquire(&gone, EXCLUSIVE, NOW)?.must_be(Word::Lost)?;
    }
    driver.release(&stays)?.must_be(Word::Ok)?;
    driver.end()
}
