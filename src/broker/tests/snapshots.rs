//! A broker that is made from the snapshot of another one: it is the same, whatever state that one
//! is in; and whatever is changed in the snapshot arrives in the broker or is refused.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::broker::model::{SeenStates, every_event, every_event_of_the_grace};
use crate::broker::tests::sequences::Driver;
use crate::broker::*;

/// Is told nothing that counts.
struct Deaf;

impl Observer for Deaf {
    fn decided(&self, _: Ticket, _: Outcome) {}

    fn deliver(&self) {}
}

fn attach<const N: usize>(broker: &Broker) -> [ObservedSession; N] {
    std::array::from_fn(|number| broker.attach(&format!("192.0.2.1:{number}"), Arc::new(Deaf)))
}

fn wait(session: &ObservedSession, ticket: Ticket, wants: &[(Key, Mode)], limit: Option<Duration>) {
    assert_eq!(session.acquire(wants, Some(Wait { ticket, limit })), Ok(Attempt::Queued));
}

fn restored(snapshot: &BrokerSnapshot) -> Result<(Broker, Vec<ObservedSession>), BrokerSnapshotError> {
    Broker::restore(snapshot, Limits::default(), u64::MAX, |_| Arc::new(Deaf))
}

/// The same with its lists in one order where order means nothing.
fn in_order(mut snapshot: BrokerSnapshot) -> BrokerSnapshot {
    let mut order: Vec<usize> = (0..snapshot.locks.len()).collect();
    let key = |&lock: &usize| (snapshot.locks[lock].space, snapshot.locks[lock].name.clone());
    order.sort_by_key(key);
    let place = |lock: usize| order.iter().position(|&other| other == lock).unwrap();
    snapshot.waits.iter_mut().flat_map(|wait| &mut wait.wants).for_each(|want| want.lock = place(want.lock));
    snapshot.locks = order.iter().map(|&lock| snapshot.locks[lock].clone()).collect();
    snapshot.locks.iter_mut().for_each(|lock| lock.holders.sort_by_key(|holder| holder.session));
    snapshot.orphaned_names.sort_by_key(|name| (name.space, name.name.clone()));
    snapshot
}

/// A broker with something in every field of its snapshot, and what keeps its sessions open.
fn with_everything() -> (Broker, [ObservedSession; 5]) {
    let broker = Broker::default();
    broker.measure_holds();
    let [one, two, three, four, five] = attach(&broker);
    assert!(one.info().set_name(Some(b"deploy\xff")));
    let hold = |session: &ObservedSession, space, name: &str, mode| {
        session.acquire(&[(Key { space, name: name.into() }, mode)], None).unwrap();
    };
    let (two_or_less, four_or_less) = (Mode::at_most(2).unwrap(), Mode::at_most(4).unwrap());
    let vanishing = broker.attach("192.0.2.2:1", Arc::new(Deaf));
    for name in ["left", "left and shared", "left and wanted"] {
        hold(&vanishing, Space::Main, name, Mode::Exclusive);
    }
    drop(vanishing);
    hold(&one, Space::Main, "only one", Mode::Exclusive);
    hold(&two, Space::Main, "left and shared", Mode::Shared);
    hold(&one, Space::Main, "left and wanted", Mode::Exclusive);
    hold(&one, Space::Main, "converted", Mode::Shared);
    hold(&two, Space::Main, "converted", Mode::Shared);
    hold(&three, Space::Main, "few", four_or_less);
    hold(&four, Space::Main, "few", two_or_less);
    hold(&three, Space::Counted, "few", four_or_less);
    let converts = Some(Wait { ticket: 7, limit: None });
    assert_eq!(two.convert(Space::Main, b"converted", Mode::Exclusive, converts), Ok(Attempt::Queued));
    let set = [(Key::main("left and wanted"), Mode::Shared), (Key::main("few"), two_or_less)];
    wait(&five, 1, &set, Some(Duration::from_secs(3600)));
    wait(&four, 2, &[(Key::main("left and wanted"), Mode::Exclusive)], None);
    // A request that waited, was granted and has been released.
    wait(&five, 3, &[(Key::main("only one"), Mode::Exclusive)], None);
    one.release(Space::Main, b"only one").unwrap();
    five.release(Space::Main, b"only one").unwrap();
    hold(&one, Space::Main, "only one", Mode::Exclusive);
    (broker, [one, two, three, four, five])
}

