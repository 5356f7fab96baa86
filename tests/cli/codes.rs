//! `lockd run`: its exit status, what the command is told, and its messages about a refusal.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::eventually;
use crate::support::server::Server;
use crate::tool::{Site, argument, until};

/// A command that shows that it was run.
const TELL: [&str; 3] = ["--", "echo", "run"];

fn run<'a>(arguments: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    [&["run"], arguments, command].concat()
}

#[test]
fn the_commands_status_is_passed_on() {
    let site = Site::start();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        assert_eq!(site.run(&["a"], script).code(), code, "{script}");
    }
    let mut observer = site.server.message();
    // The lock is released however the command has ended: the next holder is not told `orphaned`.
    assert_eq!(
        observer.call("inspect", json!({"lockName": "a"})),
        json!({"status": "ok", "mode": null, "holders": 0, "waiters": 0})
    );
}

#[test]
fn arguments_go_through_as_they_are() {
    let site = Site::start();
    let (code, out, _) = site.said(&run(&["a"], &["--", "printf", "%s|", "a b", "*", "$HOME", "--", "-n"]));
    assert_eq!((code, &*out), (0, "a b|*|$HOME|--|-n|"));
}

#[test]
fn every_way_not_to_run_has_its_own_code() {
    let site = Site::start();
    let mut holder = site.server.message();
    holder.lock("held");
    let nowhere = format!("unix:{}", argument(&site.path("nobody.sock")));
    let file = site.path("file");
    std::fs::write(&file, "no program").unwrap();
    let (file, server) = (argument(&file), &nowhere);
    for (arguments, command, code) in [
        (&["-n", "held"][..], &TELL[..], 75),
        (&["-n", "-E", "9", "held"], &TELL, 9),
        (&["-w", "0.2", "held"], &TELL, 124),
        (&["-w", "0.2", "-E", "0", "held"], &TELL, 0),
        (&["-w", "0", "held"], &TELL, 75),
        (&["-n", "--server", server, "a"], &TELL, 69),
        (&["a"], &["--", file], 126),
        (&["a"], &["--", "/dev/null/program"], 126),
        (&["a"], &["--", "./no-such-program"], 127),
        (&["a", "a"], &TELL, 125),
        (&["--server", "nonsense", "a"], &TELL, 2),
        (&["a"], &[], 2),
        (&[], &TELL, 2),
        (&["-w", "-1", "a"], &TELL, 2),
        (&["-n", "-w", "1", "a"], &TELL, 2),
        (&["-q", "--verbose", "a"], &TELL, 2),
        (&["--connect-timeout", "0", "a"], &TELL, 2),
    ] {
        let (is, out, errors) = site.said(&run(arguments, command));
        assert_eq!((is, &*out), (code, ""), "{arguments:?}: {errors}");
        assert!(!errors.is_empty(), "{arguments:?}");
    }
    site.server.await_free("a");
}

#[test]
fn a_command_without_the_separator_is_refused_with_the_line_as_it_should_be() {
    let site = Site::start();
    for (arguments, line) in [
        (&["a", "echo", "run"][..], "lockd run a -- echo run"),
        (&["-w", "5", "a", "ls", "-l", "-n"], "lockd run -w 5 a -- ls -l -n"),
        (&["-nw5", "a b", "grep", "-w", "it's"], "lockd run -nw5 'a b' -- grep -w 'it'\\''s'"),
        (
            &["--grace=1", "--server", "unix:/x", "a", "true", "--bogus"],
            "lockd run --grace=1 --server unix:/x a -- true --bogus",
        ),
        (&["a"], "lockd run a -- COMMAND"),
    ] {
        let (code, out, errors) = site.said(&run(arguments, &[]));
        assert_eq!((code, &*out), (2, ""), "{errors}");
        assert!(errors.contains(line), "{line}: {errors}");
    }
    for seconds in ["x", "-1", "nan"] {
        let (code, _, errors) = site.said(&run(&["-w", seconds, "a"], &TELL));
        assert!(code == 2 && errors.contains("not a number of seconds from 0 up"), "{errors}");
    }
    // If it is present and something else is wrong, the message is about the other mistake.
    for (arguments, complaint) in
        [(&["--bogus", "a", "b"][..], "--bogus"), (&["-w", "x", "a", "--", "b"], "--wait")]
    {
        let (code, _, errors) = site.said(&run(arguments, &[]));
        assert!(code == 2 && errors.contains(complaint) && !errors.contains("as in"), "{errors}");
    }
}

