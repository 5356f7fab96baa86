//! Commands of `lockd run` whose connection is reset while the network fails. Whether or not the
//! holder knows of it at that moment, the next command begins only when the holder's has ended.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use crate::network::{Namespace, Network, Passing, Scenario, in_networks};
use crate::site::Site;
use crate::support::end_of;
use crate::support::environment::without_options;
use crate::support::server::program;

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

/// One command runs, the next one waits, and `fail` makes the network fail.
fn commands_take_turns(network: Network, fail: impl FnOnce(&Network)) {
    let site = Site::new(network, CLIENT_FIRST);
    let mut holder = Running::start(&site, &site.network.clients, STUBBORN);
    let mut pid = String::new();
    BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    let look = format!("if kill -0 {} 2>/dev/null; then echo overlap; else echo alone; fi", pid.trim());
    let mut next = Running::start(&site, &site.network.server, &look);
    site.await_waiters("lock", 1);
    fail(&site.network);
    assert!(end_of("the next command", &mut next.0).success());
    let mut seen = String::new();
    next.0.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "alone\n");
    assert_eq!(end_of("the first lockd run", &mut holder.0).code(), Some(76));
}

/// The client's kernel gives the server up first, and its reset arrives.
fn server_is_not_heard(network: Network) {
    commands_take_turns(network, |network| network.pass(Passing::TO_SERVER));
}

/// The client hears nothing, and the reset that the server gets is not the client's.
fn another_machine_answers(network: Network) {
    commands_take_turns(network, Network::answer_for_clients);
}

#[test]
fn a_command_whose_connection_is_reset_has_ended_before_the_next_begins() {
    let scenarios: Vec<Scenario> = vec![Box::new(server_is_not_heard), Box::new(another_machine_answers)];
    in_networks("commands::a_command_whose_connection_is_reset_has_ended_before_the_next_begins", scenarios);
}