/// A broker in its grace with requests that wait.
fn in_grace() -> (Broker, [ObservedSession; 2]) {
    let broker = Broker::resumed(Limits::default(), &(5..1000), Some(Duration::from_secs(60)));
    let [one, two] = attach(&broker);
    wait(&one, 1, &[(Key::main("x"), Mode::Shared), (Key::main("y"), Mode::Exclusive)], None);
    wait(&two, 1, &[(Key::main("x"), Mode::Exclusive)], Some(Duration::from_secs(3600)));
    (broker, [one, two])
}

#[test]
fn what_is_held_waited_for_counted_and_remembered_is_the_same_in_the_new_broker() {
    let ((everything, _sessions), (grace, _waiting)) = (with_everything(), in_grace());
    for broker in [&everything, &grace] {
        let snapshot = broker.snapshot().unwrap();
        let text = serde_json::to_string(&snapshot).unwrap();
        let read: BrokerSnapshot = serde_json::from_str(&text).unwrap();
        assert_eq!(read, snapshot);
        let (after, _sessions) = restored(&read).unwrap();
        assert_eq!(in_order(after.snapshot().unwrap()), in_order(snapshot));
        assert_eq!(after.stats(), broker.stats());
        assert!(after.open(None).info().id() >= broker.open(None).info().id());
    }
    assert!(everything.grace().is_zero() && !grace.grace().is_zero());
}

#[test]
fn the_example_has_something_in_every_field() {
    let (broker, _sessions) = with_everything();
    let snapshot = broker.snapshot().unwrap();
    let BrokerSnapshot { sessions, locks, waits, orphaned_names, counts, .. } = &snapshot;
    assert_eq!((sessions.len(), locks.len(), waits.len(), orphaned_names.len()), (5, 6, 3, 1));
    assert!(counts.hold_times.as_ref().is_some_and(|times| times.counts.iter().sum::<u64>() > 0));
    assert_eq!(counts.wait_times.counts.iter().sum::<u64>(), 1);
    assert!(locks.iter().any(|lock| lock.orphaned && lock.holders[0].mode == Mode::Shared));
}

/// Applies a part of all events in every state of two sessions and two names that is reached like
/// this, each time to a broker that was made from the text of the state. Returns how many states
/// there are. The tests of the rules apply every event, to tables that were made from a snapshot.
fn explore(grace: bool) -> usize {
    let mut events = every_event(2, 2, false);
    if grace {
        events.extend(every_event_of_the_grace(2, 2));
    }
    // There are many more states with a grace.
    let part = if grace { 7 } else { 4 };
    let start = Driver::new(grace);
    let mut seen = SeenStates::new(2, 2);
    seen.insert(&start.model);
    let mut to_visit = VecDeque::from([start]);
    let mut visited = 0;
    while let Some(state) = to_visit.pop_front() {
        let text = state.text();
        visited += 1;
        for event in events.iter().skip(visited % part).step_by(part) {
            let mut next = state.continued_from(&text);
            next.apply(event);
            if seen.insert(&next.model) {
                to_visit.push_back(next);
            }
        }
    }
    seen.len()
}

#[test]
fn two_sessions_and_two_names_agree_with_the_model_after_a_snapshot_of_every_state() {
    let states = [false, true].map(explore);
    assert!(states[0] > 500 && states[1] > states[0], "only {states:?} states were reached");
}

