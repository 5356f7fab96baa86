//! A client that is stopped while it waits: the lock is granted to it, then its connection ends, and
//! another session is granted the lock. When it continues, it must not believe the grant that is
//! still in its socket.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use lockd::broker::Mode;
use lockd::client::MessageClient;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal, waitpid};
use serde_json::{Value, json};

use crate::support::*;

/// The environment variable with the address and the number of holders of the client's mode.
const ORDERS: &str = "STOPPED_CLIENT";

/// How the client's connection ends.
#[derive(Clone, Copy, Debug)]
enum ConnectionEnd {
    Kick,
    ServerIsKilled,
    ServerStops,
}

/// A client in a process of its own, which waits for the lock. Killed when dropped.
struct Client(Child);

impl Client {
    fn start(url: &str, holders: u32) -> Self {
        let child = Command::new("/proc/self/exe")
            .args(["stopped::stopped_client", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ORDERS, format!("{holders} {url}"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn stop(&self) {
        self.signal(Signal::STOP);
        // Reported once every thread of it has stopped.
        waitpid(Some(Pid::from_child(&self.0)), WaitOptions::UNTRACED).unwrap();
    }

    /// What it says of its request.
    fn result(&mut self) -> String {
        let said = BufReader::new(self.0.stderr.take().unwrap()).lines().map_while(Result::ok);
        said.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "not a test: the main function of the client that is stopped"]
fn stopped_client() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let (holders, url) = orders.split_once(' ').unwrap();
    let mode = Mode::at_most(holders.parse().unwrap()).unwrap();
    let session = lockd::Session::connect(url, Some("stopped"), SOON).unwrap();
    let result = session.acquire(b"x", mode, None);
    eprintln!("{}, alive: {}", if is_lost(&result) { "lost" } else { "BELIEVED" }, session.is_alive());
}

fn does_not_believe(holders: u32, end: ConnectionEnd) {
    let mode = Mode::at_most(holders).unwrap();
    let mut server = Process::start_with(&["--allow-kick"]);
    let holding: Vec<_> = (0..holders).map(|_| connect(&server.1)).collect();
    for session in &holding {
        session.acquire(b"x", mode, NOW).unwrap();
    }
    let mut client = Client::start(&server.1, holders);
    until(&holding[0], b"x", |seen| seen.waiters == 1);
    client.stop();
    holding[0].release(b"x").unwrap();
    until(&holding[0], b"x", |seen| seen.waiters == 0 && seen.holders == holders as usize);
    match end {
        ConnectionEnd::Kick => {
            let operator = MessageClient::connect(&server.1, SOON).unwrap();
            let kicked = operator.rpc("kick", &json!({"name": "stopped"}), Some(SOON)).unwrap();
            assert_eq!(serde_json::from_str::<Value>(kicked.get()).unwrap()["status"], "ok");
        }
        ConnectionEnd::ServerIsKilled => server.end(Signal::KILL),
        ConnectionEnd::ServerStops => server.end(Signal::TERM),
    }
    // After a kick, the same server gives the client's slot away; otherwise, another one does.
    let next = matches!(end, ConnectionEnd::Kick).then(|| connect(&server.1));
    let another = Process::start();
    let next = next.unwrap_or_else(|| connect(&another.1));
    next.acquire(b"x", mode, Some(SOON)).unwrap();
    client.signal(Signal::CONT);
    assert_eq!(client.result(), "lost, alive: false", "{mode}, {end:?}");
}

#[test]
fn a_client_that_was_stopped_believes_no_grant_whose_connection_has_ended() {
    for holders in [1, 2, 3] {
        for end in [ConnectionEnd::Kick, ConnectionEnd::ServerIsKilled, ConnectionEnd::ServerStops] {
            does_not_believe(holders, end);
        }
    }
}
