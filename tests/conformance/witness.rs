//! The runner's own client: it speaks `message` to the broker directly, and tells a trial what the
//! broker has granted to whom.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::driver::HANG;
use crate::support::frame_client::FrameClient;
use crate::support::socket::{Endpoint, try_connect};
use crate::transcript::Transcript;
use crate::verdict::{Failure, Verdict, ensure};

pub(crate) struct Witness {
    client: FrameClient,
    transcript: Transcript,
}

/// A name as the parameter of a command, whatever its bytes are.
fn named(name: impl AsRef<[u8]>) -> Value {
    let digits: String = name.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"lockNameHex": digits})
}

/// The parameters of a `lock` or `convert`.
fn wanted(name: impl AsRef<[u8]>, mode: &str, limit: Option<Duration>) -> Value {
    let mut parameters = named(name);
    match mode.strip_prefix("at-most:") {
        Some(holders) => parameters["limit"] = json!(holders.parse::<u32>().expect("a number of holders")),
        None => parameters["mode"] = json!(mode),
    }
    if let Some(limit) = limit {
        parameters["timeLimit"] = json!(limit.as_secs_f64());
    }
    parameters
}

impl Witness {
    pub(crate) fn connect(endpoint: &Endpoint, transcript: &Transcript) -> Verdict<Self> {
        let socket = try_connect(endpoint)
            .map_err(|error| Failure::new(format!("the witness cannot connect to {endpoint:?}: {error}")))?;
        Ok(Self { client: FrameClient::new(socket), transcript: transcript.clone() })
    }

    fn call(&mut self, command: &str, parameters: Value) -> Value {
        let result = self.client.call(command, parameters.clone());
        self.transcript.add(format!("        witness: {command} {parameters}: {result}"));
        result
    }

    /// The status of an attempt to acquire the lock.
    pub(crate) fn try_acquire(
        &mut self,
        name: impl AsRef<[u8]>,
        mode: &str,
        limit: Option<Duration>,
    ) -> String {
        let result = self.call("lock", wanted(name, mode, limit));
        result["status"].as_str().unwrap_or_default().to_owned()
    }

    /// Acquires the lock, which must be free or become free soon; gives the whole result.
    pub(crate) fn acquire(&mut self, name: impl AsRef<[u8]>, mode: &str) -> Verdict<Value> {
        let name = name.as_ref();
        let result = self.call("lock", wanted(name, mode, Some(HANG)));
        ensure(result["status"] == "ok", || {
            format!("another client cannot get {:?}: {result}", String::from_utf8_lossy(name))
        })?;
        Ok(result)
    }

    /// The lock must not be free in this mode.
    pub(crate) fn cannot_acquire(&mut self, name: impl AsRef<[u8]>, mode: &str) -> Verdict {
        let status = self.try_acquire(&name, mode, Some(Duration::ZERO));
        ensure(status == "timeout", || {
            let name = String::from_utf8_lossy(name.as_ref()).into_owned();
            format!("another client tries for {name:?}, which must be held: {status}")
        })
    }

    /// Begins to wait for the lock; gives the id of the request.
    pub(crate) fn begin_acquire(&mut self, name: &str, mode: &str) -> u64 {
        self.transcript.add(format!("        witness: waits for {name}"));
        self.client.request("lock", wanted(name, mode, None))
    }

