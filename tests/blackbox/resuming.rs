//! Sessions that resume, as a client on the wire sees them: on another connection to the same
//! server, and to a later run of it.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::resumable::{Told, exclusive, reset, resumable, resumed};
use crate::support::server::{Launch, Server};

/// The shortest dead-peer timeout, and how long the locks of a client are kept that is answered
/// nothing more.
const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(12);
const KEPT_FOR: Duration = Duration::from_secs(9);

fn launch(state: &TempDir) -> Launch {
    Launch::everywhere().args([
        "--state-dir",
        state.path().to_str().unwrap(),
        "--dead-peer-timeout",
        "12",
        "--first-start",
        "--allow-kick",
    ])
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn kill(mut server: Server) {
    server.signal(Signal::KILL);
    server.wait();
}

fn stop(mut server: Server) {
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

fn holder(server: &Server, name: &str) -> Value {
    server.message().call("list", json!({"prefix": name}))["locks"][0]["holders"][0].clone()
}

#[test]
fn resuming_is_offered_only_with_a_state_directory_and_only_to_who_asks() {
    let state = directory();
    let server = launch(&state).start();
    let has_feature = |greeting: &Value| greeting["features"].as_array().unwrap().contains(&json!("resume"));
    let greeting = server.message().call("hello", json!({}));
    assert!(has_feature(&greeting) && greeting.get("resume").is_none(), "{greeting}");
    let without = Launch::everywhere().start();
    let greeting = without.message().call("hello", json!({"resumable": true}));
    assert!(!has_feature(&greeting) && greeting.get("resume").is_none(), "{greeting}");
    let (_, mut told) = resumable(&server);
    assert_eq!(without.message().call("resume", told.request(&json!([])))["status"], "ended");
}

#[test]
fn a_session_goes_on_after_its_connection_was_reset() {
    let state = directory();
    let server = launch(&state).start();
    let (mut client, mut told) = resumable(&server);
    let granted = client.lock("x");
    let mut waiter = server.message();
    let waiting = waiter.request_lock("x");
    server.await_waiters("x", 1);
    reset(client);
    eventually("the session is in doubt", || holder(&server, "x")["inDoubt"].is_number());
    let mut client = resumed(&server, &mut told, &exclusive("x", &granted));
    let now = holder(&server, "x");
    assert_eq!((&now["token"], &now["address"]), (&granted["token"], &json!(client.address())));
    assert!(now.get("inDoubt").is_none(), "{now}");
    waiter.hears_nothing();
    assert_eq!(client.call("unlock", json!({"lockName": "x"}))["status"], "ok");
    assert_eq!(waiter.result(waiting)["status"], "ok");
    let stats = client.call("stats", json!({}));
    assert_eq!((&stats["resumed"], &stats["resumesRefused"]), (&json!(1), &json!(0)));
}

/// Nothing has ended the first connection, as far as the server knows.
#[test]
fn a_session_leaves_a_connection_that_still_stands() {
    let state = directory();
    let server = launch(&state).start();
    let (mut first, mut told) = resumable(&server);
    let kept = first.lock("kept");
    first.lock("given up");
    first.lock("asked for");
    let mut blocker = server.message();
    blocker.lock("busy");
    first.request_lock("busy");
    server.await_waiters("busy", 1);
    let mut second = resumed(&server, &mut told, &exclusive("kept", &kept));
    // It has what it claims, and nothing else.
    let orphaned = server.message().try_lock("given up");
    assert_eq!((&orphaned["status"], &orphaned["orphaned"]), (&json!("ok"), &json!(true)));
    assert_eq!(server.message().call("inspect", json!({"lockName": "busy"}))["waiters"], 0);
    assert_eq!(server.message().try_lock("kept")["status"], "timeout");
    // What it sends on the first connection does nothing.
    let _ = first.socket().send(&crate::support::frame_client::frame(
        json!({"command": "unlock", "parameters": {"lockName": "kept"}, "id": 99}).to_string(),
    ));
    drop(first);
    assert!(second.is_served());
    assert_eq!(server.message().try_lock("kept")["status"], "timeout");
    assert_eq!(second.call("unlock", json!({"lockName": "kept"}))["status"], "ok");
}

#[test]
fn of_two_attempts_only_the_later_one_counts() {
    let state = directory();
    let server = launch(&state).start();
    let (client, mut told) = resumable(&server);
    reset(client);
    let early = told.request(&json!([]));
    let mut second = resumed(&server, &mut told, &json!([]));
    let mut first = server.message();
    first.request("resume", early);
    assert_eq!(first.read_to_end(), b"");
    assert!(second.is_served());
}

#[test]
fn a_session_that_claims_too_much_is_over_and_its_locks_are_free_when_it_leaves() {
    let state = directory();
    let server = launch(&state).start();
    let (mut client, mut told) = resumable(&server);
    let granted = client.lock("x");
    reset(client);
    let claims = json!([
        {"lockName": "x", "mode": "exclusive", "token": granted["token"]},
        {"lockName": "y", "mode": "exclusive", "token": granted["token"]},
    ]);
    let mut client = server.message();
    let ended = client.call("resume", told.request(&claims));
    assert_eq!(ended["status"], "ended", "{ended}");
    assert_eq!(server.message().try_lock("x")["status"], "timeout", "its client may not know yet");
    drop(client);
    eventually("the lock is free", || server.message().try_lock("x")["status"] == "ok");
}

#[test]
fn a_session_that_was_kicked_is_over() {
    let state = directory();
    let server = launch(&state).start();
    let (mut client, mut told) = resumable(&server);
    client.call("identify", json!({"name": "victim"}));
    let granted = client.lock("x");
    assert_eq!(server.message().call("kick", json!({"name": "victim"}))["status"], "ok");
    let mut again = server.message();
    let ended = again.call("resume", told.request(&exclusive("x", &granted)));
    assert_eq!(ended["status"], "ended", "{ended}");
    assert_eq!(server.message().try_lock("x")["status"], "timeout");
    drop(again);
    eventually("the lock is free", || server.message().try_lock("x")["status"] == "ok");
}

#[test]
fn a_conversion_in_flight_counts_as_the_weaker_mode() {
    let state = directory();
    let server = launch(&state).start();
    let (mut client, mut told) = resumable(&server);
    let shared = client.call("lock", json!({"lockName": "x", "mode": "shared"}));
    assert_eq!(client.call("convert", json!({"lockName": "x", "mode": "exclusive"}))["status"], "ok");
    reset(client);
    let claims = json!([{"lockName": "x", "mode": "shared", "token": shared["token"]}]);
    let mut client = resumed(&server, &mut told, &claims);
    let other = server.message().call("lock", json!({"lockName": "x", "mode": "shared", "timeLimit": 0}));
    assert_eq!(other["status"], "ok");
    assert_eq!(client.call("unlock", json!({"lockName": "x"}))["status"], "ok");
}

#[test]
fn the_locks_of_a_session_that_does_not_come_back_are_free_in_time_and_then_it_has_ended() {
    let state = directory();
    let server = launch(&state).start();
    let (mut client, mut told) = resumable(&server);
    let granted = client.lock("x");
    let begin = Instant::now();
    reset(client);
    let mut waiter = server.message();
    assert_eq!(waiter.lock("x")["status"], "ok");
    let waited = begin.elapsed();
    assert!(waited >= KEPT_FOR - Duration::from_secs(1), "granted after {waited:?}");
    assert_eq!(waiter.unlock("x")["result"], "ok");
    let ended = server.message().call("resume", told.request(&exclusive("x", &granted)));
    assert_eq!(ended["status"], "ended", "{ended}");
    // The next run knows that, too.
    kill(server);
    let server = launch(&state).start();
    let ended = server.message().call("resume", told.request(&exclusive("x", &granted)));
    assert_eq!(ended["status"], "ended", "{ended}");
}

#[test]
fn the_end_of_the_stream_and_a_goodbye_free_the_locks_at_once() {
    let state = directory();
    let server = launch(&state).start();
    let (mut client, mut told) = resumable(&server);
    let granted = client.lock("x");
    drop(client);
    eventually("the lock is free", || server.message().try_lock("x")["status"] == "ok");
    let ended = server.message().call("resume", told.request(&exclusive("x", &granted)));
    assert_eq!(ended["status"], "ended", "{ended}");
    let (mut client, _told) = resumable(&server);
    client.lock("y");
    assert_eq!(client.call("bye", json!({}))["status"], "ok");
    assert_eq!(server.message().try_lock("y")["status"], "ok");
}

#[test]
fn a_session_resumes_after_the_server_was_killed_and_nothing_is_granted_before_the_grace_is_over() {
    let state = directory();
    let server = launch(&state).start();
    let (mut client, mut told) = resumable(&server);
    let held = client.lock("held");
    let shared = client.call("lock", json!({"lockName": "shared", "mode": "shared"}));
    kill(server);
    let begin = Instant::now();
    let server = launch(&state).start();
    let mut waiter = server.message();
    let waiting = waiter.request_lock("held");
    let free = waiter.request_lock("free");
    server.await_waiters("held", 1);
    let claims = json!([
        {"lockName": "held", "mode": "exclusive", "token": held["token"]},
        {"lockName": "shared", "mode": "shared", "token": shared["token"]},
    ]);
    let epoch = told.epoch.clone();
    let mut client = resumed(&server, &mut told, &claims);
    assert!(told.epoch.as_u64() > epoch.as_u64());
    assert_eq!(holder(&server, "held")["token"], held["token"]);
    assert_eq!(waiter.result(free)["status"], "ok");
    assert!(begin.elapsed() >= DEAD_PEER_TIMEOUT, "granted after {:?}", begin.elapsed());
    waiter.hears_nothing();
    assert_eq!(client.call("unlock", json!({"lockName": "held"}))["status"], "ok");
    let next = waiter.result(waiting);
    assert!(next["token"].as_u64() > held["token"].as_u64(), "{next}");
    // From the run before the last it could not resume.
    kill(server);
    let server = launch(&state).start();
    let mut old = Told { epoch, ..told };
    assert_eq!(server.message().call("resume", old.request(&json!([])))["status"], "ended");
}

#[test]
fn after_a_clean_stop_locks_are_granted_as_soon_as_the_holders_are_back() {
    let state = directory();
    let server = launch(&state).start();
    let (mut one, mut told_one) = resumable(&server);
    let (mut two, mut told_two) = resumable(&server);
    let (_idle, _) = resumable(&server);
    let (first, second) = (one.lock("one"), two.lock("two"));
    stop(server);
    let begin = Instant::now();
    let server = launch(&state).start();
    let mut other = server.message();
    assert_eq!(other.try_lock("free")["cause"], "grace");
    let _one = resumed(&server, &mut told_one, &exclusive("one", &first));
    assert_eq!(other.try_lock("free")["cause"], "grace");
    let _two = resumed(&server, &mut told_two, &exclusive("two", &second));
    eventually("locks are granted", || other.try_lock("free")["status"] == "ok");
    assert!(begin.elapsed() < DEAD_PEER_TIMEOUT, "only after {:?}", begin.elapsed());
    assert_eq!(other.try_lock("one")["status"], "timeout");
}

#[test]
fn a_new_state_directory_has_a_grace_and_lets_nobody_resume() {
    let (state, other) = (directory(), directory());
    let server = launch(&state).start();
    let (mut client, mut told) = resumable(&server);
    let granted = client.lock("x");
    kill(server);
    let server = start_without_first_start(other.path());
    let ended = server.message().call("resume", told.request(&exclusive("x", &granted)));
    assert_eq!(ended["status"], "ended", "{ended}");
    assert_eq!(server.message().try_lock("x")["cause"], "grace");
    assert!(server.log().iter().any(|line| line.contains("is new") && line.contains("--first-start")));
}

fn start_without_first_start(state: &Path) -> Server {
    Launch::everywhere().args(["--state-dir", state.to_str().unwrap(), "--dead-peer-timeout", "12"]).start()
}

#[test]
fn a_wrong_secret_or_a_malformed_request_changes_nothing() {
    let state = directory();
    let server = launch(&state).start();
    let (mut client, mut told) = resumable(&server);
    let granted = client.lock("x");
    let claims = exclusive("x", &granted);
    for (key, value) in
        [("secret", json!("0".repeat(32))), ("epoch", json!(2)), ("deadPeerTimeout", json!(25))]
    {
        let mut request = told.request(&claims);
        request[key] = value;
        assert_eq!(server.message().call("resume", request)["status"], "ended", "{key}");
    }
    for (key, value) in [("locks", json!(null)), ("attempt", json!("1")), ("session", json!("x"))] {
        let mut request = told.request(&claims);
        request[key] = value;
        assert_eq!(server.message().call("resume", request)["status"], "invalid", "{key}");
    }
    let mut used = server.message();
    used.lock("y");
    assert_eq!(used.call("resume", told.request(&claims))["status"], "invalid");
    assert!(client.is_served());
    assert_eq!(server.message().try_lock("x")["status"], "timeout");
}

/// It may believe in its locks until it has heard that it cannot resume.
#[test]
fn a_holder_that_is_refused_after_a_clean_stop_is_waited_for() {
    let state = directory();
    let server = launch(&state).start();
    let (mut one, mut told_one) = resumable(&server);
    let (mut two, mut told_two) = resumable(&server);
    let (first, second) = (one.lock("one"), two.lock("two"));
    stop(server);
    let begin = Instant::now();
    let server = launch(&state).start();
    let _one = resumed(&server, &mut told_one, &exclusive("one", &first));
    let claims = json!([
        {"lockName": "two", "mode": "exclusive", "token": second["token"]},
        {"lockName": "one", "mode": "exclusive", "token": 1},
    ]);
    let refused = server.message().call("resume", told_two.request(&claims));
    assert_eq!(refused["status"], "ended", "{refused}");
    let mut waiter = server.message();
    assert_eq!(waiter.lock("two")["status"], "ok");
    assert!(begin.elapsed() >= DEAD_PEER_TIMEOUT, "granted after {:?}", begin.elapsed());
}

/// That cannot happen, unless the state directory was restored from a backup, or a client lies.
#[test]
fn of_two_sessions_that_claim_one_lock_none_goes_on_and_nobody_gets_it_before_both_know() {
    let state = directory();
    let server = launch(&state).start();
    let (mut one, mut told_one) = resumable(&server);
    let (_two, mut told_two) = resumable(&server);
    let granted = one.lock("x")["token"].as_u64().unwrap();
    kill(server);
    let server = launch(&state).start();
    let claims = |token| json!([{"lockName": "x", "mode": "exclusive", "token": token}]);
    let mut first = resumed(&server, &mut told_two, &claims(granted + 1));
    let ended = server.message().call("resume", told_one.request(&claims(granted)));
    assert_eq!(ended["status"], "ended", "{ended}");
    assert_eq!(first.read_to_end(), b"", "it must find out");
    let mut first = server.message();
    let ended = first.call("resume", told_two.request(&claims(granted + 1)));
    assert_eq!(ended["status"], "ended", "{ended}");
    assert_eq!(server.message().try_lock("x")["cause"], "grace");
    drop(first);
    assert!(server.log().iter().any(|line| line.contains("ERROR") && line.contains("sessions are ended")));
    assert_eq!(server.message().lock("x")["status"], "ok");
}

#[test]
fn a_full_server_has_room_for_sessions_that_come_back() {
    let state = directory();
    let server = launch(&state).args(["--connections-max", "4"]).start();
    let mut all: Vec<_> = (0..4).map(|_| resumable(&server)).collect();
    let granted: Vec<Value> = (0..4).map(|index| all[index].0.lock(&format!("lock {index}"))).collect();
    assert!(String::from_utf8_lossy(&server.message().read_to_end()).contains("too many connections"));
    let told: Vec<_> = all
        .into_iter()
        .map(|(client, told)| {
            reset(client);
            told
        })
        .collect();
    let mut back = Vec::new();
    for (index, mut told) in told.into_iter().enumerate() {
        let claims = exclusive(&format!("lock {index}"), &granted[index]);
        // The server may not have seen all of the resets yet.
        eventually("there is room", || {
            let mut client = server.message();
            client.request("resume", told.request(&claims));
            let answer = client.receive();
            let is_back = answer["result"]["status"] == "ok";
            if is_back {
                back.push(client);
            }
            is_back
        });
    }
    assert_eq!(back.len(), 4);
}

#[test]
fn a_session_that_holds_nothing_is_not_kept_and_may_come_back_all_the_same() {
    let state = directory();
    let server = launch(&state).start();
    let (mut client, mut told) = resumable(&server);
    client.lock("x");
    assert_eq!(client.call("unlock", json!({"lockName": "x"}))["status"], "ok");
    reset(client);
    let mut other = server.message();
    eventually("it has gone", || other.call("stats", json!({}))["connections"] == 1);
    assert_eq!(other.call("stats", json!({}))["inDoubt"], 0);
    let mut client = resumed(&server, &mut told, &json!([]));
    assert_eq!(client.lock("x")["status"], "ok");
}

/// A tunnel may end there.
#[test]
fn over_a_unix_socket_a_reset_is_not_the_clients_word_either() {
    let state = directory();
    let server = launch(&state).start();
    let mut client = FrameClient::new(server.unix("message"));
    client.call("hello", json!({"resumable": true}));
    client.lock("x");
    // Its reply is left unread.
    client.request("ping", json!({}));
    eventually("the reply has come", || {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        client.socket().peek(&mut byte).is_ok_and(|read| read == 1)
    });
    drop(client);
    eventually("it is in doubt", || holder(&server, "x")["inDoubt"].is_number());
    assert_eq!(server.message().try_lock("x")["status"], "timeout");
}

#[test]
fn an_orderly_end_is_logged_neither_in_this_run_nor_in_a_later_one() {
    let state = directory();
    let server = launch(&state).start();
    let (mut client, mut told) = resumable(&server);
    let granted = client.lock("x");
    kill(server);
    let server = launch(&state).start();
    let mut client = resumed(&server, &mut told, &exclusive("x", &granted));
    assert_eq!(client.call("bye", json!({}))["status"], "ok");
    let mut other = server.message();
    eventually("it has gone", || other.call("stats", json!({}))["connections"] == 1);
    assert!(!server.log().iter().any(|line| line.contains("now free")), "{:?}", server.log());
}
