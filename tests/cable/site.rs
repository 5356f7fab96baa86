//! A server in a network, sessions of the client library on the far side, and waiters ("heirs") for
//! their locks on the near side. Records when each of them was told what.

use std::collections::HashMap;
use std::io::Read;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::Mode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use socket2::Socket;

use crate::network::{EVERYBODY, Network, SERVER};
use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::line_client::LineClient;
use crate::support::server::{Launch, Server};
use crate::support::socket::{Endpoint, connect};

/// How long connecting, and whatever loses no packet, may take.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// The shortest allowed dead-peer timeout, in seconds.
pub(crate) const SHORTEST: u64 = 12;
/// The default dead-peer timeout, in seconds.
pub(crate) const DEFAULT: u64 = 25;

/// A session and the lock it holds, for which an heir waits.
pub(crate) type Holder = (String, Arc<Session>);

pub(crate) struct Site {
    pub(crate) network: Network,
    pub(crate) server: Server,
    pub(crate) dead_peer_timeout: Duration,
}

impl Site {
    pub(crate) fn new(network: Network, dead_peer_timeout: u64) -> Self {
        Self::with_options(network, dead_peer_timeout, |launch| launch)
    }

    /// The same, with more options for the server.
    pub(crate) fn with_options(
        network: Network,
        dead_peer_timeout: u64,
        options: impl FnOnce(Launch) -> Launch,
    ) -> Self {
        let launch = Launch::new()
            .listen(&format!("message://{SERVER}:0"))
            .listen(&format!("glockd://{SERVER}:0"))
            .option("--allow", EVERYBODY)
            .option("--dead-peer-timeout", &dead_peer_timeout.to_string());
        let launch = options(launch);
        let server = network.server.within(|| launch.start());
        Self { network, server, dead_peer_timeout: Duration::from_secs(dead_peer_timeout) }
    }

    /// A session on the far side.
    pub(crate) fn session(&self) -> Session {
        self.network.clients.within(|| Session::connect(&self.url(), None, SOON).unwrap())
    }

    /// The server's address for sessions.
    pub(crate) fn url(&self) -> String {
        let Endpoint::Tcp(address) = self.server.tcp_endpoint("message") else { unreachable!() };
        format!("tcp://{address}")
    }

    /// A session on the far side that holds these locks.
    pub(crate) fn holder(&self, names: &[&str]) -> Arc<Session> {
        let session = self.session();
        for name in names {
            session.acquire(name.as_bytes(), Mode::Exclusive, Some(Duration::ZERO)).unwrap();
        }
        Arc::new(session)
    }

    /// A plain socket on the far side.
    pub(crate) fn far_line(&self) -> LineClient {
        LineClient::new(self.network.clients.within(|| connect(&self.server.tcp_endpoint("glockd"))))
    }

    /// A plain socket on the far side.
    pub(crate) fn far_frames(&self) -> FrameClient {
        FrameClient::new(self.network.clients.within(|| connect(&self.server.tcp_endpoint("message"))))
    }

    /// A plain socket on the server's side, which no outage affects.
    pub(crate) fn near(&self) -> FrameClient {
        FrameClient::new(self.network.server.within(|| connect(&self.server.tcp_endpoint("message"))))
    }

    /// Waits until exactly `count` requests wait for `name`.
    pub(crate) fn await_waiters(&self, name: &str, count: usize) {
        let mut observer = self.near();
        eventually(&format!("{count} waiting for {name:?}"), || {
            observer.call("inspect", json!({"lockName": name}))["waiters"] == json!(count)
        });
    }

    /// Waits for all these locks on the server's side, and records when each was granted, and
    /// whether its previous holder, asked at that moment, still believes that it holds the lock.
    pub(crate) fn heirs(&self, holders: &[Holder]) -> Heirs {
        let names: Vec<String> = holders.iter().map(|(name, _)| name.clone()).collect();
        let holders: HashMap<String, Arc<Session>> = holders.iter().cloned().collect();
        self.heirs_asking(&names, move |name| holders[name].is_alive())
    }

