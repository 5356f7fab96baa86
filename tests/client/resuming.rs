//! Sessions that resume on a real server, which is killed, stopped and started again, or reached
//! through a proxy that resets connections.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use lockd::Session;
use lockd::broker::{AcquireError, Attempt, Mode, ReleaseError};
use lockd::client::{InspectError, SessionState};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::environment::without_options;
use crate::support::{NOW, SOON, is_readable};

/// Runs of a server, one after another, at the same address and with the same state directory.
pub(crate) struct Runs {
    directory: TempDir,
    pub(crate) listen: String,
    url: String,
    child: Child,
}

impl Runs {
    /// At a Unix socket.
    fn at_a_path() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("unix:{}/s", directory.path().display());
        Self::start(directory, &format!("message+{address}"))
    }

    fn at_a_port() -> Self {
        let mut first = Self::start(tempfile::tempdir().unwrap(), "message://127.0.0.1:0");
        first.listen = first.url.clone();
        first
    }

    pub(crate) fn start(directory: TempDir, listen: &str) -> Self {
        let (child, url) = run(directory.path(), listen);
        Self { directory, listen: listen.to_owned(), url, child }
    }

    fn connect(&self) -> Session {
        let session = Session::connect(&format!("{}?resume", self.url), Some("test"), SOON).unwrap();
        assert!(session.is_resumable());
        session
    }

    pub(crate) fn end(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        (self.child, self.url) = run(self.directory.path(), &self.listen);
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn run(directory: &Path, listen: &str) -> (Child, String) {
    let mut child = without_options(&mut Command::new(env!("CARGO_BIN_EXE_lockd")))
        .args(["serve", "--first-start", "--dead-peer-timeout", "12", "--listen", listen, "--state-dir"])
        .arg(directory.join("state"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let url = log.find_map(|line| Some(line.unwrap().split_once("listening on ")?.1.to_owned())).unwrap();
    // Keep reading, so that later output never blocks it.
    thread::spawn(move || log.for_each(drop));
    (child, url)
}

/// Calls `state` until it is as wanted.
pub(crate) fn until(session: &Session, wanted: impl Fn(&SessionState) -> bool) -> SessionState {
    let deadline = Instant::now() + SOON;
    loop {
        let state = session.state();
        if wanted(&state) {
            return state;
        }
        assert!(Instant::now() < deadline, "never as expected: {state:?}");
        is_readable(session.lost_fd().unwrap(), Duration::from_secs(1));
    }
}

pub(crate) fn in_doubt(state: &SessionState) -> bool {
    matches!(state, SessionState::InDoubt { .. })
}

#[test]
fn a_holder_keeps_its_lock_through_a_crash_of_the_server_and_a_waiter_gets_it_only_then() {
    for mut runs in [Runs::at_a_path(), Runs::at_a_port()] {
        let (holder, waiter) = (runs.connect(), runs.connect());
        let token = holder.acquire(b"a", Mode::Exclusive, NOW).unwrap().token;
        thread::scope(|scope| {
            let waiting = scope.spawn(|| waiter.acquire(b"a", Mode::Exclusive, None));
            while holder.inspect(b"a").unwrap().waiters == 0 {}
            runs.end(Signal::KILL);
            let SessionState::InDoubt { left: Some(left), .. } = until(&holder, in_doubt) else { panic!() };
            assert!(left <= Duration::from_millis(8500));
            assert!(matches!(holder.held(b"a"), Err(InspectError::Doubt(_))));
            assert!(matches!(holder.inspect(b"a"), Err(InspectError::Doubt(_))));
            assert!(matches!(holder.enqueue(b"b", Mode::Shared), Err(AcquireError::Doubt(_))));
            assert!(matches!(holder.acquire(b"b", Mode::Shared, NOW), Err(AcquireError::Doubt(_))));
            runs.start_again();
            assert_eq!(holder.wait_certain(Some(SOON)), SessionState::Alive);
            assert_eq!(holder.resumes(), 1);
            let held = holder.held(b"a").unwrap().unwrap();
            assert_eq!((held.mode, held.token), (Mode::Exclusive, token));
            while holder.inspect(b"a").unwrap().waiters == 0 {}
            holder.release(b"a").unwrap();
            let grant = waiting.join().unwrap().unwrap();
            assert!(grant.token > token && !grant.orphaned);
        });
        assert!(waiter.is_alive());
    }
}

#[test]
fn a_holder_keeps_its_lock_through_a_clean_stop() {
    let mut runs = Runs::at_a_port();
    let holder = runs.connect();
    let all: Vec<(&[u8], Mode)> =
        vec![(b"x", Mode::Exclusive), (b"l", Mode::at_most(3).unwrap()), (b"\xff", Mode::Shared)];
    let token = holder.acquire_all(&all, NOW).unwrap().token;
    assert_eq!(holder.release(b"l"), Ok(lockd::broker::Released::Hold));
    runs.end(Signal::TERM);
    until(&holder, in_doubt);
    runs.start_again();
    assert_eq!(holder.wait_certain(None), SessionState::Alive);
    for (name, held) in [(&b"x"[..], true), (b"l", false), (b"\xff", true)] {
        assert_eq!(holder.held(name).unwrap().map(|held| held.token), held.then_some(token));
    }
    // All of the holders are back, so nothing keeps the server from granting.
    holder.acquire(b"new", Mode::Exclusive, Some(SOON)).unwrap();
    let other = runs.connect();
    assert_eq!(other.acquire(b"x", Mode::Exclusive, NOW), Err(AcquireError::TimedOut));
}

#[test]
fn without_a_server_the_session_is_lost_when_its_time_is_over() {
    let mut runs = Runs::at_a_port();
    let holder = runs.connect();
    holder.acquire(b"a", Mode::Exclusive, NOW).unwrap();
    runs.end(Signal::KILL);
    until(&holder, in_doubt);
    assert!(matches!(holder.release(b"b"), Err(ReleaseError::Doubt(_))));
    let state = until(&holder, |state| !in_doubt(state));
    assert!(matches!(state, SessionState::Lost { .. }), "{state:?}");
    assert!(is_readable(holder.lost_fd().unwrap(), Duration::ZERO));
    assert!(matches!(holder.acquire(b"a", Mode::Exclusive, None), Err(AcquireError::Lost(_))));
    assert!(matches!(holder.release(b"a"), Err(ReleaseError::Lost(_))));
    runs.start_again();
    assert!(matches!(holder.state(), SessionState::Lost { .. }), "for good");
}

#[test]
fn a_session_that_holds_nothing_begins_anew() {
    let mut runs = Runs::at_a_path();
    let session = runs.connect();
    session.acquire(b"a", Mode::Exclusive, NOW).unwrap();
    session.release(b"a").unwrap();
    runs.end(Signal::KILL);
    let state = until(&session, in_doubt);
    assert!(matches!(state, SessionState::InDoubt { left: None, .. }), "{state:?}");
    runs.start_again();
    assert_eq!(session.wait_certain(None), SessionState::Alive);
    assert_eq!(session.resumes(), 0);
    session.acquire(b"a", Mode::Exclusive, Some(SOON)).unwrap();
}

/// A proxy that passes bytes on until it is told to reset its connections.
struct Proxy {
    url: String,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn to(server: &str) -> Self {
        let server = server.strip_prefix("message://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let streams = Arc::new(Mutex::new(Vec::new()));
        let opened = streams.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
                let pairs = [(&client, &server), (&server, &client)];
                for (from, to) in pairs.map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap())) {
                    thread::spawn(move || pass(from, to));
                }
                opened.lock().unwrap().extend([client, server]);
            }
        });
        Self { url, streams }
    }

    fn reset(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            // The end of a connection without its word: connect(2) to nowhere.
            let _ = rustix::net::connect_unspec(&stream);
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
}

