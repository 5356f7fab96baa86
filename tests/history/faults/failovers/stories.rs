//! Stories of clusters that bring out what one rule is for. A server is active, and something
//! happens to it; another one takes over. If the rule is broken, two clients hold the lock X, or a
//! lock is granted too early. If not, the same story ends well.

use std::time::Duration;

use lockd::etcd::Etcd;
use rustix::process::Signal;

use super::super::log::{Log, now};
use super::super::resuming::proxy::{Act, Side, Which};
use super::super::resuming::session::Standing;
use super::super::resuming::stage::{AT_ONCE, Actor, Stage};
use super::super::resuming::stories::{BOTH, while_b_waits};
use super::super::wire::{Client, Lost, Protocol};
use super::cluster::{Cluster, EtcdWay};
use crate::history::{CallKind, MILLISECOND, Mode, Name, Nanos, Outcome, SECOND};

/// The lock that it is about.
const X: Name = 0;

/// A cluster, its clients, and the etcd that it stands on.
pub(super) struct Scene {
    pub(super) stage: Stage,
    pub(super) cluster: Cluster,
    pub(super) etcd: Etcd,
    /// The key that the active server rewrites.
    pub(super) leader_key: String,
}

impl Scene {
    pub(super) fn active(&mut self) -> usize {
        self.cluster.until_active(|cluster| _ = cluster.look())
    }

    /// A client that resumes at any of the servers, through the proxies.
    pub(super) fn riding(&mut self) -> Actor {
        self.stage.client(&self.cluster.places(true), None)
    }

    /// One that does without the proxies.
    pub(super) fn direct(&mut self) -> Actor {
        self.stage.client(&self.cluster.places(false), None)
    }

    /// A client of one server, whose protocol knows nothing of clusters.
    pub(super) fn text(&mut self, server: usize) -> TextActor {
        let address = &self.cluster.addresses(Protocol::Glockd)[server];
        TextActor::connect(address, self.stage.log())
    }

    /// No client can reach any server through the proxies any more; connections that there were are
    /// reset.
    pub(super) fn cut_clients_off(&self) {
        for server in 0..self.cluster.len() {
            let front = self.cluster.front(server);
            front.accept(false);
            front.act(Which::All, Act::Reset(Side::Server));
            front.act(Which::All, Act::Reset(Side::Client));
        }
    }

    fn let_clients_in(&self) {
        (0..self.cluster.len()).for_each(|server| self.cluster.front(server).accept(true));
    }

    /// The revision of the key that the active server rewrites.
    fn leader_revision(&self) -> i64 {
        let found = self.etcd.read_key(&self.leader_key, Duration::from_nanos(AT_ONCE));
        found.expect("etcd answers").map_or(0, |found| found.revision)
    }
}

/// A client whose session ends with its connection.
pub(super) struct TextActor {
    client: Option<Client>,
    log: Log,
    /// Before its connection was last seen to stand.
    stood_at: Nanos,
}

impl TextActor {
    fn connect(address: &str, (log, owner): (Log, String)) -> Self {
        let client = Client::connect(Protocol::Glockd, address, &owner).expect("the server listens");
        Self { client: Some(client), log, stood_at: now() }
    }

    /// Looks whether its connection stands.
    fn look(&mut self) -> bool {
        let at = now();
        let stands = self.client.as_ref().is_some_and(Client::stands);
        if stands {
            self.stood_at = at;
        }
        stands
    }

    /// Goes on for a while, if its connection stands so long.
    fn goes_on(&mut self, time: Nanos) {
        let until = now() + time;
        while now() < until && self.look() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn acquire(&mut self, name: Name) -> Result<Outcome, Lost> {
        let client = self.client.as_mut().expect("it has not ended");
        let (wants, limit) = ([(name, Mode::Exclusive)], Some(60 * SECOND));
        self.log.calling(CallKind::Acquire { limit }, &wants);
        let outcome = client.acquire(&wants, limit, false, &mut self.log)?;
        self.log.answered(outcome);
        Ok(outcome)
    }

    pub(super) fn must_acquire(&mut self, name: Name) {
        let outcome = self.acquire(name);
        assert!(matches!(outcome, Ok(Outcome::Granted(_))), "{outcome:?}");
    }

    /// It ends, or its connection has.
    pub(super) fn end(&mut self) {
        self.look();
        let Some(client) = self.client.take() else { return };
        self.log.ending_at(self.stood_at);
        client.close();
        self.log.gone();
        self.log.flush();
    }
}

impl Drop for TextActor {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// The active server has read C's request for the lock, which A holds, and is stopped before it can
/// answer: A ends, and by the time the server goes on, B holds the lock at the next one.
pub(super) fn a_request_outlives_its_server(scene: &mut Scene) {
    let first = scene.active();
    let mut a = scene.text(first);
    a.must_acquire(X);
    let (address, log_of_c) = (scene.cluster.addresses(Protocol::Glockd)[first].clone(), scene.stage.log());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let mut c = TextActor::connect(&address, log_of_c);
            // Either the answer or the end of the connection.
            let _ = c.acquire(X);
            c.goes_on(BOTH);
        });
        let observer = format!("tcp://{}", scene.cluster.addresses(Protocol::Message)[first]);
        let observer =
            lockd::Session::connect(&observer, None, Duration::from_nanos(AT_ONCE)).expect("it is active");
        let deadline = now() + AT_ONCE;
        while observer.inspect(b"n0").expect("it is active").waiters == 0 {
            assert!(now() < deadline, "C does not wait");
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(observer);
        scene.cluster.is_told_to_end(first, false);
        scene.cluster.signal(first, Signal::STOP);
        a.end();
        scene.cluster.until_active_after(first);
        let mut b = scene.direct();
        b.must_acquire(X);
        scene.cluster.signal(first, Signal::CONT);
        b.goes_on_until(now() + BOTH);
        waiting.join().expect("C has its answer, or none");
    });
}

