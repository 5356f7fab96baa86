//! One broker behind three protocols: a name locked through one is locked for all.

use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::line_client::LineClient;
use crate::support::server::Server;
use serde_json::json;

#[test]
fn a_lock_taken_through_lockd_is_locked_for_all() {
    let server = Server::start();
    let mut holder = server.lockd();
    assert_eq!(holder.ask("g foo"), "1 Got Lock\r\n");
    assert_eq!(server.glockd().ask("g foo"), "0 Lock Get Failure: foo\r\n");
    assert_eq!(server.glockd().ask("i foo"), "1 Lock Is Locked: foo\r\n");
    assert_eq!(server.glockd().ask("r foo"), "0 Lock Release Failure: foo\r\n");
    assert_eq!(server.message().try_lock("foo")["status"], "timeout");
    assert_eq!(server.message().unlock("foo")["result"], "notFound");
    assert_eq!(LineClient::new(server.unix("lockd")).ask("g foo"), "0 Cannot Get Lock\r\n");
    assert_eq!(server.glockd().ask("dump"), format!("map[foo:{}]\r\n", holder.address()));
}

#[test]
fn a_lock_taken_through_glockd_is_locked_for_all() {
    let server = Server::start();
    let mut holder = LineClient::new(server.unix("glockd"));
    assert_eq!(holder.ask("g foo"), "1 Lock Get Success: foo\r\n");
    assert_eq!(server.lockd().ask("g foo"), "0 Cannot Get Lock\r\n");
    assert_eq!(server.lockd().ask("i foo"), "1 Locked\r\n");
    assert_eq!(server.lockd().ask("r foo"), "0 Cannot Release Lock\r\n");
    assert_eq!(server.message().try_lock("foo")["status"], "timeout");
}

#[test]
fn a_lock_taken_through_message_is_locked_for_all() {
    let server = Server::start();
    for mode in ["exclusive", "shared"] {
        let mut holder = server.message();
        assert_eq!(holder.call("lock", json!({"lockName": mode, "mode": mode}))["status"], "ok");
        assert_eq!(server.lockd().ask(&format!("g {mode}")), "0 Cannot Get Lock\r\n");
        assert_eq!(server.glockd().ask(&format!("g {mode}")), format!("0 Lock Get Failure: {mode}\r\n"));
        assert_eq!(holder.unlock(mode)["result"], "ok");
        assert_eq!(server.lockd().ask(&format!("g {mode}")), "1 Got Lock\r\n");
    }
}

#[test]
fn the_shared_locks_of_the_text_protocols_are_a_separate_table() {
    let server = Server::start();
    let (mut old, mut new) = (server.lockd(), server.glockd());
    assert_eq!(old.ask("sg foo"), "1 Got Lock\r\n");
    assert_eq!(new.ask("sg foo"), "2 Shared Lock Get Success: foo\r\n");
    assert_eq!(old.ask("si foo"), "2 Locked\r\n");
    assert_eq!(server.message().lock("foo")["status"], "ok");
}

#[test]
fn waiters_of_all_protocols_share_one_queue() {
    let server = Server::start();
    let mut holder = server.lockd();
    assert_eq!(holder.ask("g foo"), "1 Got Lock\r\n");
    let mut first = server.message();
    let first_id = first.request_lock("foo");
    server.await_waiters("foo", 1);
    let mut second = server.glockd();
    second.send("gw - foo\n");
    server.await_waiters("foo", 2);
    let mut third = FrameClient::new(server.unix("message"));
    let third_id = third.request_lock("foo");
    server.await_waiters("foo", 3);

    assert_eq!(holder.ask("r foo"), "1 Released Lock\r\n");
    assert_eq!(first.result(first_id)["status"], "ok");
    assert_eq!(holder.ask("g foo"), "0 Cannot Get Lock\r\n");
    assert_eq!(first.unlock("foo")["result"], "ok");
    assert_eq!(second.line(), "1 Lock Get Success: foo\r\n");
    assert_eq!(second.ask("r foo"), "1 Lock Release Success: foo\r\n");
    assert_eq!(third.result(third_id)["status"], "ok");
    assert_eq!(third.unlock("foo")["result"], "ok");
    assert_eq!(holder.ask("g foo"), "1 Got Lock\r\n");
}

#[test]
fn names_are_the_same_bytes_in_every_protocol() {
    let server = Server::start();
    let mut holder = server.message();
    for name in ["", "schlo\u{df}", "two words", "\u{1F512}"] {
        assert_eq!(holder.lock(name)["status"], "ok");
        assert_eq!(server.lockd().ask(&format!("i {name}")), "1 Locked\r\n", "{name:?}");
        assert_eq!(server.glockd().ask(&format!("i {name}")), format!("1 Lock Is Locked: {name}\r\n"));
    }
}

#[test]
fn a_name_that_is_not_utf8_does_not_break_the_listings() {
    let server = Server::start();
    let mut holder = server.lockd();
    holder.send(b"g \xff\xfe\n");
    assert_eq!(holder.line(), "1 Got Lock\r\n");
    let listing = server.message().call("list", json!({}));
    assert_eq!(listing["status"], "ok");
    assert_eq!(listing["locks"].as_array().unwrap().len(), 1, "{listing}");
}

#[test]
fn a_dump_of_many_locks_delays_no_other_client() {
    let server = Server::with(&["--locks-per-connection-max", "30000", "--locks-max", "30000"]);
    let mut holder = server.lockd();
    for thousand in 0..20 {
        holder
            .send((0..1000).map(|n| format!("g a name of some length {thousand} {n}\n")).collect::<String>());
        for _ in 0..1000 {
            assert_eq!(holder.line(), "1 Got Lock\r\n");
        }
    }
    let mut reader = server.glockd();
    reader.send("d\n");
    let mut other = server.lockd();
    for _ in 0..100 {
        assert_eq!(other.ask("g another"), "1 Got Lock\r\n");
        assert_eq!(other.ask("r another"), "1 Released Lock\r\n");
    }
    let mut listed = 0;
    while listed < 20_000 {
        let line = reader.line();
        // Locks that come and go meanwhile may be listed or not.
        assert!(line.starts_with("a name of some length ") || line.starts_with("another: "), "{line}");
        listed += usize::from(line.starts_with("a name"));
    }
    drop(holder);
    eventually("all are freed", || other.ask("i a name of some length 19 999") == "0 Not Locked\r\n");
}
