//! Locks through TLS.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use lockd::broker::{AcquireError, Mode};
use rustix::process::Signal;
use serde_json::json;

use crate::authority::Authority;
use crate::clients::{GOT, HOST, RELEASED, TlsLines, refusal, session, tls_socket, tls_url};
use crate::support::eventually;
use crate::support::frame_client::frame;
use crate::support::server::{Launch, Server};

/// All protocols, with TLS and without.
pub(crate) fn serve(authority: &Authority, more: &[&str]) -> Server {
    ["lockd", "glockd", "message"]
        .into_iter()
        .fold(Launch::new(), |launch, protocol| {
            let launch = launch.listen(&format!("{protocol}://127.0.0.1:0"));
            launch.listen(&format!("{protocol}+tls://127.0.0.1:0"))
        })
        .certified(&authority.issue(HOST))
        .args(more.iter().copied())
        .start()
}

const NOW: Option<Duration> = Some(Duration::ZERO);

#[test]
fn all_three_protocols_are_spoken_in_tls_and_lead_to_the_same_locks() {
    let authority = Authority::new();
    let server = serve(&authority, &[]);
    let session = session(&tls_url(&server, &authority.ca(), ""));
    let mut lockd = TlsLines::new(&server, "lockd+tls", &authority.ca());
    let mut glockd = TlsLines::new(&server, "glockd+tls", &authority.ca());
    session.acquire(b"x", Mode::Exclusive, NOW).unwrap();
    assert_eq!(lockd.ask("g x"), "0 Cannot Get Lock\r\n");
    assert_eq!(glockd.ask("g x"), "0 Lock Get Failure: x\r\n");
    session.release(b"x").unwrap();
    assert_eq!(lockd.ask("g x"), "1 Got Lock\r\n");
    assert_eq!(session.acquire(b"x", Mode::Exclusive, NOW), Err(AcquireError::TimedOut));
    assert_eq!(lockd.ask("r x"), "1 Released Lock\r\n");
    assert_eq!(glockd.ask("g x"), GOT);
}

#[test]
fn a_release_without_tls_grants_to_a_waiter_with_tls_and_vice_versa() {
    let authority = Authority::new();
    let server = serve(&authority, &[]);
    let inside = session(&tls_url(&server, &authority.ca(), ""));
    let mut outside = server.message();
    for _ in 0..50 {
        assert_eq!(outside.lock("x")["status"], "ok");
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| inside.acquire(b"x", Mode::Exclusive, None));
            server.await_waiters("x", 1);
            assert_eq!(outside.unlock("x")["result"], "ok");
            waiter.join().unwrap().unwrap();
        });
        let waiting = outside.request_lock("x");
        server.await_waiters("x", 1);
        inside.release(b"x").unwrap();
        assert_eq!(outside.result(waiting)["status"], "ok");
        outside.unlock("x");
    }
}

#[test]
fn requests_in_one_piece_and_in_many_are_answered_in_order() {
    let authority = Authority::new();
    let server = serve(&authority, &[]);
    let mut client = TlsLines::new(&server, "glockd+tls", &authority.ca());
    let requests: String = (0..2000).map(|n| format!("i {n} and more\n")).collect();
    for piece in [requests.len(), 7] {
        requests.as_bytes().chunks(piece).for_each(|piece| client.send(std::str::from_utf8(piece).unwrap()));
        for n in 0..2000 {
            assert_eq!(client.line(), format!("0 Lock Not Locked: {n} and more\r\n"));
        }
    }
}

#[test]
fn requests_before_the_end_are_handled_and_then_the_locks_are_free() {
    let authority = Authority::new();
    let server = serve(&authority, &[]);
    // Three ways to end: by TLS while the connection stays, by TCP, and by a reset.
    let mut polite = TlsLines::new(&server, "glockd+tls", &authority.ca());
    polite.send("g x\n");
    polite.0.get_mut().conn.send_close_notify();
    polite.0.get_mut().flush().unwrap();
    assert_eq!(polite.line(), GOT);
    server.await_free("x");
    let mut abrupt = TlsLines::new(&server, "glockd+tls", &authority.ca());
    assert_eq!(abrupt.ask("g x"), GOT);
    abrupt.0.get_mut().sock.shutdown(std::net::Shutdown::Write).unwrap();
    server.await_free("x");
    let mut killed = TlsLines::new(&server, "glockd+tls", &authority.ca());
    assert_eq!(killed.ask("g x"), GOT);
    killed.0.get_mut().sock.set_linger(Some(Duration::ZERO)).unwrap();
    drop(killed);
    server.await_free("x");
    drop((polite, abrupt));
}

#[test]
fn a_waiter_that_disconnects_leaves_the_queue() {
    let authority = Authority::new();
    let server = serve(&authority, &[]);
    let mut holder = server.glockd();
    assert_eq!(holder.ask("g x"), GOT);
    let mut waiter = TlsLines::new(&server, "glockd+tls", &authority.ca());
    // The requests after the waiting one must be read, too, or the server does not notice the end.
    waiter.send("gw - x\ni x\n");
    server.await_waiters("x", 1);
    waiter.0.get_mut().conn.send_close_notify();
    waiter.0.get_mut().flush().unwrap();
    server.await_waiters("x", 0);
    assert_eq!(holder.ask("r x"), RELEASED);
    server.await_free("x");
    drop(waiter);
}

