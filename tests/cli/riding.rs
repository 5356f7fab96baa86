//! `lockd run` waits through whatever happens to its server while it waits for the lock, and only
//! then.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::place::{Place, held, stop};
use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::server::Server;
use crate::tool::{Running, argument, await_end, state, until};

const ABSENT: &str = "lockd: a: no server, trying again ";
const BACK: &str = "lockd: a: connected to the server after ";

#[test]
fn a_server_that_is_not_up_yet_is_waited_for() {
    for place in [Place::tcp(), Place::unix()] {
        for (errors, arguments, until) in [
            ("limited", &["-w", "300", "a"][..], "for 4m59s more: "),
            ("unlimited", &["a"], "for as long as"),
        ] {
            let mut waiting = place.run(errors, arguments, "exit 5");
            place.await_said(errors, ABSENT);
            let server = place.serve();
            assert_eq!(waiting.code(), 5);
            let said = place.errors(errors);
            assert!(said.contains(until) && said.contains(&place.listen), "{said}");
            assert!(said.contains(BACK) && said.lines().count() == 2, "{said}");
            stop(server, Signal::TERM);
        }
    }
}

#[test]
fn a_restart_or_a_crash_is_waited_through() {
    for signal in [Signal::TERM, Signal::KILL] {
        for (quiet, lines) in [(false, 2), (true, 0)] {
            let place = Place::tcp();
            let (server, _holder) = held(&place);
            let names: &[&str] = if quiet { &["-q", "-w", "300", "b", "a"] } else { &["-w", "300", "a"] };
            let mut waiting = place.run("errors", names, "exit 5");
            server.await_waiters("a", 1);
            stop(server, signal);
            let _server = place.serve();
            assert_eq!(waiting.code(), 5);
            let said = place.errors("errors");
            assert_eq!(said.lines().count(), lines, "{said}");
        }
    }
}

#[test]
fn after_a_crash_the_grace_of_the_next_server_is_waited_through_too() {
    let place = Place::tcp().with_state();
    let (server, _holder) = held(&place);
    let mut waiting = place.run("errors", &["-w", "300", "a"], "exit 5");
    server.await_waiters("a", 1);
    stop(server, Signal::KILL);
    let _server = place.serve();
    let (code, _, errors) = place.said(&["-n", "a"]);
    assert_eq!(code, 75, "{errors}");
    let (code, _, errors) = place.said(&["-w", "0.1", "a"]);
    assert_eq!(code, 124, "{errors}");
    assert!(errors.contains("has been started anew"), "{errors}");
    let mut ended = place.run("ended", &["--verbose", "a"], "echo never > never");
    place.await_said("ended", "s ago: the server has been started anew");
    ended.signal(Signal::TERM);
    assert_eq!(ended.code(), 143);
    assert_eq!(waiting.code(), 5);
    assert!(!place.site.path("never").exists());
}

#[test]
fn who_does_not_wait_for_the_lock_does_not_wait_for_a_server() {
    for place in [Place::tcp(), Place::unix()] {
        for arguments in [&["-n", "a"][..], &["-w", "0", "a"], &["-n", "-q", "a"], &["-n", "-E", "9", "a"]] {
            let (code, _, errors) = place.said(arguments);
            assert_eq!((code, errors.lines().count()), (69, 1), "{errors}");
        }
        let _held = held_anywhere(&place);
        assert_eq!(place.said(&["-n", "a"]).0, 75);
    }
}

/// As [`held`], also over a Unix socket.
fn held_anywhere(place: &Place) -> (Server, FrameClient) {
    let server = place.serve();
    let mut holder = place.client(&server);
    holder.lock("a");
    (server, holder)
}

#[test]
fn at_the_time_limit_the_status_says_whether_there_was_a_server() {
    let place = Place::tcp();
    for arguments in [&["-w", "0.3", "a"][..], &["-w", "0.3", "-E", "9", "a"], &["-q", "-w", "0.3", "a"]] {
        let (code, _, errors) = place.said(arguments);
        assert_eq!(code, 69, "{errors}");
        let last = errors.lines().last().unwrap();
        assert!(last.starts_with("lockd: a: not acquired within 0.3 s: no server: "), "{errors}");
    }
    let (server, _holder) = held(&place);
    let (code, _, errors) = place.said(&["-w", "0.3", "a"]);
    assert_eq!(code, 124, "{errors}");
    // Long enough to be in the queue when the server goes.
    let mut waiting = place.run("errors", &["-w", "5", "a"], "echo never > never");
    server.await_waiters("a", 1);
    stop(server, Signal::KILL);
    assert_eq!(waiting.code(), 69, "{}", place.errors("errors"));
    assert!(!place.site.path("never").exists());
}