/// The active server is stopped, and its kernel answers for it: A holds its lock there as long as
/// its connection stands.
pub(super) fn a_stopped_server_keeps_its_clients(scene: &mut Scene) {
    let first = scene.active();
    let mut a = scene.text(first);
    a.must_acquire(X);
    scene.cluster.is_told_to_end(first, false);
    scene.cluster.signal(first, Signal::STOP);
    scene.cluster.until_active_after(first);
    let mut b = scene.direct();
    while_b_waits(&mut b, X, || _ = a.look());
    b.goes_on_until(now() + BOTH);
    a.end();
}

/// The active server is cut off from etcd, and goes on for as long as it may.
pub(super) fn the_active_server_is_cut_off(scene: &mut Scene) {
    let first = scene.active();
    scene.cluster.set_way_to_etcd(first, EtcdWay::Cut);
    scene.cluster.until_ended(first);
    scene.cluster.until_active_after(first);
    scene.direct().must_acquire(X);
}

/// The same, and A is a client of that server, and can reach no other one.
pub(super) fn a_is_a_client_of_the_server_that_is_cut_off(scene: &mut Scene) {
    let first = scene.active();
    let address = scene.cluster.front(first).address().to_owned();
    let mut a = scene.stage.client(&address, None);
    a.must_acquire(X);
    scene.cluster.set_way_to_etcd(first, EtcdWay::Cut);
    scene.cluster.until_active_after(first);
    let mut b = scene.direct();
    let had = while_b_waits(&mut b, X, || {
        scene.cluster.look();
        a.look();
    });
    a.goes_on_until(had + BOTH);
}

/// etcd answers so late that the active server has just not given the answer up; it is stopped then.
pub(super) fn etcd_answers_late(scene: &mut Scene, late: Nanos) {
    let first = scene.active();
    scene.cluster.set_way_to_etcd(first, EtcdWay::AnswersKept);
    let before = scene.leader_revision();
    let deadline = now() + AT_ONCE;
    while scene.leader_revision() == before {
        assert!(now() < deadline, "the active server does not write");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_nanos(late));
    scene.cluster.let_answers_go(first);
    // It has read the answer.
    std::thread::sleep(Duration::from_millis(100));
    scene.cluster.signal(first, Signal::STOP);
    scene.cluster.until_ended(first);
    scene.cluster.until_active_after(first);
    scene.direct().must_acquire(X);
}

/// While A's machine sleeps, B gets the lock because A's time is over; then the server is killed.
pub(super) fn a_sleeps_past_its_time(scene: &mut Scene) {
    let first = scene.active();
    let (mut a, mut b) = (scene.riding(), scene.direct());
    a.must_acquire(X);
    a.sleep_while(|| {
        scene.cut_clients_off();
        b.must_acquire(X);
        b.release(X).expect("B holds it");
        scene.cluster.signal(first, Signal::KILL);
        scene.cluster.until_active_after(first);
        scene.let_clients_in();
    });
    a.is_certain();
}

/// A's machine sleeps while a whole run of another server goes by, in which B gets the lock.
pub(super) fn a_sleeps_through_a_run(scene: &mut Scene) {
    let first = scene.active();
    let (mut a, mut b) = (scene.riding(), scene.direct());
    a.must_acquire(X);
    a.sleep_while(|| {
        scene.cut_clients_off();
        scene.cluster.signal(first, Signal::KILL);
        let second = scene.cluster.until_active_after(first);
        b.must_acquire(X);
        b.release(X).expect("B holds it");
        scene.cluster.signal(second, Signal::KILL);
        scene.cluster.until_active_after(second);
        scene.let_clients_in();
    });
    a.is_certain();
}

/// A is cut off from all servers when the active one is killed, until it has certainly given up.
pub(super) fn a_is_cut_off_for_good(scene: &mut Scene) {
    let first = scene.active();
    let mut a = scene.riding();
    a.must_acquire(X);
    scene.cut_clients_off();
    scene.cluster.signal(first, Signal::KILL);
    scene.cluster.until_active_after(first);
    let mut b = scene.direct();
    let had = while_b_waits(&mut b, X, || _ = a.look());
    a.goes_on_until(had + BOTH);
}

/// The first server writes that it has stopped, and that nobody held anything, and this arrives in
/// etcd only when the next one has been active for a while. Then that one is killed, while A, which
/// holds a lock there, is cut off.
pub(super) fn a_record_arrives_late(scene: &mut Scene) {
    let first = scene.active();
    scene.cluster.keep_ends_from_etcd(first);
    scene.cluster.set_way_to_etcd(first, EtcdWay::RequestsKept);
    scene.cluster.signal(first, Signal::TERM);
    scene.cluster.until_ended(first);
    let second = scene.cluster.until_active_after(first);
    let mut a = scene.riding();
    a.must_acquire(X);
    scene.cluster.set_way_to_etcd(first, EtcdWay::Open);
    let until = now() + SECOND;
    while now() < until {
        assert_eq!(a.look(), Standing::Alive, "nothing has happened to A");
        std::thread::sleep(Duration::from_nanos(20 * MILLISECOND));
    }
    scene.cut_clients_off();
    scene.cluster.signal(second, Signal::KILL);
    scene.cluster.until_active_after(second);
    let mut b = scene.direct();
    let had = while_b_waits(&mut b, X, || _ = a.look());
    a.goes_on_until(had + BOTH);
}
