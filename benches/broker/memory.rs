//! What locks, waiters and sessions cost in memory: by how much the resident size of a process
//! grows when it makes very many of them. That counts everything: what the allocator adds, and the
//! tables that have grown in advance.

use std::process::Command;

use lockd::Session;
use lockd::broker::{Attempt, Broker, Key, LockName, Mode, ObservedSession, Observer, Outcome, Ticket, Wait};

use super::names;
use super::report::Rounds;

/// How many there are of what is measured. It makes a difference for locks: the tables that find
/// them double when they are full, and are between half full and full at any other number.
const LOCKS: usize = 1_000_000;
const SESSIONS: usize = 100_000;

type Measurement = (&'static str, fn() -> Rounds);

const MEASUREMENTS: [Measurement; 7] = [
    ("lock-of-22", || locks(|number| names::held(number).to_vec())),
    ("lock-of-64", || locks(|number| format!("{number:064}").into_bytes())),
    ("sessions", sessions),
    ("waiters", waiters),
    ("contended", contended),
    ("one-session", || million(1)),
    ("thousand-sessions", || million(1_000)),
];

/// Tells a process that it is to make only the measurement of this name.
const ONLY: &str = "BENCH_MEMORY_ONLY";

/// `memory`: each measurement in a process of its own, because memory that was freed before would
/// be used again.
pub(crate) fn memory() {
    let only = std::env::var(ONLY).ok();
    for (name, measure) in MEASUREMENTS {
        match &only {
            None => {
                let mut child = Command::new(std::env::current_exe().unwrap());
                let status = child.arg("memory").env(ONLY, name).status().unwrap();
                assert!(status.success(), "{name}: {status}");
            }
            Some(only) if only == name => measure().report("memory", name, "bytes"),
            Some(_) => {}
        }
    }
}

/// The resident size of this process, in bytes.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
    kib.unwrap().trim().parse::<f64>().unwrap() * 1024.0
}

/// By how much each of `count` things makes the process grow.
fn growth<R>(count: usize, make: impl FnOnce() -> R) -> (f64, R) {
    let before = resident();
    let made = make();
    ((resident() - before) / count as f64, made)
}

fn acquire(session: &Session, name: &[u8]) {
    session.acquire(name, Mode::Exclusive, None).unwrap();
}

fn locks(name: impl Fn(usize) -> Vec<u8>) -> Rounds {
    let session = Session::open(&Broker::default(), None);
    let (each, ()) = growth(LOCKS, || (0..LOCKS).for_each(|number| acquire(&session, &name(number))));
    let mut rounds = Rounds::default();
    rounds.add("each", each);
    rounds
}

/// Sessions in this process: when they are opened, and when each of them holds one lock, of which
/// the lock itself is a part.
fn sessions() -> Rounds {
    let broker = Broker::default();
    let (each, sessions) =
        growth(SESSIONS, || (0..SESSIONS).map(|_| Session::open(&broker, None)).collect::<Vec<Session>>());
    let (with_lock, ()) = growth(SESSIONS, || {
        (0..).zip(&sessions).for_each(|(number, session)| acquire(session, &names::held(number)));
    });
    let mut rounds = Rounds::default();
    rounds.add("each", each);
    rounds.add("with-lock", with_lock);
    rounds
}

/// Is told the outcomes of waits, and needs none of them.
struct Unheard;

impl Observer for Unheard {
    fn decided(&self, _: Ticket, _: Outcome) {}

    fn deliver(&self) {}
}

/// A session as the connections of a server have it.
fn attach(broker: &Broker) -> ObservedSession {
    broker.attach("127.0.0.1:40000", std::sync::Arc::new(Unheard))
}

fn wait(session: &ObservedSession, name: &[u8]) {
    let wants = [(Key::main(LockName::new(name)), Mode::Exclusive)];
    let attempt = session.acquire(&wants, Some(Wait { ticket: 1, limit: None }));
    assert_eq!(attempt, Ok(Attempt::Queued));
}

/// Many sessions that wait for one name.
fn waiters() -> Rounds {
    let broker = Broker::default();
    let holder = Session::open(&broker, None);
    acquire(&holder, b"name");
    let sessions: Vec<ObservedSession> = (0..SESSIONS).map(|_| attach(&broker)).collect();
    let (each, ()) = growth(SESSIONS, || sessions.iter().for_each(|session| wait(session, b"name")));
    let mut rounds = Rounds::default();
    rounds.add("each", each);
    rounds
}

/// Many names, each held by one session, and each waited for by a session of its own.
fn contended() -> Rounds {
    let broker = Broker::default();
    let holder = Session::open(&broker, None);
    let sessions: Vec<ObservedSession> = (0..SESSIONS).map(|_| attach(&broker)).collect();
    let (each, ()) = growth(SESSIONS, || {
        for (number, session) in sessions.iter().enumerate() {
            acquire(&holder, &names::held(number));
            wait(session, &names::held(number));
        }
    });
    let mut rounds = Rounds::default();
    rounds.add("each", each);
    rounds
}

/// A million names that this many sessions hold by turns: the resident size before, while they are
/// held, and when all are released.
fn million(sessions: usize) -> Rounds {
    let broker = Broker::default();
    let sessions: Vec<Session> = (0..sessions).map(|_| Session::open(&broker, None)).collect();
    let each_name = |work: fn(&Session, &[u8])| {
        (0..LOCKS).for_each(|number| work(&sessions[number % sessions.len()], &names::held(number)));
    };
    let mut rounds = Rounds::default();
    rounds.add("before", resident());
    each_name(acquire);
    rounds.add("held", resident());
    each_name(|session, name| _ = session.release(name).unwrap());
    rounds.add("released", resident());
    rounds
}
