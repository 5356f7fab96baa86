use proptest::prelude::*;

use super::*;
use crate::broker::Mode;
use crate::client::session::RememberedPlace;
use crate::wire::message::{ResumeGrant, ResumeId, ResumeSecret};

/// With a dead-peer timeout of 25 s: 2 · 7 s + 2.5 s.
const D: Duration = Duration::from_millis(16_500);

fn at(millis: u64) -> BootTime {
    BootTime::at(Duration::from_millis(millis))
}

fn terms(epoch: u64) -> ResumeTerms {
    let grant = ResumeGrant { session: ResumeId([1; 16]), epoch, secret: ResumeSecret([2; 16]) };
    ResumeTerms { grant, dead_peer_timeout: Duration::from_secs(25) }
}

fn belief(held: &[(&str, Mode, u64)]) -> Belief {
    let held = held.iter().map(|&(name, mode, token)| (name.into(), Held { mode, token })).collect();
    Belief { held, ..Belief::default() }
}

/// A session that holds `a` and `b`, stood for long, and lost its connection at 100 s; the latest of
/// its answered requests was sent at `proof`.
fn in_doubt(proof: u64) -> Machine {
    let mut machine = Machine::new(terms(1), at(0));
    let held = belief(&[("a", Mode::Exclusive, 7), ("b", Mode::Shared, 8)]);
    machine.ended(at(100_000), Some(at(proof)), held, false, "cut".to_owned(), 0.5);
    machine
}

fn anew() -> Machine {
    let mut machine = Machine::new(terms(1), at(0));
    machine.ended(at(100_000), Some(at(1)), Belief::default(), false, "cut".to_owned(), 0.5);
    machine
}

fn is_lost(machine: &Machine) -> bool {
    matches!(machine.condition(), Condition::Lost { .. })
}

fn claims(opening: Option<Opening>) -> (u64, Vec<(String, Mode, u64)>) {
    let Some(Opening::Resume { attempt, claims, .. }) = opening else { panic!("{opening:?}") };
    let text = |name: &LockName| String::from_utf8(name.as_bytes().to_vec()).unwrap();
    let mut claims: Vec<_> =
        claims.iter().map(|claim| (text(&claim.name), claim.mode, claim.token)).collect();
    claims.sort_by(|one, other| one.0.cmp(&other.0));
    (attempt, claims)
}

#[test]
fn the_limit_is_counted_from_the_proof_and_not_from_the_end_of_the_connection() {
    for (proof, lasts) in [(100_000, true), (90_000, true), (83_500, true), (83_499, false), (0, false)] {
        let mut machine = in_doubt(proof);
        assert_eq!(is_lost(&machine), !lasts, "{proof}");
        if lasts {
            let limit = at(proof) + D;
            assert_eq!(machine.condition(), Condition::Away { reason: "cut", limit: Some(limit) });
            machine.step(limit);
            assert!(!is_lost(&machine));
            machine.step(limit + Duration::from_nanos(1));
            assert!(is_lost(&machine));
        }
    }
}

#[test]
fn without_a_proof_nothing_is_in_doubt() {
    let mut machine = Machine::new(terms(1), at(0));
    machine.ended(at(100_000), None, belief(&[("a", Mode::Shared, 1)]), false, String::new(), 0.0);
    assert_eq!(machine.step(at(100_001)), MachineStep::Lost);
}

#[test]
fn a_session_that_cannot_be_resumed_is_lost_with_its_connection() {
    let mut machine = anew();
    machine.begin(at(100_000), true).unwrap();
    assert!(matches!(machine.answered(at(100_001), Answer::Accepted(None)), SessionVerdict::Standing { .. }));
    assert!(!machine.is_resumable());
    machine.ended(at(200_000), Some(at(200_000)), Belief::default(), false, "cut".to_owned(), 0.0);
    assert_eq!(machine.condition(), Condition::Lost { reason: "cut" });
}

