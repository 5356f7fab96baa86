//! Servers that are killed amid an upgrade. That is a crash, whatever the moment: clients see the
//! end of their connections, and the next run has its grace and takes everything over.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::site::Site;
use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::line_client::LineClient;
use crate::support::server::Launch;

/// The shortest dead-peer timeout, and so the grace.
const GRACE: Duration = Duration::from_secs(12);

/// A server with everything that a killed one leaves behind: a state directory, a pidfile, and Unix
/// sockets.
fn prepare(launch: Launch, directory: &Path) -> Launch {
    let at = |name: &str| directory.join(name).display().to_string();
    launch
        .listen("message://127.0.0.1:0")
        .listen(&format!("message+unix:{}", at("message.sock")))
        .listen(&format!("glockd+unix:{}", at("glockd.sock")))
        .args(["--first-start"])
        .option("--state-dir", &at("state"))
        .option("--pidfile", &at("pid"))
        .option("--dead-peer-timeout", &GRACE.as_secs().to_string())
}

/// A server, and clients that hold a lock and wait for it.
struct FirstRun {
    site: Site,
    holder: FrameClient,
    token: u64,
    waiter: LineClient,
}

/// A server after one that was killed, and a client that waits for the lock.
struct NextRun {
    site: Site,
    started: Instant,
    client: FrameClient,
    asked: u64,
    last_token: u64,
}

fn token(granted: &Value) -> u64 {
    assert_eq!(granted["status"], "ok", "{granted}");
    granted["token"].as_u64().unwrap()
}

impl FirstRun {
    fn begin() -> Self {
        let site = Site::start_with(prepare);
        let mut holder = site.server.message();
        let token = token(&holder.lock("x"));
        let mut waiter = LineClient::new(site.server.unix("glockd"));
        waiter.send("gw 600 x\n");
        site.server.await_waiters("x", 1);
        Self { site, holder, token, waiter }
    }

    /// Kills the server while `asking` asks for an upgrade, and starts the next one. Also returns
    /// what the command that has asked has said last.
    fn kill_and_start_again(self, asking: Child) -> (NextRun, String) {
        self.site.server.signal(Signal::KILL);
        self.start_again(asking)
    }

    /// Starts the next server after this one has ended.
    fn start_again(self, asking: Child) -> (NextRun, String) {
        let Self { mut site, mut holder, token: last_token, mut waiter } = self;
        site.server.wait();
        assert_eq!(holder.read_to_end(), b"", "nothing but the end");
        assert_eq!(waiter.read_to_end(), b"", "it was not granted to anybody");
        let asked = asking.wait_with_output().unwrap();
        let told = String::from_utf8(asked.stdout).unwrap();
        let last = told.lines().last().unwrap_or_default().to_owned();
        match asked.status.code() {
            Some(0) => assert!(last.starts_with("upgraded from "), "{told}"),
            // It had not connected yet, or was not told the end.
            Some(69 | 70) => assert!(!last.starts_with("upgraded"), "{told}"),
            other => panic!("{other:?}: {told}{}", String::from_utf8_lossy(&asked.stderr)),
        }
        let program = site.program();
        let of_site = |entry: &fs::DirEntry| {
            fs::read_link(entry.path().join("exe"))
                .is_ok_and(|exe| exe.starts_with(program.parent().unwrap()))
        };
        eventually("no process of it is left", || {
            !fs::read_dir("/proc").unwrap().flatten().any(|e| of_site(&e))
        });
        site.install_again();
        let started = Instant::now();
        let site = site.start_again(prepare);
        let pid = fs::read_to_string(site.path("pid")).unwrap();
        assert_eq!(pid.trim(), site.server.pid().to_string());
        let mut client = site.server.message();
        assert!(client.call("stats", json!({}))["grace"].as_u64().is_some_and(|rest| rest > 0));
        assert_eq!(client.try_lock("x")["cause"], "grace");
        let asked = client.request_lock("x");
        (NextRun { site, started, client, asked, last_token }, last)
    }
}