    /// The same, for holders that cannot be asked.
    pub(crate) fn heirs_of_unasked_holders(&self, names: &[String]) -> Heirs {
        self.heirs_asking(names, |_| false)
    }

    fn heirs_asking(&self, names: &[String], is_alive: impl Fn(&str) -> bool + Send + 'static) -> Heirs {
        let mut client = self.near();
        let ids: HashMap<u64, String> =
            names.iter().map(|name| (client.request_lock(name), name.clone())).collect();
        for name in names {
            self.await_waiters(name, 1);
        }
        let socket = client.into_socket();
        socket.set_read_timeout(None).unwrap();
        let granted: Arc<Notes> = Arc::default();
        let (reader, notes) = (socket.try_clone().unwrap(), granted.clone());
        let reader = std::thread::spawn(move || {
            while let Some(reply) = next_reply(&reader) {
                assert_eq!(reply["result"]["status"], "ok", "{reply}");
                let name = ids[&reply["id"].as_u64().unwrap()].clone();
                let granted = Granted { at: Instant::now(), too_early: is_alive(&name) };
                notes.0.lock().unwrap().insert(name, granted);
                notes.1.notify_all();
            }
        });
        Heirs { granted, socket, reader: Some(reader) }
    }

    /// When each of these locks became free as the server sees it; they have no waiters.
    pub(crate) fn freed(&self, names: &[String], end: Instant) -> Vec<Option<Instant>> {
        let (mut observer, mut freed) = (self.near(), vec![None; names.len()]);
        while Instant::now() < end && freed.contains(&None) {
            for (name, freed) in names.iter().zip(&mut freed).filter(|(_, freed)| freed.is_none()) {
                let is_free = observer.call("inspect", json!({"lockName": name}))["holders"] == 0;
                *freed = is_free.then(Instant::now);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        freed
    }
}

fn next_reply(mut from: &Socket) -> Option<Value> {
    let mut header = [0; 4];
    from.read_exact(&mut header).ok()?;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(header)).unwrap()];
    from.read_exact(&mut body).ok()?;
    Some(serde_json::from_slice(&body).unwrap())
}

/// A grant of a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Granted {
    pub(crate) at: Instant,
    /// Its previous holder did not yet know.
    pub(crate) too_early: bool,
}

type Notes = (Mutex<HashMap<String, Granted>>, Condvar);

/// Waiters for locks, and when each lock was granted.
pub(crate) struct Heirs {
    granted: Arc<Notes>,
    socket: Socket,
    reader: Option<JoinHandle<()>>,
}

impl Heirs {
    /// When this lock was granted, if it has been.
    pub(crate) fn has(&self, name: &str) -> Option<Granted> {
        self.granted.0.lock().unwrap().get(name).copied()
    }

    /// When this lock was granted; `None` if it is not by the deadline.
    pub(crate) fn await_grant(&self, name: &str, deadline: Instant) -> Option<Granted> {
        let mut granted = self.granted.0.lock().unwrap();
        while !granted.contains_key(name) {
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return None;
            }
            granted = self.granted.1.wait_timeout(granted, rest).unwrap().0;
        }
        granted.get(name).copied()
    }
}

impl Drop for Heirs {
    fn drop(&mut self) {
        // This fails only if the server is gone, and then the reader has ended too.
        let _ = self.socket.shutdown(Shutdown::Both);
        let ended = self.reader.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// When this session's descriptor reports that it is lost; `None` if not by the deadline.
pub(crate) fn loss_of(session: &Session, deadline: Instant) -> Option<Instant> {
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return None;
        }
        let limit = Timespec::try_from(rest).unwrap();
        poll(&mut [PollFd::new(&session.lost_fd().unwrap(), PollFlags::IN)], Some(&limit)).unwrap();
        if !session.is_alive() {
            return Some(Instant::now());
        }
    }
}

pub(crate) fn sleep_until(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}