#[test]
fn a_reset_on_the_way_costs_no_lock() {
    let runs = Runs::at_a_port();
    let proxy = Proxy::to(&runs.url);
    let session = Session::connect(&format!("{}?resume", proxy.url), None, SOON).unwrap();
    let other = runs.connect();
    let token = session.acquire(b"a", Mode::Exclusive, NOW).unwrap().token;
    assert_eq!(other.acquire(b"b", Mode::Exclusive, NOW).map(|grant| grant.orphaned), Ok(false));
    assert_eq!(session.enqueue(b"b", Mode::Exclusive), Ok(Attempt::Queued));
    for round in 1..=5 {
        proxy.reset();
        until(&session, |_| session.resumes() == round);
        assert_eq!(session.held(b"a").unwrap().unwrap().token, token);
        assert_eq!(other.acquire(b"a", Mode::Shared, NOW), Err(AcquireError::TimedOut));
        let deadline = Instant::now() + SOON;
        while other.inspect(b"b").unwrap().waiters != 1 {
            assert!(Instant::now() < deadline, "the place is taken again");
        }
        assert_eq!(session.wait(b"b", NOW), Err(AcquireError::TimedOut));
    }
    other.release(b"b").unwrap();
    assert!(session.wait(b"b", None).is_ok());
    session.release_all(&[b"a", b"b"]).unwrap();
    assert!(!other.acquire(b"a", Mode::Exclusive, NOW).unwrap().orphaned);
}

