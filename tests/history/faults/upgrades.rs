//! Upgrades in place of the server of a fault run: asked for while clients work, and counted.

use std::fmt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::run::{Scenario, run};
use super::{DEEP_CALLS, real};
use crate::checker::Model;
use crate::plan::Mix;

/// How long an upgrade may take, with its rehearsal, on a machine that is busy.
const SOON: Duration = Duration::from_secs(60);

/// Why the server may refuse: a thread of it cannot be stopped at the moment.
const MAY_REFUSE: &str = "were busy for longer than";

/// The upgrades of one server.
#[derive(Debug, Default)]
pub(crate) struct Upgrades {
    control: PathBuf,
    /// The command that has asked, and waits for the end of the upgrade.
    asking: Option<Child>,
    pub(crate) done: usize,
    refused: usize,
    /// For how long nobody was served, in milliseconds, for each upgrade.
    pauses: Vec<u64>,
}

impl Upgrades {
    /// Those of the server with this control socket.
    pub(crate) fn at(control: PathBuf) -> Self {
        Self { control, asking: None, done: 0, refused: 0, pauses: Vec::new() }
    }

    /// Asks for an upgrade, unless one is going on.
    pub(crate) fn begin(&mut self) {
        if let Some(asking) = &mut self.asking {
            if asking.try_wait().unwrap().is_none() {
                return;
            }
            self.finish();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockd"));
        command.arg("upgrade").arg("--control").arg(&self.control);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.asking = Some(command.spawn().expect("the lockd binary runs"));
    }

    /// Waits until the upgrade that goes on is over, if one does.
    pub(crate) fn finish(&mut self) {
        let Some(mut asking) = self.asking.take() else { return };
        let deadline = Instant::now() + SOON;
        while asking.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                let _ = asking.kill();
                let _ = asking.wait();
                panic!("an upgrade is not over after {SOON:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let output = asking.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(1) && error.contains(MAY_REFUSE) {
            self.refused += 1;
            return;
        }
        assert!(output.status.success(), "an upgrade ended with {}: {told}{error}", output.status);
        assert!(!told.contains("not kept"), "{told}");
        self.done += 1;
        let pause = told.rsplit_once("nobody was served for ").and_then(|(_, rest)| rest.split(' ').next());
        self.pauses.push(pause.and_then(|millis| millis.parse().ok()).expect("the report names the pause"));
    }

    /// The server has been ended, and with it its upgrade.
    pub(crate) fn abandon(&mut self) {
        if let Some(mut asking) = self.asking.take() {
            // Fails only if it has ended already.
            let _ = asking.kill();
            asking.wait().unwrap();
        }
    }
}

impl fmt::Display for Upgrades {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pauses = self.pauses.clone();
        pauses.sort_unstable();
        let (middle, longest) = (pauses.get(pauses.len() / 2), pauses.last());
        write!(f, "{} upgrades, {} refused; nobody was served for ", self.done, self.refused)?;
        write!(f, "{} ms (median), {} ms at most", middle.unwrap_or(&0), longest.unwrap_or(&0))
    }
}

impl Drop for Upgrades {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[test]
fn a_server_that_upgrades_itself_again_and_again_breaks_nothing() {
    for (name, mix) in [("sets and conversions", Mix::SETS), ("limited locks", Mix::LIMITED)] {
        let scenario = Scenario { mix: real(mix), upgrades: 60, upgrades_min: 3, ..Scenario::USUAL };
        let scenario = Scenario { name, kicks: 200, kills: 300, millis: 2500, ..scenario };
        let (history, verdict) = run(scenario);
        assert!(history.calls.len() > 500, "only {} calls", history.calls.len());
        let timed = verdict.checked.get(&Model::TimeLimit).copied().unwrap_or_default();
        assert!(timed > 100, "only {timed} calls with a time limit");
    }
}

/// Upgrades, one soon after the other, amid a million calls and all faults of clients.
fn deep(name: &'static str, mix: Mix) {
    let scenario = Scenario { name, mix: real(mix), kills: 300, pauses: 1000, kicks: 500, ..Scenario::USUAL };
    let calls = DEEP_CALLS * 11 / 10;
    let (history, _) = run(Scenario { upgrades: 200, upgrades_min: 30, calls, millis: 600_000, ..scenario });
    assert!(history.calls.len() as u64 >= DEEP_CALLS, "only {} calls", history.calls.len());
}

#[test]
#[ignore = "takes a minute: make check-deep"]
fn deep_upgrades_of_sets() {
    deep("upgrades, sets and conversions", Mix::SETS);
}

#[test]
#[ignore = "takes a minute: make check-deep"]
fn deep_upgrades_of_limited_locks() {
    deep("upgrades, limited locks", Mix::LIMITED);
}

#[test]
#[ignore = "takes a minute: make check-deep"]
fn deep_upgrades_and_restarts() {
    let scenario =
        Scenario { mix: real(Mix::READ_WRITE), upgrades: 150, upgrades_min: 10, ..Scenario::USUAL };
    let scenario = Scenario { server_kills: 1500, server_stops: 2500, millis: 20_000, ..scenario };
    run(Scenario { name: "upgrades of a server that dies again and again", ..scenario });
}
