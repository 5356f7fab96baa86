//! Members of a cluster on keys in memory, whose requests can be lost, or their answers.

mod fake_consensus;

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use fake_consensus::{FakeConsensus, Trouble};

use super::keys::{Keys, LeaderKey};
use super::leadership::{Leadership, Limiter, Renewal};
use super::member::{Member, MemberEvent, MemberTask, Surroundings};
use super::observation::Seen;
use super::times::ClusterTimes;
use crate::broker::{Broker, Limits, Mode};
use crate::os::boot_clock::BootTime;
use crate::os::sync::{Arc, Mutex};
use crate::server::keeper::{GraceCause, Keeper, Resumption};
use crate::server::resume::secret_key::random_id;

const CLUSTER: &str = "main";

fn times() -> ClusterTimes {
    ClusterTimes::new(Duration::from_secs(12), Duration::from_secs(1)).unwrap()
}

/// Times of a server with another leader timeout.
fn long() -> ClusterTimes {
    ClusterTimes::new(Duration::from_secs(12), Duration::from_secs(2)).unwrap()
}

/// Notes what a process would be told, rather than ending this one.
#[derive(Default)]
struct NotedLimit(Mutex<(Option<BootTime>, bool)>);

impl Limiter for NotedLimit {
    fn end_at(&self, limit: BootTime) -> std::io::Result<()> {
        self.0.lock().0 = Some(limit);
        Ok(())
    }

    fn silence(&self) {
        self.0.lock().1 = true;
    }
}

impl NotedLimit {
    fn limit(&self) -> BootTime {
        self.0.lock().0.unwrap()
    }

    fn is_silent(&self) -> bool {
        self.0.lock().1
    }
}

/// What the server around a member is told.
#[derive(Clone, Default)]
struct NotedSurroundings(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    active: Option<String>,
    resumption: Option<Resumption>,
    has_hung_up: bool,
}

impl Surroundings for NotedSurroundings {
    fn set_active_elsewhere(&self, address: Option<&str>) {
        self.0.lock().active = address.map(str::to_owned);
    }

    fn begin(&self, resumption: Resumption) {
        self.0.lock().resumption = Some(resumption);
    }

    fn hang_up(&self) {
        self.0.lock().has_hung_up = true;
    }
}

/// A server of the cluster, as far as it is a member.
struct TestMember {
    broker: Broker,
    member: Option<Member>,
    limit: Arc<NotedLimit>,
    around: NotedSurroundings,
    events: Receiver<MemberEvent>,
}

fn member(consensus: &Arc<FakeConsensus>, address: &str, times: ClusterTimes) -> TestMember {
    let (report, events) = channel();
    let (broker, limit) = (Broker::standby(Limits::default()), Arc::new(NotedLimit::default()));
    let around = NotedSurroundings::default();
    let member = Member::start(MemberTask {
        cluster: CLUSTER.to_owned(),
        consensus: consensus.clone(),
        times,
        address: Some(address.to_owned()),
        is_first_start: true,
        broker: broker.clone(),
        surroundings: Box::new(around.clone()),
        limiter: limit.clone(),
        report: Box::new(move |event| _ = report.send(event)),
    });
    TestMember { broker, member: Some(member.unwrap()), limit, around, events }
}

impl TestMember {
    fn event(&self) -> MemberEvent {
        self.events.recv_timeout(Duration::from_secs(60)).expect("nothing has happened")
    }

    fn keeper(&self) -> Keeper {
        match self.event() {
            MemberEvent::TookOver(keeper) => keeper,
            MemberEvent::Over(reason) | MemberEvent::Refused(reason) => panic!("{reason}"),
        }
    }

    fn over(&self) -> String {
        match self.event() {
            MemberEvent::Over(reason) => reason,
            MemberEvent::Refused(reason) => panic!("refused: {reason}"),
            MemberEvent::TookOver(_) => panic!("it has taken over"),
        }
    }

    fn is_active(&self) -> bool {
        self.member.as_ref().unwrap().is_active()
    }