#[test]
fn waits_keep_their_time_limits() {
    let broker = Broker::default();
    let [holder, waiter] = attach(&broker);
    let key = |name: &str| [(Key::main(name), Mode::Exclusive)];
    for name in ["x", "y", "z"] {
        holder.acquire(&key(name), None).unwrap();
    }
    wait(&waiter, 1, &key("x"), Some(Duration::from_secs(3600)));
    wait(&waiter, 2, &key("y"), Some(Duration::from_secs(60)));
    wait(&waiter, 3, &key("z"), Some(Duration::ZERO));
    let (after, sessions) = restored(&broker.snapshot().unwrap()).unwrap();
    // The limit of the third wait is over, and the second is the next one.
    let next = sessions[1].expire().unwrap();
    assert!(next <= Duration::from_secs(60), "{next:?}");
    assert_eq!((after.stats().waiting, after.stats().timeouts), (2, 1));
    assert!(!sessions[1].cancel(3) && sessions[1].cancel(2));
    let next = sessions[1].expire().unwrap();
    assert!(next > Duration::from_secs(60) && next <= Duration::from_secs(3600), "{next:?}");
}

#[test]
fn a_broker_that_has_been_shut_has_no_snapshot() {
    let broker = Broker::default();
    broker.shut();
    assert!(broker.snapshot().is_err());
}

#[test]
fn tokens_go_on_below_the_end_that_is_given() {
    let (broker, _sessions) = with_everything();
    let snapshot = broker.snapshot().unwrap();
    let end = snapshot.next_token;
    let restore = |end| Broker::restore(&snapshot, Limits::default(), end, |_| Arc::new(Deaf));
    assert!(restore(end).is_err());
    let (after, sessions) = restore(end + 1).unwrap();
    assert_eq!(
        sessions[0].try_acquire(Space::Main, b"new", Mode::Exclusive).map(|grant| grant.token),
        Ok(end)
    );
    after.set_tokens_end(end + 2);
    sessions[0].release(Space::Main, b"new").unwrap();
    assert_eq!(
        sessions[0].try_acquire(Space::Main, b"new", Mode::Exclusive).map(|grant| grant.token),
        Ok(end + 1)
    );
}

#[test]
fn what_exceeds_new_limits_stays() {
    let (broker, _sessions) = with_everything();
    let snapshot = broker.snapshot().unwrap();
    let limits =
        Limits { name_bytes_max: 2, locks_max: 1, locks_per_session_max: 1, waits_per_session_max: 0 };
    let (after, _sessions) = Broker::restore(&snapshot, limits, u64::MAX, |_| Arc::new(Deaf)).unwrap();
    assert_eq!((after.stats(), after.limits()), (broker.stats(), limits));
}

#[test]
fn of_too_many_orphaned_names_the_oldest_are_forgotten() {
    // Lanes remember twice as many when names are spread evenly.
    const PROMISED: u32 = 65_536;
    let mut broker = Broker::default();
    let name = |number: u32| number.to_le_bytes();
    for number in 0..3 * PROMISED {
        let session = broker.attach("test", Arc::new(Deaf));
        session.try_acquire(Space::Main, &name(number), Mode::Exclusive).unwrap();
    }
    for _ in 0..2 {
        let snapshot = broker.snapshot().unwrap();
        assert!(snapshot.orphaned_names.len() <= 2 * PROMISED as usize);
        (broker, _) = restored(&snapshot).unwrap();
        let session = broker.attach("test", Arc::new(Deaf));
        let is_marked = |number: &u32| session.inspect(Space::Main, &name(*number)).orphaned;
        let forgotten = (2 * PROMISED..3 * PROMISED).find(|number| !is_marked(number));
        assert_eq!(forgotten, None, "one of the newest names is forgotten");
    }
}

/// All values that differ from this one by one change.
fn changed(value: &Value) -> Vec<Value> {
    let mut changed = others(value);
    match value {
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let with = |range: std::ops::Range<usize>, new: &[Value]| {
                    let mut items = items.clone();
                    items.splice(range, new.iter().cloned());
                    Value::Array(items)
                };
                changed.extend([with(at..at + 1, &[]), with(at..at, std::slice::from_ref(item))]);
                if at > 0 {
                    changed.push(with(at - 1..at + 1, &[item.clone(), items[at - 1].clone()]));
                }
                changed.extend(self::changed(item).into_iter().map(|item| with(at..at + 1, &[item])));
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let with = |new: Option<Value>| {
                    let mut fields = fields.clone();
                    match new {
                        Some(value) => fields.insert(name.clone(), value),
                        None => fields.remove(name),
                    };
                    Value::Object(fields)
                };
                changed.push(with(None));
                changed.extend(self::changed(field).into_iter().map(|field| with(Some(field))));
            }
            let mut fields = fields.clone();
            fields.insert("unknown".to_owned(), Value::Null);
            changed.push(Value::Object(fields));
        }
        _ => {}
    }
    changed
}

