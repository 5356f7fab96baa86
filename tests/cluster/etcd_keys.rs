//! What servers of a cluster find in etcd that they have not left there, and do not find that they
//! have: other times, another etcd, keys that somebody has deleted or overwritten.

use std::time::Instant;

use lockd::etcd::Write;

use crate::etcd::EtcdCluster;
use crate::servers::{Cluster, DEAD_PEER_TIMEOUT, Ended, token};
use crate::support::resumable::{exclusive, resumable, resumed};
use crate::support::server::Launch;
use crate::support::{DEADLINE, eventually};

fn transact(cluster: &Cluster, writes: &[Write<'_>]) {
    assert!(cluster.keys().transact(&[], writes, DEADLINE).unwrap().succeeded);
}

fn put(cluster: &Cluster, name: &str, value: &[u8]) {
    transact(cluster, &[Write::Put { key: &Cluster::key(name), value }]);
}

fn delete(cluster: &Cluster, names: &[&str]) {
    let keys: Vec<String> = names.iter().map(|name| Cluster::key(name)).collect();
    let writes: Vec<_> = keys.iter().map(|key| Write::Delete { key }).collect();
    transact(cluster, &writes);
}

fn value(cluster: &Cluster, name: &str) -> Option<Vec<u8>> {
    let found = cluster.keys().read_key(&Cluster::key(name), DEADLINE).unwrap();
    found.map(|found| found.value)
}

/// The usual options with another value for one of them.
fn with(cluster: &Cluster, name: &str, value: &str) -> Vec<String> {
    let mut options = cluster.options();
    let place = options.iter().position(|option| option == name).unwrap();
    value.clone_into(&mut options[place + 1]);
    options
}

/// A server with these options ends by itself, and says this.
fn assert_refused(options: &[String], part: &str) {
    let launch = Launch::new().args(options.iter().map(String::as_str));
    let (status, log) = launch.listen("message://127.0.0.1:0").run();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("this server cannot be a member of the cluster: ") && log.contains(part), "{log}");
}

#[test]
fn a_server_that_does_not_fit_the_cluster_is_refused_and_the_others_go_on() {
    let (mut cluster, other) = (Cluster::start(1), EtcdCluster::start(1));
    let mut client = cluster.message(0);
    let held = token(&client.lock("x"));
    let words =
        "the cluster goes by a dead-peer timeout of 12 s and a leader timeout of 2 s, and this server by";
    assert_refused(&with(&cluster, "--leader-timeout", "1"), &format!("{words} 12 s and 1 s"));
    assert_refused(&with(&cluster, "--dead-peer-timeout", "25"), &format!("{words} 25 s and 2 s"));
    let both = format!("etcd://{},{}/main", cluster.etcd.place(0), other.place(0));
    assert_refused(&with(&cluster, "--cluster", &both), "answers as another etcd cluster than the others");
    let key = "/lockd/newer/settings";
    transact(&cluster, &[Write::Put { key, value: b"{\"version\":2}" }]);
    let newer = with(&cluster, "--cluster", &cluster.etcd.url("newer"));
    assert_refused(&newer, "another version of lockd has written the settings");
    assert!(client.is_served());

    // A cluster of another name has locks of its own.
    let options = with(&cluster, "--cluster", &cluster.etcd.url("another"));
    let another = cluster.add_with(options);
    eventually("it is active", || cluster.page(another, "/healthz").is_some_and(|page| page.0 == 200));
    token(&cluster.message(another).try_lock("x"));
    assert!(client.is_served());
    assert_eq!(client.unlock("x")["result"], "ok");
    assert!(token(&client.lock("x")) > held);
}

