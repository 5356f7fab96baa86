//! One server after another with the same state directory: what the next one grants, and when.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::eventually;
use crate::support::frame_client::{FrameClient, frame};
use crate::support::server::{Launch, Server};

/// The shortest allowed dead-peer timeout.
const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(12);

fn launch(state: &Path) -> Launch {
    let seconds = DEAD_PEER_TIMEOUT.as_secs().to_string();
    Launch::everywhere()
        .option("--state-dir", state.to_str().unwrap())
        .option("--dead-peer-timeout", &seconds)
        .args(["--first-start"])
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn token(granted: &Value) -> u64 {
    assert_eq!(granted["status"], "ok", "{granted}");
    granted["token"].as_u64().unwrap()
}

fn kill(mut server: Server) {
    server.signal(Signal::KILL);
    server.wait();
}

fn stop(mut server: Server) {
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn after_a_server_was_killed_nothing_is_granted_for_one_dead_peer_timeout() {
    let state = directory();
    let server = launch(state.path()).start();
    let first = token(&server.message().try_lock("x"));
    kill(server);
    let started = Instant::now();
    let server = launch(state.path()).start();
    let (mut one, mut two) = (server.message(), server.message());
    // A request that does not wait is told why; the text protocols can only say no.
    let refused = one.try_lock("x");
    assert_eq!((&refused["status"], &refused["cause"]), (&json!("refused"), &json!("grace")));
    assert!(refused["reason"].as_str().unwrap().contains("has been started anew"), "{refused}");
    assert!(one.call("stats", json!({}))["grace"].as_u64().is_some_and(|rest| rest > 0));
    assert_eq!(server.glockd().ask("g y"), "0 Lock Get Failure: y\r\n");
    assert_eq!(server.glockd().ask("sg y"), "0 Shared Lock Get Failure: y\r\n");
    assert_eq!(server.lockd().ask("g y"), "0 Cannot Get Lock\r\n");
    assert_eq!(server.glockd().ask("gw 0.01 y"), "0 Lock Get Failure: y\r\n");
    // A waiter keeps its place, in the order of arrival, also for several names at once.
    let set = two.request("lock", json!({"lockNames": ["x", "z"]}));
    server.await_waiters("x", 1);
    let single = one.request("lock", json!({"lockName": "x"}));
    server.await_waiters("x", 2);
    let mut text = server.glockd();
    text.send("gw - y\n");
    server.await_waiters("y", 1);
    let granted = two.result(set);
    assert!(started.elapsed() >= DEAD_PEER_TIMEOUT, "granted after {:?}", started.elapsed());
    assert!(token(&granted) > first);
    assert_eq!(text.line(), "1 Lock Get Success: y\r\n");
    assert_eq!(two.call("unlock", json!({"lockNames": ["x", "z"]}))["status"], "ok");
    token(&one.result(single));
    assert_eq!(one.call("stats", json!({}))["grace"], 0);
    assert!(server.log().iter().any(|line| line.contains("nothing is granted for 12 s")));
    token(&two.try_lock("free"));
}

#[test]
fn after_a_clean_stop_the_next_server_grants_at_once_and_higher_tokens() {
    let state = directory();
    let mut last = [0; 3];
    for _ in 0..3 {
        let server = launch(state.path()).start();
        // Holders on both kinds of socket, which learn of the end.
        let mut holders: Vec<FrameClient> =
            vec![server.message(), FrameClient::new(server.unix("message")), server.message()];
        for ((name, holder), last) in ["a", "b", "c"].iter().zip(&mut holders).zip(&mut last) {
            let token = token(&holder.try_lock(name));
            assert!(token > *last);
            *last = token;
        }
        stop(server);
    }
}

#[test]
fn a_server_that_stops_in_its_grace_leaves_the_whole_grace_to_the_next_server() {
    let state = directory();
    kill(launch(state.path()).start());
    stop(launch(state.path()).start());
    let server = launch(state.path()).start();
    assert_eq!(server.message().try_lock("x")["status"], "refused");
}

#[test]
fn a_holder_that_cannot_be_told_of_the_end_leaves_a_grace_to_the_next_server() {
    let state = directory();
    let server = launch(state.path()).start();
    let mut holder = server.message();
    assert_eq!(holder.call("hello", json!({"client": "slow"}))["status"], "ok");
    token(&holder.try_lock("x"));
    // Unread replies come before the end of the stream, so the end never reaches this client.
    let much = "m".repeat(200_000);
    let mut asked = 0;
    eventually("the connection is full", || {
        holder.socket().set_nonblocking(true).unwrap();
        let ping = frame(json!({"command": "ping", "parameters": {"much": much}, "id": 0}).to_string());
        let sent = holder.socket().send(&ping[asked % ping.len()..]);
        asked += sent.as_ref().unwrap_or(&0);
        sent.is_err()
    });
    stop(server);
    let server = launch(state.path()).start();
    assert_eq!(server.message().try_lock("x")["status"], "refused");
    drop(holder);
}

/// Clients that are busy when the server stops learn of it like others: what they send meanwhile
/// must not make the server's kernel reset them.
#[test]
fn busy_clients_are_told_of_the_end() {
    for _ in 0..5 {
        let state = directory();
        let server = launch(state.path()).start();
        let busy: Vec<_> = (0..8)
            .map(|n| {
                let mut client = server.message();
                assert_eq!(client.call("hello", json!({"client": "busy"}))["status"], "ok");
                token(&client.try_lock(&format!("x{n}")));
                std::thread::spawn(move || {
                    let socket = client.into_socket();
                    let ping = frame(json!({"command": "ping", "parameters": {}, "id": 0}).to_string());
                    let mut replies = [std::mem::MaybeUninit::new(0); 4096];
                    while (&socket).write_all(&ping).is_ok() && socket.recv(&mut replies).is_ok_and(|n| n > 0)
                    {
                    }
                })
            })
            .collect();
        stop(server);
        busy.into_iter().for_each(|client| client.join().unwrap());
        token(&launch(state.path()).start().message().try_lock("x0"));
    }
}

/// A client whose connection the server has ended, and that does not know it yet when the server is
/// stopped.
#[test]
fn a_holder_that_has_not_found_out_yet_leaves_a_grace_to_the_next_server() {
    const NAMES: usize = 3000;
    let state = directory();
    let waits = NAMES.to_string();
    let server = launch(state.path())
        .option("--waits-per-connection-max", &waits)
        .option("--outbox-max", "65536")
        .start();
    let (mut holder, mut greedy) = (server.message(), server.message());
    assert_eq!(greedy.call("hello", json!({"client": "greedy"}))["status"], "ok");
    token(&greedy.try_lock("x"));
    // Grants that it does not read, until it is cut off; the end of the stream comes after them.
    let greedy = greedy.into_socket();
    for n in 0..NAMES {
        token(&holder.try_lock(&format!("k{n}")));
        let id = format!("{n} {}", "i".repeat(4000));
        let request = json!({"command": "lock", "parameters": {"lockName": format!("k{n}")}, "id": id});
        (&greedy).write_all(&frame(request.to_string())).unwrap();
    }
    server.await_waiters(&format!("k{}", NAMES - 1), 1);
    for n in 0..NAMES {
        assert_eq!(holder.unlock(&format!("k{n}"))["result"], "ok");
    }
    eventually("it is cut off", || {
        let mut polled = [PollFd::new(&greedy, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).unwrap();
        polled[0].revents().contains(PollFlags::ERR)
    });
    // Waits that take a while to end, before any client learns that the server stops.
    let mut waiter = server.message();
    for n in 0..NAMES {
        token(&holder.try_lock(&format!("w{n}")));
        waiter.request_lock(&format!("w{n}"));
    }
    stop(server);
    let server = launch(state.path()).start();
    assert_eq!(server.message().try_lock("x")["status"], "refused");
    drop(greedy);
}

#[test]
fn a_state_that_is_torn_or_foreign_is_refused_and_kept() {
    let state = directory();
    let file = state.path().join("state");
    stop(launch(state.path()).start());
    let whole = std::fs::read(&file).unwrap();
    for bytes in [&whole[..whole.len() / 2], b"", b"[state]\nfor = 'another program'\n"] {
        std::fs::write(&file, bytes).unwrap();
        let (status, log) = launch(state.path()).run();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(file.to_str().unwrap()) && log.contains("cannot be used"), "{log}");
        assert!(!log.contains("listening on") && !log.contains("panicked"), "{log}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
    }
}

#[test]
fn two_servers_cannot_share_a_state_directory() {
    let state = directory();
    let server = launch(state.path()).start();
    let (status, log) = launch(state.path()).run();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("another lockd keeps its state there"), "{log}");
    token(&server.message().try_lock("x"));
}

#[test]
fn a_state_directory_is_made_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let parent = directory();
    let state = parent.path().join("state");
    let server = launch(&state).start();
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(state.join("state")).unwrap().permissions().mode() & 0o777, 0o600);
    drop(server);
    let (status, log) = launch(&parent.path().join("no/such")).run();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("no/such"), "{log}");
}

#[test]
fn a_stop_that_cannot_be_recorded_has_its_own_status() {
    let state = directory();
    let mut server = launch(state.path()).start();
    // The temporary file cannot be created now, as on a full disk.
    std::fs::create_dir(state.path().join("state.new")).unwrap();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(3));
    let log = server.log();
    assert!(log.iter().any(|line| line.contains("ERROR") && line.contains("state directory")), "{log:?}");
    std::fs::remove_dir(state.path().join("state.new")).unwrap();
    let next = launch(state.path()).start();
    assert_eq!(next.message().try_lock("x")["cause"], "grace");
}
