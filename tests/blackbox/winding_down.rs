//! A client that asked for time to end its work (`windDown`) keeps its locks after the server has
//! ended its connection, until the client ends the connection too, or that time is over. A reset
//! does not count as such an end, since it does not show that the work has ended.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use socket2::Socket;

use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::server::Server;
use crate::support::socket::reset;

/// The shortest dead-peer timeout, in seconds, and how long a server with it keeps the locks of a
/// client that may not know.
const SHORTEST: &str = "12";
const RELEASE_DELAY: Duration = Duration::from_secs(9);

fn server() -> Server {
    Server::with(&["--allow-kick"])
}

/// A client that holds `a` and asked for `seconds`, over TCP or a Unix socket, and its address for
/// the server.
fn holder(mut client: FrameClient, seconds: f64) -> (FrameClient, String) {
    let hello = client.call("hello", json!({"windDown": seconds}));
    assert!(hello["features"].as_array().unwrap().contains(&json!("windDown")), "{hello}");
    assert_eq!(client.lock("a")["status"], "ok");
    let page = client.call("list", json!({"prefix": "a"}));
    let address = page["locks"][0]["holders"][0]["address"].as_str().unwrap().to_owned();
    (client, address)
}

fn kick(server: &Server, address: &str) {
    assert_eq!(server.message().call("kick", json!({"address": address}))["status"], "ok");
}

/// Whether the lock stays with its holder, checked now and then.
#[track_caller]
fn assert_stays(server: &Server, waiters: u64) {
    let mut observer = server.message();
    for _ in 0..100 {
        let seen = observer.call("inspect", json!({"lockName": "a"}));
        assert_eq!((&seen["holders"], &seen["waiters"]), (&json!(1), &json!(waiters)));
    }
}

#[test]
fn a_kicked_client_keeps_its_locks_until_it_leaves() {
    let server = server();
    for client in [server.message(), FrameClient::new(server.unix("message"))] {
        let (mut holder, address) = holder(client, 3600.0);
        let mut waiter = server.message();
        let asked = waiter.request_lock("a");
        server.await_waiters("a", 1);
        kick(&server, &address);
        assert_eq!(holder.read_to_end(), b"", "it is told at once");
        assert_stays(&server, 1);
        // The server reads what the client sends, to notice its end, and does nothing with it.
        for _ in 0..100 {
            holder.request("unlock", json!({"lockName": "a"}));
        }
        assert_stays(&server, 1);
        drop(holder);
        assert_eq!(waiter.result(asked)["status"], "ok");
    }
}

#[test]
fn the_waits_of_a_kicked_client_leave_their_queues_at_once() {
    let server = server();
    let (mut holder, address) = holder(server.message(), 3600.0);
    let mut other = server.message();
    assert_eq!(other.lock("b")["status"], "ok");
    holder.request_lock("b");
    server.await_waiters("b", 1);
    kick(&server, &address);
    server.await_waiters("b", 0);
    assert_eq!(other.unlock("b")["result"], "ok");
    assert_eq!(other.call("inspect", json!({"lockName": "b"}))["holders"], 0);
    assert_stays(&server, 0);
}

#[test]
fn a_kicked_client_that_takes_longer_than_it_asked_for_is_not_waited_for() {
    let server = server();
    for client in [server.message(), FrameClient::new(server.unix("message"))] {
        let (mut holder, address) = holder(client, 0.4);
        let mut waiter = server.message();
        let asked = waiter.request_lock("a");
        server.await_waiters("a", 1);
        kick(&server, &address);
        assert_eq!(waiter.result(asked)["status"], "ok");
        assert_eq!(holder.read_to_end(), b"");
    }
}

#[test]
fn a_second_kick_does_not_wait_for_the_client() {
    let server = server();
    for client in [server.message(), FrameClient::new(server.unix("message"))] {
        let (_holder, address) = holder(client, 3600.0);
        let mut waiter = server.message();
        let asked = waiter.request_lock("a");
        server.await_waiters("a", 1);
        kick(&server, &address);
        assert_stays(&server, 1);
        kick(&server, &address);
        assert_eq!(waiter.result(asked)["status"], "ok");
    }
}

#[test]
fn a_client_that_ends_by_itself_is_not_waited_for() {
    let server = server();
    let (holder, _) = holder(server.message(), 3600.0);
    let mut waiter = server.message();
    let asked = waiter.request_lock("a");
    server.await_waiters("a", 1);
    drop(holder);
    assert_eq!(waiter.result(asked)["status"], "ok");
}

/// The holder of `a` is gone: its lock is granted to another client in the same moment.
#[track_caller]
fn assert_free_at_once(server: &Server, end: impl FnOnce()) {
    let mut waiter = server.message();
    let asked = waiter.request_lock("a");
    server.await_waiters("a", 1);
    end();
    assert_eq!(waiter.result(asked)["status"], "ok");
}

/// Closes a socket while the server's last reply is unread, as the kernel does for a process that
/// is killed then.
fn close_unread(mut client: FrameClient) {
    client.request("ping", json!({}));
    let socket: Socket = client.into_socket();
    assert_eq!(socket.peek(&mut [std::mem::MaybeUninit::uninit()]).unwrap(), 1, "the reply has come");
    drop(socket);
}

