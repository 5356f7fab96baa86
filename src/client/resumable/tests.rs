//! Sessions that resume, with a server that resets, cuts, answers late, says that the session has
//! ended, or hangs.

use std::thread;

use serde_json::{Value, json};

use super::*;
use crate::broker::{AcquireError, Attempt, Grant, LockName, Mode, ReleaseError, Released};
use crate::client::fake_server::{Asked, Listening, Peer, SOON, serve_all, signal};
use crate::client::session::InspectError;
use crate::os::socket::{PollFd, wait_for};

mod places;

const NOW: Option<Duration> = Some(Duration::ZERO);
const OK: &str = r#"{"status":"ok"}"#;
const ID: &str = "000102030405060708090a0b0c0d0e0f";

fn connect(url: &str) -> Arc<ReconnectingSession> {
    let options =
        ConnectOptions { owner: Some("test"), timeout: SOON, resume: true, ..ConnectOptions::default() };
    let connected = ReconnectingSession::connect(&url.parse().unwrap(), &options, &mut WaitHook::none());
    Arc::new(connected.unwrap().unwrap_or_else(|_| panic!("the server does not offer it")))
}

/// The answer to `hello` and `resume`, with the shortest dead-peer timeout: D is 8.5 s.
fn welcome(epoch: u64) -> String {
    let keepalive = r#"{"idle":10,"interval":5,"probes":3,"userTimeout":25,"deadPeerTimeout":12}"#;
    let resume = format!(r#"{{"session":"{ID}","epoch":{epoch},"secret":"{ID}"}}"#);
    let rest = format!(r#""features":[],"keepalive":{keepalive},"resume":{resume}"#);
    format!(r#"{{"status":"ok","server":"lockd","version":"0",{rest}}}"#)
}

/// Accepts a connection and its `hello`.
fn begin(server: &Listening) -> Peer {
    let mut peer = server.accept();
    let hello = peer.expect("hello");
    assert_eq!(hello.parameters["resumable"], true);
    peer.reply(hello.id, &welcome(1));
    peer.expect("identify");
    peer
}

/// Accepts a connection and reads its `resume`.
fn resuming(server: &Listening) -> (Peer, Asked) {
    let mut peer = server.accept();
    let resume = peer.expect("resume");
    assert_eq!((&resume.parameters["session"], &resume.parameters["secret"]), (&json!(ID), &json!(ID)));
    assert_eq!(resume.parameters["deadPeerTimeout"], 12);
    (peer, resume)
}

/// Accepts a connection, and the session with it.
fn resume(server: &Listening, epoch: u64) -> (Peer, Value) {
    let (mut peer, resume) = resuming(server);
    peer.reply(resume.id, &welcome(epoch));
    (peer, resume.parameters)
}

fn grant(peer: &mut Peer, token: u64) {
    let lock = peer.expect("lock");
    peer.reply(lock.id, &format!(r#"{{"status":"ok","token":{token}}}"#));
}

fn until(session: &ReconnectingSession, wanted: impl Fn(&SessionState) -> bool) -> SessionState {
    let deadline = Instant::now() + SOON;
    loop {
        let state = session.state();
        if wanted(&state) {
            return state;
        }
        assert!(Instant::now() < deadline, "never as expected: {state:?}");
        let _ = wait_for(&mut [PollFd::new(session, PollFlags::IN)], Some(Duration::from_secs(1)));
    }
}

fn in_doubt(state: &SessionState) -> bool {
    matches!(state, SessionState::InDoubt { left: Some(_), .. })
}

fn is_alive(state: &SessionState) -> bool {
    *state == SessionState::Alive
}

fn is_lost(state: &SessionState) -> bool {
    matches!(state, SessionState::Lost { .. })
}

fn is_readable(session: &ReconnectingSession) -> bool {
    let mut fds = [PollFd::new(session, PollFlags::IN)];
    wait_for(&mut fds, Some(Duration::ZERO)).unwrap();
    !fds[0].revents().is_empty()
}

#[test]
fn it_resumes_with_its_claims_and_tells_its_name_again() {
    let (has_read, read) = signal();
    let (url, server) = serve_all(move |server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        grant(&mut peer, 8);
        read();
        peer.reset();
        let (mut peer, parameters) = resume(&server, 2);
        let claims = json!([{"lockName": "a", "mode": "exclusive", "token": 7},
            {"lockNameHex": "ff", "mode": "shared", "token": 8}]);
        let mut told = parameters["locks"].clone();
        told.as_array_mut().unwrap().sort_by_key(|claim| claim["token"].as_u64());
        assert_eq!((told, &parameters["attempt"], &parameters["epoch"]), (claims, &json!(1), &json!(1)));
        assert_eq!(peer.expect("identify").parameters["name"], "test");
        // The next one shows the new epoch.
        peer.reset();
        let (mut peer, parameters) = resume(&server, 2);
        assert_eq!((&parameters["attempt"], &parameters["epoch"]), (&json!(2), &json!(2)));
        peer.expect("identify");
        assert!(!peer.ends_by_reset());
    });
    let session = connect(&url);
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    session.acquire(b"\xff", Mode::Shared, None).unwrap();
    has_read();
    until(&session, |_| session.resumes() == 2);
    session.close();
    server.join().unwrap();
}

#[test]
fn it_tries_again_with_rising_numbers_and_each_attempt_that_is_given_up_is_reset() {
    let (has_read, read) = signal();
    let (url, server) = serve_all(move |server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        read();
        peer.end_output();
        let refusals = [
            Some(r#"{"id":1,"result":{"status":"refused","reason":"not now","cause":"stopping"}}"#),
            Some(r#"{"error":"too many connections"}"#),
            Some(r#"{"id":1,"result":{"status":"refused","reason":"grants nothing"}}"#),
            None,
        ];
        for (attempt, refusal) in (1..).zip(refusals) {
            let (mut peer, resume) = resuming(&server);
            assert_eq!(resume.parameters["attempt"], attempt);
            match refusal {
                Some(text) => {
                    peer.say(text);
                    assert!(peer.ends_by_reset(), "{text}");
                }
                // No answer at all, for two seconds.
                None => assert!(peer.ends_by_reset()),
            }
        }
        assert!(!peer.sees_the_end(), "the first connection stays open");
        let (mut next, parameters) = resume(&server, 1);
        assert_eq!(parameters["attempt"], 5);
        assert!(peer.ends_by_reset(), "until the session is resumed");
        next.outlast();
    });
    let session = connect(&url);
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    has_read();
    until(&session, in_doubt);
    until(&session, is_alive);
    assert_eq!(session.held(b"a").unwrap().unwrap().token, 7);
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_session_that_has_ended_ends_its_connections_only_when_it_is_closed() {
    for (answer, reason) in [
        (r#"{"status":"ended","reason":"it was kicked"}"#, "it was kicked"),
        (r#"{"status":"unknown","command":"resume"}"#, "gone"),
        (r#"{"status":"invalid","reason":"locks is missing"}"#, "locks is missing"),
        (r#"{"status":"ok"}"#, "makes no sense"),
    ] {
        let (is_told, told) = signal();
        let (has_looked, looked) = signal();
        let (has_read, read) = signal();
        let (url, server) = serve_all(move |server| {
            let mut peer = begin(&server);
            grant(&mut peer, 7);
            read();
            peer.end_output();
            let (mut next, resume) = resuming(&server);
            next.reply(resume.id, answer);
            told();
            assert!(!peer.sees_the_end() && !next.sees_the_end());
            has_looked();
            assert!(!peer.ends_by_reset() && !next.ends_by_reset(), "their streams end");
        });
        let session = connect(&url);
        session.acquire(b"a", Mode::Exclusive, None).unwrap();
        has_read();
        let SessionState::Lost { reason: why } = until(&session, is_lost) else { panic!() };
        assert!(why.contains(reason), "{why}");
        assert!(is_readable(&session));
        assert!(matches!(session.acquire(b"a", Mode::Shared, None), Err(AcquireError::Lost(_))));
        assert!(matches!(session.release(b"a"), Err(ReleaseError::Lost(_))));
        is_told();
        looked();
        session.close();
        server.join().unwrap();
    }
}

#[test]
fn a_release_that_was_under_way_succeeds_with_the_resume_and_is_not_claimed() {
    let (url, server) = serve_all(|server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        peer.expect("unlock");
        peer.reset();
        let (mut peer, parameters) = resume(&server, 2);
        assert_eq!(parameters["locks"], json!([]));
        peer.outlast();
    });
    let session = connect(&url);
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    assert_eq!(session.release(b"a"), Ok(Released::Hold));
    assert_eq!((session.resumes(), session.held(b"a")), (1, Ok(None)));
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_release_after_the_claims_were_sent_is_unlocked_first_of_all() {
    let (has_released, released) = signal();
    let (has_read, read) = signal();
    let (url, server) = serve_all(move |server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        read();
        peer.reset();
        let (mut peer, resume) = resuming(&server);
        assert_eq!(resume.parameters["locks"].as_array().unwrap().len(), 1);
        released();
        peer.reply(resume.id, &welcome(2));
        assert_eq!(peer.expect("unlock").parameters, json!({"lockName": "a"}));
        peer.expect("identify");
        peer.outlast();
    });
    let session = connect(&url);
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    has_read();
    // Until the attempt is under way.
    until(&session, |_| {
        let shared = session.shared.lock();
        shared.attempt.as_ref().is_some_and(|attempt| attempt.waits_for() == PollFlags::IN)
    });
    assert!(matches!(session.release(b"a"), Err(ReleaseError::Doubt(_))));
    has_released();
    until(&session, is_alive);
    assert_eq!(session.held(b"a"), Ok(None));
    drop(session);
    server.join().unwrap();
}

#[test]
fn of_a_conversion_under_way_the_mode_for_more_holders_is_claimed() {
    let (url, server) = serve_all(|server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        grant(&mut peer, 8);
        peer.expect("convert");
        peer.expect("convert");
        peer.reset();
        let (mut peer, parameters) = resume(&server, 2);
        let locks = parameters["locks"].as_array().unwrap();
        assert!(locks.iter().all(|claim| claim["mode"] == "shared"), "{locks:?}");
        peer.expect("identify");
        for _ in 0..2 {
            // Each is asked for again.
            let convert = peer.expect("convert");
            let token = if convert.parameters["mode"] == "shared" { 7 } else { 9 };
            peer.reply(convert.id, &format!(r#"{{"status":"ok","token":{token}}}"#));
        }
        peer.outlast();
    });
    let session = connect(&url);
    session.acquire(b"widened", Mode::Exclusive, None).unwrap();
    session.acquire(b"narrowed", Mode::Shared, None).unwrap();
    thread::scope(|scope| {
        let widened = scope.spawn(|| session.convert(b"widened", Mode::Shared, None));
        let narrowed = scope.spawn(|| session.convert(b"narrowed", Mode::Exclusive, None));
        assert_eq!(widened.join().unwrap().unwrap().token, 7);
        assert_eq!(narrowed.join().unwrap().unwrap().token, 9);
    });
    assert_eq!(session.held(b"narrowed").unwrap().unwrap().mode, Mode::Exclusive);
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_waiting_call_asks_again_and_what_was_granted_unread_is_not_held() {
    let (url, server) = serve_all(|server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        // A server that stops refuses the waits, and ends the connection.
        let lock = peer.expect("lock");
        peer.reply(lock.id, r#"{"status":"refused","reason":"stopping","cause":"stopping"}"#);
        let (mut peer, parameters) = resume(&server, 2);
        assert_eq!(parameters["locks"].as_array().unwrap().len(), 1);
        peer.expect("identify");
        peer.expect("lock");
        peer.reset();
        let (mut peer, _) = resume(&server, 2);
        peer.expect("identify");
        grant(&mut peer, 9);
        peer.outlast();
    });
    let session = connect(&url);
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    let token = session.acquire(b"b", Mode::Exclusive, None).map(|Grant { token, .. }| token);
    assert_eq!((token, session.resumes()), (Ok(9), 2));
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_place_in_a_queue_is_taken_again() {
    let (has_waited, waited) = signal();
    let (has_read, read) = signal();
    let (url, server) = serve_all(move |server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        let enqueued = |peer: &mut Peer| {
            peer.expect("lock");
            let ping = peer.expect("ping");
            peer.reply(ping.id, OK);
        };
        enqueued(&mut peer);
        enqueued(&mut peer);
        read();
        peer.reset();
        waited();
        let (mut peer, _) = resume(&server, 2);
        peer.expect("identify");
        let lock = peer.expect("lock");
        assert_eq!(lock.parameters, json!({"lockName": "b", "mode": "shared"}));
        peer.reply(lock.id, r#"{"status":"ok","token":9}"#);
        peer.outlast();
    });
    let session = connect(&url);
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    for name in [b"b", b"c"] {
        assert_eq!(session.enqueue(name, Mode::Shared), Ok(Attempt::Queued));
    }
    has_read();
    until(&session, in_doubt);
    assert!(matches!(session.wait(b"b", NOW), Err(AcquireError::Doubt(_))), "the place is kept");
    assert_eq!(session.wait(b"x", NOW), Err(AcquireError::NotHeld));
    assert!(matches!(session.release(b"c"), Err(ReleaseError::Doubt(_))), "the place is given up");
    has_waited();
    assert_eq!(session.wait(b"b", None).map(|grant| grant.token), Ok(9));
    assert_eq!(session.wait(b"c", NOW), Err(AcquireError::NotHeld));
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_place_is_taken_again_if_the_connection_ended_right_after_the_grant() {
    let (url, server) = serve_all(|server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        let lock = peer.expect("lock");
        let ping = peer.expect("ping");
        peer.reply(ping.id, OK);
        // The last answer is old: this one is of the call that waits.
        peer.expect("ping");
        peer.reply_and_hang_up(lock.id, r#"{"status":"ok","token":8}"#);
        let (mut peer, parameters) = resume(&server, 2);
        assert_eq!(parameters["locks"].as_array().unwrap().len(), 1);
        peer.expect("identify");
        grant(&mut peer, 9);
        peer.outlast();
    });
    let session = connect(&url);
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    assert_eq!(session.enqueue(b"b", Mode::Exclusive), Ok(Attempt::Queued));
    assert_eq!(session.wait(b"b", None).map(|grant| grant.token), Ok(9));
    drop(session);
    server.join().unwrap();
}

#[test]
fn cancelling_and_closing_end_the_waits_in_doubt() {
    let (has_read, read) = signal();
    let (url, server) = serve_all(move |server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        read();
        peer.end_output();
        // It accepts connections, and never answers.
        let mut attempts = vec![peer];
        let begun = Instant::now();
        while begun.elapsed() < SOON && attempts.iter().any(|peer| !peer.sees_the_end()) {
            attempts.extend(server.accept_now());
        }
    });
    let session = connect(&url);
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    has_read();
    until(&session, in_doubt);
    assert!(matches!(session.acquire(b"b", Mode::Shared, NOW), Err(AcquireError::Doubt(_))));
    assert!(matches!(session.held(b"a"), Err(InspectError::Doubt(_))));
    let waiting = |session: &ReconnectingSession| !session.shared.lock().waiters.is_empty();
    thread::scope(|scope| {
        let call = scope.spawn(|| session.acquire(b"b", Mode::Shared, None));
        while !waiting(&session) {
            thread::yield_now();
        }
        session.cancel();
        assert_eq!(call.join().unwrap(), Err(AcquireError::Cancelled));
        let call = scope.spawn(|| session.acquire(b"b", Mode::Shared, None));
        while !waiting(&session) {
            thread::yield_now();
        }
        session.close();
        assert_eq!(call.join().unwrap(), Err(AcquireError::Lost("it was closed".to_owned())));
    });
    server.join().unwrap();
}

#[test]
fn the_server_is_asked_when_its_last_answer_is_old_and_something_is_held() {
    let (has_seen, seen) = signal();
    let (url, server) = serve_all(move |server| {
        let mut peer = begin(&server);
        // Nothing is held yet, so the next request is this one.
        grant(&mut peer, 7);
        let ping = peer.expect("ping");
        peer.reply(ping.id, OK);
        peer.expect("ping");
        // Without an answer there is no other ping.
        let unlock = peer.expect("unlock");
        peer.reply(unlock.id, OK);
        has_seen();
        peer.outlast();
    });
    let session = connect(&url);
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    let proof = session.shared.lock().current.proof();
    until(&session, |_| session.shared.lock().current.proof() > proof);
    // The second ping is under way once no other one is planned.
    until(&session, |_| session.shared.lock().current.proof_step_at().is_none());
    assert!(!is_readable(&session));
    session.release(b"a").unwrap();
    seen();
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_session_whose_last_answer_is_too_old_is_lost_at_once() {
    let (has_waited, waited) = signal();
    let (url, server) = serve_all(move |server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        // Its kernel acknowledges, but it does not answer.
        peer.expect("ping");
        waited();
        peer.reset();
    });
    let session = connect(&url);
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    let proof = session.shared.lock().current.proof().unwrap();
    let limit = proof + Duration::from_millis(8500);
    until(&session, |state| {
        assert!(is_alive(state), "on a connection that stands nothing is in doubt");
        BootTime::now() > limit
    });
    has_waited();
    let state = until(&session, |state| !is_alive(state));
    assert!(is_lost(&state), "{state:?}");
    server.join().unwrap();
}

#[test]
fn a_session_that_holds_nothing_begins_anew_and_its_calls_go_on_waiting() {
    let (has_read, read) = signal();
    let (url, server) = serve_all(move |server| {
        let mut peer = begin(&server);
        peer.expect("lock");
        peer.end_output();
        assert!(!peer.ends_by_reset(), "its stream ends");
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        read();
        peer.reset();
        // The session is another one, and its attempts are numbered anew.
        let (mut peer, parameters) = resume(&server, 2);
        assert_eq!(parameters["attempt"], 1);
        peer.outlast();
    });
    let session = connect(&url);
    assert_eq!(session.acquire(b"a", Mode::Exclusive, None).map(|grant| grant.token), Ok(7));
    assert_eq!(session.resumes(), 0);
    has_read();
    until(&session, |_| session.resumes() == 1);
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_session_that_holds_nothing_is_lost_only_if_it_is_refused_for_good() {
    for (answer, part) in [
        (r#"{"status":"refused","reason":"wrong authToken"}"#, "authToken"),
        (r#"{"status":"unknown","command":"hello"}"#, "no lockd"),
    ] {
        let (url, server) = serve_all(move |server| {
            begin(&server).reset();
            let mut stopping = server.accept();
            let hello = stopping.expect("hello");
            stopping.reply(hello.id, r#"{"status":"refused","reason":"stopping","cause":"stopping"}"#);
            let mut peer = server.accept();
            let hello = peer.expect("hello");
            peer.reply(hello.id, answer);
            peer.outlast();
        });
        let session = connect(&url);
        let SessionState::Lost { reason } = until(&session, is_lost) else { panic!() };
        assert!(reason.contains(part), "{reason}");
        drop(session);
        server.join().unwrap();
    }
}

#[test]
fn a_server_that_offers_no_resume_makes_an_ordinary_session() {
    let (url, server) = serve_all(|server| {
        let mut peer = server.accept();
        let hello = peer.expect("hello");
        peer.accept_hello(&hello);
        peer.outlast();
    });
    let options = ConnectOptions { timeout: SOON, resume: true, ..ConnectOptions::default() };
    let connected = ReconnectingSession::connect(&url.parse().unwrap(), &options, &mut WaitHook::none());
    let session = connected.unwrap().err().expect("an ordinary session");
    assert!(session.is_alive());
    drop(session);
    server.join().unwrap();
}

#[test]
fn what_is_too_long_to_be_claimed_is_lost() {
    let name = |number: u32| [b'x'; 1000].into_iter().chain(number.to_be_bytes()).collect::<Vec<u8>>();
    let (has_read, read) = signal();
    let (url, server) = serve_all(move |server| {
        let mut peer = begin(&server);
        for _ in 0..12 {
            grant(&mut peer, 7);
        }
        read();
        peer.reset();
    });
    let session = connect(&url);
    for set in 0..12 {
        let wants: Vec<_> =
            (0..100).map(|number| (LockName::new(&name(set * 100 + number)), Mode::Exclusive)).collect();
        session.acquire_all(&wants, None).unwrap();
    }
    has_read();
    let SessionState::Lost { reason } = until(&session, is_lost) else { panic!() };
    assert!(reason.contains("too many locks"), "{reason}");
    server.join().unwrap();
}

/// Its attempt has had its time whenever it looks; but the answer is there.
#[test]
fn a_caller_that_looks_seldom_resumes_all_the_same() {
    let (has_read, read) = signal();
    let (has_seen, seen) = signal();
    let (url, server) = serve_all(move |server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        read();
        peer.reset();
        let (mut peer, _) = resume(&server, 2);
        peer.expect("identify");
        seen();
    });
    let session = connect(&url);
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    has_read();
    assert!(in_doubt(&until(&session, |state| !is_alive(state))));
    // Connecting may take a look of its own.
    let is_back = (0..3).any(|_| {
        thread::sleep(Duration::from_millis(2100));
        is_alive(&session.state())
    });
    assert!(is_back, "{:?}", session.state());
    assert_eq!(session.resumes(), 1);
    has_seen();
    server.join().unwrap();
}