    /// The status of the reply to a request.
    pub(crate) fn status(&mut self, id: u64) -> String {
        let result = self.client.result(id);
        self.transcript.add(format!("        witness: {id}: {result}"));
        result["status"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn release(&mut self, name: impl AsRef<[u8]>) -> Verdict {
        let result = self.call("unlock", named(name));
        ensure(result["status"] == "ok", || format!("the witness cannot release: {result}"))
    }

    /// How many hold the lock and how many wait for it.
    pub(crate) fn counts(&mut self, name: impl AsRef<[u8]>) -> (u64, u64) {
        let result = self.client.call("inspect", named(name));
        let count = |key| result[key].as_u64().unwrap_or_default();
        (count("holders"), count("waiters"))
    }

    /// Waits until exactly so many hold the lock and wait for it.
    pub(crate) fn until(&mut self, name: impl AsRef<[u8]>, holders: u64, waiters: u64) -> Verdict {
        let end = Instant::now() + HANG;
        let name = name.as_ref();
        loop {
            let counts = self.counts(name);
            if counts == (holders, waiters) {
                let name = String::from_utf8_lossy(name);
                self.transcript.add(format!("        {name} has {holders} holders and {waiters} waiters"));
                return Ok(());
            }
            ensure(Instant::now() < end, || {
                let (has_holders, has_waiters) = counts;
                let name = String::from_utf8_lossy(name);
                format!(
                    "{name:?} has {has_holders} holders and {has_waiters} waiters at the broker; \
                     it must have {holders} and {waiters}"
                )
            })?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether anything at all is held or waited for.
    pub(crate) fn held_in_all(&mut self) -> (u64, u64, u64) {
        let stats = self.client.call("stats", json!({}));
        let count = |key| stats[key].as_u64().unwrap_or_default();
        (count("locks"), count("sharedLocks"), count("waiting"))
    }

    /// Whether the server grants locks, and no session is without a connection.
    pub(crate) fn finds_all_well(&mut self) -> bool {
        let stats = self.client.call("stats", json!({}));
        stats["grace"] == 0 && stats["inDoubt"] == 0
    }

    /// The address by which the server names this connection.
    pub(crate) fn address(&self) -> String {
        self.client.address()
    }

    /// The addresses of the connections that hold the name.
    pub(crate) fn addresses_of_holders(&mut self, name: &str) -> Vec<String> {
        self.of_holders(name, "address")
    }

    /// The registered names of the sessions that hold the name.
    pub(crate) fn names_of_holders(&mut self, name: &str) -> Vec<String> {
        self.of_holders(name, "name")
    }

    fn of_holders(&mut self, name: &str, key: &str) -> Vec<String> {
        let result = self.client.call("list", json!({"prefix": name, "limit": 1}));
        let holders = result["locks"][0]["holders"].as_array().cloned().unwrap_or_default();
        holders.iter().filter_map(|holder| holder[key].as_str()).map(str::to_owned).collect()
    }

    /// Waits until the only connection that waits for the name is one of these.
    pub(crate) fn until_waits(&mut self, name: &str, addresses: &[String]) -> Verdict {
        let end = Instant::now() + HANG;
        loop {
            let result = self.client.call("list", json!({"prefix": name, "limit": 1}));
            let waiters = result["locks"][0]["waiters"].as_array().cloned().unwrap_or_default();
            let address = waiters.first().and_then(|waiter| waiter["address"].as_str());
            let is_there = address.is_some_and(|address| addresses.iter().any(|known| known == address));
            if waiters.len() == 1 && is_there {
                return Ok(());
            }
            ensure(Instant::now() < end, || format!("{addresses:?} must wait for {name}: {result}"))?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until so many hold the name or wait for it, together.
    pub(crate) fn until_requests(&mut self, name: &str, requests: u64) -> Verdict {
        let end = Instant::now() + HANG;
        loop {
            let (holders, waiters) = self.counts(name);
            if holders + waiters == requests {
                return Ok(());
            }
            ensure(Instant::now() < end, || {
                format!("{name} has {holders} holders and {waiters} waiters; together it must be {requests}")
            })?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The address of the connection that holds the name or waits for it, and is none of these.
    fn address_of_the_other(&mut self, name: &str, not: &[String]) -> Verdict<String> {
        let result = self.client.call("list", json!({"prefix": name, "limit": 1}));
        let lock = &result["locks"][0];
        let parties = ["holders", "waiters"].into_iter().filter_map(|key| lock[key].as_array()).flatten();
        let addresses = parties.filter_map(|party| party["address"].as_str());
        let mut others = addresses.filter(|address| !not.iter().any(|known| known == address));
        let other =
            others.next().ok_or_else(|| Failure::new(format!("no one else is at {name}: {result}")))?;
        Ok(other.to_owned())
    }

    /// Lets the server end the connection that holds the name or waits for it, and is none of these.
    pub(crate) fn kick_the_other(&mut self, name: &str, not: &[String]) -> Verdict {
        let address = self.address_of_the_other(name, not)?;
        self.kick(&address)
    }

    /// Lets the server end the connection with this address.
    pub(crate) fn kick(&mut self, address: &str) -> Verdict {
        let result = self.call("kick", json!({"address": address}));
        ensure(result["status"] == "ok", || format!("the client cannot be kicked: {result}"))
    }
}