#[test]
fn an_active_server_whose_key_is_gone_or_overwritten_ends_and_its_holders_keep_their_locks() {
    let mut cluster = Cluster::start(2);
    let active = cluster.await_active();
    cluster.await_standby(1 - active, active);
    let (mut client, mut told) = resumable(cluster.server(active));
    let held = client.lock("held");
    let foreign: Option<&[u8]> = Some(b"somebody was here");
    for (value, why) in [
        (None, "the leader's key has been deleted"),
        (foreign, "another server has replaced the leader's key"),
    ] {
        let active = cluster.await_active();
        match value {
            None => delete(&cluster, &["leader"]),
            Some(value) => put(&cluster, "leader", value),
        }
        assert_eq!(cluster.end(active), Ended::With(4));
        let log = cluster.server(active).log().join("\n");
        let words = format!("this server is not the active one any more, and ends: {why}");
        assert!(log.contains(&words), "{log}");
        assert_eq!(client.read_to_end(), b"");
        let next = cluster.await_next(active);
        client = resumed(cluster.server(next), &mut told, &exclusive("held", &held));
        assert_eq!(cluster.message(next).try_lock("held")["cause"], "grace");
        cluster.start_again(active);
        cluster.await_standby(active, next);
    }
}

/// Nobody knows what earlier runs have granted, nor who could prove a session.
#[test]
fn without_the_state_nobody_can_resume_and_nothing_is_granted_before_all_clients_know() {
    let mut cluster = Cluster::on(EtcdCluster::start(1));
    let first = cluster.add(&[]);
    assert_eq!(cluster.await_active(), first);
    let mut options = cluster.options();
    options.retain(|option| option != "--first-start");
    let second = cluster.add_with(options);
    cluster.await_standby(second, first);
    let (mut client, mut told) = resumable(cluster.server(first));
    let held = client.lock("x");
    let begin = Instant::now();
    delete(&cluster, &["leader", "state"]);
    assert_eq!(cluster.end(first), Ended::With(4));
    assert_eq!(cluster.await_next(first), second);
    cluster.await_log(second, "there is no record of an earlier run");
    let ended = cluster.message(second).call("resume", told.request(&exclusive("x", &held)));
    assert_eq!(ended["status"], "ended", "{ended}");
    let mut other = cluster.message(second);
    assert_eq!(other.try_lock("free")["cause"], "grace");
    let granted = token(&other.lock("x"));
    assert!(begin.elapsed() >= DEAD_PEER_TIMEOUT, "granted after {:?}", begin.elapsed());
    assert!(granted > token(&held));
}

#[test]
fn settings_that_were_deleted_are_written_anew_by_the_next_server() {
    let mut cluster = Cluster::start(2);
    let active = cluster.await_active();
    let settings = value(&cluster, "settings");
    assert!(settings.is_some());
    delete(&cluster, &["settings"]);
    assert_eq!(cluster.stand_down(active), Ended::With(4));
    let next = cluster.await_next(active);
    assert_eq!(value(&cluster, "settings"), settings);
    token(&cluster.message(next).try_lock("x"));
}

#[test]
fn a_state_that_makes_no_sense_is_refused_and_left_as_it_is() {
    let mut cluster = Cluster::start(2);
    let active = cluster.await_active();
    token(&cluster.message(active).lock("x"));
    let own = value(&cluster, "state").unwrap();
    let torn = &own[..own.len() / 2];
    put(&cluster, "state", torn);
    cluster.kill(active);
    let standby = 1 - active;
    assert_eq!(cluster.end(standby), Ended::With(2));
    let log = cluster.server(standby).log().join("\n");
    for part in [
        "this server cannot be a member of the cluster: the key /lockd/main/state in etcd cannot be used: ",
        "torn or damaged",
        "It was left as it is",
    ] {
        assert!(log.contains(part), "{log}");
    }
    assert_eq!(value(&cluster, "state").as_deref(), Some(torn));
    // As long as it is there, no server grants anything.
    cluster.start_again(standby);
    assert_eq!(cluster.end(standby), Ended::With(2));
    put(&cluster, "state", &own);
    cluster.start_again(standby);
    assert_eq!(cluster.await_active(), standby);
    assert_eq!(cluster.message(standby).try_lock("x")["cause"], "grace");
}