#[test]
fn only_a_session_with_nothing_to_lose_begins_anew() {
    let place = RememberedPlace {
        wants: vec![("a".into(), Mode::Shared)],
        converts: false,
        is_kept: false,
        until: None,
    };
    let waiting = Belief { places: vec![place], ..Belief::default() };
    let holding = belief(&[("a", Mode::Shared, 1)]);
    for (belief, is_unconfirmed, in_doubt) in [
        (Belief::default(), false, false),
        (waiting.clone(), false, false),
        (waiting, true, true),
        (Belief::default(), true, true),
        (holding, false, true),
    ] {
        let mut machine = Machine::new(terms(1), at(0));
        machine.ended(at(100_000), Some(at(99_000)), belief, is_unconfirmed, String::new(), 0.0);
        let Condition::Away { limit, .. } = machine.condition() else { panic!() };
        assert_eq!(limit.is_some(), in_doubt);
        let opening = machine.begin(at(100_000), true).unwrap();
        assert_eq!(opening == Opening::Hello, !in_doubt);
        // It waits for a server for as long as it takes.
        machine.failed(at(100_000), 0.0);
        machine.step(at(100_000_000));
        assert_eq!(is_lost(&machine), in_doubt);
    }
}

#[test]
fn the_attempts_are_numbered_and_each_claims_what_is_still_believed() {
    let mut machine = in_doubt(99_000);
    let both = vec![("a".to_owned(), Mode::Exclusive, 7), ("b".to_owned(), Mode::Shared, 8)];
    assert_eq!(claims(machine.begin(at(100_000), true)), (1, both.clone()));
    machine.failed(at(100_001), 0.0);
    assert_eq!(claims(machine.begin(at(100_001), true)), (2, both));
    assert!(machine.belief().unwrap().give_up(&"a".into()));
    machine.failed(at(100_002), 0.0);
    let rest = vec![("b".to_owned(), Mode::Shared, 8)];
    assert_eq!(claims(machine.begin(at(100_002), true)), (3, rest.clone()));
    // The numbers go on after the session was resumed, also by another run.
    machine.answered(at(100_003), Answer::Accepted(Some(terms(2))));
    machine.ended(
        at(100_004),
        Some(at(100_003)),
        belief(&[("b", Mode::Shared, 8)]),
        false,
        String::new(),
        0.0,
    );
    assert_eq!(claims(machine.begin(at(100_004), true)), (4, rest));
}

#[test]
fn what_is_released_after_it_was_claimed_is_unlocked_first() {
    let mut machine = in_doubt(99_000);
    machine.begin(at(100_000), true).unwrap();
    assert!(machine.belief().unwrap().give_up(&"a".into()));
    let answer = machine.answered(at(100_001), Answer::Accepted(Some(terms(2))));
    let SessionVerdict::Standing { belief, unlocked, is_resumed } = answer else { panic!("{answer:?}") };
    assert_eq!((unlocked, is_resumed), (vec![LockName::from("a")], true));
    assert_eq!(belief.held.keys().collect::<Vec<_>>(), [&LockName::from("b")]);
    assert_eq!((machine.condition(), machine.resumes()), (Condition::Standing, 1));
}

#[test]
fn what_was_released_before_it_was_claimed_is_not_unlocked() {
    let mut machine = in_doubt(99_000);
    assert!(machine.belief().unwrap().give_up(&"a".into()));
    machine.begin(at(100_000), true).unwrap();
    let answer = machine.answered(at(100_001), Answer::Accepted(Some(terms(2))));
    assert!(matches!(answer, SessionVerdict::Standing { unlocked, .. } if unlocked.is_empty()));
}

#[test]
fn an_answer_after_the_limit_changes_nothing() {
    for answer in [Answer::Accepted(Some(terms(2))), Answer::Ended("over".to_owned())] {
        let mut machine = in_doubt(99_000);
        machine.begin(at(115_000), true).unwrap();
        let late = at(99_000) + D + Duration::from_nanos(1);
        assert_eq!(machine.answered(late, answer.clone()), SessionVerdict::Lost);
        let Condition::Lost { reason } = machine.condition() else { panic!() };
        assert!(reason.starts_with("cut") && reason.contains("in time"), "{reason}");
        assert_eq!(machine.resumes(), 0);
    }
    let mut machine = in_doubt(99_000);
    machine.begin(at(115_000), true).unwrap();
    let answer = machine.answered(at(99_000) + D, Answer::Accepted(Some(terms(2))));
    assert!(matches!(answer, SessionVerdict::Standing { .. }), "at the limit it is in time");
}

