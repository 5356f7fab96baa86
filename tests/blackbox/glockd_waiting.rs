//! The `glockd` protocol as a client sees it: waiting for a lock, and its fencing token.

use std::time::{Duration, Instant};

use crate::support::line_client::LineClient;
use crate::support::server::Server;
use crate::support::socket::reset;

const GOT: &str = "1 Lock Get Success: foo\r\n";
const FAILED: &str = "0 Lock Get Failure: foo\r\n";
const RELEASED: &str = "1 Lock Release Success: foo\r\n";

fn holder_of_foo(server: &Server) -> LineClient {
    let mut holder = server.glockd();
    assert_eq!(holder.ask("g foo"), GOT);
    holder
}

/// A client whose `request` is the `place`th in the queue for foo.
fn waiter(server: &Server, request: &str, place: usize) -> LineClient {
    let mut waiter = server.glockd();
    waiter.send(format!("{request}\n"));
    server.await_waiters("foo", place);
    waiter
}

#[test]
fn a_free_lock_is_got_at_once() {
    let server = Server::start();
    let mut client = server.glockd();
    for limit in ["-", "0", "5", "0.5"] {
        assert_eq!(client.ask(&format!("gw {limit} foo")), GOT);
        assert_eq!(client.ask("r foo"), RELEASED);
        assert_eq!(client.ask(&format!("sgw {limit} foo")), "1 Shared Lock Get Success: foo\r\n");
        assert_eq!(client.ask("sr foo"), "1 Shared Lock Release Success: foo\r\n");
    }
}

#[test]
fn the_holder_does_not_wait_for_itself() {
    let server = Server::start();
    let mut holder = holder_of_foo(&server);
    assert_eq!(holder.ask("gw - foo"), GOT);
    assert_eq!(holder.ask("r foo"), RELEASED);
    assert_eq!(holder.ask("i foo"), "0 Lock Not Locked: foo\r\n");
}

#[test]
fn a_release_grants_to_the_longest_waiter() {
    let server = Server::start();
    let mut holder = holder_of_foo(&server);
    let mut waiters: Vec<LineClient> = (1..=5)
        .map(|place| waiter(&server, if place % 2 == 0 { "gw - foo" } else { "gw 60 foo" }, place))
        .collect();
    for waiter in &mut waiters {
        assert_eq!(holder.ask("r foo"), RELEASED);
        assert_eq!(waiter.line(), GOT);
        assert_eq!(holder.ask("g foo"), FAILED, "no other session gets it in between");
        std::mem::swap(&mut holder, waiter);
    }
    assert_eq!(holder.ask("r foo"), RELEASED);
    assert_eq!(holder.ask("g foo"), GOT);
}

#[test]
fn a_client_that_has_waited_for_a_lock_need_not_wait_for_it_when_it_is_free() {
    let server = Server::start();
    let mut first = holder_of_foo(&server);
    let mut second = waiter(&server, "gw - foo", 1);
    assert_eq!(first.ask("r foo"), RELEASED);
    assert_eq!(second.line(), GOT);
    assert_eq!(second.ask("gw - foo"), GOT, "it holds the lock");
    first.send("gw 60 foo\n");
    server.await_waiters("foo", 1);
    assert_eq!(second.ask("r foo"), RELEASED);
    assert_eq!(first.line(), GOT);
    for limit in ["-", "5", "0"] {
        assert_eq!(first.ask("r foo"), RELEASED);
        assert_eq!(first.ask(&format!("gw {limit} foo")), GOT);
    }
    assert_eq!(second.ask("gw 0 foo"), FAILED);
    assert_eq!(first.ask("r foo"), RELEASED);
    assert_eq!(second.ask("g foo"), GOT);
}

#[test]
fn a_wait_ends_with_its_time_limit() {
    let server = Server::start();
    let _holder = holder_of_foo(&server);
    let mut client = server.glockd();
    let start = Instant::now();
    assert_eq!(client.ask("gw 0.3 foo"), FAILED);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert_eq!(client.ask("gw 0 foo"), FAILED);
    server.await_waiters("foo", 0);
}