/// What may be in the place of a value, of the same kind and of others.
fn others(value: &Value) -> Vec<Value> {
    let mut others = vec![json!(null), json!(0), json!(""), json!([]), json!({})];
    match value {
        Value::Number(number) => {
            let number = number.as_u64().unwrap();
            let near = [number.wrapping_sub(1), number + 1, number + 2, number * 2];
            let limits = [u64::from(u32::MAX), (1 << 53) - 1, 1 << 53, u64::MAX];
            others.extend((1..8).chain(near).chain(limits).map(Value::from));
            others.extend([json!(-1), json!(0.5), json!({ "at_most": number })]);
        }
        Value::String(text) => {
            let words = ["exclusive", "shared", "main", "counted", "61", "6f", "6F", "6", "zz", "left"];
            others.extend(words.into_iter().map(Value::from));
            others.extend([json!(text.clone() + "00"), json!({ "at_most": 2 }), json!({ "at_most": 1 })]);
        }
        Value::Bool(flag) => others.push(json!(!flag)),
        Value::Null => others.extend([json!(1), json!("61"), json!(u64::MAX)]),
        Value::Array(_) | Value::Object(_) => others.extend([json!("exclusive"), json!("shared")]),
    }
    others.retain(|other| other != value);
    others
}

/// The names of the fields in which two values differ, each with the names around it.
fn differences(path: &str, one: &Value, other: &Value, found: &mut BTreeSet<String>) {
    match (one, other) {
        (Value::Object(fields), Value::Object(others)) => {
            for (name, field) in fields {
                differences(&format!("{path}.{name}"), field, &others[name], found);
            }
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            items.iter().zip(others).for_each(|(one, other)| differences(path, one, other, found));
        }
        _ if one != other => {
            found.insert(path.to_owned());
        }
        _ => {}
    }
}

/// What became of the changes to a snapshot.
#[derive(Default)]
struct Changes {
    refused: usize,
    /// In which fields one has arrived.
    arrived: BTreeSet<String>,
}

/// Makes every change to the snapshot. Each must be refused, or arrive in the broker as it is.
fn make_every_change(snapshot: &BrokerSnapshot) -> Changes {
    let mut changes = Changes::default();
    let value = serde_json::to_value(snapshot).unwrap();
    for changed in changed(&value) {
        let Ok(read) = serde_json::from_value::<BrokerSnapshot>(changed.clone()) else {
            changes.refused += 1;
            continue;
        };
        assert_eq!(serde_json::to_value(&read).unwrap(), changed, "it is read as it is written");
        let Ok((broker, sessions)) = restored(&read) else {
            changes.refused += 1;
            continue;
        };
        let tokens_left = (1 << 53) - read.next_token;
        let after = broker.snapshot().unwrap();
        assert_eq!(in_order(after), in_order(read), "{changed}");
        differences("", &value, &changed, &mut changes.arrived);
        // A broker that has given its last token fails at the next grant.
        if tokens_left < 100 {
            broker.shut();
        }
        end_all(&broker, sessions);
    }
    changes
}

/// Ends all sessions: everything is granted and freed, and nothing is left.
fn end_all(broker: &Broker, sessions: Vec<ObservedSession>) {
    broker.end_grace();
    drop(sessions);
    let stats = broker.stats();
    assert_eq!((stats.sessions, stats.locks, stats.shared_locks, stats.waiting), (0, 0, 0, 0));
    assert!(!broker.has_failed());
}

