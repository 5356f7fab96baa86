//! Stories that bring out what one rule is for. A client A holds the lock X; something ends its
//! connection; a client B wants X. If a rule is broken, by A or by the server, then B gets X while A
//! still believes to hold it. If not, the same story ends well.

use std::time::Duration;

use lockd::client::MessageClient;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::proxy::{Act, Proxy, Side, Which};
use super::session::{Broken, Standing};
use super::stage::{AT_ONCE, Actor, Stage};
use crate::faults::daemon::Daemon;
use crate::faults::log::now;
use crate::history::{MILLISECOND, Name, Nanos, Outcome, SECOND};

/// For how long both go on once B has the lock.
pub(crate) const BOTH: Nanos = 300 * MILLISECOND;

/// B gets the lock, however long that takes, while A does what `meanwhile` says. When B had it.
pub(crate) fn while_b_waits(b: &mut Actor, x: Name, mut meanwhile: impl FnMut()) -> Nanos {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            b.must_acquire(x);
            now()
        });
        while !waiting.is_finished() {
            meanwhile();
            std::thread::sleep(Duration::from_millis(5));
        }
        waiting.join().expect("B gets the lock")
    })
}

/// No connection of A's reaches the server any more, until A has certainly given up.
pub(super) fn a_is_cut_off_for_good(stage: &mut Stage, server: &str, x: Name, broken: Option<Broken>) {
    let proxy = Proxy::start(server);
    let (mut a, mut b) = (stage.client(proxy.address(), broken), stage.client(server, None));
    a.must_acquire(x);
    proxy.accept(false);
    proxy.act(Which::All, Act::Reset(Side::Server));
    proxy.act(Which::All, Act::Reset(Side::Client));
    let had = while_b_waits(&mut b, x, || _ = a.look());
    a.goes_on_until(had + BOTH);
}

/// The answers to A's attempts to resume do not arrive for a while.
pub(super) fn answers_are_delayed(stage: &mut Stage, server: &str, x: Name, broken: Option<Broken>) {
    let proxy = Proxy::start(server);
    let (mut a, mut b) = (stage.client(proxy.address(), broken), stage.client(server, None));
    a.must_acquire(x);
    proxy.keep_new(Some(Side::Client));
    proxy.act(Which::All, Act::Reset(Side::Client));
    let began = now();
    while_b_waits(&mut b, x, || {
        if now() > began + 4 * SECOND {
            proxy.keep_new(None);
        }
        if a.look() == Standing::Alive && now() > began + SECOND {
            assert!(matches!(a.release(x), Ok(Outcome::Released)), "A holds it");
        }
    });
}

/// A's connection is reset on the server's side, and stands on A's side for a while.
pub(super) fn only_the_server_sees_a_reset(stage: &mut Stage, server: &str, x: Name, broken: Option<Broken>) {
    let proxy = Proxy::start(server);
    let (mut a, mut b) = (stage.client(proxy.address(), broken), stage.client(server, None));
    a.must_acquire(x);
    proxy.accept(false);
    proxy.act(Which::All, Act::Reset(Side::Server));
    proxy.act_after(Which::All, Act::Reset(Side::Client), 5 * SECOND);
    let had = while_b_waits(&mut b, x, || _ = a.look());
    a.goes_on_until(had + BOTH);
}

/// A is stopped after it has sent `resume`, and reads the answer when its time is over.
pub(super) fn a_reads_late(stage: &mut Stage, server: &str, x: Name, broken: Option<Broken>) {
    let proxy = Proxy::start(server);
    let (mut a, mut b) = (stage.client(proxy.address(), broken), stage.client(server, None));
    a.must_acquire(x);
    let before = holder(server, x)["address"].clone();
    proxy.act(Which::All, Act::Reset(Side::Server));
    proxy.act(Which::All, Act::Reset(Side::Client));
    a.until("A is in doubt, and has sent `resume`", Standing::InDoubt, now() + AT_ONCE);
    let deadline = now() + AT_ONCE;
    while holder(server, x)["address"] == before {
        assert!(now() < deadline, "A's session has not resumed");
        std::thread::sleep(Duration::from_millis(5));
    }
    a.leave_unread(deadline);
    proxy.act(Which::All, Act::Reset(Side::Server));
    let had = while_b_waits(&mut b, x, || {});
    a.goes_on_until(had + BOTH);
}

