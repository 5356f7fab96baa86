//! Which server of a cluster is active, and when the next one is: after each way in which an active
//! server can end.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lockd::etcd::Write;
use serde_json::{Value, json};

use crate::etcd::EtcdCluster;
use crate::servers::{Cluster, DEAD_PEER_TIMEOUT, Ended, token};
use crate::support::resumable::{exclusive, resumable, resumed};
use crate::support::{DEADLINE, eventually};

#[test]
fn one_of_several_servers_is_active_and_when_it_is_killed_another_is_which_grants_after_the_grace() {
    let mut cluster = Cluster::start(3);
    let first = cluster.await_active();
    let others: Vec<usize> = (0..3).filter(|&index| index != first).collect();
    for &index in &others {
        cluster.await_standby(index, first);
    }
    assert_eq!(cluster.active(), Some(first));
    let epoch = cluster.metric(first, "lockd_cluster_epoch").unwrap();
    let mut holder = cluster.message(first);
    let held = token(&holder.try_lock("x"));

    let begin = Instant::now();
    cluster.kill(first);
    assert_eq!(holder.read_to_end(), b"");
    let next = cluster.await_next(first);
    cluster.await_standby(others[0] + others[1] - next, next);
    assert_eq!(cluster.metric(next, "lockd_cluster_epoch"), Some(epoch + 1.0));
    let (_, health) = cluster.page(next, "/healthz").unwrap();
    assert!(health.starts_with("ok, but nothing is granted for another"), "{health}");
    let mut client = cluster.message(next);
    assert_eq!(client.try_lock("y")["cause"], "grace");
    let granted = token(&client.lock("x"));
    assert!(begin.elapsed() >= DEAD_PEER_TIMEOUT, "granted after {:?}", begin.elapsed());
    assert!(granted > held);

    // It comes back as a standby.
    cluster.start_again(first);
    cluster.await_standby(first, next);
    assert_eq!(cluster.message(next).try_lock("x")["status"], "timeout");
}

/// Nobody else has let it go on, and nothing that it was asked meanwhile is answered.
fn assert_ended_by_the_kernel(cluster: &mut Cluster, active: usize, pause: impl FnOnce(&mut Cluster)) {
    let mut holder = cluster.message(active);
    let held = token(&holder.try_lock("x"));
    pause(cluster);
    holder.request("ping", json!({}));
    let mut text = cluster.server(active).glockd();
    text.send("g y\n");
    let next = cluster.await_next(active);
    assert_eq!(cluster.end(active), Ended::Killed);
    assert_eq!(holder.read_to_end(), b"");
    assert_eq!(text.read_to_end(), b"");
    let log = cluster.server(active).log();
    assert!(!log.iter().any(|line| line.contains("not the active one any more")), "{log:?}");
    let refused = cluster.message(next).try_lock("x");
    assert_eq!(refused["cause"], "grace", "the holder of {held} may not know yet");
}

#[test]
fn an_active_server_that_is_stopped_is_ended_by_the_kernel() {
    let mut cluster = Cluster::start(2);
    let active = cluster.await_active();
    // A short pause costs nothing.
    cluster.pause(active);
    cluster.go_on(active);
    assert_eq!(cluster.await_active(), active);
    assert_ended_by_the_kernel(&mut cluster, active, |cluster| cluster.pause(active));
}

/// A control group that is removed when this is dropped.
struct Freezer(PathBuf);

