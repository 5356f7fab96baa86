//! Upgrades that succeed: what stays, and what is told.

use std::io::{Read, Write};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use rustix::process::Signal;
use serde_json::json;

use crate::site::Site;
use crate::support::eventually;

/// One number of the server's statistics.
fn number(site: &Site, key: &str) -> u64 {
    site.server.message().call("stats", json!({}))[key].as_u64().unwrap()
}

/// What the server's page answers.
fn page(site: &Site, path: &str) -> String {
    let log = site.server.log();
    let address = log.iter().find_map(|line| line.split_once("listening on http://")).unwrap().1;
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Upgrades once, and checks what is told.
fn upgrade(site: &Site) {
    let (status, told, error) = site.ask();
    assert!(status == 0, "{told}{error}");
    let version = env!("CARGO_PKG_VERSION");
    let begin = format!("upgraded from {version} to {version}: kept ");
    let report = told.lines().last().unwrap();
    assert!(report.starts_with(&begin) && report.contains("nobody was served for "), "{told}");
    site.await_log(&begin);
}

#[test]
fn locks_and_waits_of_all_protocols_stay() {
    let site = Site::start(&[]);
    let (pid, mut lockd, mut glockd) = (site.server.pid(), site.server.lockd(), site.server.glockd());
    let mut message = site.server.message();
    assert!(lockd.ask("g one").starts_with('1') && glockd.ask("g two").starts_with('1'));
    let token = message.lock("three")["token"].clone();
    let mut waiter = site.server.glockd();
    waiter.send("gw 600 two\n");
    site.server.await_waiters("two", 1);
    let waits = message.request_lock("one");
    site.install_again();
    for round in 1..=3 {
        upgrade(&site);
        assert_eq!((site.server.pid(), number(&site, "upgrades")), (pid, round));
    }
    assert!(glockd.ask("r two").starts_with('1') && waiter.line().starts_with('1'));
    assert!(site.server.lockd().ask("g one").starts_with('0'), "it is still held");
    assert!(lockd.ask("r one").starts_with('1'));
    assert_eq!(message.result(waits)["status"], json!("ok"));
    assert_eq!(message.unlock("three")["attempted"], json!("unlock"));
    assert!(message.lock("three")["token"].as_u64() > token.as_u64());
}

#[test]
fn clients_that_are_busy_notice_nothing_and_never_hold_one_lock_together() {
    const CLIENTS: usize = 8;
    let site = Site::start(&[]);
    let (done, holders) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (mut client, done, holders) = (site.server.glockd(), &done, &holders);
                scope.spawn(move || {
                    let mut rounds = 0;
                    while !done.load(SeqCst) {
                        // Cut anywhere, so that a request is often half on its way.
                        let (first, second) = "gw 600 one\n".split_at(rounds % 11);
                        client.send(first);
                        client.send(second);
                        assert!(client.line().starts_with('1'));
                        assert_eq!(holders.fetch_add(1, SeqCst), 0, "two hold it");
                        holders.fetch_sub(1, SeqCst);
                        assert!(client.ask("r one").starts_with('1'));
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        for _ in 0..10 {
            upgrade(&site);
        }
        done.store(true, SeqCst);
        let rounds: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert_eq!(number(&site, "grants"), rounds as u64);
    });
    assert_eq!((number(&site, "locks"), number(&site, "waiting")), (0, 0));
}

#[test]
fn a_signal_asks_for_it_too() {
    let site = Site::start(&[]);
    let mut holder = site.server.glockd();
    assert!(holder.ask("g kept").starts_with('1'));
    site.server.signal(Signal::USR2);
    site.await_log("nobody was served for");
    assert!(holder.ask("r kept").starts_with('1'));
}

#[test]
fn a_signal_that_comes_meanwhile_is_not_lost() {
    for round in 0..20 {
        let mut site = Site::start(&[]);
        let asking = site.asking().spawn().unwrap();
        // At another moment of the upgrade each time: before, amid, or after it.
        for _ in 0..round {
            assert!(site.server.glockd().ask("i foo").starts_with('0'));
        }
        site.server.signal(Signal::TERM);
        assert_eq!(site.server.wait().code(), Some(0), "round {round}: {:?}", site.server.log());
        asking.wait_with_output().unwrap();
    }
}

#[test]
fn the_state_directory_the_pidfile_and_the_control_socket_stay() {
    let directory = tempfile::tempdir().unwrap();
    let (state, pidfile) = (directory.path().join("state"), directory.path().join("pid"));
    let options = [
        "--first-start",
        "--state-dir",
        state.to_str().unwrap(),
        "--pidfile",
        pidfile.to_str().unwrap(),
        "--http",
        "127.0.0.1:0",
    ];
    let mut site = Site::start(&options);
    let record = std::fs::read(state.join("state")).unwrap();
    let mut holder = site.server.glockd();
    assert!(holder.ask("g kept").starts_with('1'));
    (0..3).for_each(|_| upgrade(&site));
    assert_eq!(std::fs::read(state.join("state")).unwrap(), record, "there was no start and no stop");
    assert_eq!(number(&site, "grace"), 0);
    assert_eq!(std::fs::read_to_string(&pidfile).unwrap().trim(), site.server.pid().to_string());
    assert!(holder.ask("r kept").starts_with('1'));
    assert!(page(&site, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(page(&site, "/metrics").contains("\nlockd_upgrades_total 3\n"));
    // It may still have the connection of the page; and at last, that of the command.
    let before = site.server.descriptors();
    (0..3).for_each(|_| upgrade(&site));
    eventually("none is left open", || site.server.descriptors() <= before);
    site.server.signal(Signal::TERM);
    assert_eq!(site.server.wait().code(), Some(0));
    assert!(!pidfile.exists() && !site.control().exists());
}

/// The text with each number replaced by N.
fn without_numbers(text: &str) -> String {
    let mut result = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if result.ends_with('N') => {}
            '0'..='9' => result.push('N'),
            c => result.push(c),
        }
    }
    result
}

#[test]
fn the_documented_command_prints_what_the_document_shows() {
    let manual = include_str!("../../docs/operations.md");
    let section = manual.split("\n## Upgrading\n").nth(1).unwrap();
    let blocks: Vec<&str> = section.split("```").skip(1).step_by(2).collect();
    assert_eq!(blocks[0], "sh\nlockd upgrade\n");
    let site = Site::start(&[]);
    let (status, told, error) = site.ask();
    assert!(status == 0, "{error}");
    assert_eq!(without_numbers(&told), without_numbers(blocks[1].trim_start()));
}

#[test]
fn lines_that_nobody_has_read_are_counted_and_delay_nothing() {
    let site = Site::start(&["--log-level", "debug"]);
    site.server.leave_log_unread();
    // More than a pipe takes.
    (0..600).for_each(|_| assert!(site.server.glockd().ask("i foo").starts_with('0')));
    let (status, told, error) = site.ask();
    assert!(status == 0, "{told}{error}");
    site.server.read_log_again();
    site.await_log("lines of the log were lost: nobody read them");
}

#[test]
fn the_page_says_that_the_process_was_started_when_it_was() {
    let site = Site::start(&["--http", "127.0.0.1:0"]);
    let started = || {
        let metrics = page(&site, "/metrics");
        metrics.lines().find(|line| line.starts_with("process_start_time_seconds ")).unwrap().to_owned()
    };
    let before = started();
    (0..2).for_each(|_| upgrade(&site));
    assert_eq!(started(), before);
}