    fn grants(&self) -> Option<u64> {
        let session = self.broker.open(None);
        session.acquire(b"x", Mode::Exclusive, Some(Duration::ZERO)).ok().map(|grant| grant.token)
    }
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn leader(consensus: &FakeConsensus) -> Option<LeaderKey> {
    LeaderKey::parse(&consensus.value(&Keys::new(CLUSTER).leader)?)
}

#[test]
fn one_is_active_and_hands_over_to_the_other() {
    let consensus = Arc::new(FakeConsensus::default());
    let mut one = member(&consensus, "one:1", times());
    assert_eq!(one.grants(), None, "a standby");
    let keeper = one.keeper();
    assert!(keeper.grace_cause().is_none() && one.around.0.lock().resumption.is_some() && one.is_active());
    let first = one.grants().unwrap();
    let two = member(&consensus, "two:1", times());
    eventually("the standby knows who is active", || two.around.0.lock().active.as_deref() == Some("one:1"));
    one.broker.shut();
    keeper.stopped().unwrap();
    one.member.take().unwrap().hand_over().unwrap();
    let keeper = two.keeper();
    assert_eq!(keeper.epoch(), 2);
    assert!(two.grants().unwrap() > first);
    assert!(!one.limit.is_silent() && !one.around.0.lock().has_hung_up, "an orderly end");
}

#[test]
fn after_an_active_server_that_says_nothing_more_the_next_waits_and_grants_nothing_at_first() {
    let consensus = Arc::new(FakeConsensus::default());
    let mut one = member(&consensus, "one:1", times());
    let keeper = one.keeper();
    let two = member(&consensus, "two:1", times());
    eventually("the standby knows who is active", || two.around.0.lock().active.is_some());
    // Its process ends without a word.
    drop(one.member.take());
    let limit = one.limit.limit();
    drop(keeper);
    let keeper = two.keeper();
    assert!(BootTime::now() > limit, "two could speak at the same time");
    assert_eq!((keeper.epoch(), keeper.grace_cause()), (2, Some(GraceCause::Unclean)));
    assert_eq!(two.grants(), None);
}

#[test]
fn an_active_server_that_cannot_reach_etcd_ends_before_another_takes_over() {
    let consensus = Arc::new(FakeConsensus::default());
    let one = member(&consensus, "one:1", times());
    let _keeper = one.keeper();
    // All its requests are lost from now on, and those of nobody else.
    consensus.trouble(Trouble::Lost, usize::MAX);
    let reason = one.over();
    assert!(reason.contains("not confirmed") && reason.ends_with("no answer"), "{reason}");
    assert!(one.limit.is_silent() && one.around.0.lock().has_hung_up);
    consensus.trouble(Trouble::Lost, 0);
    let two = member(&consensus, "two:1", times());
    let _keeper = two.keeper();
    assert!(BootTime::now() > one.limit.limit());
}

#[test]
fn a_write_whose_answer_is_lost_counts_from_when_it_was_sent() {
    let consensus = Arc::new(FakeConsensus::default());
    let one = member(&consensus, "one:1", times());
    let _keeper = one.keeper();
    for _ in 0..5 {
        let before = one.limit.limit();
        consensus.trouble(Trouble::AnswerLost, 1);
        eventually("it goes on", || one.limit.limit() > before);
        assert!(one.limit.limit() <= BootTime::now() + times().speak());
    }
    assert!(one.is_active() && one.events.try_recv().is_err());
}

#[test]
fn who_has_lost_the_key_is_silent_at_once() {
    for value in [None, Some(&b"something else"[..])] {
        let consensus = Arc::new(FakeConsensus::default());
        let one = member(&consensus, "one:1", times());
        let _keeper = one.keeper();
        consensus.set(&Keys::new(CLUSTER).leader, value);
        let reason = one.over();
        assert!(reason.contains(if value.is_some() { "replaced" } else { "deleted" }), "{reason}");
        assert!(one.limit.is_silent());
    }
}

#[test]
fn a_success_that_comes_too_late_counts_for_nothing() {
    let consensus = Arc::new(FakeConsensus::default());
    let limit = Arc::new(NotedLimit::default());
    let settings = consensus.set(&Keys::new(CLUSTER).settings, Some(b""));
    let lead = |at: Seen| {
        let key = LeaderKey::new(random_id().unwrap().to_string(), None, &times());
        let keys = Keys::new(CLUSTER);
        Leadership::take_over(consensus.clone(), keys, times(), limit.clone(), key, (at, settings))
    };
    let none = Seen::NoLeader { term: 0 };
    consensus.trouble(Trouble::Slow(times().speak()), 1);
    assert!(lead(none).unwrap().is_none(), "the time was over when the answer came");
    let now = Seen::Leader(consensus.revision(&Keys::new(CLUSTER).leader));
    assert!(lead(none).unwrap().is_none(), "the key is another's");
    let mut leadership = lead(now).unwrap().unwrap();
    let before = limit.limit();
    consensus.trouble(Trouble::Slow(times().speak()), 1);
    assert_eq!(leadership.renew(), Renewal::Renewed);
    assert_eq!(limit.limit(), before, "the answer came when the time was over");
}

#[test]
fn an_earlier_write_that_arrives_late_changes_nothing_in_the_record() {
    let consensus = Arc::new(FakeConsensus::default());
    let one = member(&consensus, "one:1", times());
    let keeper = one.keeper();
    let state = Keys::new(CLUSTER).state;
    let before = consensus.revision(&state);
    // The first attempt arrives only after the second one has succeeded.
    consensus.hold_back(&state);
    keeper.set_dead_peer_timeout(Duration::from_secs(30)).unwrap_err();
    keeper.set_dead_peer_timeout(Duration::from_secs(40)).unwrap();
    let written = consensus.revision(&state);
    assert!(written > before);
    assert!(!consensus.let_through(), "it needs a revision that is gone");
    assert_eq!(consensus.revision(&state), written);
}

#[test]
fn a_key_that_is_gone_again_after_another_take_over_is_seen_as_gone_anew() {
    let consensus = Arc::new(FakeConsensus::default());
    let keys = Keys::new(CLUSTER);
    let settings = consensus.set(&keys.settings, Some(b""));
    let key = LeaderKey::new(random_id().unwrap().to_string(), None, &times());
    let seen = Seen::NoLeader { term: 0 };
    // Between the last look and the take-over, another server has become active.
    consensus.set(&keys.leader, Some(b"another"));
    consensus.set(&keys.term, Some(b"another"));
    consensus.set(&keys.leader, None);
    let limit = Arc::new(NotedLimit::default());
    let taken = Leadership::take_over(consensus, keys, times(), limit, key, (seen, settings));
    assert!(taken.unwrap().is_none());
}

#[test]
fn a_server_with_other_times_is_refused() {
    let consensus = Arc::new(FakeConsensus::default());
    let one = member(&consensus, "one:1", times());
    let _keeper = one.keeper();
    let other = ClusterTimes::new(Duration::from_secs(25), Duration::from_secs(1)).unwrap();
    match member(&consensus, "two:1", other).event() {
        MemberEvent::Refused(reason) => assert!(reason.contains("dead-peer timeout of 12 s"), "{reason}"),
        MemberEvent::TookOver(_) | MemberEvent::Over(_) => panic!("it is not refused"),
    };
}

#[test]
fn a_standby_waits_for_the_time_of_the_active_server_should_the_settings_be_others_by_now() {
    let consensus = Arc::new(FakeConsensus::default());
    let key = LeaderKey::new(random_id().unwrap().to_string(), None, &long());
    let begun = BootTime::now();
    consensus.set(&Keys::new(CLUSTER).leader, Some(&key.encode()));
    let one = member(&consensus, "one:1", times());
    let _keeper = one.keeper();
    assert!(begun.until(BootTime::now()) > long().take_over_after(Duration::ZERO));
}

#[test]
fn a_record_that_makes_no_sense_is_left_as_it_is() {
    let consensus = Arc::new(FakeConsensus::default());
    let state = Keys::new(CLUSTER).state;
    consensus.set(&state, Some(b"lockd state 2\nsomething"));
    let one = member(&consensus, "one:1", times());
    match one.event() {
        MemberEvent::Refused(reason) => assert!(reason.contains("/lockd/main/state"), "{reason}"),
        MemberEvent::TookOver(_) | MemberEvent::Over(_) => panic!("it is not refused"),
    }
    assert_eq!(consensus.value(&state).as_deref(), Some(&b"lockd state 2\nsomething"[..]));
}

#[test]
fn all_servers_race_for_a_vacant_place_and_one_gets_it() {
    let consensus = Arc::new(FakeConsensus::default());
    let mut all: Vec<_> = (0..5).map(|n| member(&consensus, &format!("m{n}:1"), times())).collect();
    for round in 0..4 {
        eventually("one is active", || all.iter().any(TestMember::is_active));
        let active: Vec<usize> = (0..all.len()).filter(|n| all[*n].is_active()).collect();
        assert_eq!(active.len(), 1, "round {round}");
        let mut one = all.remove(active[0]);
        let keeper = one.keeper();
        assert!(leader(&consensus).unwrap().address.is_some());
        one.broker.shut();
        keeper.stopped().unwrap();
        one.member.take().unwrap().hand_over().unwrap();
    }
}