#[test]
fn the_time_limit_covers_connecting() {
    let site = Site::start();
    // A server that hangs accepts no connection, but its kernel does.
    site.server.signal(Signal::STOP);
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", site.server.pid())).unwrap();
    eventually("it is stopped", || stat().contains(") T "));
    for arguments in [&["-q", "-w", "0.2", "a"][..], &["-q", "-w", "0.2", "-E", "7", "a"]] {
        let (code, out, errors) = site.said(&run(arguments, &TELL));
        assert_eq!((code, &*out), (69, ""), "{errors}");
        assert!(
            errors.starts_with("lockd: a: not acquired within 0.2 s: ") && errors.contains(&site.url()),
            "{errors}"
        );
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    let (code, _, errors) = site.said(&run(&["-n", "--connect-timeout", "0.2", "a"], &TELL));
    assert_eq!(code, 69, "{errors}");
    site.server.signal(Signal::CONT);
}

#[test]
fn a_server_that_turns_clients_away_counts_as_no_server() {
    let barred = Site::with(&["--allow", "192.0.2.1"]);
    let (code, _, errors) = barred.said(&run(&["-n", "a"], &TELL));
    assert_eq!(code, 69, "{errors}");
    let full = Site::with(&["--connections-max", "1"]);
    let mut client = full.server.message();
    assert!(client.is_served());
    let (code, _, errors) = full.said(&run(&["-n", "a"], &TELL));
    // The reason is not always known: the server's reply may be lost with a connection that is
    // reset.
    assert_eq!(code, 69, "{errors}");
}

#[test]
fn an_error_that_a_retry_cannot_fix_is_a_mistake() {
    let secret = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = secret.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        argument(&path).to_owned()
    };
    let (right, wrong) = (file("right", "0123456789abcdef"), file("wrong", "fedcba9876543210"));
    let site = Site::with(&["--auth-token-file", &right]);
    let url = site.url();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let strange = format!("tcp://{}", stranger.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut peer, _)) = stranger.accept() {
            // Until the client has disconnected.
            let _ = peer.write_all(b"220 mail.example ESMTP ready\r\n");
            let _ = std::io::copy(&mut peer, &mut std::io::sink());
        }
    });
    for (server, words) in [
        (url.clone(), "secret"),
        (format!("{url}?auth-token-file={wrong}"), "is not this server's"),
        (format!("{url}?auth-token-file=/nonexistent/secret"), "/nonexistent/secret"),
        (url.replace("tcp:", "tls:"), "tls://"),
        (strange, "tcp://"),
        ("tcp://no..such.host:1".to_owned(), "no..such.host"),
    ] {
        for limit in [&["-w", "1000"][..], &["-n"], &[]] {
            let (code, out, errors) = site.said(&run(&[limit, &["--server", &server, "a"]].concat(), &TELL));
            assert_eq!((code, &*out), (125, ""), "{server}: {errors}");
            assert!(errors.contains(words) && errors.lines().count() == 1, "{server}: {errors}");
        }
    }
    let (code, out, errors) =
        site.said(&run(&["--server", &format!("{url}?auth-token-file={right}"), "a"], &TELL));
    assert_eq!((code, &*out, &*errors), (0, "run\n", ""));
}