#[test]
fn a_signal_ends_the_wait_for_a_server() {
    let place = Place::tcp();
    for (signal, own, status) in
        [(Signal::INT, Some(2), None), (Signal::TERM, None, Some(143)), (Signal::HUP, None, Some(129))]
    {
        let mut waiting = place.run("errors", &["a"], "echo never > never");
        place.await_said("errors", ABSENT);
        waiting.signal(signal);
        let ended = waiting.wait();
        assert_eq!((ended.signal(), ended.code()), (own, status));
        let (server, _holder) = held(&place);
        let mut waiting = place.run("errors", &["a"], "echo never > never");
        server.await_waiters("a", 1);
        stop(server, Signal::KILL);
        place.await_said("errors", "trying again");
        waiting.signal(signal);
        let ended = waiting.wait();
        assert_eq!((ended.signal(), ended.code()), (own, status));
    }
    assert!(!place.site.path("never").exists());
}

#[test]
fn a_server_that_comes_back_with_another_secret_ends_the_wait() {
    let place = Place::tcp();
    let (server, _holder) = held(&place);
    let mut waiting = place.run("errors", &["a"], "echo never > never");
    server.await_waiters("a", 1);
    stop(server, Signal::KILL);
    let secret = place.site.path("secret");
    std::fs::write(&secret, "0123456789abcdef").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let place = place.with(&["--auth-token-file", argument(&secret)]);
    let _server = place.serve();
    assert_eq!(waiting.code(), 125);
    assert!(!place.site.path("never").exists());
}

