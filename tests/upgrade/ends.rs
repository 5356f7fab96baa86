//! What cannot go through an upgrade, and what has ended or is ending while it goes on.

use std::io::{ErrorKind, Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::authority::Authority;
use crate::clients::{GOT, HOST, RELEASED, TlsLines, WsLines, session, tls_url};
use crate::site::Site;
use crate::support::environment::without_options;
use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::server::program;
use crate::support::socket::reset;

/// A server of these protocols.
fn serve(protocols: &[&str], authority: &Authority, options: &[&str]) -> Site {
    Site::start_with(|launch, _| {
        let launch = protocols
            .iter()
            .fold(launch, |launch, protocol| launch.listen(&format!("{protocol}://127.0.0.1:0")));
        launch.certified(&authority.issue(HOST)).args(options.iter().copied())
    })
}

/// Upgrades, and returns the report.
#[track_caller]
fn upgrade(site: &Site) -> String {
    let (status, told, error) = site.ask();
    assert!(status == 0, "{told}{error}");
    told.lines().last().unwrap().to_owned()
}

#[test]
fn connections_in_tls_are_told_at_once_and_their_locks_are_free_then() {
    let authority = Authority::new();
    let site = serve(&["glockd", "message", "glockd+tls", "message+tls"], &authority, &[]);
    let session = session(&tls_url(&site.server, &authority.ca(), ""));
    session.acquire(b"y", lockd::broker::Mode::Exclusive, Some(Duration::ZERO)).unwrap();
    let mut lines = TlsLines::new(&site.server, "glockd+tls", &authority.ca());
    assert_eq!(lines.ask("g x"), GOT);
    let mut waiters: Vec<_> = ["x", "y"]
        .into_iter()
        .map(|name| {
            let mut waiter = site.server.glockd();
            waiter.send(format!("gw 600 {name}\n"));
            site.server.await_waiters(name, 1);
            waiter
        })
        .collect();
    let report = upgrade(&site);
    assert!(report.contains("2 connections in TLS or a handshake"), "{report}");
    // The stream ends. The next version does not have the keys that TLS's own end would need.
    let end = lines.0.read_to_end(&mut Vec::new());
    assert!(
        end.as_ref().is_ok_and(|read| *read == 0) || end.is_err_and(|e| e.kind() == ErrorKind::UnexpectedEof)
    );
    eventually("the session knows", || !session.is_alive());
    drop((lines, session));
    waiters.iter_mut().for_each(|waiter| assert!(waiter.line().starts_with('1')));
    // New connections are served.
    let mut lines = TlsLines::new(&site.server, "glockd+tls", &authority.ca());
    assert!(lines.ask("g z").starts_with('1'));
}

#[test]
fn a_command_whose_lock_was_held_in_tls_ends_before_the_lock_is_granted_again() {
    let authority = Authority::new();
    let site = serve(&["glockd", "message", "message+tls"], &authority, &[]);
    let (begun, ended) = (site.path("begun"), site.path("ended"));
    // It takes a while to end its work.
    let script = format!(
        "trap 'sleep 1; : >{ended}; exit 0' TERM; : >{begun}; while :; do sleep 0.01; done",
        ended = ended.display(),
        begun = begun.display()
    );
    let mut run = std::process::Command::new(program());
    without_options(&mut run).arg("run").arg("--server").arg(tls_url(&site.server, &authority.ca(), ""));
    run.args(["x", "--", "sh", "-c", &script]).stdin(Stdio::null()).stderr(Stdio::null());
    let mut run = run.spawn().unwrap();
    eventually("the command runs", || begun.exists());
    let mut waiter = site.server.glockd();
    waiter.send("gw 600 x\n");
    site.server.await_waiters("x", 1);
    upgrade(&site);
    assert_eq!(waiter.line(), GOT);
    assert!(ended.exists(), "the next holder begins before the command has ended");
    assert_eq!(crate::support::end_of("lockd run", &mut run).code(), Some(76));
}

#[test]
fn connections_of_websocket_go_on_even_amid_a_message() {
    let authority = Authority::new();
    let site = serve(&["glockd", "message", "glockd+ws"], &authority, &[]);
    let (mut holder, mut waiter) = (WsLines::new(&site.server), WsLines::new(&site.server));
    let (mut cut, mut pieces) = (WsLines::new(&site.server), WsLines::new(&site.server));
    assert_eq!(holder.ask("g x"), GOT);
    waiter.send("gw 600 x");
    site.server.await_waiters("x", 1);
    // A frame of which the second half is still to come, with a mask.
    let frame = b"\x81\x83\x01\x02\x03\x04h\"{";
    cut.0.get_mut().write_all(&frame[..7]).unwrap();
    // A message whose last frame is still to come.
    pieces.send_frame(0x01, b"i ");
    for _ in 0..2 {
        let report = upgrade(&site);
        assert!(!report.contains("not kept"), "{report}");
    }
    cut.0.get_mut().write_all(&frame[7..]).unwrap();
    assert_eq!(cut.line(), "1 Lock Is Locked: x\r\n");
    pieces.send_frame(0x80, b"x");
    assert_eq!(pieces.line(), "1 Lock Is Locked: x\r\n");
    assert_eq!(holder.ask("r x"), RELEASED);
    assert_eq!(waiter.line(), GOT);
}

#[test]
fn connections_amid_their_handshake_end() {
    let authority = Authority::new();
    let site = serve(&["glockd", "message", "glockd+tls", "glockd+ws"], &authority, &[]);
    let hello = site.server.tcp("glockd+tls");
    (&hello).write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    let silent = site.server.tcp("glockd+tls");
    let request = site.server.tcp("glockd+ws");
    (&request).write_all(b"GET / HTTP/1.1\r\nHos").unwrap();
    eventually("all are accepted", || site.server.message().call("stats", json!({}))["connections"] == 4);
    let report = upgrade(&site);
    assert!(report.contains("3 connections in TLS or a handshake"), "{report}");
    for socket in [hello, silent, request] {
        assert_eq!((&socket).read(&mut [0]).unwrap(), 0);
    }
    let mut lines = TlsLines::new(&site.server, "glockd+tls", &authority.ca());
    assert_eq!(lines.ask("g x"), GOT);
    assert_eq!(WsLines::new(&site.server).ask("i x"), "1 Lock Is Locked: x\r\n");
}

/// A client that holds `a` and asked for `seconds` to end its work.
fn winding_down(site: &Site, seconds: f64) -> FrameClient {
    let mut client = site.server.message();
    assert_eq!(client.call("hello", json!({"windDown": seconds}))["status"], "ok");
    assert_eq!(client.lock("a")["status"], "ok");
    client
}

/// A client that waits for `a`.
fn waiting(site: &Site) -> (FrameClient, u64) {
    let mut waiter = site.server.message();
    let asked = waiter.request_lock("a");
    site.server.await_waiters("a", 1);
    (waiter, asked)
}

#[test]
fn a_client_that_is_kicked_amid_an_upgrade_keeps_its_locks_until_it_leaves() {
    let site = Site::start(&["--allow-kick"]);
    let (mut before, mut holder) = (site.server.message(), winding_down(&site, 3600.0));
    let (mut waiter, asked) = waiting(&site);
    let address = holder.address();
    let (tried, wait_tried) = site.pause("tried");
    let (becomes, wait_becomes) = site.pause("becomes");
    site.install_before_program(&format!(
        "if [ -z \"$LOCKD_UPGRADE_STATE\" ]; then {wait_tried}; else {wait_becomes}; fi"
    ));
    let asking = site.asking().spawn().unwrap();
    tried.await_reached();
    assert_eq!(before.call("kick", json!({"address": address}))["status"], "ok");
    assert_eq!(holder.read_to_end(), b"", "it is told at once");
    tried.go_on();
    becomes.await_reached();
    // Nobody is served now. What is asked is answered afterwards.
    let looked = before.request("inspect", json!({"lockName": "a"}));
    becomes.go_on();
    assert_eq!(asking.wait_with_output().unwrap().status.code(), Some(0));
    let seen = before.result(looked);
    assert_eq!([&seen["holders"], &seen["waiters"]], [1, 1], "{seen}");
    waiter.hears_nothing();
    drop(holder);
    assert_eq!(waiter.result(asked)["status"], "ok");
}

#[test]
fn a_client_that_is_kicked_between_two_versions_is_told_afterwards() {
    let site = Site::start(&["--allow-kick"]);
    let (mut operator, mut holder) = (site.server.message(), winding_down(&site, 3600.0));
    let (mut waiter, asked) = waiting(&site);
    let becomes = site.install_pausing_before_it_serves();
    let asking = site.asking().spawn().unwrap();
    becomes.await_reached();
    let kicked = operator.request("kick", json!({"address": holder.address()}));
    becomes.go_on();
    assert_eq!(asking.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(operator.result(kicked)["status"], "ok");
    assert_eq!(holder.read_to_end(), b"");
    waiter.hears_nothing();
    drop(holder);
    assert_eq!(waiter.result(asked)["status"], "ok");
}

/// A client that ends while nobody is served: its lock goes on to the next.
#[test]
fn a_client_that_leaves_between_two_versions_is_noticed_afterwards() {
    let site = Site::start(&[]);
    let mut holder = site.server.glockd();
    assert!(holder.ask("g a").starts_with('1'));
    let (mut waiter, asked) = waiting(&site);
    let becomes = site.install_pausing_before_it_serves();
    let asking = site.asking().spawn().unwrap();
    becomes.await_reached();
    drop(holder);
    becomes.go_on();
    assert_eq!(asking.wait_with_output().unwrap().status.code(), Some(0));
    let granted = waiter.result(asked);
    assert_eq!([&granted["status"], &granted["orphaned"]], [&json!("ok"), &json!(true)]);
}

/// Signals, requests and connections that come while one version has gone and the next has not come.
#[test]
fn what_comes_between_two_versions_is_done_by_the_next() {
    let mut site = Site::start(&["--dead-peer-timeout", "13"]);
    let mut holder = site.server.glockd();
    assert!(holder.ask("g a").starts_with('1'));
    let mut waiter = site.server.message();
    // It is told after its limit, and is not granted what is released later.
    let asked = waiter.request("lock", json!({"lockName": "a", "timeLimit": 0.001}));
    assert_eq!(waiter.result(asked)["status"], "timeout");
    let becomes = site.install_pausing_before_it_serves();
    let asking = site.asking().spawn().unwrap();
    becomes.await_reached();
    let asked = waiter.request("lock", json!({"lockName": "a", "timeLimit": 0.001}));
    let mut newcomer = site.server.glockd();
    newcomer.send("g a\ng b\n");
    site.server.signal(Signal::HUP);
    becomes.go_on();
    assert_eq!(asking.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(waiter.result(asked)["status"], "timeout");
    assert!(newcomer.line().starts_with('0') && newcomer.line().starts_with('1'));
    site.await_log("has been read again");
    // The path of the program is that of the next version from now on, which is the same.
    site.server.signal(Signal::USR2);
    eventually("it is upgraded once more", || {
        site.server.log().iter().filter(|line| line.contains("nobody was served for")).count() == 2
    });
    assert!(holder.ask("r a").starts_with('1'));
    site.server.signal(Signal::TERM);
    assert_eq!(site.server.wait().code(), Some(0));
}

#[test]
fn a_stop_between_two_versions_is_done_by_the_next() {
    let mut site = Site::start(&[]);
    let mut holder = site.server.glockd();
    assert!(holder.ask("g a").starts_with('1'));
    let becomes = site.install_pausing_before_it_serves();
    let asking = site.asking().spawn().unwrap();
    becomes.await_reached();
    site.server.signal(Signal::TERM);
    becomes.go_on();
    assert_eq!(asking.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(holder.read_to_end(), b"");
    assert_eq!(site.server.wait().code(), Some(0));
}

/// How long a server with the shortest dead-peer timeout keeps the locks of a client that may not
/// know of its end.
const RELEASE_DELAY: Duration = Duration::from_secs(9);

#[test]
fn locks_of_a_client_that_is_gone_are_kept_for_as_long_as_without_an_upgrade() {
    let site = Site::start(&["--dead-peer-timeout", "12"]);
    let wind_down = Duration::from_secs(2);
    let holder = winding_down(&site, wind_down.as_secs_f64());
    let (mut waiter, asked) = waiting(&site);
    let ended = Instant::now();
    reset(holder.into_socket());
    eventually("the server knows", || {
        site.server.message().call("stats", json!({}))["connections"].as_u64().is_some_and(|n| n <= 3)
    });
    (0..3).for_each(|_| _ = upgrade(&site));
    waiter.hears_nothing();
    assert_eq!(waiter.result(asked)["status"], "ok");
    let kept = ended.elapsed();
    assert!(kept >= RELEASE_DELAY + wind_down, "{kept:?}");
}

/// The server has ended its connection, and it does not leave: its time is over when it would have
/// been without an upgrade.
#[test]
fn the_time_of_a_kicked_client_is_neither_shortened_nor_begun_anew() {
    let site = Site::start(&["--allow-kick"]);
    let wind_down = Duration::from_secs(4);
    let mut holder = winding_down(&site, wind_down.as_secs_f64());
    let (mut waiter, asked) = waiting(&site);
    let begun = Instant::now();
    let address = holder.address();
    assert_eq!(site.server.message().call("kick", json!({"address": address}))["status"], "ok");
    assert_eq!(holder.read_to_end(), b"");
    // As long as it lasts, each upgrade would begin it anew.
    while begun.elapsed() < wind_down - Duration::from_millis(500) {
        upgrade(&site);
    }
    waiter.hears_nothing();
    assert_eq!(waiter.result(asked)["status"], "ok");
    assert!(begun.elapsed() >= wind_down);
    drop(holder);
}