#[test]
fn a_server_that_grants_nothing_yet_is_busy_and_not_a_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let state = argument(directory.path());
    let before = Site::with(&["--state-dir", state, "--first-start"]);
    before.server.signal(Signal::KILL);
    drop(before);
    let site = Site::with(&["--state-dir", state, "--first-start"]);
    for (arguments, code) in [(&["-n", "a"][..], 75), (&["-n", "a", "b"], 75), (&["-n", "-E", "9", "a"], 9)] {
        let (is, out, errors) = site.said(&run(arguments, &TELL));
        assert_eq!((is, &*out), (code, ""), "{errors}");
        assert!(errors.contains("has been started anew"), "{errors}");
    }
    assert_eq!(site.said(&run(&["-q", "-n", "a"], &TELL)).2, "");
    for names in [&["a"][..], &["a", "b"]] {
        let (code, _, errors) = site.said(&run(&[&["-w", "0.2"], names].concat(), &TELL));
        assert_eq!(code, 124, "{errors}");
        assert!(errors.contains("has been started anew") && !errors.contains("nobody"), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[test]
fn a_wait_lasts_as_long_as_it_was_said_to_or_until_the_lock_is_free() {
    let site = Site::start();
    let mut holder = site.server.message();
    holder.lock("a");
    let start = Instant::now();
    assert_eq!(site.said(&run(&["-w", "0.3", "a"], &TELL)).0, 124);
    assert!(start.elapsed() >= Duration::from_millis(300));
    let mut waiting = site.run(&["-w", "60", "a"], "exit 5");
    site.server.await_waiters("a", 1);
    holder.unlock("a");
    assert_eq!(waiting.code(), 5);
}

#[test]
fn the_command_is_told_of_its_lock() {
    let site = Site::start();
    let show = "printf '%s|%s|%s|%s\\n' \"$LOCKD_NAME\" \"$LOCKD_NAMES\" \"$LOCKD_TOKEN\" \"$LOCKD_ORPHANED\" > told";
    let mut running = site.run(&["a b", "c"], &format!("{show}; {}", until("stop")));
    let told = site.line("told");
    let mut observer = site.server.message();
    let held = observer.call("list", json!({}));
    let token = held["locks"][0]["holders"][0]["token"].as_u64().unwrap();
    assert_eq!(told, format!("a b|a b\nc|{token}|"));
    assert_eq!(held["locks"][1]["lockName"], "c");
    let owner = held["locks"][0]["holders"][0]["name"].as_str().unwrap().to_owned();
    assert!(
        owner.starts_with("run: sh (") && owner.contains(&format!(", pid {}, id ", running.pid())),
        "{owner}"
    );
    site.write("stop");
    assert_eq!(running.code(), 0);
}

#[test]
fn a_command_is_told_of_a_holder_that_vanished() {
    let site = Site::start();
    let mut holder = site.server.message();
    holder.lock("a");
    drop(holder);
    site.server.await_free("a");
    for orphaned in ["1", ""] {
        let (_, out, _) = site.said(&run(&["a"], &["--", "sh", "-c", "echo \"$LOCKD_ORPHANED\""]));
        assert_eq!(out.trim_end(), orphaned);
    }
}

#[test]
fn several_names_are_acquired_together_or_not_at_all() {
    let site = Site::start();
    let mut holder = site.server.message();
    holder.lock("b");
    let (code, _, errors) = site.said(&run(&["-n", "a", "b"], &TELL));
    assert_eq!(code, 75);
    assert!(errors.contains("a, b: busy: b is held by ") && !errors.contains("a is"), "{errors}");
    let mut waiting = site.run(&["a", "b"], &format!("echo > runs; {}", until("stop")));
    site.server.await_waiters("b", 1);
    holder.unlock("b");
    site.line("runs");
    assert_eq!(
        [holder.try_lock("a")["status"].take(), holder.try_lock("b")["status"].take()],
        ["timeout"; 2]
    );
    site.write("stop");
    assert_eq!(waiting.code(), 0);
}

#[test]
fn shared_commands_run_together_and_exclude_others() {
    let site = Site::start();
    let script = |number: u8| format!("echo > runs{number}; {}", until("stop"));
    let mut both = [1, 2].map(|number| site.run(&["-s", "a"], &script(number)));
    site.line("runs1");
    site.line("runs2");
    assert_eq!(site.said(&run(&["-n", "a"], &TELL)).0, 75);
    site.write("stop");
    assert_eq!(both.each_mut().map(|running| running.code()), [0, 0]);
    assert_eq!(site.said(&run(&["-n", "a"], &TELL)).1, "run\n");
}

/// Starts a holder of `a`, and a waiter for it.
fn queue(server: &Server) -> (impl Drop, String) {
    struct Both(#[expect(dead_code, reason = "kept open")] [crate::support::frame_client::FrameClient; 2]);
    impl Drop for Both {
        fn drop(&mut self) {}
    }
    let (mut holder, mut waiter) = (server.message(), server.message());
    holder.call("identify", json!({"name": "bob\u{1b}[2J"}));
    holder.lock("a");
    waiter.request_lock("a");
    server.await_waiters("a", 1);
    let address = holder.address();
    (Both([holder, waiter]), address)
}

#[test]
fn a_refusal_names_holders_and_waiters() {
    let site = Site::start();
    let (_queue, address) = queue(&site.server);
    let held = format!(": held by \"bob\\u{{1b}}[2J\" at {address} for ");
    let (_, _, errors) = site.said(&run(&["-n", "a"], &TELL));
    assert!(
        errors.contains("a: busy") && errors.contains(&held) && errors.contains("; 1 waiting"),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 1, "{errors}");
    let (_, _, errors) = site.said(&run(&["-w", "0.2", "a"], &TELL));
    assert!(errors.contains("a: not acquired within 0.2 s") && errors.contains(&held), "{errors}");
    assert!(errors.contains("was number 2 of 2 in the queue"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    for arguments in [["-q", "-n", "a"].as_slice(), &["-q", "-w", "0.1", "a"]] {
        assert_eq!(site.said(&run(arguments, &TELL)).2, "");
    }
}

#[test]
fn a_refusal_without_listings_is_still_a_refusal() {
    let site = Site::with(&["--no-dump"]);
    let (_queue, _) = queue(&site.server);
    let (code, _, errors) = site.said(&run(&["-n", "a"], &TELL));
    assert!(
        code == 75 && errors.contains("listing is disabled on this server (no-dump)"),
        "{code}: {errors}"
    );
}

#[test]
fn the_command_does_not_inherit_the_connection() {
    let site = Site::start();
    let (code, out, _) = site.said(&run(&["a"], &["--", "sh", "-c", "ls -l /proc/$$/fd"]));
    assert!(code == 0 && out.contains(" 1 -> pipe:"), "{out}");
    assert!(!out.contains("socket:") && !out.contains("signalfd"), "{out}");
}

#[test]
fn the_servers_variables_do_not_affect_other_commands() {
    let site = Site::start();
    let commands = [run(&["a"], &TELL), vec!["list"], vec!["inspect", "a"], vec!["stats"], vec!["watch"]];
    for arguments in commands.iter().chain([&vec!["completions", "bash"]]) {
        let mut command = site.tool(arguments);
        for (variable, value) in [
            ("LOCKD_STATE_DIR", ""),
            ("LOCKD_LOCKS_MAX", "many"),
            ("LOCKD_NO_DUMP", "perhaps"),
            ("LOCKD_LISTEN", "nonsense"),
            ("LOCKD_CONFIG", "/nonexistent/lockd.toml"),
        ] {
            command.env(variable, value);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_mistake_in_a_commands_own_variable_is_told_by_its_name() {
    let site = Site::start();
    for (value, said) in [("", "LOCKD_SERVER: "), ("h:1", "did you mean tcp://h:1?")] {
        let output = site.tool(&["list"]).env("LOCKD_SERVER", value).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(errors.starts_with("lockd: LOCKD_SERVER: ") && errors.contains(said), "{errors}");
        let (code, _, errors) = site.said(&["list", "--server", "h:1"]);
        assert!(code == 2 && errors.contains("--server") && !errors.contains("LOCKD_SERVER"), "{errors}");
    }
}

#[test]
fn an_empty_name_is_a_variable_that_is_not_set() {
    let site = Site::start();
    for arguments in [&["run", "", "--", "echo", "never"][..], &["run", "a", "", "-c", "echo never"]] {
        let (code, out, errors) = site.said(arguments);
        assert!(code == 2 && out.is_empty() && errors.contains("is a variable not set?"), "{errors}");
    }
    let (code, _, errors) = site.said(&["run", "-w", "1e300", "a", "--", "echo", "never"]);
    assert!(code == 2 && errors.contains("too large"), "{errors}");
}
