//! Events after which every lock must still be held: an outage shorter than all timeouts, and a
//! client or a server that is stopped for longer than all timeouts while its host answers for it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::{AcquireError, Mode, Released};
use lockd::client::InspectError;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::network::{Network, Passing, Scenario, in_networks};
use crate::site::{SHORTEST, SOON, Site, loss_of};

/// The variable that tells the holder process its server's address.
const SERVER_URL: &str = "LOCKD_CABLE_SERVER";

const NOW: Option<Duration> = Some(Duration::ZERO);

/// An outage shorter than all timeouts loses nothing, for holders and waiters alike.
fn has_a_short_outage(network: Network) {
    let site = Site::new(network, SHORTEST);
    let holder = ("lock".to_owned(), site.holder(&["lock"]));
    let heirs = site.heirs(std::slice::from_ref(&holder));
    let mut keeper = site.near();
    assert_eq!(keeper.lock("other")["status"], "ok");
    let waiter = site.session();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.acquire(b"other", Mode::Exclusive, Some(SOON)));
        site.await_waiters("other", 1);
        for _ in 0..3 {
            site.network.pass(Passing::NONE);
            sleep(Duration::from_millis(800));
            site.network.pass(Passing::ALL);
            sleep(Duration::from_millis(1300));
            assert!(holder.1.is_alive() && waiter.is_alive(), "lost by an outage of less than a second");
            assert!(heirs.has("lock").is_none() && !waiting.is_finished(), "granted twice");
        }
        site.network.pass(Passing::NONE);
        let released = scope.spawn(|| holder.1.release(b"lock"));
        sleep(Duration::from_millis(50));
        assert_eq!(keeper.unlock("other")["result"], "ok");
        sleep(Duration::from_millis(500));
        assert!(!released.is_finished() && !waiting.is_finished(), "that was no outage");
        site.network.pass(Passing::ALL);
        assert_eq!(released.join().unwrap(), Ok(Released::Hold));
        waiting.join().unwrap().expect("it is its turn");
    });
    assert!(heirs.await_grant("lock", Instant::now() + SOON).is_some());
    assert!(waiter.is_alive() && holder.1.is_alive());
}

/// A session of the client library in a process of its own, killed when dropped.
struct Process(Child, BufReader<std::process::ChildStdout>);

impl Process {
    fn holding_a_lock(site: &Site) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["pauses::a_holder_to_be_stopped", "--exact", "--ignored", "--nocapture"])
            .env(SERVER_URL, site.url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = site.network.clients.within(|| command.spawn()).unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self(child, said);
        process.await_word("held");
        process
    }

    fn await_word(&mut self, word: &str) {
        let mut line = String::new();
        while line.trim() != word {
            line.clear();
            assert!(self.1.read_line(&mut line).unwrap() > 0, "it ended, and did not say {word:?}");
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Holds a lock until it is told to release it.
#[test]
#[ignore = "the other tests run it, as a process of its own"]
fn a_holder_to_be_stopped() {
    let Ok(url) = std::env::var(SERVER_URL) else { return };
    let session = Session::connect(&url, None, SOON).unwrap();
    session.acquire(b"lock", Mode::Exclusive, NOW).unwrap();
    println!("\nheld");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    assert!(session.is_alive());
    assert_eq!(session.release(b"lock"), Ok(Released::Hold));
    println!("\nreleased");
}

/// A process that is stopped keeps its lock, and its session.
fn stops_a_client(network: Network, pause: Duration) {
    let site = Site::new(network, SHORTEST);
    let mut holder = Process::holding_a_lock(&site);
    let other = site.session();
    holder.signal(Signal::STOP);
    let end = Instant::now() + pause;
    while Instant::now() < end {
        assert_eq!(other.acquire(b"lock", Mode::Exclusive, NOW), Err(AcquireError::TimedOut));
        sleep(Duration::from_millis(100));
    }
    holder.signal(Signal::CONT);
    holder.0.stdin.as_mut().unwrap().write_all(b"release\n").unwrap();
    holder.await_word("released");
    assert!(!other.acquire(b"lock", Mode::Exclusive, Some(SOON)).unwrap().orphaned);
}

/// Stops the server; returns when every thread of it has stopped.
fn stop(site: &Site) {
    site.server.signal(Signal::STOP);
    let pid = Pid::from_raw(site.server.pid().try_into().unwrap());
    waitpid(pid, WaitOptions::UNTRACED).unwrap();
}

/// While the server is stopped, every session keeps its locks, except one that goes on sending
/// until the server's host takes no more: that session is lost, and is told so.
fn stops_the_server(network: Network, pause: Duration) {
    let site = Site::new(network, SHORTEST);
    let (idle, asking, flooding) =
        (site.holder(&["idle"]), site.holder(&["asking"]), site.holder(&["flooding"]));
    let waiter = site.session();
    let names: Vec<Vec<u8>> = (0..500).map(|n| format!("{n:0>250}").into_bytes()).collect();
    let wants: Vec<(&[u8], Mode)> = names.iter().map(|name| (&name[..], Mode::Exclusive)).collect();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.acquire(b"idle", Mode::Exclusive, Some(pause + SOON)));
        site.await_waiters("idle", 1);
        stop(&site);
        let asked = scope.spawn(|| asking.inspect(b"asking"));
        let lost = scope.spawn(|| loss_of(&flooding, Instant::now() + pause + SOON));
        let flood = scope.spawn(|| while flooding.acquire_all(&wants, NOW) == Err(AcquireError::TimedOut) {});
        sleep(pause);
        assert!(idle.is_alive() && asking.is_alive() && waiter.is_alive(), "the server's host has answered");
        assert!(!waiting.is_finished());
        // The call has a time limit of its own, and the session is unharmed.
        assert_eq!(asked.join().unwrap(), Err(InspectError::TimedOut));
        assert!(lost.join().unwrap().is_some(), "what was sent cannot all have been taken");
        flood.join().unwrap();
        site.server.signal(Signal::CONT);
        assert!(asking.inspect(b"asking").is_ok_and(|seen| seen.held.is_some()));
        assert_eq!(idle.release(b"idle"), Ok(Released::Hold));
        waiting.join().unwrap().expect("it is its turn");
    });
    let freed = asking.acquire(b"flooding", Mode::Exclusive, Some(SOON)).unwrap();
    assert!(freed.orphaned);
    assert_eq!(asking.release(b"asking"), Ok(Released::Hold));
}

fn no_holder_loses_its_lock(name: &str, pause: Duration) {
    let scenarios: Vec<Scenario> = vec![
        Box::new(has_a_short_outage),
        Box::new(move |network| stops_a_client(network, pause)),
        Box::new(move |network| stops_the_server(network, pause)),
    ];
    in_networks(name, scenarios);
}

#[test]
fn a_pause_costs_no_holder_its_lock() {
    let pause = Duration::from_secs(SHORTEST + 2);
    no_holder_loses_its_lock("pauses::a_pause_costs_no_holder_its_lock", pause);
}

#[test]
#[ignore = "takes 1 minute: make check-deep"]
fn a_long_pause_costs_no_holder_its_lock() {
    let pause = Duration::from_secs(SHORTEST * 5);
    no_holder_loses_its_lock("pauses::a_long_pause_costs_no_holder_its_lock", pause);
}