#[test]
fn every_change_to_a_snapshot_arrives_or_is_refused() {
    let ((everything, _sessions), (grace, _waiting)) = (with_everything(), in_grace());
    let mut arrived = BTreeSet::new();
    for broker in [&everything, &grace] {
        let changes = make_every_change(&broker.snapshot().unwrap());
        assert!(changes.refused > 100);
        arrived.extend(changes.arrived);
    }
    let mut fields = BTreeSet::new();
    differences_to_nothing("", &serde_json::to_value(everything.snapshot().unwrap()).unwrap(), &mut fields);
    let missing: Vec<&String> = fields.difference(&arrived).collect();
    assert!(missing.is_empty(), "no change of these fields has arrived: {missing:?}");
}

/// The names of all fields that have a value of their own.
fn differences_to_nothing(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                differences_to_nothing(&format!("{path}.{name}"), field, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| differences_to_nothing(path, item, found)),
        _ => {
            found.insert(path.to_owned());
        }
    }
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Exclusive), Just(Mode::at_most(2).unwrap()), Just(Mode::Shared)]
}

/// Snapshots of which many make no sense.
fn any_snapshot() -> impl Strategy<Value = BrokerSnapshot> {
    let any_ranks = prop::collection::vec(-2..4_i64, 1..5);
    let ranks = prop_oneof![9 => Just(vec![-1, 1, 2, 3]), 1 => any_ranks];
    let holder = (0..4_usize, mode(), 1..12_u64).prop_map(|(session, mode, token)| HolderSnapshot {
        session,
        mode,
        token,
        since_nanos: 0,
    });
    let lock = (any::<bool>(), prop::collection::vec(holder, 0..3));
    let locks = prop::collection::vec(lock, 1..4);
    let want = (0..3_usize, mode()).prop_map(|(lock, mode)| WantSnapshot { lock, mode });
    let wait = (0..4_usize, 0..3_u64, prop::collection::vec(want, 1..3));
    let waits = prop::collection::vec(wait, 0..4);
    let orphans = prop::collection::vec(2..9_u8, 0..2);
    (ranks, locks, waits, orphans, prop::bool::weighted(0.2)).prop_map(
        |(ranks, locks, waits, orphans, grace)| BrokerSnapshot {
            sessions: (1..)
                .zip(ranks)
                .map(|(id, rank)| SessionSnapshot { id, address: String::new(), name: None, rank })
                .collect(),
            locks: (0..)
                .zip(locks)
                .map(|(name, (orphaned, holders))| LockSnapshot {
                    space: Space::Main,
                    name: LockName::new(&[name]),
                    orphaned,
                    holders,
                })
                .collect(),
            waits: waits
                .into_iter()
                .map(|(session, ticket, wants)| WaitSnapshot {
                    session,
                    ticket,
                    wants,
                    since_nanos: 0,
                    deadline_nanos: None,
                })
                .collect(),
            orphaned_names: orphans
                .into_iter()
                .map(|name| NameSnapshot { space: Space::Main, name: LockName::new(&[name]) })
                .collect(),
            next_token: 11,
            next_session_id: 10,
            grace_ends_nanos: grace.then_some(0),
            counts: CountsSnapshot::default(),
        },
    )
}

#[test]
fn any_snapshot_is_refused_or_makes_a_broker_that_keeps_every_promise() {
    let mut runner = TestRunner::deterministic();
    let (snapshots, mut accepted, mut waiting) = (any_snapshot(), 0, 0);
    for _ in 0..20_000 {
        let snapshot = snapshots.new_tree(&mut runner).unwrap().current();
        let Ok((broker, sessions)) = restored(&snapshot) else { continue };
        for LockSnapshot { holders, .. } in broker.snapshot().unwrap().locks {
            assert!(holders.iter().all(|holder| holder.mode.allows(holders.len())), "{snapshot:?}");
        }
        accepted += 1;
        waiting += usize::from(broker.stats().waiting > 0);
        assert_eq!(in_order(broker.snapshot().unwrap()), in_order(snapshot));
        end_all(&broker, sessions);
    }
    assert!(accepted > 500 && waiting > 100, "{accepted} were accepted, {waiting} of them with waiters");
}