#[test]
fn an_attempt_has_two_seconds_and_the_pauses_grow() {
    let mut machine = in_doubt(99_000);
    assert_eq!(machine.step(at(100_000)), MachineStep::Begin, "at once");
    machine.begin(at(100_000), true).unwrap();
    assert_eq!(machine.step(at(100_001)), MachineStep::GoOn(at(102_000)));
    assert_eq!(machine.step(at(102_000)), MachineStep::GiveUp);
    machine.has_gone_on(at(102_000));
    assert_eq!(machine.step(at(102_000)), MachineStep::GoOn(at(104_000)));
    let mut now = 102_000;
    for pause in [50, 100, 200, 400, 800, 1000, 1000] {
        machine.failed(at(now), 1.0);
        assert_eq!(machine.step(at(now)), MachineStep::Pause(at(now + pause)));
        now += pause;
        assert_eq!(machine.step(at(now)), MachineStep::Begin);
        machine.begin(at(now), true).unwrap();
    }
    // Nothing is planned for later than the limit.
    machine.failed(at(115_000), 1.0);
    assert_eq!(machine.step(at(115_000)), MachineStep::Pause(at(115_500)));
    machine.step(at(116_000));
    assert!(is_lost(&machine));
}

#[test]
fn while_places_are_left_an_attempt_has_a_second_and_the_next_one_comes_at_once() {
    let mut machine = in_doubt(99_000);
    let mut now = 100_000;
    for pause in [50, 100] {
        for _ in 0..2 {
            machine.begin(at(now), false).unwrap();
            assert_eq!(machine.step(at(now)), MachineStep::GoOn(at(now + 1000)));
            now += 1000;
            assert_eq!(machine.step(at(now)), MachineStep::GiveUp);
            machine.failed(at(now), 1.0);
            assert_eq!(machine.step(at(now)), MachineStep::Begin);
        }
        machine.begin(at(now), true).unwrap();
        assert_eq!(machine.step(at(now)), MachineStep::GoOn(at(now + 2000)));
        machine.failed(at(now), 1.0);
        assert_eq!(machine.step(at(now)), MachineStep::Pause(at(now + pause)));
        now += pause;
    }
    machine.begin(at(now), false).unwrap();
    machine.has_gone_on(at(now + 1000));
    assert_eq!(machine.step(at(now + 1000)), MachineStep::GoOn(at(now + 2000)));
}

#[test]
fn a_server_that_hangs_up_again_and_again_is_not_asked_all_the_time() {
    let mut machine = Machine::new(terms(1), at(0));
    let mut now = 10;
    for pause in [50, 100, 200, 400, 800, 1600, 3200, 4000, 4000] {
        machine.ended(at(now), Some(at(now)), Belief::default(), false, String::new(), 1.0);
        assert_eq!(machine.step(at(now)), MachineStep::Pause(at(now + pause)));
        now += pause;
        machine.begin(at(now), true).unwrap();
        machine.answered(at(now), Answer::Accepted(Some(terms(1))));
        now += 10;
    }
    // In doubt there is no time for that.
    for _ in 0..3 {
        machine.ended(at(now), Some(at(now)), belief(&[("a", Mode::Shared, 1)]), false, String::new(), 1.0);
        assert_eq!(machine.step(at(now)), MachineStep::Pause(at(now + 50)));
        machine.begin(at(now + 50), true).unwrap();
        machine.answered(at(now + 51), Answer::Accepted(Some(terms(1))));
        now += 60;
    }
    // A connection that stood shows that it works.
    machine.ended(at(now + 1000), Some(at(now)), Belief::default(), false, String::new(), 1.0);
    assert_eq!(machine.step(at(now + 1000)), MachineStep::Begin);
}

#[test]
fn the_end_of_the_session_is_for_good() {
    for end in [
        |machine: &mut Machine| machine.lose("closed".to_owned()),
        |machine: &mut Machine| {
            machine.begin(at(100_000), true).unwrap();
            assert_eq!(
                machine.answered(at(100_001), Answer::Ended("closed".to_owned())),
                SessionVerdict::Lost
            );
        },
    ] {
        for mut machine in [in_doubt(99_000), anew()] {
            end(&mut machine);
            for _ in 0..2 {
                assert_eq!(machine.condition(), Condition::Lost { reason: "closed" });
                assert_eq!(machine.step(at(100_002)), MachineStep::Lost);
                assert_eq!(machine.begin(at(100_002), true), None);
                machine.failed(at(100_002), 0.5);
                machine.lose("again".to_owned());
                let late = Answer::Accepted(Some(terms(2)));
                assert_eq!(machine.answered(at(100_002), late), SessionVerdict::Lost);
            }
        }
    }
    let mut standing = Machine::new(terms(1), at(0));
    standing.lose("closed".to_owned());
    assert!(is_lost(&standing));
}

/// What may happen to a session.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ended { holds: bool, is_unconfirmed: bool, proof_age: u64 },
    Step,
    Begin,
    Failed,
    Accepted,
    RefusedForGood,
    Release,
    Close,
}