#[test]
fn a_time_limit_beyond_all_clocks_means_no_limit() {
    let server = Server::start();
    for limit in ["99999999999999999999", &"9".repeat(400)] {
        let mut holder = holder_of_foo(&server);
        let mut waiter = waiter(&server, &format!("gw {limit} foo"), 1);
        assert_eq!(holder.ask("r foo"), RELEASED);
        assert_eq!(waiter.line(), GOT);
        assert_eq!(waiter.ask("r foo"), RELEASED);
    }
}

#[test]
fn a_time_limit_that_is_no_number_is_refused_with_one_line() {
    let server = Server::start();
    let mut client = server.glockd();
    for request in ["gw", "gw foo", "gw -1 foo", "gw nan foo", "sgw 1.2.3 foo", "sgw"] {
        let refused = client.ask_all(request);
        assert!(refused.len() == 1 && refused[0].starts_with("0 "), "{refused:?} to {request}");
    }
    assert_eq!(client.ask("i foo"), "0 Lock Not Locked: foo\r\n");
}

#[test]
fn a_waiter_that_gave_up_is_skipped() {
    let server = Server::start();
    let mut holder = holder_of_foo(&server);
    let mut impatient = server.glockd();
    impatient.send("gw 0.3 foo\n");
    let mut patient = server.glockd();
    patient.send("gw - foo\n");
    assert_eq!(impatient.line(), FAILED);
    assert_eq!(holder.ask("r foo"), RELEASED);
    assert_eq!(patient.line(), GOT);
    assert_eq!(impatient.ask("r foo"), "0 Lock Release Failure: foo\r\n");
}

#[test]
fn the_end_of_the_holder_grants_to_the_next() {
    let server = Server::start();
    let holder = holder_of_foo(&server);
    let mut waiter = waiter(&server, "gw - foo", 1);
    drop(holder);
    assert_eq!(waiter.line(), GOT);
}

#[test]
fn a_client_that_disconnects_leaves_the_queue() {
    for with_reset in [false, true] {
        let server = Server::start();
        let mut holder = holder_of_foo(&server);
        let gone = waiter(&server, "gw - foo", 1);
        let mut next = waiter(&server, "gw - foo", 2);
        if with_reset {
            reset(gone.into_socket())
        } else {
            drop(gone)
        }
        server.await_waiters("foo", 1);
        assert_eq!(holder.ask("r foo"), RELEASED);
        assert_eq!(next.line(), GOT);
    }
}

#[test]
fn a_client_that_disconnects_with_unread_lines_leaves_the_queue() {
    let server = Server::start();
    let mut holder = holder_of_foo(&server);
    let mut gone = waiter(&server, "gw - foo", 1);
    gone.send("i foo\ng bar\ni bar\n".repeat(1000));
    drop(gone);
    server.await_waiters("foo", 0);
    assert_eq!(holder.ask("r foo"), RELEASED);
    assert_eq!(holder.ask("g foo"), GOT);
}

#[test]
fn further_lines_wait_while_a_line_waits() {
    let server = Server::start();
    let mut holder = holder_of_foo(&server);
    let mut waiter = waiter(&server, "gw - foo\ng bar\ni foo\nr foo", 1);
    assert_eq!(holder.ask("i bar"), "0 Lock Not Locked: bar\r\n", "the second line has not been served");
    assert_eq!(holder.ask("r foo"), RELEASED);
    assert_eq!(waiter.line(), GOT);
    assert_eq!(waiter.line(), "1 Lock Get Success: bar\r\n");
    assert_eq!(waiter.line(), "1 Lock Is Locked: foo\r\n");
    assert_eq!(waiter.line(), RELEASED);
}

