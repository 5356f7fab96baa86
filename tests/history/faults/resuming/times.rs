//! How long it takes, for each kind of end: until the holder A is in doubt, until it has its session
//! again or knows that it has none, and until another client B gets a lock. Printed, and not judged:
//! the checker judges what the clients saw.

use std::fmt::Write as _;
use std::time::Duration;

use rustix::process::Signal;

use super::proxy::{Act, Proxy, Side, Which};
use super::session::Standing;
use super::stage::{AT_ONCE, Actor, Stage};
use crate::faults::daemon::Daemon;
use crate::faults::log::now;
use crate::faults::run::say;
use crate::history::{Name, Nanos, SECOND};

/// What ends the connection of the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ServerKilled,
    ServerStopped,
    Reset,
    /// What the server sends is lost. Both kernels give the connection up after 3 s.
    OneWayCut,
    ClientKilled,
    ClientKilledWithUnreadInput,
    Kicked,
}

const KINDS: [Kind; 7] = [
    Kind::ServerKilled,
    Kind::ServerStopped,
    Kind::Reset,
    Kind::OneWayCut,
    Kind::ClientKilled,
    Kind::ClientKilledWithUnreadInput,
    Kind::Kicked,
];

/// The lock that A holds, and a free one.
const HELD: Name = 0;
const FREE: Name = 1;

/// Times since the end of the connection.
#[derive(Default)]
struct Times {
    in_doubt: Option<Nanos>,
    resumed: Option<Nanos>,
    lost: Option<Nanos>,
    free_lock: Option<Nanos>,
    held_lock: Option<Nanos>,
}

fn end(kind: Kind, stage: &mut Stage, daemon: &mut Daemon, proxy: &Proxy, a: &mut Actor) {
    match kind {
        Kind::ServerKilled => daemon.end(Signal::KILL),
        Kind::ServerStopped => daemon.end(Signal::TERM),
        Kind::Reset => {
            proxy.act(Which::All, Act::Reset(Side::Server));
            proxy.act(Which::All, Act::Reset(Side::Client));
        }
        Kind::OneWayCut => {
            proxy.act(Which::All, Act::Keep(Side::Client));
            proxy.act_after(Which::All, Act::Reset(Side::Server), 3 * SECOND);
            proxy.act_after(Which::All, Act::Reset(Side::Client), 3 * SECOND);
        }
        Kind::ClientKilled => a.die(false),
        Kind::ClientKilledWithUnreadInput => a.die(true),
        Kind::Kicked => stage.kick(daemon, a),
    }
}

/// Ends a connection of A, which comes back or does nothing more.
fn measure(kind: Kind, comes_back: bool, times: &mut Times) {
    let mut stage = Stage::new();
    let mut daemon = stage.server();
    let proxy = Proxy::start(daemon.address());
    let (mut a, mut b) = (stage.client(proxy.address(), None), stage.client(daemon.address(), None));
    a.must_acquire(HELD);
    let began = now();
    end(kind, &mut stage, &mut daemon, &proxy, &mut a);
    if matches!(kind, Kind::ServerKilled | Kind::ServerStopped) {
        daemon.start_again();
    }
    // A session that was kicked does not come back: its lock is free when its client knows.
    let waits_for = if comes_back && kind != Kind::Kicked { FREE } else { HELD };
    let had = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            b.must_acquire(waits_for);
            now() - began
        });
        if comes_back {
            come_back(&mut a, began, times);
        }
        waiting.join().expect("B gets the lock")
    });
    match waits_for {
        FREE => times.free_lock = Some(had),
        // A has left as soon as it knew.
        _ if comes_back => {}
        _ => times.held_lock = Some(had),
    }
    drop((a, b));
    let (history, verdict) = stage.judge(&daemon);
    assert!(verdict.acquits(), "{kind:?}: {}", verdict.report(&history));
}

fn come_back(a: &mut Actor, began: Nanos, times: &mut Times) {
    let deadline = now() + AT_ONCE;
    loop {
        let standing = a.look();
        let since = Some(now() - began);
        match standing {
            Standing::Alive if times.in_doubt.is_some() => {
                times.resumed = since;
                return;
            }
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
fn deep_times_of_sessions_that_resume() {
    let mut all: Vec<(Kind, Times)> = KINDS.map(|kind| (kind, Times::default())).into();
    std::thread::scope(|scope| {
        for (kind, times) in &mut all {
            scope.spawn(|| {
                let is_client = matches!(kind, Kind::ClientKilled | Kind::ClientKilledWithUnreadInput);
                if !is_client {
                    measure(*kind, true, times);
                }
                measure(*kind, false, times);
            });
        }
    });
    let mut table = String::from(
        "seconds after the end of A's connection (T = 12)      in doubt  resumed     lost  free lock to B  A's lock to B, if A does nothing\n",
    );
    let cell = |time: Option<Nanos>| {
        time.map_or("-".to_owned(), |time| format!("{:.3}", Duration::from_nanos(time).as_secs_f64()))
    };
    for (kind, times) in &all {
        let Times { in_doubt, resumed, lost, free_lock, held_lock } = times;
        let _ = writeln!(
            table,
            "{:52}  {:>8} {:>8} {:>8} {:>15}  {:>14}",
            format!("{kind:?}"),
            cell(*in_doubt),
            cell(*resumed),
            cell(*lost),
            cell(*free_lock),
            cell(*held_lock)
        );
    }
    say(&table);
}
