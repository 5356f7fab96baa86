//! Commands of `lockd run` while the network fails, and whose connection is reset. Whether or not the
//! holder knows of it at that moment, the next command begins only when the holder's has ended; and
//! if its session resumes in time, only when that one has ended by itself.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::network::{Namespace, Network, Passing, Scenario, in_networks};
use crate::site::Site;
use crate::support::environment::without_options;
use crate::support::server::program;
use crate::support::{end_of, eventually};

/// A dead-peer timeout, in seconds, with which a client gives up (5 s) well before its server does
/// (7 s).
const CLIENT_FIRST: u64 = 20;
/// A command that ends only when it is killed. It says its process id.
const STUBBORN: &str = "trap '' TERM; echo $$; exec sleep 600";

/// A process that is killed and waited for when this is dropped.
struct Running(Child);

impl Running {
    /// `lockd run` for one lock, with a script for the shell.
    fn start(site: &Site, namespace: &Namespace, script: &str) -> Self {
        let mut command = Command::new(program());
        without_options(&mut command);
        command.args(["run", "--grace", "2", "--server", &site.url(), "lock", "--", "sh", "-c", script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(namespace.within(|| command.spawn()).unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One command runs, and the next one waits.
struct Turns {
    site: Site,
    holder: Running,
    /// The process of the command that runs.
    pid: Pid,
    next: Running,
}

impl Turns {
    fn new(site: Site) -> Self {
        let mut holder = Running::start(&site, &site.network.clients, STUBBORN);
        let mut pid = String::new();
        BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let pid = pid.trim().parse().unwrap();
        let look = format!("if kill -0 {pid} 2>/dev/null; then echo overlap; else echo alone; fi");
        let next = Running::start(&site, &site.network.server, &look);
        site.await_waiters("lock", 1);
        Self { site, holder, pid: Pid::from_raw(pid).unwrap(), next }
    }

    /// The next command runs when the first one has ended, whose `lockd run` ends with `code`.
    fn end(mut self, code: i32) {
        assert!(end_of("the next command", &mut self.next.0).success());
        let mut seen = String::new();
        self.next.0.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "alone\n");
        assert_eq!(end_of("the first lockd run", &mut self.holder.0).code(), Some(code));
    }
}

/// A server with which sessions resume.
fn resuming(network: Network) -> Site {
    Site::with_options(network, CLIENT_FIRST, |launch| {
        let state = launch.path("state");
        launch.option("--state-dir", state.to_str().unwrap()).args(["--first-start"])
    })
}

/// `fail` makes the network fail, for good.
fn commands_take_turns(site: Site, fail: impl FnOnce(&Network)) {
    let turns = Turns::new(site);
    fail(&turns.site.network);
    turns.end(76);
}

/// The client's kernel gives the server up first, and its reset arrives.
fn server_is_not_heard(network: Network) {
    commands_take_turns(Site::new(network, CLIENT_FIRST), |network| network.pass(Passing::TO_SERVER));
}

/// The client hears nothing, and the reset that the server gets is not the client's.
fn another_machine_answers(network: Network) {
    commands_take_turns(Site::new(network, CLIENT_FIRST), Network::answer_for_clients);
}

#[test]
fn a_command_whose_connection_is_reset_has_ended_before_the_next_begins() {
    let scenarios: Vec<Scenario> = vec![Box::new(server_is_not_heard), Box::new(another_machine_answers)];
    in_networks("commands::a_command_whose_connection_is_reset_has_ended_before_the_next_begins", scenarios);
}

fn server_is_away(network: Network) {
    commands_take_turns(resuming(network), |network| network.pass(Passing::NONE));
}

fn server_is_not_heard_and_cannot_be_resumed_with(network: Network) {
    commands_take_turns(resuming(network), |network| network.pass(Passing::TO_SERVER));
}

fn client_is_not_heard(network: Network) {
    commands_take_turns(resuming(network), |network| network.pass(Passing::TO_CLIENTS));
}

/// The network is back as soon as the server has noticed its failure.
fn network_is_back_in_time(network: Network) {
    let mut turns = Turns::new(resuming(network));
    let is_in_doubt = |turns: &Turns| {
        let listed = turns.site.near().call("list", json!({}));
        listed["locks"][0]["holders"][0].get("inDoubt").is_some()
    };
    turns.site.network.pass(Passing::NONE);
    eventually("the server knows", || is_in_doubt(&turns));
    turns.site.network.pass(Passing::ALL);
    eventually("the session has resumed", || !is_in_doubt(&turns));
    let has_ended = |running: &mut Running| running.0.try_wait().unwrap().is_some();
    assert!(!has_ended(&mut turns.holder) && !has_ended(&mut turns.next));
    kill_process(turns.pid, Signal::KILL).unwrap();
    turns.end(137);
}

#[test]
fn a_command_whose_session_can_resume_has_ended_before_the_next_begins() {
    let scenarios: Vec<Scenario> = vec![
        Box::new(server_is_away),
        Box::new(server_is_not_heard_and_cannot_be_resumed_with),
        Box::new(client_is_not_heard),
        Box::new(network_is_back_in_time),
    ];
    in_networks("commands::a_command_whose_session_can_resume_has_ended_before_the_next_begins", scenarios);
}
