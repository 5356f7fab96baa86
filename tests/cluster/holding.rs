//! A session that resumes keeps its locks when another server of its cluster becomes active,
//! however that comes about. Nobody else gets them meanwhile, and who waits for them gets them
//! afterwards.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use lockd::broker::Mode;
use lockd::client::{ConnectOptions, RemoteSession, SessionState};
use lockd::{Session, WaitEvent};

use crate::servers::{Cluster, Ended};
use crate::support::{DEADLINE, eventually};

const NOW: Option<Duration> = Some(Duration::ZERO);
/// How long one attempt of an intruder may take.
const ATTEMPT: Duration = Duration::from_secs(1);

fn connect(cluster: &Cluster) -> Session {
    let session = Session::connect(&format!("{}?resume", cluster.group()), Some("test"), DEADLINE).unwrap();
    assert!(session.is_resumable());
    session
}

/// Tries for `a` at each server again and again. Returns the tokens that it was granted.
fn intrude(places: &[String], is_over: &AtomicBool, rounds: &Mutex<usize>) -> Vec<u64> {
    let mut granted = Vec::new();
    while !is_over.load(SeqCst) {
        for place in places {
            let Ok(session) = RemoteSession::connect(&format!("tcp://{place}"), None, ATTEMPT) else {
                continue;
            };
            granted.extend(session.acquire(b"a", Mode::Exclusive, NOW).map(|grant| grant.token));
        }
        *rounds.lock().unwrap() += 1;
        thread::sleep(Duration::from_millis(10));
    }
    granted
}

/// Sets a flag when it is dropped, so that a thread ends when a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The session is sure again that it holds this.
fn assert_keeps(holder: &Session, token: u64) {
    assert_eq!(holder.wait_certain(Some(DEADLINE)), SessionState::Alive);
    let held = holder.held(b"a").unwrap().expect("the lock is kept");
    assert_eq!((held.mode, held.token), (Mode::Exclusive, token));
}

/// A holder and a waiter on as many servers, through what `ends` does to the active one, as often
/// as it is called.
fn keeps_its_lock(servers: usize, ends: &[fn(&mut Cluster, usize)]) {
    let mut cluster = Cluster::start(servers);
    let (holder, waiter) = (connect(&cluster), connect(&cluster));
    let token = holder.acquire(b"a", Mode::Exclusive, NOW).unwrap().token;
    let own = waiter.acquire(b"own", Mode::Exclusive, NOW).unwrap().token;
    for session in [&holder, &waiter] {
        session.acquire(b"shared", Mode::Shared, NOW).unwrap();
    }
    let places: Vec<String> = (0..servers).map(|index| cluster.place(index)).collect();
    let (is_over, rounds) = (AtomicBool::new(false), Mutex::new(0));
    thread::scope(|scope| {
        let over = Over(&is_over);
        let waiting = scope.spawn(|| waiter.acquire(b"a", Mode::Exclusive, None));
        let intruder = scope.spawn(|| intrude(&places, &is_over, &rounds));
        let waits = || holder.inspect(b"a").unwrap().waiters == 1;
        eventually("it waits", waits);
        for end in ends {
            let active = cluster.await_active();
            end(&mut cluster, active);
            assert_keeps(&holder, token);
        }
        eventually("it waits again", waits);
        let begun = *rounds.lock().unwrap();
        eventually("the intruder has tried meanwhile", || *rounds.lock().unwrap() > begun + 1);
        drop(over);
        assert_eq!(intruder.join().unwrap(), Vec::<u64>::new(), "granted though it was held");
        assert!(holder.resumes() >= u64::try_from(ends.len()).unwrap());
        holder.release(b"a").unwrap();
        let grant = waiting.join().unwrap().unwrap();
        assert!(grant.token > token && !grant.orphaned, "{grant:?}");
    });
    assert_eq!(waiter.held(b"own").unwrap().map(|held| held.token), Some(own));
    for session in [&holder, &waiter] {
        assert_eq!(session.held(b"shared").unwrap().map(|held| held.mode), Some(Mode::Shared));
    }
    waiter.release(b"a").unwrap();
    let next = holder.acquire(b"a", Mode::Exclusive, Some(DEADLINE)).unwrap().token;
    assert!(next > token && next > own);
}

