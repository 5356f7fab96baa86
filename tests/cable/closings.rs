//! The server ends connections, or gives them up, while nothing that it sends arrives and
//! everything that is sent to it does: by a kick, by the stop of an embedding program, because a
//! client leaves too much unread, or because no answer comes. Whatever the holder is doing
//! meanwhile, its lock goes to the next session only once the holder knows that it has lost the
//! lock.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{Scope, sleep};
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::{Broker, Mode};
use lockd::server::{Config, Server, Service, parse_allow};
use serde_json::json;

use crate::network::{EVERYBODY, Network, Passing, SERVER, Scenario, in_networks};
use crate::site::{Holder, SHORTEST, SOON, Site};

/// How long after the dead-peer timeout a lock may be granted on a busy machine: less than another
/// such timeout.
const LATE: Duration = Duration::from_secs(8);
const NOW: Option<Duration> = Some(Duration::ZERO);

/// What the holders are doing: each name says what.
const IDLE: &str = "idle";
const BUSY: &str = "busy";
const BUSY_LATER: &str = "idle at first, then busy";
const WAITING: &str = "waiting";
/// When the holder that is idle at first starts to send: after the server has waited for its
/// acknowledgement.
const LATER: Duration = Duration::from_millis(1300);
/// How many threads of a busy holder send requests.
const SENDERS: u64 = 40;
/// The lock that the waiting holder waits for, and never gets.
const NEVER: &str = "never granted";

fn holders(connect: impl Fn() -> Session) -> Vec<Holder> {
    let hold = |name: &str| {
        let session = connect();
        session.acquire(name.as_bytes(), Mode::Exclusive, NOW).unwrap();
        (name.to_owned(), session.into())
    };
    [IDLE, BUSY, BUSY_LATER, WAITING].map(hold).into()
}

/// Makes holders do what their names say until `over`, or until they know that they have lost their
/// locks.
fn keep_busy<'s, 'e: 's>(scope: &'s Scope<'s, 'e>, holders: &'e [Holder], over: &'e AtomicBool) {
    for (name, session) in holders {
        match name.as_str() {
            // A new request every few milliseconds, also before the client's kernel notices that
            // nothing is acknowledged any more: from then on it would only repeat old data.
            BUSY | BUSY_LATER => (0..SENDERS).for_each(|number| {
                scope.spawn(move || {
                    sleep(if name == BUSY { Duration::ZERO } else { LATER });
                    sleep(Duration::from_millis(25 * number));
                    // A session may have only one request for a name at a time.
                    let name = format!("asked for by sender {number}");
                    while !over.load(Relaxed) && session.is_alive() {
                        let _ = session.acquire(name.as_bytes(), Mode::Exclusive, NOW);
                        let _ = session.release(name.as_bytes());
                    }
                });
            }),
            WAITING => drop(scope.spawn(|| {
                session
                    .acquire(NEVER.as_bytes(), Mode::Exclusive, None)
                    .expect_err("the lock is never released");
            })),
            _ => {}
        }
    }
}

/// The server ends the connections of all holders by `end`, while nothing that it sends arrives.
fn end_unheard(site: &Site, holders: &[Holder], end: impl FnOnce(&Site)) {
    let mut keeper = site.near();
    assert_eq!(keeper.lock(NEVER)["status"], "ok");
    let (heirs, over) = (site.heirs(holders), AtomicBool::new(false));
    std::thread::scope(|scope| {
        keep_busy(scope, holders, &over);
        // The request that waits, and some of the busy holder's.
        eventually_waits(site);
        site.network.pass(Passing::TO_SERVER);
        end(site);
        let deadline = Instant::now() + site.dead_peer_timeout + LATE;
        let granted: Vec<_> =
            holders.iter().map(|(name, _)| (name, heirs.await_grant(name, deadline))).collect();
        over.store(true, Relaxed);
        holders.iter().for_each(|(_, session)| session.close());
        for (name, granted) in granted {
            let granted = granted.unwrap_or_else(|| panic!("{name}: never granted"));
            assert!(!granted.too_early, "{name}: granted while its holder took itself for that");
        }
    });
}

