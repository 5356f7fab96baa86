//! `lockd run` at several places, while the servers there end one after the other; and the commands
//! that look.

use std::fs::File;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::servers::{Cluster, Ended};
use crate::support::environment::without_options;
use crate::support::eventually;
use crate::support::server::program;
use crate::tool::{Running, text, until, with_default_signals};

const RESUMED: &str = "the session has resumed after ";
const GOES_ON: &str = "the lock may still be held: the command goes on";

/// A directory for what commands write.
struct Site {
    directory: TempDir,
    group: String,
}

impl Site {
    fn of(cluster: &Cluster) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), group: cluster.group() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, command: &str, arguments: &[&str]) -> std::process::Command {
        let mut tool = with_default_signals("setsid");
        without_options(&mut tool).arg(program()).args([command, "--server", &self.group]).args(arguments);
        tool.current_dir(self.directory.path()).stdin(std::process::Stdio::null());
        tool
    }

    /// `lockd run` of a script; what it says is written to the file `errors`.
    fn run(&self, errors: &str, arguments: &[&str], script: &str) -> Running {
        let all = [&["--grace", "0"], arguments, &["--", "sh", "-c", script]].concat();
        let errors = File::create(self.path(errors)).unwrap();
        Running(self.command("run", &all).stderr(errors).spawn().unwrap())
    }

    fn output(&self, command: &str, arguments: &[&str]) -> Output {
        self.command(command, arguments).output().unwrap()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The first line of the file, once it is there.
    fn line(&self, name: &str) -> String {
        eventually(&format!("{name} is written"), || self.read(name).ends_with('\n'));
        self.read(name).lines().next().unwrap().to_owned()
    }

    fn write(&self, name: &str) {
        std::fs::write(self.path(name), "").unwrap();
    }
}

fn holder(cluster: &Cluster, index: usize) -> Value {
    let listed = cluster.message(index).call("list", json!({"prefix": "a"}));
    listed["locks"][0]["holders"][0].clone()
}

#[test]
fn a_command_lives_through_two_fail_overs_and_the_next_one_begins_after_it_has_ended() {
    let mut cluster = Cluster::start(3);
    let site = Site::of(&cluster);
    let script = format!("echo $LOCKD_TOKEN > token; {}; exit 5", until("stop"));
    let mut running = site.run("errors", &["--verbose", "a"], &script);
    let token: u64 = site.line("token").parse().unwrap();
    let mut waiting = site.run("waiting", &["a"], "echo $LOCKD_TOKEN > next");
    let first = cluster.await_active();
    cluster.server(first).await_waiters("a", 1);
    let await_resumed = |cluster: &Cluster, active| {
        eventually("it has resumed", || {
            let holder = holder(cluster, active);
            holder["token"] == token && holder.get("inDoubt").is_none()
        });
        cluster.server(active).await_waiters("a", 1);
    };
    assert_eq!(cluster.stand_down(first), Ended::With(4));
    let second = cluster.await_next(first);
    await_resumed(&cluster, second);
    cluster.kill(second);
    let third = cluster.await_active();
    await_resumed(&cluster, third);
    let refused = site.output("run", &["-n", "a", "--", "echo", "never"]);
    assert_eq!((refused.status.code(), refused.stdout.as_slice()), (Some(75), &b""[..]), "{refused:?}");
    assert!(!site.path("next").exists());
    site.write("stop");
    assert_eq!((running.code(), waiting.code()), (5, 0), "{}", site.read("waiting"));
    assert!(site.line("next").parse::<u64>().unwrap() > token);
    let said = site.read("errors");
    assert!(said.contains(GOES_ON) && said.contains(RESUMED), "{said}");
}

#[test]
fn the_commands_that_look_find_the_active_server() {
    let mut cluster = Cluster::start(2);
    let site = Site::of(&cluster);
    for _ in 0..2 {
        let active = cluster.await_active();
        let mut client = cluster.message(active);
        client.call("identify", json!({"name": "somebody"}));
        assert_eq!(client.lock("a")["status"], "ok");
        let listed = site.output("list", &[]);
        assert!(text(&listed.stdout).contains("somebody"), "{listed:?}");
        let inspected = site.output("inspect", &["a"]);
        assert!(text(&inspected.stdout).contains("somebody"), "{inspected:?}");
        let stats = site.output("stats", &[]);
        assert_eq!(stats.status.code(), Some(0), "{stats:?}");
        assert_eq!(client.call("bye", json!({}))["status"], "ok");
        assert_eq!(cluster.stand_down(active), Ended::With(4));
        cluster.await_next(active);
        cluster.start_again(active);
    }
}

/// A command that waits for its lock waits for an active server, too.
#[test]
fn a_command_waits_until_a_server_is_active() {
    let mut cluster = Cluster::start(2);
    let site = Site::of(&cluster);
    for index in [0, 1] {
        cluster.server(index).signal(rustix::process::Signal::TERM);
    }
    for index in [0, 1] {
        assert_eq!(cluster.end(index), Ended::With(0));
    }
    let mut waiting = site.run("errors", &["a"], "echo $LOCKD_TOKEN > token; exit 6");
    eventually("it says that no server is there", || site.read("errors").contains("no server"));
    cluster.start_again(1);
    assert_eq!(waiting.code(), 6);
    site.line("token");
}