impl NextRun {
    /// Waits until the grace is over.
    fn finish(mut self) {
        let granted = self.client.result(self.asked);
        assert!(self.started.elapsed() >= GRACE, "granted after {:?}", self.started.elapsed());
        assert!(token(&granted) > self.last_token, "{granted}, after {}", self.last_token);
        assert_eq!(self.site.server.message().try_lock("x")["status"], "timeout");
        self.site.server.signal(Signal::TERM);
        assert_eq!(self.site.server.wait().code(), Some(0));
        for name in ["pid", "control", "message.sock", "glockd.sock"] {
            assert!(!self.site.path(name).exists(), "{name} is left");
        }
    }
}

/// How long an upgrade takes here.
fn usual_time() -> Duration {
    let run = FirstRun::begin();
    let begun = Instant::now();
    let (status, told, error) = run.site.ask();
    assert!(status == 0, "{told}{error}");
    begun.elapsed()
}

/// Kills as many servers as `kills`, each at another moment of its upgrade, from before its begin
/// until after its end. As many as `batch` wait for the end of their grace at a time. Returns how
/// many upgrades have come how far, as far as was told.
fn kill_at_moments(kills: u32, batch: usize) -> BTreeMap<String, usize> {
    let time = usual_time() * 6 / 5;
    let mut lasts = BTreeMap::new();
    let moments: Vec<Duration> = (0..kills).map(|number| time * number / kills).collect();
    for batch in moments.chunks(batch) {
        let killed = batch.iter().map(|moment| {
            let run = FirstRun::begin();
            let asking = run.site.asking().spawn().unwrap();
            // The moment is what is tried; nothing is concluded from it.
            std::thread::sleep(*moment);
            let (after, last) = run.kill_and_start_again(asking);
            let kind = last.split(':').next().unwrap_or_default();
            *lasts.entry(kind.to_owned()).or_default() += 1;
            after
        });
        let killed: Vec<_> = killed.collect();
        // Another upgrade is possible even in the grace.
        let (status, _, error) = killed[0].site.ask();
        assert_eq!(status, 0, "{error}");
        killed.into_iter().for_each(NextRun::finish);
    }
    lasts
}

#[test]
fn a_server_killed_at_any_moment_of_an_upgrade_has_crashed() {
    let lasts = kill_at_moments(30, 30);
    assert!(lasts.len() > 1, "all were killed at the same step: {lasts:?}");
}

#[test]
#[ignore = "takes long; tests/deep.sh runs it"]
fn deep_upgrade_kills() {
    println!("what was told last, and how often: {:?}", kill_at_moments(1000, 100));
}

#[test]
fn a_server_killed_while_the_next_version_is_tried_has_crashed() {
    let run = FirstRun::begin();
    let (pause, wait) = run.site.pause("tried");
    // The child outlives the server.
    run.site.install_before_program(&wait);
    let asking = run.site.asking().spawn().unwrap();
    pause.await_reached();
    let (after, last) = run.kill_and_start_again(asking);
    assert!(last.contains("tries"), "{last}");
    pause.go_on();
    after.finish();
}

/// It has become the next version, which has not read anything yet.
#[test]
fn a_server_killed_between_two_versions_has_crashed() {
    let run = FirstRun::begin();
    let pause = run.site.install_pausing_before_it_serves();
    let asking = run.site.asking().spawn().unwrap();
    pause.await_reached();
    let (after, last) = run.kill_and_start_again(asking);
    assert!(last.ends_with("can take over"), "{last}");
    after.finish();
}

/// The next version says that it can take over, and then cannot.
#[test]
fn a_next_version_that_fails_after_all_is_a_crash() {
    let mut run = FirstRun::begin();
    run.site.install_before_program("[ -z \"$LOCKD_UPGRADE_STATE\" ] || exit 9");
    let asking = run.site.asking().spawn().unwrap();
    assert_eq!(run.site.server.wait().code(), Some(9));
    let (after, last) = run.start_again(asking);
    assert!(last.ends_with("can take over"), "{last}");
    after.finish();
}