#[test]
fn either_side_reports_the_end_of_a_session() {
    let authority = Authority::new();
    let state = authority.path("state");
    let mut server = serve(&authority, &["--state-dir", state.to_str().unwrap(), "--first-start"]);
    let url = tls_url(&server, &authority.ca(), "");
    let closing = session(&url);
    closing.acquire(b"x", Mode::Exclusive, NOW).unwrap();
    closing.close();
    server.await_free("x");
    let session = session(&url);
    session.acquire(b"x", Mode::Exclusive, NOW).unwrap();
    let mut lines = TlsLines::new(&server, "glockd+tls", &authority.ca());
    assert_eq!(lines.ask("g y"), "1 Lock Get Success: y\r\n");
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    // All holders have acknowledged the end.
    assert!(!server.log().iter().any(|line| line.contains("may not know")));
    eventually("the session knows", || !session.is_alive());
    // If it were cut short, reading would end with an error.
    assert_eq!(lines.0.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn a_stream_that_is_tampered_with_ends_alone_and_frees_its_locks() {
    let authority = Authority::new();
    let server = serve(&authority, &[]);
    let mut other = TlsLines::new(&server, "glockd+tls", &authority.ca());
    let mut client = TlsLines::new(&server, "glockd+tls", &authority.ca());
    assert_eq!(client.ask("g x"), GOT);
    // A record of the right form that is not encrypted with the session's key.
    client.0.get_mut().sock.write_all(b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    let mut rest = Vec::new();
    let error = client.0.read_to_end(&mut rest).unwrap_err();
    assert!(error.to_string().contains("alert"), "{error}");
    server.await_free("x");
    assert_eq!(other.ask("g x"), GOT);
}

#[test]
fn a_client_that_never_reads_is_cut_off_at_the_limit_and_no_other_suffers() {
    const NAMES: usize = 2000;
    let authority = Authority::new();
    let limits = ["--waits-per-connection-max", "2000", "--outbox-max", "262144"];
    let server = serve(&authority, &limits);
    let mut holder = server.message();
    for n in 0..NAMES {
        assert_eq!(holder.lock(&format!("k{n}"))["status"], "ok");
    }
    // The grants repeat these ids, which are far more bytes than the socket and the send queue can
    // take.
    let mut greedy = tls_socket(&server, "message+tls", &authority.ca());
    for n in 0..NAMES {
        let id = format!("{n} {}", "i".repeat(4000));
        let request = json!({"command": "lock", "parameters": {"lockName": format!("k{n}")}, "id": id});
        greedy.write_all(&frame(request.to_string())).unwrap();
    }
    server.await_waiters(&format!("k{}", NAMES - 1), 1);
    let calm = session(&tls_url(&server, &authority.ca(), ""));
    let before = server.resident_kib();
    for n in 0..NAMES {
        assert_eq!(holder.unlock(&format!("k{n}"))["result"], "ok");
        if n % 20 == 0 {
            calm.acquire(b"calm", Mode::Exclusive, NOW).unwrap();
            calm.release(b"calm").unwrap();
        }
    }
    eventually("it is cut off", || {
        server.log().iter().any(|line| line.contains("is cut off: it has left more than"))
    });
    let growth = server.resident_kib().saturating_sub(before);
    assert!(growth < 16 * 1024, "{growth} KiB more");
    let mut read = Vec::new();
    let end = greedy.read_to_end(&mut read);
    assert!(end.is_ok() || end.is_err_and(|error| error.kind() != ErrorKind::WouldBlock));
    for n in [0, NAMES / 2, NAMES - 1] {
        server.await_free(&format!("k{n}"));
    }
}

#[test]
fn a_client_that_reads_late_gets_every_grant() {
    const NAMES: usize = 1000;
    let authority = Authority::new();
    let server = serve(&authority, &["--outbox-max", "16777216"]);
    let mut holder = server.message();
    for n in 0..NAMES {
        assert_eq!(holder.lock(&format!("k{n}"))["status"], "ok");
    }
    let mut late = tls_socket(&server, "message+tls", &authority.ca());
    let padding = "i".repeat(4000);
    for n in 0..NAMES {
        let id = format!("{n} {padding}");
        let request = json!({"command": "lock", "parameters": {"lockName": format!("k{n}")}, "id": id});
        late.write_all(&frame(request.to_string())).unwrap();
    }
    server.await_waiters(&format!("k{}", NAMES - 1), 1);
    for n in 0..NAMES {
        assert_eq!(holder.unlock(&format!("k{n}"))["result"], "ok");
    }
    for n in 0..NAMES {
        let mut length = [0; 4];
        late.read_exact(&mut length).unwrap();
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        late.read_exact(&mut body).unwrap();
        let reply: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(reply["id"].as_str().unwrap().starts_with(&format!("{n} ")), "{n}");
        assert_eq!(reply["result"]["status"], "ok");
    }
}

#[test]
fn certificates_are_read_again_for_new_connections() {
    let authority = Authority::new();
    let server = serve(&authority, &[]);
    let before = session(&tls_url(&server, &authority.ca(), ""));
    before.acquire(b"x", Mode::Exclusive, NOW).unwrap();
    // The same file, by another authority.
    let other = Authority::new();
    std::fs::copy(other.issue(HOST), authority.path(&format!("{HOST} until 4000.pem"))).unwrap();
    server.signal(Signal::HUP);
    eventually("it is read", || server.log().iter().any(|line| line.contains("has been read again")));
    let after = session(&tls_url(&server, &other.ca(), ""));
    assert_eq!(after.acquire(b"x", Mode::Exclusive, NOW), Err(AcquireError::TimedOut));
    assert!(refusal(&tls_url(&server, &authority.ca(), "")).contains("certificate"));
    before.release(b"x").unwrap();
    // A file that cannot be read changes nothing.
    std::fs::write(authority.path(&format!("{HOST} until 4000.pem")), "nothing").unwrap();
    server.signal(Signal::HUP);
    eventually("it is refused", || server.log().iter().any(|line| line.contains("stays as it was")));
    session(&tls_url(&server, &other.ca(), "")).acquire(b"x", Mode::Exclusive, NOW).unwrap();
}