/// A's release is done, but its answer does not arrive before the server is killed; at the next run
/// somebody looks who holds the lock.
pub(super) fn a_release_is_not_confirmed(stage: &mut Stage, daemon: &mut Daemon, broken: Option<Broken>) {
    let x = 0;
    let proxy = Proxy::start(daemon.address());
    let (mut a, mut b) = (stage.client(proxy.address(), broken), stage.client(daemon.address(), None));
    a.must_acquire(x);
    proxy.act(Which::All, Act::Keep(Side::Client));
    std::thread::scope(|scope| {
        let releasing = scope.spawn(|| a.release(x));
        b.must_acquire(x);
        b.release(x).expect("B holds it");
        daemon.end(Signal::KILL);
        daemon.start_again();
        proxy.act(Which::All, Act::Reset(Side::Client));
        let released = releasing.join().expect("A is told");
        assert!(matches!(released, Ok(Outcome::Released)), "A has resumed: {released:?}");
    });
    let mut other = stage.client(daemon.address(), None);
    assert!(matches!(other.holders(x), Outcome::Seen(_)));
}

/// The dead-peer timeout is shorter from one run to the next, and A has been told the longer one.
pub(super) fn the_timeout_becomes_shorter(stage: &mut Stage, daemon: &mut Daemon) {
    let x = 0;
    let proxy = Proxy::start(daemon.address());
    let mut a = stage.client(proxy.address(), None);
    a.must_acquire(x);
    proxy.accept(false);
    daemon.end(Signal::KILL);
    daemon.set_dead_peer_timeout(12);
    daemon.start_again();
    let mut b = stage.client(daemon.address(), None);
    let had = while_b_waits(&mut b, x, || _ = a.look());
    a.goes_on_until(had + BOTH);
}

/// While A's machine sleeps, B gets the lock because A's time is over; then the server is killed.
pub(super) fn a_sleeps_past_its_time(stage: &mut Stage, daemon: &mut Daemon) {
    let x = 0;
    let proxy = Proxy::start(daemon.address());
    let (mut a, mut b) = (stage.client(proxy.address(), None), stage.client(daemon.address(), None));
    a.must_acquire(x);
    a.sleep_while(|| {
        proxy.accept(false);
        proxy.act(Which::All, Act::Reset(Side::Server));
        proxy.act(Which::All, Act::Reset(Side::Client));
        b.must_acquire(x);
        b.release(x).expect("B holds it");
        daemon.end(Signal::KILL);
        daemon.start_again();
        proxy.accept(true);
    });
    a.is_certain();
}

/// A's machine sleeps while a whole run of the server goes by, in which B gets the lock.
pub(super) fn a_sleeps_through_a_run(stage: &mut Stage, daemon: &mut Daemon) {
    let x = 0;
    let proxy = Proxy::start(daemon.address());
    let (mut a, mut b) = (stage.client(proxy.address(), None), stage.client(daemon.address(), None));
    a.must_acquire(x);
    a.sleep_while(|| {
        proxy.accept(false);
        daemon.end(Signal::KILL);
        daemon.start_again();
        b.must_acquire(x);
        b.release(x).expect("B holds it");
        daemon.end(Signal::KILL);
        daemon.start_again();
        proxy.accept(true);
    });
    a.is_certain();
}

/// The first holder of the lock, as the server lists it.
pub(super) fn holder(server: &str, x: Name) -> Value {
    let limit = Duration::from_nanos(AT_ONCE);
    let operator = MessageClient::connect(&format!("tcp://{server}"), limit).unwrap();
    let listed = operator.rpc("list", &json!({"prefix": format!("n{x}")}), Some(limit)).unwrap();
    let listed: Value = serde_json::from_str(listed.get()).unwrap();
    listed["locks"][0]["holders"][0].clone()
}
