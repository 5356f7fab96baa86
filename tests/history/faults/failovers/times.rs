//! How long a fail-over takes, for each kind of fault: until the holder A is in doubt, until it has
//! its session again, until another client B gets a free lock, and until B gets A's lock if A does
//! nothing more. Printed, and not judged: the checker judges what the clients saw.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;

use super::super::log::now;
use super::super::resuming::session::Standing;
use super::super::resuming::stage::{AT_ONCE, Actor, Stage};
use super::super::run::say;
use super::cluster::{Cluster, EtcdWay, Setup};
use super::some_at_once;
use crate::etcd::EtcdCluster;
use crate::history::{Name, Nanos};

/// What happens to the active server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Killed,
    /// For good: its kernel ends it.
    Stopped,
    CutFromEtcd,
    StandDown,
    Terminated,
    /// The next server is killed, too, as soon as it is active.
    TwoKilledInARow,
    /// The leader of etcd, which has three members, is stopped for three seconds. Another server
    /// becomes active only if etcd takes no writes for too long.
    EtcdLeaderStopped,
}

const KINDS: [Kind; 7] = [
    Kind::Killed,
    Kind::Stopped,
    Kind::CutFromEtcd,
    Kind::StandDown,
    Kind::Terminated,
    Kind::TwoKilledInARow,
    Kind::EtcdLeaderStopped,
];

/// With which dead-peer timeout and leader timeout, in seconds: the shortest, and the usual ones.
const TIMEOUTS: [(u64, u64); 2] = [(12, 1), (25, 5)];

/// For how long etcd's leader is stopped.
const ETCD_STOPPED: Duration = Duration::from_secs(3);

/// The lock that A holds, and a free one.
const HELD: Name = 0;
const FREE: Name = 1;

/// Times since the fault.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    in_doubt: Option<Nanos>,
    resumed: Option<Nanos>,
    lost: Option<Nanos>,
    free_lock: Option<Nanos>,
    held_lock: Option<Nanos>,
}

/// Lets it happen. Returns once another server is active, or etcd's trouble is over without that.
fn inflict(kind: Kind, cluster: &mut Cluster, etcd: &mut EtcdCluster) {
    let active = cluster.until_active(|cluster| _ = cluster.look());
    match kind {
        Kind::Killed | Kind::TwoKilledInARow => cluster.signal(active, Signal::KILL),
        Kind::Stopped => {
            cluster.is_told_to_end(active, false);
            cluster.signal(active, Signal::STOP);
        }
        Kind::CutFromEtcd => cluster.set_way_to_etcd(active, EtcdWay::Cut),
        Kind::StandDown => cluster.stand_down(active),
        Kind::Terminated => cluster.signal(active, Signal::TERM),
        Kind::EtcdLeaderStopped => {
            let leader = etcd.leader();
            etcd.stop(leader);
            std::thread::sleep(ETCD_STOPPED);
            etcd.go_on(leader);
            cluster.look();
            if cluster.active() == Some(active) {
                return;
            }
        }
    }
    let second = cluster.until_active_after(active);
    if kind == Kind::TwoKilledInARow {
        cluster.signal(second, Signal::KILL);
        cluster.until_active_after(second);
    }
}

/// One fault, after which A comes back, or does nothing more.
fn measure(kind: Kind, (dead_peer_seconds, leader_seconds): (u64, u64), comes_back: bool) -> Times {
    let members = if kind == Kind::EtcdLeaderStopped { 3 } else { 1 };
    let mut etcd = EtcdCluster::start(members);
    let places: Vec<String> = (0..members).map(|index| etcd.place(index)).collect();
    let mut stage = Stage::new();
    let mut cluster = Cluster::start(&Setup {
        directory: stage.path(),
        program: Path::new(env!("CARGO_BIN_EXE_lockd")),
        etcd: &places,
        name: "times",
        servers: 3,
        dead_peer_seconds,
        leader_seconds,
        clocks: None,
    });
    cluster.until_active(|cluster| _ = cluster.look());
    let mut a = stage.client(&cluster.places(true), None);
    let mut b = stage.client(&cluster.places(false), None);
    a.must_acquire(HELD);
    let mut times = Times::default();
    let began = now();
    std::thread::scope(|scope| {
        let inflicted = scope.spawn(|| inflict(kind, &mut cluster, &mut etcd));
        if comes_back {
            let is_over = || inflicted.is_finished();
            come_back(&mut a, began, is_over, &mut times);
        } else {
            a.die(true);
        }
        inflicted.join().expect("it has happened");
    });
    // Only now: the server before may still have granted it.
    b.must_acquire(if comes_back { FREE } else { HELD });
    let had = Some(now() - began);
    (times.free_lock, times.held_lock) = if comes_back { (had, None) } else { (None, had) };
    drop((a, b));
    cluster.look();
    let lives = cluster.lives();
    let (history, verdict) = stage.judge_with(&lives);
    assert!(verdict.acquits(), "{kind:?}: {}", verdict.report(&history));
    times
}

/// Until A has resumed, or has lost its session, or nothing has happened to it.
fn come_back(a: &mut Actor, began: Nanos, is_over: impl Fn() -> bool, times: &mut Times) {
    let deadline = now() + 2 * AT_ONCE;
    loop {
        let was_over = is_over();
        let standing = a.look();
        let since = Some(now() - began);
        match standing {
            Standing::Alive if times.in_doubt.is_some() => {
                times.resumed = since;
                // The second of two servers may end, too.
                if was_over {
                    return;
                }
            }
            Standing::Alive if was_over => return,
            Standing::Alive => {}
            Standing::InDoubt => times.in_doubt = times.in_doubt.or(since),
            Standing::Lost => {
                times.lost = since;
                return a.end();
            }
        }
        assert!(now() < deadline, "neither resumed nor lost");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
#[ignore = "prints times: make check-deep"]
fn deep_times_of_fail_overs() {
    let tasks = TIMEOUTS.into_iter().flat_map(|timeouts| KINDS.map(|kind| (timeouts, kind)));
    let done = Mutex::new(Vec::new());
    some_at_once(tasks, |(timeouts, kind)| {
        let times = measure(kind, timeouts, true);
        let Times { held_lock, .. } = measure(kind, timeouts, false);
        done.lock().unwrap().push((timeouts, kind as usize, kind, Times { held_lock, ..times }));
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(timeouts, order, ..)| (*timeouts, *order));
    say(&table(
        &done.into_iter().map(|(timeouts, _, kind, times)| (timeouts, kind, times)).collect::<Vec<_>>(),
    ));
}

fn table(all: &[((u64, u64), Kind, Times)]) -> String {
    let mut table = String::from(
        "seconds after the fault         T   L   in doubt  resumed     lost  free lock to B  A's lock to B, if A does nothing\n",
    );
    let cell = |time: Option<Nanos>| {
        time.map_or("-".to_owned(), |time| format!("{:.3}", Duration::from_nanos(time).as_secs_f64()))
    };
    for ((dead_peer, leader), kind, Times { in_doubt, resumed, lost, free_lock, held_lock }) in all {
        let _ = writeln!(
            table,
            "{:28} {dead_peer:>4} {leader:>3}   {:>8} {:>8} {:>8} {:>15}  {:>14}",
            format!("{kind:?}"),
            cell(*in_doubt),
            cell(*resumed),
            cell(*lost),
            cell(*free_lock),
            cell(*held_lock)
        );
    }
    table
}