fn any_event() -> impl Strategy<Value = (u64, Event)> {
    let ended = (any::<bool>(), any::<bool>(), 0_u64..30_000)
        .prop_map(|(holds, is_unconfirmed, proof_age)| Event::Ended { holds, is_unconfirmed, proof_age });
    let event = prop_oneof![
        3 => ended,
        4 => Just(Event::Step),
        6 => Just(Event::Begin),
        4 => Just(Event::Failed),
        3 => Just(Event::Accepted),
        1 => Just(Event::RefusedForGood),
        2 => Just(Event::Release),
        1 => Just(Event::Close),
    ];
    (prop_oneof![4 => 0_u64..500, 1 => 0_u64..20_000], event)
}

proptest! {
    /// Every event in every state, against what must hold whatever the machine does.
    #[test]
    fn whatever_happens_the_rules_hold(events in proptest::collection::vec(any_event(), 1..60)) {
        let mut machine = Machine::new(terms(1), at(0));
        let (mut now, mut last_attempt, mut was_lost) = (1_000_000, 0, false);
        // When the session is to be lost, and what it must not claim any more.
        let mut limit: Option<BootTime> = None;
        let mut claimed: Option<Vec<String>> = None;
        for (later, event) in events {
            now += later;
            let standing = machine.condition() == Condition::Standing;
            match event {
                Event::Ended { holds, is_unconfirmed, proof_age } if standing => {
                    let proof = at(now - proof_age);
                    let held = if holds { belief(&[("a", Mode::Shared, 1)]) } else { Belief::default() };
                    machine.ended(at(now), Some(proof), held, is_unconfirmed, "cut".to_owned(), 0.5);
                    limit = (holds || is_unconfirmed).then_some(proof + D);
                    claimed = None;
                }
                Event::Ended { .. } => {}
                Event::Step => drop(machine.step(at(now))),
                Event::Begin => {
                    if machine.step(at(now)) == MachineStep::Begin {
                        match machine.begin(at(now), true) {
                            Some(Opening::Resume { attempt, claims, .. }) => {
                                prop_assert!(limit.is_some() && attempt > last_attempt);
                                last_attempt = attempt;
                                let believed = machine.belief().unwrap();
                                prop_assert!(claims.iter().all(|claim| believed.held.contains_key(&claim.name)));
                                prop_assert_eq!(claims.len(), believed.held.len());
                                claimed = Some(claims.iter().map(|claim| format!("{:?}", claim.name)).collect());
                            }
                            Some(Opening::Hello) => {
                                prop_assert!(limit.is_none());
                                claimed = Some(Vec::new());
                            }
                            None => prop_assert!(false, "a step that begins nothing"),
                        }
                    }
                }
                Event::Failed => {
                    machine.failed(at(now), 0.5);
                    claimed = None;
                }
                // Only an attempt is answered.
                Event::Accepted | Event::RefusedForGood if claimed.is_none() => {}
                Event::Accepted => {
                    if let SessionVerdict::Standing { belief, unlocked, is_resumed } =
                        machine.answered(at(now), Answer::Accepted(Some(terms(2))))
                    {
                        prop_assert!(!was_lost);
                        prop_assert!(limit.is_none_or(|limit| at(now) <= limit), "after the limit");
                        prop_assert_eq!(is_resumed, limit.is_some());
                        prop_assert!(unlocked.iter().all(|name| !belief.held.contains_key(name)));
                        let known = belief.held.len() + unlocked.len();
                        prop_assert_eq!(claimed.take().map(|claimed| claimed.len()), Some(known));
                        if !is_resumed {
                            last_attempt = 0;
                        }
                    }
                }
                Event::RefusedForGood => {
                    machine.answered(at(now), Answer::Ended("over".to_owned()));
                    prop_assert!(is_lost(&machine));
                    claimed = None;
                }
                Event::Release => {
                    if let Some(belief) = machine.belief() {
                        belief.give_up(&"a".into());
                    }
                }
                Event::Close => machine.lose("closed".to_owned()),
            }
            machine.step(at(now));
            prop_assert!(!was_lost || is_lost(&machine), "lost is for good");
            was_lost = is_lost(&machine);
            if let Condition::Away { limit: told, .. } = machine.condition() {
                prop_assert_eq!(told, limit);
                prop_assert!(limit.is_none_or(|limit| at(now) <= limit));
            }
        }
    }
}
