//! The stage of a trial: the client that is tested, and all that the trial needs around it.

use std::cell::{Cell, RefCell};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::clients::{Abilities, Client};
use crate::driver::{Driver, HANG};
use crate::outcome::Word;
use crate::relay::Relay;
use crate::server::{Server, scheme};
use crate::transcript::Transcript;
use crate::verdict::{Failure, Verdict};
use crate::witness::Witness;

pub(crate) struct Stage {
    client: Client,
    abilities: Abilities,
    pub(crate) transcript: Transcript,
    /// An address of this machine that belongs to this cell.
    pub(crate) host: String,
    pub(crate) directory: TempDir,
    /// How often a trial repeats what depends on chance.
    pub(crate) rounds: usize,
    servers: RefCell<Vec<Rc<Server>>>,
    drivers: Cell<usize>,
}

impl Stage {
    pub(crate) fn new(client: &Client, abilities: &Abilities, cell: usize, rounds: usize) -> Self {
        // 127.0.0.0/8 all leads here. Connections come from 127.0.0.1, so they take no ports here.
        // Two runs at a time, as with planted faults, hardly meet.
        let run = 64 + std::process::id() % 128;
        let host = format!("127.{run}.{}.{}", cell / 250, cell % 250 + 1);
        Self {
            client: client.clone(),
            abilities: abilities.clone(),
            transcript: Transcript::new(),
            host,
            directory: tempfile::tempdir().expect("a temporary directory"),
            rounds,
            servers: RefCell::default(),
            drivers: Cell::default(),
        }
    }

    pub(crate) fn can(&self, ability: &str) -> bool {
        self.abilities.can(ability)
    }

    /// The protocol of the client.
    pub(crate) fn protocol(&self) -> &'static str {
        self.abilities.protocol()
    }

    pub(crate) fn server(&self) -> Rc<Server> {
        self.server_with(&[])
    }

    pub(crate) fn server_with(&self, options: &[&str]) -> Rc<Server> {
        let mut servers = self.servers.borrow_mut();
        let sockets = self.directory.path().join(servers.len().to_string());
        let server = Rc::new(Server::start(&self.host, sockets, options, &self.transcript));
        servers.push(server.clone());
        server
    }

    /// How many servers were started.
    pub(crate) fn servers(&self) -> usize {
        self.servers.borrow().len()
    }

    /// The URL at which the client reaches the server.
    pub(crate) fn url(&self, server: &Server) -> String {
        server.url(self.protocol())
    }

    /// A driver that has no session yet.
    pub(crate) fn driver(&self) -> Verdict<Driver> {
        self.driver_with(&[])
    }

    /// The same, with variables in its environment.
    pub(crate) fn driver_with(&self, variables: &[(&str, &str)]) -> Verdict<Driver> {
        self.driver_by(|name, mut command, transcript| {
            command.envs(variables.iter().copied());
            Driver::start(name, command, transcript)
        })
    }

    /// A driver that `start` starts in a way of its own, for example elsewhere in the network.
    pub(crate) fn driver_by(
        &self,
        start: impl FnOnce(&str, Command, &Transcript) -> Verdict<Driver>,
    ) -> Verdict<Driver> {
        let number = self.drivers.get() + 1;
        self.drivers.set(number);
        start(&format!("driver {number}"), self.client.command(), &self.transcript)
    }

    /// A driver with a session at `url`.
    pub(crate) fn connected_to(&self, url: &str) -> Verdict<Driver> {
        self.connected_with(url, &[])
    }

    /// The same, with variables in its environment.
    pub(crate) fn connected_with(&self, url: &str, variables: &[(&str, &str)]) -> Verdict<Driver> {
        let driver = self.driver_with(variables)?;
        let owner = format!("driver-{}", self.drivers.get());
        driver.connect(&owner, &[url])?.must_be(Word::Ok)?;
        Ok(driver)
    }

    pub(crate) fn connected(&self, server: &Server) -> Verdict<Driver> {
        self.connected_to(&self.url(server))
    }

    /// A relay before the server, for the client that is tested.
    pub(crate) fn relay(&self, server: &Server) -> Relay {
        Relay::start(&self.host, scheme(self.protocol()), &server.address(self.protocol()), &self.transcript)
    }

    /// A server, a driver with a session on it, and a witness.
    pub(crate) fn set(&self) -> Verdict<(Rc<Server>, Driver, Witness)> {
        let server = self.server();
        let (driver, witness) = (self.connected(&server)?, server.witness()?);
        Ok((server, driver, witness))
    }

    /// The same, with a relay between the driver and the server.
    pub(crate) fn set_behind_relay(&self) -> Verdict<(Relay, Driver, Witness)> {
        let server = self.server();
        let relay = self.relay(&server);
        let (driver, witness) = (self.connected_to(relay.url())?, server.witness()?);
        Ok((relay, driver, witness))
    }

    /// All drivers and witnesses have ended: nothing may be held or waited for.
    pub(crate) fn nothing_is_left(&self) -> Verdict {
        for server in self.servers.borrow().iter().filter(|server| server.runs()) {
            let mut witness = server.witness()?;
            let end = Instant::now() + HANG;
            loop {
                let left = witness.held_in_all();
                if left == (0, 0, 0) {
                    break;
                }
                if Instant::now() > end {
                    let (locks, shared, waiting) = left;
                    return Err(Failure::new(format!(
                        "A LOCK LEFT BEHIND: all clients have ended, and there are {locks} locks, \
                         {shared} shared locks and {waiting} waiting"
                    )));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }
}