#[test]
fn names_that_no_server_can_grant_are_a_mistake_without_a_server_too() {
    let place = Place::tcp();
    assert_eq!(place.said(&["-w", "300", "a", "a"]).0, 125);
    let servers = format!("{},unix:/nonexistent/lockd", place.listen);
    let names: Vec<String> = (0..64).map(|number| format!("name{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let all = [&["run", "--server", &servers], names.as_slice(), &["--", "true"]].concat();
    let (code, _, errors) = place.site.said(&all);
    assert!(code == 125 && errors.contains("cannot be acquired at once"), "{code}: {errors}");
}

#[test]
fn of_several_servers_only_the_one_of_the_name_is_asked() {
    let place = Place::tcp();
    let _server = place.serve();
    let servers = format!("{},unix:/nonexistent/lockd", place.listen);
    let run = |name: &str| {
        place.site.said(&["run", "-w", "2", "--server", &servers, "--verbose", name, "--", "true"]).0
    };
    let names: Vec<String> = (0..32).map(|number| format!("name{number}")).collect();
    // Some at a time, since those of the server that is not there take all of their time.
    let some = |names: &[String]| -> Vec<i32> {
        std::thread::scope(|scope| {
            let running: Vec<_> = names.iter().map(|name| scope.spawn(|| run(name))).collect();
            running.into_iter().map(|running| running.join().unwrap()).collect()
        })
    };
    let codes: BTreeSet<i32> = names.chunks(4).flat_map(some).collect();
    assert_eq!(codes, BTreeSet::from([0, 69]));
}

#[test]
fn verbose_says_what_is_waited_for_and_when_it_is_granted() {
    for (options, words) in [(&[][..], "held by 127.0.0.1:"), (&["--no-dump"], "holder is unknown: ")] {
        let place = Place::tcp().with(options);
        let (server, mut holder) = held(&place);
        let mut waiting = place.run("errors", &["--verbose", "a"], "exit 5");
        place.await_said("errors", "lockd: a: waiting for ");
        let said = place.errors("errors");
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
        holder.unlock("a");
        assert_eq!(waiting.code(), 5);
        let said = place.errors("errors");
        assert!(said.lines().last().unwrap().starts_with("lockd: a: acquired after "), "{said}");
        drop(server);
    }
    let place = Place::tcp();
    let _waiting = place.run("errors", &["--verbose", "a"], "true");
    place.await_said("errors", "lockd: a: waiting for ");
    assert!(place.errors("errors").contains("s: no server: "), "{}", place.errors("errors"));
}

/// Many waiters, while the server is ended with one signal after the other.
fn take_turns(place: &Place, count: usize, signals: &[Signal]) {
    let (mut server, mut holder) = held(place);
    // Each command has a file of its own, and removes it whenever it is cut short. Of two that run
    // at the same time, one at least sees both files.
    let script = "trap 'rm -f inside.$$; exit' TERM; touch inside.$$; \
                  [ \"$(ls -d inside.* | wc -l)\" = 1 ] || echo 2 >> two; \
                  echo $$ >> turns; sleep 0.02; rm -f inside.$$";
    let mut waiting: Vec<Running> =
        (0..count).map(|number| place.run(&format!("errors{number}"), &["-w", "600", "a"], script)).collect();
    server.await_waiters("a", count);
    holder.unlock("a");
    let turns = || {
        let text = std::fs::read_to_string(place.site.path("turns")).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    // A command may be killed before it has removed its file.
    let is_inside = || {
        let files = std::fs::read_dir(place.site.path(".")).unwrap().map(|file| file.unwrap());
        let mut inside = files.filter_map(|file| {
            let pid = file.file_name().to_str()?.strip_prefix("inside.")?.parse::<i32>().ok()?;
            Some((pid, file.path()))
        });
        inside.any(|(pid, path)| state(pid).is_some() || std::fs::remove_file(path).is_err())
    };
    for (number, &signal) in signals.iter().enumerate() {
        let enough = (number + 1) * count / (signals.len() + 2);
        eventually("some have had their turn", || turns().len() >= enough);
        stop(server, signal);
        // The next server may grant the lock while a command that has lost it is still ending.
        eventually("nobody runs", || !is_inside());
        server = place.serve();
    }
    let codes: Vec<i32> = waiting.iter_mut().map(Running::code).collect();
    let cut_short = codes.iter().filter(|&&code| code == 76).count();
    assert!(codes.iter().all(|&code| code == 0 || code == 76), "{codes:?}");
    assert!(cut_short <= signals.len(), "{codes:?}");
    // A command that was cut short may have ended before its first line.
    let turns = turns();
    assert!((count - cut_short..=count).contains(&turns.len()), "{codes:?}");
    assert_eq!(turns.iter().collect::<BTreeSet<_>>().len(), turns.len(), "each has one turn");
    assert!(!place.site.path("two").exists());
}

#[test]
fn several_waiters_live_through_restarts_and_crashes_and_each_has_one_turn() {
    take_turns(&Place::tcp(), 10, &[Signal::TERM, Signal::KILL]);
}

#[test]
#[ignore = "takes 20 seconds: make check-deep"]
fn waiters_live_through_a_crash_and_its_grace() {
    take_turns(&Place::tcp().with_state(), 4, &[Signal::KILL]);
}

#[test]
#[ignore = "takes 10 seconds: make check-deep"]
fn fifty_waiters_live_through_three_restarts_and_two_crashes() {
    let signals = [Signal::TERM, Signal::KILL, Signal::TERM, Signal::KILL, Signal::TERM];
    take_turns(&Place::tcp(), 50, &signals);
}

/// The server ends with the lock held, and the holder's command takes its time to end. A waiter
/// that is back before that must not start its own.
#[test]
fn a_waiter_does_not_start_while_a_command_that_lost_the_lock_is_still_ending() {
    for signal in [Signal::TERM, Signal::KILL] {
        let place = Place::tcp();
        let server = place.serve();
        let script = "trap 'sleep 1; rm running; exit' TERM; touch running; while :; do sleep 0.05; done";
        let grace = ["--grace", "3", "a"];
        let run = |script: &str| {
            let all = [&["run", "--server", &place.listen], &grace[..], &["--", "sh", "-c", script]].concat();
            Running(place.site.tool(&all).stderr(std::process::Stdio::null()).spawn().unwrap())
        };
        let mut holder = run(script);
        eventually("the command runs", || place.site.path("running").exists());
        let mut waiting = run("test ! -e running");
        server.await_waiters("a", 1);
        stop(server, signal);
        let _server = place.serve();
        assert_eq!((holder.code(), waiting.code()), (76, 0));
    }
}

#[test]
fn who_runs_does_not_wait_for_a_server() {
    let place = Place::tcp();
    let server = place.serve();
    let mut running = place.run("errors", &["-w", "300", "a"], &format!("echo $$ > pid; {}", until("stop")));
    let pid = place.site.pid("pid");
    stop(server, Signal::KILL);
    let _server = place.serve();
    assert_eq!(running.code(), 76);
    await_end(pid);
}