#[test]
fn further_lines_are_served_after_a_time_out_too() {
    let server = Server::start();
    let _holder = holder_of_foo(&server);
    let mut client = server.glockd();
    client.send("g bar\ngw 0.2 foo\ngw 0.2 foo\nr bar\n");
    let replies = [client.line(), client.line(), client.line(), client.line()];
    assert_eq!(replies, ["1 Lock Get Success: bar\r\n", FAILED, FAILED, "1 Lock Release Success: bar\r\n"]);
}

#[test]
fn a_try_does_not_overtake_those_that_wait() {
    let server = Server::with(&["--shared-excludes"]);
    let (mut reader, mut late) = (server.glockd(), server.glockd());
    assert_eq!(reader.ask("sg foo"), "1 Shared Lock Get Success: foo\r\n");
    let mut writer = waiter(&server, "gw - foo", 1);
    assert!(late.ask("sg foo").starts_with("0 "), "a shared try would overtake the one that waits");
    assert_eq!(reader.ask("sr foo"), "1 Shared Lock Release Success: foo\r\n");
    assert_eq!(writer.line(), GOT);
}

#[test]
fn shared_waiters_are_granted_together() {
    let server = Server::with(&["--shared-excludes"]);
    let mut holder = holder_of_foo(&server);
    let mut readers: Vec<LineClient> = (1..=3).map(|place| waiter(&server, "sgw - foo", place)).collect();
    let mut writer = waiter(&server, "gw - foo", 4);
    let mut last = waiter(&server, "sgw - foo", 5);
    assert_eq!(holder.ask("r foo"), RELEASED);
    for reader in &mut readers {
        let granted = reader.line();
        assert!(
            granted.ends_with(" Shared Lock Get Success: foo\r\n") && !granted.starts_with('0'),
            "{granted:?}"
        );
    }
    server.await_waiters("foo", 2);
    for reader in &mut readers {
        assert_eq!(reader.ask("sr foo"), "1 Shared Lock Release Success: foo\r\n");
    }
    assert_eq!(writer.line(), GOT);
    assert_eq!(writer.ask("r foo"), RELEASED);
    assert_eq!(last.line(), "1 Shared Lock Get Success: foo\r\n");
}

#[test]
fn only_the_holder_is_told_the_token() {
    let server = Server::start();
    let (mut holder, mut other) = (server.glockd(), server.glockd());
    assert_eq!(holder.ask("t foo"), "0\r\n");
    holder.ask("g foo");
    let token = holder.ask("t foo");
    assert!(token.strip_suffix("\r\n").unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(holder.ask("t foo"), token);
    assert_eq!(other.ask("t foo"), "0\r\n");
    holder.ask("r foo");
    assert_eq!(holder.ask("t foo"), "0\r\n");
}

#[test]
fn tokens_rise_from_grant_to_grant() {
    let server = Server::start();
    let mut clients = [server.glockd(), server.glockd(), LineClient::new(server.unix("glockd"))];
    let mut last = 0;
    for round in 0..10 {
        for client in &mut clients {
            client.ask("g foo");
            let token: u64 = client.ask("t foo").trim_end().parse().unwrap();
            assert!(token > last, "round {round}: {token} after {last}");
            assert!(token < 1 << 53, "{token} is more than every JSON reader keeps");
            last = token;
            client.ask("r foo");
        }
    }
}

#[test]
fn a_wait_that_would_close_a_cycle_fails_at_once() {
    let server = Server::start();
    let (mut a, mut b) = (server.glockd(), server.message());
    assert_eq!(a.ask("g foo"), GOT);
    assert_eq!(b.lock("bar")["status"], "ok");
    let id = b.request_lock("foo");
    server.await_waiters("foo", 1);
    assert_eq!(a.ask("gw - bar"), "0 Lock Get Failure: bar\r\n");
    assert_eq!(a.ask("r foo"), RELEASED);
    assert_eq!(b.result(id)["status"], "ok");
}