fn eventually_waits(site: &Site) {
    let mut observer = site.near();
    let deadline = Instant::now() + SOON;
    while observer.call("inspect", json!({"lockName": NEVER}))["waiters"] == 0 {
        assert!(Instant::now() < deadline, "no session waits");
    }
}

/// The address of the holder of `name`, as the server sees it.
fn address_of(site: &Site, name: &str) -> String {
    let page = site.near().call("list", json!({"prefix": name}));
    page["locks"][0]["holders"][0]["address"].as_str().unwrap().to_owned()
}

fn by_kick(network: Network) {
    let site = Site::with_options(network, SHORTEST, |launch| launch.args(["--allow-kick"]));
    let holders = holders(|| site.session());
    let addresses: Vec<String> = holders.iter().map(|(name, _)| address_of(&site, name)).collect();
    end_unheard(&site, &holders, |site| {
        let mut operator = site.near();
        for address in &addresses {
            assert_eq!(operator.call("kick", json!({"address": address}))["status"], "ok");
        }
    });
}

fn by_silence(network: Network) {
    let site = Site::new(network, SHORTEST);
    let holders = holders(|| site.session());
    end_unheard(&site, &holders, |_| {});
}

/// How many grants each holder gets: more than its socket has room for.
const GRANTS: usize = 4000;

fn by_overflow(network: Network) {
    let site = Site::with_options(network, SHORTEST, |launch| launch.option("--outbox-max", "1024"));
    let holders = holders(|| site.session());
    let names = |holder: &str| (0..GRANTS).map(|n| format!("{holder} is granted {n}")).collect::<Vec<_>>();
    let mut granting = site.near();
    for (holder, session) in &holders {
        for names in names(holder).chunks(1000) {
            assert_eq!(granting.call("lock", json!({"lockNames": names}))["status"], "ok");
            for name in names {
                session.enqueue(name.as_bytes(), Mode::Exclusive).unwrap();
            }
        }
    }
    // When this connection ends, all of these locks are granted.
    end_unheard(&site, &holders, |_| drop(granting));
}

/// The broker of an embedding program outlives its server while a session of the program waits.
fn by_stop(network: Network) {
    let broker = Broker::default();
    let config = Config {
        listen: vec![format!("message://{SERVER}:0").parse().unwrap()],
        allow: vec![parse_allow(EVERYBODY).unwrap()],
        dead_peer_timeout: Duration::from_secs(SHORTEST),
        ..Config::default()
    };
    let server = network.server.within(|| Server::start(&broker, config, Service::locks()).unwrap());
    let url = server.addresses()[0].to_string();
    let holders = holders(|| network.clients.within(|| Session::connect(&url, None, SOON).unwrap()));
    let keeper = Session::open(&broker, None);
    keeper.acquire(NEVER.as_bytes(), Mode::Exclusive, NOW).unwrap();
    let over = AtomicBool::new(false);
    let limit = Duration::from_secs(SHORTEST) + LATE;
    let granted: Vec<_> = std::thread::scope(|scope| {
        keep_busy(scope, &holders, &over);
        let heirs: Vec<_> = holders
            .iter()
            .map(|(name, holder)| {
                let heir = Session::open(&broker, None);
                scope.spawn(move || {
                    let granted = heir.acquire(name.as_bytes(), Mode::Exclusive, Some(limit + SOON));
                    (granted.is_ok(), holder.is_alive())
                })
            })
            .collect();
        network.pass(Passing::TO_SERVER);
        server.stop();
        let granted = heirs.into_iter().map(|heir| heir.join().unwrap()).collect();
        over.store(true, Relaxed);
        holders.iter().for_each(|(_, session)| session.close());
        granted
    });
    for ((name, _), (is_granted, too_early)) in holders.iter().zip(granted) {
        assert!(is_granted, "{name}: never granted");
        assert!(!too_early, "{name}: granted while its holder took itself for that");
    }
}

#[test]
fn a_holder_that_cannot_be_told_of_its_end_knows_before_the_next_is_granted() {
    let scenarios: Vec<Scenario> =
        vec![Box::new(by_kick), Box::new(by_stop), Box::new(by_overflow), Box::new(by_silence)];
    in_networks(
        "closings::a_holder_that_cannot_be_told_of_its_end_knows_before_the_next_is_granted",
        scenarios,
    );
}
