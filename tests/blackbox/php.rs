//! Real PHP clients, written like those of the three originals, against the real server.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::eventually;
use crate::support::server::Server;
use crate::support::socket::Endpoint;

/// A running script. It is killed if the test fails before it ends.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a PHP script of this directory with the address of `protocol` as an argument.
fn start(server: &Server, protocol: &str, script: &str, before: &[&str], after: &[&str]) -> Script {
    let Endpoint::Tcp(address) = server.tcp_endpoint(protocol) else { unreachable!() };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/blackbox/php_clients").join(script);
    let mut command = Command::new("php");
    command.args(["-n", "-d", "display_errors=stderr", "-d", "error_reporting=-1"]).arg(script);
    command.args(before).arg(address.ip().to_string()).arg(address.port().to_string()).args(after);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn();
    Script(child.unwrap_or_else(|error| {
        panic!("php cannot be run ({error}): install it with `make test-setup`");
    }))
}

/// The script's output. It must have written nothing to standard error, and ended with status 0.
fn transcript(mut script: Script) -> String {
    let mut status = None;
    eventually("the script ends", || {
        status = script.0.try_wait().unwrap();
        status.is_some()
    });
    let (mut output, mut errors) = (String::new(), String::new());
    script.0.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    script.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(status.unwrap().success() && errors.is_empty(), "{status:?}: {errors}{output}");
    output
}

fn run_scenario(protocol: &str) -> String {
    let server = Server::start();
    transcript(start(&server, protocol, &format!("{protocol}_scenario.php"), &[], &[]))
}

#[test]
fn a_lockd_client() {
    let expected = "\
a locks: 1 Got Lock
a locks again: 0 Cannot Get Lock
b locks: 0 Cannot Get Lock
b looks: 1 Locked
b unlocks: 0 Cannot Release Lock
a unlocks: 1 Released Lock
b looks again: 0 Not Locked
b gets it: true
a shares: 1
b shares: 2
shares: 2
a no longer shares: true
shares: 1
nor does b: true
keys: pid conns locks orphans commands command_g command_r command_i command_sg command_sr command_si command_q
connections: 2
locks: 1
still locked after b has gone: false
orphans: true
";
    assert_eq!(run_scenario("lockd"), expected);
}

#[test]
fn a_glockd_client() {
    let expected = "\
a locks: 1 Lock Get Success: page 1
a locks again: 1 Lock Get Success: page 1
b locks: 0 Lock Get Failure: page 1
b looks: 1 Lock Is Locked: page 1
b unlocks: 0 Lock Release Failure: page 1
a registers: 1 ok
holder: page 1: a
a unlocks: 1 Lock Release Success: page 1
b looks again: 0 Lock Not Locked: page 1
a shares: 1 Shared Lock Get Success: cache
b shares: 2 Shared Lock Get Success: cache
b looks at the share: 2 Shared Lock Is Locked: cache
a no longer shares: 1 Shared Lock Release Success: cache
b no longer shares: 1 Shared Lock Release Success: cache
nobody shares: 0 Shared Lock Not Locked: cache
keys: command_d command_dump command_g command_i command_iam command_me command_q command_r command_sd \
command_sg command_si command_sr command_who connections invalid_commands locks orphans shared_locks \
shared_orphans
connections: 2
b locks at last: true
a has it after b has gone: true
";
    assert_eq!(run_scenario("glockd"), expected);
}

#[test]
fn a_message_client() {
    let expected = "\
a locks: true
a locks again: true
b gives up: false
b gives up at once: false
b unlocks: notFound
a unlocks: ok
a unlocks again: notFound
b locks in time: true
names in other scripts: true
and unlocked: ok
a has it after b has gone: true
";
    assert_eq!(run_scenario("message"), expected);
}

/// Processes that speak these protocols increment one number under one lock.
fn contend(protocols: &[&str], times: usize) {
    let server = Server::start();
    let file = server.directory().join("counter");
    std::fs::write(&file, "0").unwrap();
    let arguments = [file.to_str().unwrap(), &times.to_string()];
    let scripts: Vec<Script> = protocols
        .iter()
        .map(|protocol| start(&server, protocol, "increment.php", &[protocol], &arguments))
        .collect();
    for script in scripts {
        assert_eq!(transcript(script), "done\n");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), (protocols.len() * times).to_string());
}

#[test]
fn two_processes_that_wait_for_one_lock_lose_nothing() {
    contend(&["message", "message"], 500);
}

#[test]
fn processes_of_all_protocols_that_contend_for_one_lock_lose_nothing() {
    contend(&["lockd", "glockd", "message"], 200);
}
