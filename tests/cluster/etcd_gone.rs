//! etcd does not answer: not at all, late, or only some of the servers. What the active server does
//! then, and its standbys.

use std::time::{Duration, Instant};

use crate::etcd::EtcdCluster;
use crate::proxy::{Proxy, Way};
use crate::servers::{Cluster, Ended, token};
use crate::support::eventually;
use crate::support::resumable::{exclusive, resumable, resumed};

const ENDS: &str = "this server is not the active one any more, and ends: etcd has not confirmed for 1.7 s";
const FAILING: &str = "lockd_cluster_etcd_failing";

fn warnings(cluster: &Cluster, index: usize) -> usize {
    cluster.server(index).log().iter().filter(|line| line.contains("WARN ] etcd: ")).count()
}

fn await_failing(cluster: &Cluster, index: usize, fails: bool) {
    let wanted = if fails { 1.0 } else { 0.0 };
    eventually("it is seen how etcd answers", || cluster.metric(index, FAILING) == Some(wanted));
}

/// The server ends by itself, says why, and not a word more to its clients.
fn assert_gives_up(cluster: &mut Cluster, active: usize) {
    let mut client = cluster.message(active);
    let mut text = cluster.server(active).glockd();
    assert_eq!(cluster.end(active), Ended::With(4));
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(text.read_to_end(), b"");
    let log = cluster.server(active).log().join("\n");
    assert!(log.contains(ENDS), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn without_etcd_the_active_server_serves_to_its_limit_and_a_standby_waits_for_etcd() {
    let mut cluster = Cluster::start(2);
    let active = cluster.await_active();
    let standby = 1 - active;
    let mut client = cluster.message(active);
    let left = cluster.metric(active, "lockd_cluster_seconds_left").unwrap();
    assert!(left > 0.0 && left <= 1.8, "{left}");
    cluster.etcd.kill(0);
    token(&client.try_lock("x"));
    assert_gives_up(&mut cluster, active);
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(warnings(&cluster, active), 1);

    await_failing(&cluster, standby, true);
    assert_eq!(cluster.page(standby, "/healthz").unwrap().0, 503);
    assert_eq!(cluster.page(standby, "/livez").unwrap().0, 200);
    assert_eq!(cluster.message(standby).try_lock("x")["cause"], "standby");
    // It neither works nor talks much meanwhile.
    let (begin, ticks) = (Instant::now(), cluster.server(standby).processor_ticks());
    eventually("some time has passed", || begin.elapsed() >= Duration::from_secs(3));
    let used = cluster.server(standby).processor_ticks() - ticks;
    assert!(used < 100, "{used} hundredths of a second of processor time within 3 s");
    let said = warnings(&cluster, standby);
    assert!((1..=2).contains(&said), "{said}: {:?}", cluster.server(standby).log());

    cluster.etcd.restart(0);
    assert_eq!(cluster.await_next(active), standby);
    cluster.await_log(standby, "etcd answers again");
    await_failing(&cluster, standby, false);
    assert_eq!(cluster.message(standby).try_lock("x")["cause"], "grace");
}

#[test]
fn a_server_that_is_started_while_etcd_is_away_waits_for_it() {
    let mut cluster = Cluster::on(EtcdCluster::start(1));
    cluster.etcd.kill(0);
    let index = cluster.add(&[]);
    let line = cluster.await_log(index, "WARN ] etcd: ");
    assert!(line.contains(&cluster.etcd.place(0)) && line.contains("refused"), "{line}");
    let (_, health) = cluster.page(index, "/healthz").unwrap();
    assert_eq!(health, "standby of the cluster main\n");
    cluster.etcd.restart(0);
    assert_eq!(cluster.await_active(), index);
    token(&cluster.message(index).try_lock("x"));
}

/// The options of a server with longer times: an election in etcd takes about as long as the short
/// ones.
fn with_longer_times(cluster: &Cluster) -> Vec<String> {
    let url = cluster.etcd.url("main");
    let options = ["--cluster", &url, "--first-start", "--dead-peer-timeout", "25", "--leader-timeout", "8"];
    options.map(str::to_owned).to_vec()
}

#[test]
fn an_active_server_stays_active_while_the_leader_of_etcd_is_stopped_or_killed() {
    let mut cluster = Cluster::on(EtcdCluster::start(3));
    for _ in 0..2 {
        cluster.add_with(with_longer_times(&cluster));
    }
    let active = cluster.await_active();
    let mut client = cluster.message(active);
    let held = token(&client.lock("x"));
    let asks_another = |cluster: &Cluster| {
        // Every server has to get an answer from one of the others by now.
        let confirmed = || cluster.metric(active, "lockd_cluster_seconds_left").unwrap() > 6.0;
        eventually("etcd has confirmed it", confirmed);
        for index in [0, 1] {
            await_failing(cluster, index, false);
        }
    };
    let leader = cluster.etcd.leader();
    cluster.etcd.stop(leader);
    let next = cluster.etcd.leader();
    assert_ne!(next, leader);
    asks_another(&cluster);
    assert!(client.is_served());
    cluster.etcd.go_on(leader);
    cluster.etcd.kill(next);
    assert_ne!(cluster.etcd.leader(), next);
    asks_another(&cluster);
    cluster.etcd.restart(next);
    assert_eq!(cluster.active(), Some(active));
    assert_eq!(cluster.metric(active, "lockd_cluster_epoch"), Some(1.0));
    assert_eq!(cluster.message(active).try_lock("x")["status"], "timeout");
    assert_eq!(client.unlock("x")["result"], "ok");
    assert!(token(&client.lock("x")) > held);
}

#[test]
fn an_etcd_that_answers_again_before_the_limit_changes_nothing() {
    let mut cluster = Cluster::on(EtcdCluster::start(1));
    for _ in 0..2 {
        cluster.add_with(with_longer_times(&cluster));
    }
    let active = cluster.await_active();
    let mut client = cluster.message(active);
    client.lock("x");
    cluster.etcd.stop(0);
    await_failing(&cluster, active, true);
    assert!(client.is_served());
    cluster.etcd.go_on(0);
    for index in [0, 1] {
        await_failing(&cluster, index, false);
    }
    cluster.await_log(active, "etcd answers again");
    assert_eq!(cluster.active(), Some(active));
    assert_eq!(cluster.metric(1 - active, "lockd_cluster_leader_changes_total"), Some(1.0));
    assert!(client.is_served());
}

#[test]
fn a_slow_etcd_is_enough_and_one_that_is_too_slow_is_none() {
    let etcd = EtcdCluster::start(1);
    let proxy = Proxy::to(&etcd.place(0));
    let mut cluster = Cluster::on(etcd).at(proxy.url("main"));
    proxy.set(Way::Slow(Duration::from_millis(100)));
    for _ in 0..2 {
        cluster.add(&[]);
    }
    let active = cluster.await_active();
    let mut client = cluster.message(active);
    let begin = Instant::now();
    token(&client.lock("x"));
    eventually("more time has passed than the leader timeout", || begin.elapsed() > Duration::from_secs(3));
    assert!(client.is_served());
    proxy.set(Way::Slow(Duration::from_secs(10)));
    assert_gives_up(&mut cluster, active);
    await_failing(&cluster, 1 - active, true);
    proxy.set(Way::Open);
    let next = cluster.await_next(active);
    assert_eq!(cluster.message(next).try_lock("x")["cause"], "grace");
}

/// The next server must wait for the leader timeout, so nobody must rely on a hand-over.
#[test]
fn a_server_that_etcd_does_not_answer_does_not_say_that_it_has_handed_over() {
    let etcd = EtcdCluster::start(1);
    let proxy = Proxy::to(&etcd.place(0));
    let mut cluster = Cluster::on(etcd).at(proxy.url("main"));
    cluster.add(&[]);
    let active = cluster.await_active();
    proxy.set(Way::Cut);
    let (code, said, errors) = cluster.ask(active, "stand-down");
    assert_eq!(code, 70, "{said}{errors}");
    assert!(errors.contains("see its log"), "{errors}");
    match cluster.end(active) {
        Ended::With(3) => {
            cluster
                .await_log(active, "the next server must wait for the leader timeout before it takes over");
        }
        // On a busy machine, its time may be over before it can say so.
        ended => assert_eq!(ended, Ended::Killed),
    }
}

/// Only the active server is: the other one takes over, and holders follow.
#[test]
fn an_active_server_that_is_cut_off_from_etcd_ends_and_another_takes_over() {
    for way in [Way::Cut, Way::LosesAnswers] {
        let etcd = EtcdCluster::start(1);
        let proxies = [Proxy::to(&etcd.place(0)), Proxy::to(&etcd.place(0))];
        let mut cluster = Cluster::on(etcd);
        for proxy in &proxies {
            cluster = cluster.at(proxy.url("main"));
            cluster.add(&[]);
        }
        let active = cluster.await_active();
        let (mut client, mut told) = resumable(cluster.server(active));
        let held = client.lock("held");
        proxies[active].set(way);
        assert_gives_up(&mut cluster, active);
        let next = cluster.await_next(active);
        let _back = resumed(cluster.server(next), &mut told, &exclusive("held", &held));
        let mut other = cluster.message(next);
        assert_eq!(other.try_lock("free")["cause"], "grace");
        assert_eq!(other.try_lock("held")["cause"], "grace");
        // It comes back as a standby that etcd does not answer, and is one when it does.
        cluster.start_again(active);
        await_failing(&cluster, active, true);
        proxies[active].set(Way::Open);
        cluster.await_standby(active, next);
    }
}