#[test]
fn while_it_is_in_doubt_the_session_stops_being_readable_and_is_again_when_that_ends() {
    let mut runs = Runs::at_a_path();
    let holder = runs.connect();
    let fd = || holder.lost_fd().unwrap();
    holder.acquire(b"a", Mode::Exclusive, NOW).unwrap();
    assert_eq!(holder.state(), SessionState::Alive);
    assert!(!is_readable(fd(), Duration::ZERO));
    runs.end(Signal::KILL);
    assert!(is_readable(fd(), SOON), "doubt begins");
    let mut seen = 0;
    while !in_doubt(&holder.state()) {
        seen += 1;
        assert!(seen < 100, "every time it is readable, there is something to do");
        assert!(is_readable(fd(), SOON));
    }
    // It is readable for each attempt, and not in between.
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        assert!(is_readable(fd(), SOON));
        assert!(in_doubt(&holder.state()));
        rounds += 1;
    }
    assert!(rounds < 200, "{rounds} rounds");
    runs.start_again();
    // Another thread drives it, and the poller is told.
    thread::scope(|scope| {
        scope.spawn(|| holder.wait_certain(None)).join().unwrap();
    });
    // Before a ping is due; the kernel takes its time with the timer.
    assert!(is_readable(fd(), Duration::from_secs(1)), "doubt has ended");
    assert_eq!(holder.state(), SessionState::Alive);
    assert!(!is_readable(fd(), Duration::ZERO));
}

/// What is said to be held by a session is held by no other, whatever becomes of its connections.
#[test]
fn sessions_whose_connections_are_reset_all_the_time_exclude_each_other() {
    const SESSIONS: usize = 6;
    const ROUNDS: usize = 60;
    let runs = Runs::at_a_port();
    let proxy = Proxy::to(&runs.url);
    let url = format!("{}?resume", proxy.url);
    let in_use = [AtomicBool::new(false), AtomicBool::new(false)];
    let [working, rounds, resumes] = [SESSIONS, 0, 0].map(AtomicUsize::new);
    thread::scope(|scope| {
        for number in 0..SESSIONS {
            let (url, in_use, working, rounds, resumes) = (&url, &in_use, &working, &rounds, &resumes);
            scope.spawn(move || {
                // Through a reset during the handshake, too.
                let session = loop {
                    match Session::connect(url, None, SOON) {
                        Ok(session) => break session,
                        Err(error) => assert!(error.kind().is_absence(), "{error}"),
                    }
                };
                // So that it is resumed whenever its connection ends, and what it was granted unread is
                // freed at once.
                session.acquire(format!("own/{number}").as_bytes(), Mode::Exclusive, None).unwrap();
                let names = [b"0", b"1"];
                for round in 0..ROUNDS {
                    let name = (number + round) % 2;
                    let token = session.acquire(names[name], Mode::Exclusive, None).unwrap().token;
                    assert!(!in_use[name].swap(true, SeqCst), "two holders of {name}");
                    if round % 3 == 0 {
                        assert_eq!(session.wait_certain(None), SessionState::Alive);
                        let held = session.held(names[name]);
                        assert!(matches!(&held, Ok(Some(held)) if held.token == token) || is_doubt(&held));
                    }
                    in_use[name].store(false, SeqCst);
                    rounds.fetch_add(1, SeqCst);
                    match session.release(names[name]) {
                        Ok(_) | Err(ReleaseError::Doubt(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                resumes.fetch_add(usize::try_from(session.resumes()).unwrap(), SeqCst);
                working.fetch_sub(1, SeqCst);
            });
        }
        // Every few rounds, so that whatever hangs is not freed by the next reset.
        let mut next = 10;
        let deadline = Instant::now() + 2 * SOON;
        while working.load(SeqCst) > 0 {
            assert!(Instant::now() < deadline, "it is stuck");
            if rounds.load(SeqCst) >= next {
                proxy.reset();
                next += 10;
            }
            thread::yield_now();
        }
    });
    assert!(resumes.load(SeqCst) > 0);
    let other = runs.connect();
    for name in [b"0", b"1"] {
        other.acquire(name, Mode::Exclusive, Some(SOON)).unwrap();
    }
}

fn is_doubt<T>(result: &Result<T, InspectError>) -> bool {
    matches!(result, Err(InspectError::Doubt(_)))
}