impl Freezer {
    /// `None` if this process cannot make one.
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let is_v2 = |line: &&str| line.split(' ').nth(2) == Some("cgroup2");
        let root = mounts.lines().find(is_v2)?.split(' ').nth(1)?;
        let path = PathBuf::from(root).join(format!("lockd-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path)).filter(|freezer| freezer.0.join("cgroup.freeze").exists())
    }

    /// Freezes the process, and waits until it is frozen.
    fn freeze(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
        fs::write(self.0.join("cgroup.freeze"), "1").unwrap();
        eventually("it is frozen", || {
            fs::read_to_string(self.0.join("cgroup.events")).unwrap().contains("frozen 1")
        });
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        // A test that has failed kills the process later.
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let end = Instant::now() + DEADLINE;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn an_active_server_whose_control_group_is_frozen_is_ended_by_the_kernel() {
    let Some(freezer) = Freezer::new() else {
        return eprintln!("skipped: no control group of version 2 can be made here");
    };
    let mut cluster = Cluster::start(2);
    let active = cluster.await_active();
    let pid = cluster.server(active).pid();
    // Not asked for its pages any more.
    assert_ended_by_the_kernel(&mut cluster, active, |_| freezer.freeze(pid));
}

/// Ends the active server in order. All holders come back, and then the next one grants.
fn hands_over(end: impl FnOnce(&mut Cluster, usize)) {
    let mut cluster = Cluster::start(2);
    let active = cluster.await_active();
    let (mut one, mut told_one) = resumable(cluster.server(active));
    let (mut two, mut told_two) = resumable(cluster.server(active));
    let (first, second) = (one.lock("one"), two.lock("two"));
    let mut text = cluster.server(active).glockd();
    assert_eq!(text.ask("g text"), "1 Lock Get Success: text\r\n");
    let begin = Instant::now();
    end(&mut cluster, active);
    assert_eq!(text.read_to_end(), b"");
    let next = cluster.await_next(active);
    let mut other = cluster.message(next);
    assert_eq!(other.try_lock("free")["cause"], "grace");
    let server = cluster.server(next);
    let _one = resumed(server, &mut told_one, &exclusive("one", &first));
    assert_eq!(other.try_lock("free")["cause"], "grace");
    let _two = resumed(server, &mut told_two, &exclusive("two", &second));
    eventually("locks are granted", || other.try_lock("free")["status"] == "ok");
    assert!(begin.elapsed() < DEAD_PEER_TIMEOUT, "only after {:?}", begin.elapsed());
    assert_eq!(other.try_lock("one")["status"], "timeout");
    assert_eq!(other.try_lock("two")["status"], "timeout");
    assert!(token(&other.try_lock("text")) > second["token"].as_u64().unwrap());
    // What has handed over comes back as a standby.
    cluster.start_again(active);
    cluster.await_standby(active, next);
}

#[test]
fn a_server_that_stands_down_is_followed_by_one_that_grants_when_all_holders_are_back() {
    hands_over(|cluster, active| {
        let standby = 1 - active;
        let (code, said, errors) = cluster.ask(standby, "stand-down");
        assert_eq!((code, said.as_str()), (1, ""));
        assert!(errors.contains("it is a standby"), "{errors}");
        assert_eq!(cluster.stand_down(active), Ended::With(4));
        assert!(cluster.server(active).log().iter().any(|line| line.contains("standing down")));
    });
}

#[test]
fn a_server_that_is_told_to_stop_hands_over_too_and_one_that_is_a_standby_just_ends() {
    hands_over(|cluster, active| {
        let standby = 1 - active;
        assert_eq!(cluster.terminate(standby), Ended::With(0));
        assert_eq!(cluster.active(), Some(active));
        cluster.start_again(standby);
        cluster.await_standby(standby, active);
        assert_eq!(cluster.terminate(active), Ended::With(0));
    });
}

/// With a leader timeout that is longer than the whole test.
#[test]
fn nobody_waits_for_the_leader_timeout_after_a_server_has_stood_down() {
    let cluster = Cluster::on(EtcdCluster::start(1));
    // As if another server had just handed over.
    let vacated = json!({
        "version": 1, "epoch": 1, "server": "other", "write": 1, "leaderTimeout": 45, "vacated": true
    });
    let (key, vacated) = (Cluster::key("leader"), vacated.to_string());
    let put = Write::Put { key: &key, value: vacated.as_bytes() };
    assert!(cluster.keys().transact(&[], &[put], DEADLINE).unwrap().succeeded);
    let mut cluster = cluster;
    let mut options = cluster.options();
    for (name, value) in [("--dead-peer-timeout", "120"), ("--leader-timeout", "45")] {
        let place = options.iter().position(|option| option == name).unwrap();
        options[place + 1] = value.to_owned();
    }
    let begin = Instant::now();
    for _ in 0..2 {
        cluster.add_with(options.clone());
    }
    let first = cluster.await_active();
    // Nobody holds anything, so there is no grace either.
    assert_eq!(cluster.stand_down(first), Ended::With(4));
    let second = cluster.await_next(first);
    token(&cluster.message(second).try_lock("x"));
    assert!(begin.elapsed() < Duration::from_secs(45), "only after {:?}", begin.elapsed());
}

/// Ends a server.
type End = fn(&mut Cluster, usize);

/// The second server has not granted anything yet when it ends. The sessions of the first one may
/// still come back, and all others may still believe in their locks.
fn ends_in_its_grace(end: End) {
    let mut cluster = Cluster::start(3);
    let first = cluster.await_active();
    let (mut client, mut told) = resumable(cluster.server(first));
    let held = client.lock("held");
    let mut lost = cluster.message(first);
    let last = token(&lost.lock("lost"));
    let begin = Instant::now();
    cluster.kill(first);
    let second = cluster.await_next(first);
    assert_eq!(cluster.message(second).try_lock("free")["cause"], "grace");
    end(&mut cluster, second);
    let third = cluster.await_active();
    assert!(third != first && third != second);
    assert_eq!(cluster.message(third).try_lock("free")["cause"], "grace");
    let _back = resumed(cluster.server(third), &mut told, &exclusive("held", &held));
    let mut waiter = cluster.message(third);
    let granted = token(&waiter.lock("lost"));
    assert!(begin.elapsed() >= DEAD_PEER_TIMEOUT, "granted after {:?}", begin.elapsed());
    assert!(granted > last);
    assert_eq!(waiter.try_lock("held")["status"], "timeout");
    assert_eq!(cluster.metric(third, "lockd_cluster_epoch"), Some(3.0));
}

#[test]
fn a_server_that_ends_in_its_grace_is_followed_by_one_to_which_the_holders_come_back() {
    let ends: [(&str, End); 3] = [
        ("it is killed", |cluster, index| cluster.kill(index)),
        ("it is told to stop", |cluster, index| assert_eq!(cluster.terminate(index), Ended::With(0))),
        ("it stands down", |cluster, index| assert_eq!(cluster.stand_down(index), Ended::With(4))),
    ];
    std::thread::scope(|scope| {
        for (name, end) in ends {
            let story = std::thread::Builder::new().name(name.to_owned());
            story.spawn_scoped(scope, move || ends_in_its_grace(end)).unwrap();
        }
    });
}

#[test]
fn a_cluster_all_of_whose_servers_were_stopped_goes_on_where_it_was() {
    let mut cluster = Cluster::start(2);
    let active = cluster.await_active();
    let mut client = cluster.message(active);
    let held = token(&client.lock("x"));
    let released: Value = client.unlock("x");
    assert_eq!(released["result"], "ok");
    for index in [1 - active, active] {
        assert_eq!(cluster.terminate(index), Ended::With(0));
    }
    for index in [0, 1] {
        cluster.start_again(index);
    }
    let active = cluster.await_active();
    assert!(token(&cluster.message(active).try_lock("x")) > held, "at once");
    assert_eq!(cluster.metric(active, "lockd_cluster_epoch"), Some(2.0));

    // Killed all at once, they leave no word of who holds something.
    for index in [active, 1 - active] {
        cluster.kill(index);
    }
    cluster.start_again(1 - active);
    assert_eq!(cluster.await_active(), 1 - active);
    assert_eq!(cluster.message(1 - active).try_lock("x")["cause"], "grace");
}