fn kill(cluster: &mut Cluster, active: usize) {
    cluster.kill(active);
}

fn stop(cluster: &mut Cluster, active: usize) {
    cluster.pause(active);
    assert_eq!(cluster.end(active), Ended::Killed);
}

fn stand_down(cluster: &mut Cluster, active: usize) {
    assert_eq!(cluster.stand_down(active), Ended::With(4));
    // As its service manager does.
    cluster.start_again(active);
}

fn terminate(cluster: &mut Cluster, active: usize) {
    assert_eq!(cluster.terminate(active), Ended::With(0));
}

/// What becomes of the active servers, one after the other.
type Story = (&'static str, usize, &'static [fn(&mut Cluster, usize)]);

/// Each with a cluster of its own, at the same time: most of the time they wait.
#[test]
fn a_holder_keeps_its_lock_whatever_becomes_of_the_active_server() {
    let stories: [Story; 5] = [
        ("it is killed", 2, &[kill]),
        ("it is stopped", 2, &[stop]),
        ("they stand down", 2, &[stand_down, stand_down, stand_down]),
        ("two are killed", 3, &[kill, kill]),
        ("one is told to stop, and the next one is killed", 3, &[terminate, kill]),
    ];
    thread::scope(|scope| {
        for (name, servers, ends) in stories {
            let story = thread::Builder::new().name(name.to_owned());
            story.spawn_scoped(scope, move || keeps_its_lock(servers, ends)).unwrap();
        }
    });
}

/// A call that waits for the lock and for a server, whichever it is, needs no session that resumes.
#[test]
fn a_patient_call_waits_through_a_fail_over_and_gets_the_lock_after_its_holder() {
    let mut cluster = Cluster::start(2);
    let holder = connect(&cluster);
    let token = holder.acquire(b"a", Mode::Exclusive, NOW).unwrap().token;
    let group = cluster.group();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let (mut absences, wants) = (0, [(&b"a"[..], Mode::Exclusive)]);
            let acquired =
                Session::connect_and_acquire(&group, &wants, None, &ConnectOptions::default(), |event| {
                    absences += usize::from(matches!(event, WaitEvent::NoServer { .. }));
                    ControlFlow::Continue(())
                });
            (acquired.unwrap().1, absences)
        });
        let waits = || holder.inspect(b"a").unwrap().waiters == 1;
        eventually("it waits", waits);
        let active = cluster.await_active();
        cluster.kill(active);
        assert_keeps(&holder, token);
        eventually("it waits again", waits);
        holder.release(b"a").unwrap();
        let (grant, absences) = waiting.join().unwrap();
        assert!(grant.token > token && absences > 0, "{grant:?}, {absences}");
    });
}

/// One that cannot resume is told that it has lost its lock, and so it has.
#[test]
fn a_session_that_does_not_resume_is_lost_and_the_next_one_finds_the_active_server() {
    let mut cluster = Cluster::start(2);
    let holder = Session::connect(&cluster.group(), None, DEADLINE).unwrap();
    let token = holder.acquire(b"a", Mode::Exclusive, NOW).unwrap().token;
    let active = cluster.await_active();
    cluster.kill(active);
    eventually("it is lost", || matches!(holder.state(), SessionState::Lost { .. }));
    assert!(holder.acquire(b"a", Mode::Exclusive, NOW).is_err());
    let next = cluster.await_next(active);
    let waiter = Session::connect(&cluster.group(), None, DEADLINE).unwrap();
    let granted = waiter.acquire(b"a", Mode::Exclusive, Some(DEADLINE)).unwrap();
    assert!(granted.token > token);
    // Until somebody takes over, no place is of any use, and the error says so of each.
    cluster.start_again(active);
    cluster.await_standby(active, next);
    cluster.kill(next);
    let error = Session::connect(&cluster.group(), None, ATTEMPT / 10);
    if let Err(error) = error.map(drop) {
        let text = error.to_string();
        assert!(text.contains("no server of the group is active"), "{text}");
        assert!(text.contains(&format!("{}: standby", cluster.place(active))), "{text}");
    }
}