#[test]
fn a_reset_client_that_asked_for_no_time_is_not_waited_for() {
    let server = Server::with(&["--dead-peer-timeout", "3600"]);
    let ends: [fn(FrameClient); 2] = [|client| reset(client.into_socket()), close_unread];
    for end in ends {
        let (holder, _) = holder(server.message(), 0.0);
        assert_free_at_once(&server, || end(holder));
    }
}

/// After a goodbye, the end of its stream, or a close on this machine, a reset says nothing new.
#[test]
fn a_client_that_has_ended_by_itself_may_be_reset_as_well() {
    let server = Server::with(&["--dead-peer-timeout", "3600"]);
    let goodbye = |mut client: FrameClient| {
        client.request("bye", json!({}));
        reset(client.into_socket());
    };
    let end_of_stream = |client: FrameClient| {
        client.socket().shutdown(Shutdown::Write).unwrap();
        reset(client.into_socket());
    };
    let ends: [fn(FrameClient); 2] = [goodbye, end_of_stream];
    for end in ends {
        let (holder, _) = holder(server.message(), 3600.0);
        assert_free_at_once(&server, || end(holder));
    }
    let (holder, _) = holder(FrameClient::new(server.unix("message")), 3600.0);
    assert_free_at_once(&server, || close_unread(holder));
}

#[test]
fn a_reset_client_that_asked_for_time_has_all_of_it() {
    let server = Server::with(&["--dead-peer-timeout", SHORTEST]);
    let wind_down = Duration::from_secs(2);
    let (holder, address) = holder(server.message(), wind_down.as_secs_f64());
    let mut waiter = server.message();
    waiter.socket().set_read_timeout(None).unwrap();
    let asked = waiter.request_lock("a");
    server.await_waiters("a", 1);
    let ended = Instant::now();
    reset(holder.into_socket());
    assert_stays(&server, 1);
    assert_eq!(waiter.result(asked)["status"], "ok");
    let kept = ended.elapsed();
    assert!(kept >= RELEASE_DELAY + wind_down, "{kept:?}");
    let is_logged = |line: &String| line.contains(&address) && line.contains("had its connection reset");
    eventually("the log says why", || server.log().iter().any(is_logged));
}

/// The second kick ends the time for its work; the time in which it finds out is not shortened.
#[test]
fn a_second_kick_ends_the_time_of_a_reset_client() {
    let server = Server::with(&["--allow-kick", "--dead-peer-timeout", SHORTEST]);
    let (holder, address) = holder(server.message(), 3600.0);
    let mut waiter = server.message();
    waiter.socket().set_read_timeout(None).unwrap();
    let asked = waiter.request_lock("a");
    server.await_waiters("a", 1);
    let ended = Instant::now();
    reset(holder.into_socket());
    assert_stays(&server, 1);
    kick(&server, &address);
    assert_stays(&server, 1);
    kick(&server, &address);
    assert_eq!(waiter.result(asked)["status"], "ok");
    let kept = ended.elapsed();
    assert!(kept >= RELEASE_DELAY, "{kept:?}");
}

#[test]
fn a_reset_client_that_holds_nothing_makes_room_at_once() {
    let server = Server::with(&["--connections-max", "2"]);
    let mut observer = server.message();
    for _ in 0..5 {
        let mut client = server.message();
        assert_eq!(client.call("hello", json!({"windDown": 3600}))["status"], "ok");
        reset(client.into_socket());
        eventually("there is room", || observer.call("stats", json!({}))["connections"] == 1);
    }
}

/// A server that stops does not wait for it. It cannot know whether the client knows, so the next
/// server waits as after a crash.
#[test]
fn a_reset_client_that_asked_for_time_does_not_keep_the_server_from_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().to_str().unwrap();
    let mut server = Server::with(&["--state-dir", state, "--first-start"]);
    let (holder, _) = holder(server.message(), 3600.0);
    reset(holder.into_socket());
    assert_stays(&server, 0);
    server.signal(Signal::TERM);
    server.wait();
    let next = Server::with(&["--state-dir", state, "--first-start"]);
    assert!(next.message().call("stats", json!({}))["grace"].as_f64().unwrap() > 0.0);
}

#[test]
fn an_invalid_or_too_long_time_is_refused() {
    let server = server();
    let mut client = server.message();
    for time in [json!(-1), json!(3601), json!("5")] {
        assert_eq!(client.call("hello", json!({"windDown": time}))["status"], "invalid", "{time}");
    }
    assert!(client.is_served());
}

#[test]
fn a_kicked_client_that_holds_nothing_makes_room_at_once() {
    let server = Server::with(&["--allow-kick", "--connections-max", "3"]);
    let (mut one, mut other) = (server.message(), server.message());
    let addresses = [one.address(), other.address()];
    for client in [&mut one, &mut other] {
        assert_eq!(client.call("hello", json!({"windDown": 3600}))["status"], "ok");
    }
    let mut operator = server.message();
    for address in addresses {
        assert_eq!(operator.call("kick", json!({"address": address}))["status"], "ok");
    }
    eventually("there is room", || operator.call("stats", json!({}))["connections"] == 1);
    drop((one, other));
}
