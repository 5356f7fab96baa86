//! The cable is pulled while sessions are doing everything that a session can do. Each of them
//! knows that it is lost before the next waiter is granted its lock; and the lock is granted in
//! time.

use std::io::{ErrorKind, Read};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lockd::broker::{AcquireError, Mode, ReleaseError};
use socket2::Socket;

use crate::network::{Network, Passing, Scenario, in_networks};
use crate::site::{DEFAULT, Holder, SHORTEST, Site, loss_of, sleep_until};
use crate::support::frame_client::frame;

/// How late anything may be on a busy machine: less than another dead-peer timeout.
const LATE: Duration = Duration::from_secs(8);

/// Locks that sessions wait for while they hold another one: one is released when the cable is
/// pulled.
const GRANTED: &str = "granted lock";
const SECOND: &str = "second lock";

/// What a session does once the cable is pulled.
enum Busy {
    /// Nothing.
    No,
    /// It sends a request after this time.
    Asks(Duration),
    /// It releases its lock.
    Releases,
    /// It has been waiting for this lock.
    Waits(&'static str),
}

const PULLED: [(&str, Busy); 12] = [
    ("idle for two seconds", Busy::No),
    ("idle for a second and a half", Busy::No),
    ("idle for a second", Busy::No),
    ("idle for half a second", Busy::No),
    ("request in flight", Busy::Asks(Duration::ZERO)),
    ("request half a second later", Busy::Asks(Duration::from_millis(500))),
    ("request a second later", Busy::Asks(Duration::from_millis(1000))),
    ("request a second and a half later", Busy::Asks(Duration::from_millis(1500))),
    ("request almost too late", Busy::Asks(Duration::from_millis(1900))),
    ("waiting for a second lock", Busy::Waits(SECOND)),
    ("granted a second lock", Busy::Waits(GRANTED)),
    ("releasing", Busy::Releases),
];

/// A second lock of a session, which has no waiter.
fn alone(name: &str) -> String {
    format!("{name}, alone")
}

fn holders(site: &Site) -> Vec<Holder> {
    let hold = |what: &str| (what.to_owned(), site.holder(&[what, &alone(what)]));
    let each = PULLED.iter().map(|(what, _)| {
        let holder = hold(what);
        sleep(Duration::from_millis(if what.starts_with("idle") { 500 } else { 0 }));
        holder
    });
    each.collect()
}

/// Clients without keepalive: a text client, and one in the middle of a message.
fn plain_holders(site: &Site) -> [(&'static str, Socket); 2] {
    let mut text = site.far_line();
    assert!(text.ask("g text client").starts_with('1'));
    let mut frames = site.far_frames();
    assert_eq!(frames.lock("half a message")["status"], "ok");
    let ping = frame(r#"{"command":"ping","parameters":{},"id":7}"#);
    frames.send_bytes(&ping[..ping.len() / 2]);
    [("text client", text.into_socket()), ("half a message", frames.into_socket())]
}

/// Does what `busy` says with a session, once the cable is pulled.
fn be_busy((name, session): &Holder, busy: &Busy, pulled: &OnceLock<Instant>, passing: Passing) {
    match busy {
        Busy::No => {}
        Busy::Asks(later) => {
            sleep_until(*pulled.wait() + *later);
            session.inspect(name.as_bytes()).expect_err("no answer can have come");
        }
        Busy::Releases => {
            pulled.wait();
            let released = session.release(name.as_bytes());
            assert!(matches!(released, Err(ReleaseError::Lost(_))), "{released:?}");
        }
        Busy::Waits(second) => {
            let outcome = session.acquire(second.as_bytes(), Mode::Exclusive, None);
            // If only the server receives nothing, the grant arrives, and is valid until the client
            // gives the server up.
            let arrives = *second == GRANTED && passing == Passing::TO_CLIENTS && outcome.is_ok();
            assert!(arrives || matches!(outcome, Err(AcquireError::Lost(_))), "{second}: {outcome:?}");
        }
    }
}

/// Pulls the cable while sessions are busy, so that only `passing` gets through; returns when each
/// was lost.
fn pull(site: &Site, holders: &[Holder], passing: Passing, pull: Instant, end: Instant) -> Vec<Instant> {
    let mut keeper = site.near();
    for second in [GRANTED, SECOND] {
        assert_eq!(keeper.lock(second)["status"], "ok");
    }
    let mut successor = site.near();
    successor.socket().set_read_timeout(None).unwrap();
    let pulled = &OnceLock::new();
    std::thread::scope(|scope| {
        let lost = holders.iter().map(|(_, session)| scope.spawn(move || loss_of(session, end)));
        let lost: Vec<_> = lost.collect();
        for (holder, (_, busy)) in holders.iter().zip(&PULLED) {
            scope.spawn(move || be_busy(holder, busy, pulled, passing));
        }
        for second in [GRANTED, SECOND] {
            site.await_waiters(second, 1);
        }
        let succession = successor.request_lock(GRANTED);
        site.await_waiters(GRANTED, 2);
        sleep_until(pull);
        site.network.pass(passing);
        pulled.set(Instant::now()).unwrap();
        sleep(Duration::from_millis(100));
        assert_eq!(keeper.unlock(GRANTED)["result"], "ok");
        assert_eq!(
            successor.result(succession)["status"],
            "ok",
            "no other session can have acquired it in the meantime"
        );
        assert!(Instant::now() < end, "the grant that was lost on its way was freed too late");
        let granted = holders.iter().find(|(name, _)| name == "granted a second lock");
        assert!(granted.is_some_and(|(_, session)| !session.is_alive()), "two hold {GRANTED:?}");
        let known = lost.into_iter().zip(holders).map(|(known, (name, _))| {
            known.join().unwrap().unwrap_or_else(|| panic!("{name}: its holder never knew"))
        });
        known.collect()
    })
}

#[expect(clippy::print_stderr, reason = "the figures are what one runs this for")]
fn pull_and_report(network: Network, dead_peer_timeout: u64, passing: Passing) {
    let site = Site::new(network, dead_peer_timeout);
    let mut plain = plain_holders(&site);
    let holders = holders(&site);
    let heirs = site.heirs(&holders);
    let heirs_of_plain = site.heirs_of_unasked_holders(&plain.each_ref().map(|(name, _)| (*name).to_owned()));
    let pulled = Instant::now() + Duration::from_secs(1);
    let end = pulled + Duration::from_secs(2) + site.dead_peer_timeout * 6 / 5 + LATE;
    let alone: Vec<String> = holders.iter().map(|(name, _)| alone(name)).collect();
    let (known, freed) = std::thread::scope(|scope| {
        let freed = scope.spawn(|| site.freed(&alone, end));
        (pull(&site, &holders, passing, pulled, end), freed.join().unwrap())
    });
    let since = |at: Instant| at.saturating_duration_since(pulled).as_secs_f64();
    eprintln!("{passing:?}, T = {dead_peer_timeout} s: seconds from the pull to\n   known    freed  granted");
    for (((name, _), (_, busy)), (known, freed)) in
        holders.iter().zip(&PULLED).zip(known.into_iter().zip(freed))
    {
        let freed = freed.unwrap_or_else(|| panic!("{name}: never freed"));
        let granted = heirs.await_grant(name, end).unwrap_or_else(|| panic!("{name}: never granted"));
        // Its request may have arrived; then it released the lock itself, before it knew of the
        // loss.
        let gave_up = matches!(busy, Busy::Releases) && passing == Passing::TO_SERVER;
        assert!(gave_up || !granted.too_early, "{name}: granted while its holder took itself for that");
        // The sessions are polled only now and then. But when the lock was granted, its previous
        // holder was asked at that moment, and knew.
        let known = if gave_up { known } else { known.min(granted.at) };
        let freed = freed.min(granted.at);
        eprintln!("{:8.3} {:8.3} {:8.3}  {name}", since(known), since(freed), since(granted.at));
    }
    for (name, _) in &plain {
        let granted =
            heirs_of_plain.await_grant(name, end).unwrap_or_else(|| panic!("{name}: never granted"));
        eprintln!("                  {:8.3}  {name}", since(granted.at));
    }
    if passing == Passing::NONE {
        for (name, socket) in &mut plain {
            socket.set_nonblocking(true).unwrap();
            let heard = socket.read(&mut [0]).expect_err("something came through");
            assert_eq!(heard.kind(), ErrorKind::WouldBlock, "{name}: an outage is not all silence");
        }
    }
}

fn in_all_directions(name: &str, dead_peer_timeout: u64) {
    let in_direction = |passing| -> Scenario {
        Box::new(move |network| pull_and_report(network, dead_peer_timeout, passing))
    };
    let directions = [Passing::NONE, Passing::TO_SERVER, Passing::TO_CLIENTS];
    in_networks(name, directions.map(in_direction).into());
}

#[test]
fn the_holder_knows_first() {
    in_all_directions("pulled::the_holder_knows_first", SHORTEST);
}

#[test]
#[ignore = "takes 1 minute: make check-deep"]
fn the_holder_knows_first_with_the_default_timeout() {
    in_all_directions("pulled::the_holder_knows_first_with_the_default_timeout", DEFAULT);
}
