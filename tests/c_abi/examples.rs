//! The examples do what they claim: the C examples, built with their own Makefile against an
//! installed library, and the Rust examples.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lockd::Session;
use lockd::broker::{Inspection, Mode};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::installing::{installed, make};
use crate::program::{Served, build_directory, checked, root};
use crate::running::{DEADLINE, Running, eventually};

/// The language of an example, and how it is linked with the library.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Shared,
    Static,
    Rust,
}

const ALL: [Kind; 3] = [Kind::Shared, Kind::Static, Kind::Rust];

/// The directory of the C examples, built once.
fn built() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = build_directory().join("examples");
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = make(&root().join("examples/c"));
        command.args(["all", "static"]).arg(format!("OUT={}", directory.display()));
        command.env("PKG_CONFIG_PATH", installed().join("lib/pkgconfig"));
        let output = checked(command.output().unwrap(), "the C examples");
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        directory
    })
}

fn example(kind: Kind, in_c: &str, in_rust: &str) -> Command {
    match kind {
        Kind::Shared => {
            let mut command = Command::new(built().join(in_c));
            command.env("LD_LIBRARY_PATH", installed().join("lib"));
            command
        }
        Kind::Static => Command::new(built().join(format!("{in_c}-static"))),
        Kind::Rust => {
            let here = std::env::current_exe().unwrap();
            Command::new(here.parent().unwrap().with_file_name("examples").join(in_rust))
        }
    }
}

fn connect(url: &str) -> Session {
    Session::connect(url, Some("test"), DEADLINE).unwrap()
}

fn until(session: &Session, name: &[u8], is: impl Fn(Inspection) -> bool) {
    eventually("the lock is as expected", || is(session.inspect(name).unwrap()));
}

#[test]
fn threads_lose_no_money() {
    for kind in ALL {
        let ended = Running::start(&mut example(kind, "threads", "embedded_threads")).end();
        let expected = "10000 transfers by 4 workers: 5000 in all accounts, 5000 to begin with";
        assert_eq!((ended.code, ended.lines, ended.complaints), (Some(0), vec![expected.into()], vec![]));
    }
}

#[test]
fn a_daemon_serves_while_it_works_and_stops_cleanly() {
    for kind in ALL {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            serve_and_stop(kind, signal);
        }
    }
}

fn serve_and_stop(kind: Kind, signal: Signal) {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("daemon.sock");
    let mut command = example(kind, "daemon", "embedded_server");
    command.arg("message://127.0.0.1:0").arg(format!("message+unix:{}", socket.display()));
    let mut daemon = Running::start(&mut command);
    let mut address = || daemon.line().strip_prefix("listening on ").unwrap().to_owned();
    let (tcp, unix) = (address(), address());
    let (over_tcp, over_unix) = (connect(&tcp), connect(&unix));

    // The tokens of consecutive grants differ by one: a gap shows a grant to the daemon's threads.
    let mut last = 0;
    eventually("the daemon takes turns with its client", || {
        let grant = over_tcp.acquire(b"spool", Mode::Shared, Some(DEADLINE)).unwrap();
        over_tcp.release(b"spool").unwrap();
        let before = std::mem::replace(&mut last, grant.token);
        before != 0 && grant.token > before + 1
    });
    over_tcp.acquire(b"spool", Mode::Shared, Some(DEADLINE)).unwrap();
    until(&over_unix, b"spool", |lock| lock.holders == 1 && lock.waiters >= 1);

    daemon.signal(signal);
    let ended = daemon.end();
    assert_eq!((ended.code, &ended.complaints), (Some(0), &vec![]), "{kind:?}");
    let rounds = ended.lines[0].strip_prefix("stopped after ").unwrap().strip_suffix(" rounds").unwrap();
    assert!(rounds.parse::<u64>().unwrap() > 0, "{kind:?}: {rounds}");
    eventually("its clients find out", || !over_tcp.is_alive() && !over_unix.is_alive());
    assert!(!socket.exists(), "{kind:?} does not remove its socket");
}

#[test]
fn a_daemon_that_cannot_serve_prints_the_reason() {
    let server = Served::start();
    for kind in ALL {
        let mut command = example(kind, "daemon", "embedded_server");
        let ended = Running::start(command.arg(server.tcp())).end();
        assert_eq!(ended.code, Some(1), "{kind:?}");
        assert!(ended.complaints[0].contains("in use"), "{kind:?}: {:?}", ended.complaints);
    }
}

#[test]
fn a_server_takes_the_options_of_the_program_by_their_names() {
    for kind in [Kind::Shared, Kind::Static] {
        let mut command = example(kind, "server", "");
        command.args(["listen=message://127.0.0.1:0,glockd://127.0.0.1:0", "no-dump=true"]);
        let mut server = Running::start(&mut command);
        let address = server.line().strip_prefix("listening on ").unwrap().to_owned();
        assert!(server.line().starts_with("listening on glockd://127.0.0.1:"), "{kind:?}");
        let session = connect(&address);
        session.acquire(b"a", Mode::Exclusive, Some(DEADLINE)).unwrap();
        assert!(session.list(b"", None, 1).is_err(), "{kind:?}");
        server.signal(Signal::SIGTERM);
        let ended = server.end();
        assert_eq!((ended.code, ended.complaints), (Some(0), vec![]), "{kind:?}");

        let mut wrong = example(kind, "server", "");
        let ended = Running::start(wrong.args(["listen=message://127.0.0.1:0", "user=nobody"])).end();
        assert_eq!(ended.code, Some(1), "{kind:?}");
        assert!(ended.complaints[0].starts_with("cannot serve: user: "), "{kind:?}: {:?}", ended.complaints);
    }
}

fn guarded(kind: Kind, url: &str, script: &str) -> Running {
    let mut command = example(kind, "guarded_work", "guarded_work");
    Running::start(command.args([url, "work", "sh", "-c", script]))
}

#[test]
fn guarded_work_waits_its_turn_and_exits_with_the_status_of_the_command() {
    let server = Served::start();
    let session = connect(&server.unix());
    for kind in ALL {
        let grant = session.acquire(b"work", Mode::Exclusive, Some(DEADLINE)).unwrap();
        let mut work = guarded(kind, &server.tcp(), "echo $LOCK_TOKEN; exit 7");
        until(&session, b"work", |lock| lock.waiters == 1);
        // A signal that does not ask it to stop changes nothing.
        work.signal(Signal::SIGCHLD);
        session.release(b"work").unwrap();
        assert!(work.line().parse::<u64>().unwrap() > grant.token, "{kind:?}");
        let ended = work.end();
        assert_eq!((ended.code, ended.complaints), (Some(7), vec![]), "{kind:?}");
        let lock = session.inspect(b"work").unwrap();
        assert_eq!((lock.holders, lock.orphaned), (0, false), "{kind:?}");

        let killed = guarded(kind, &server.unix(), "kill -KILL $$").end();
        assert_eq!((killed.code, killed.complaints), (Some(128 + 9), vec![]), "{kind:?}");
    }
}

#[test]
fn guarded_work_stops_when_its_lock_is_lost() {
    for kind in ALL {
        let server = Served::start();
        // The processes that the command has started must end too.
        let mut work = guarded(kind, &server.unix(), "sleep 1000 & echo started; wait");
        assert_eq!(work.line(), "started");
        drop(server);
        let ended = work.end();
        assert_eq!((ended.code, ended.lines), (Some(122), vec![]), "{kind:?}: {:?}", ended.complaints);
        assert_eq!(ended.complaints.len(), 1);
    }
}

#[test]
fn guarded_work_leaves_the_queue_when_it_is_told_to_stop() {
    let server = Served::start();
    let session = connect(&server.unix());
    session.acquire(b"work", Mode::Exclusive, None).unwrap();
    for kind in ALL {
        let work = guarded(kind, &server.tcp(), "echo started");
        until(&session, b"work", |lock| lock.waiters == 1);
        work.signal(Signal::SIGTERM);
        let ended = work.end();
        assert_eq!((ended.code, ended.lines, ended.complaints), (Some(128 + 15), vec![], vec![]), "{kind:?}");
        until(&session, b"work", |lock| lock.waiters == 0);
    }
}

#[test]
fn guarded_work_forwards_signals_and_holds_the_lock_until_the_command_has_ended() {
    let server = Served::start();
    let session = connect(&server.unix());
    for kind in ALL {
        let script = "sleep 1000 & trap 'echo told; read line < \"$0\"; exit 9' TERM; echo started; wait";
        let directory = TempDir::new().unwrap();
        let fifo = directory.path().join("fifo");
        checked(Command::new("mkfifo").arg(&fifo).output().unwrap(), "mkfifo");
        let mut command = example(kind, "guarded_work", "guarded_work");
        command.args([&server.tcp(), "work", "sh", "-c", script]).arg(&fifo);
        let mut work = Running::start(&mut command);
        assert_eq!(work.line(), "started");
        work.signal(Signal::SIGTERM);
        assert_eq!(work.line(), "told");
        assert_eq!(session.inspect(b"work").unwrap().holders, 1, "{kind:?}");
        std::fs::write(&fifo, "go on\n").unwrap();
        let ended = work.end();
        assert_eq!((ended.code, ended.complaints), (Some(9), vec![]), "{kind:?}");
        let lock = session.inspect(b"work").unwrap();
        assert_eq!((lock.holders, lock.orphaned), (0, false), "{kind:?}");
    }
}

#[test]
fn the_command_does_not_outlive_a_guard_that_is_killed() {
    let server = Served::start();
    let session = connect(&server.unix());
    for kind in ALL {
        let mut work = guarded(kind, &server.tcp(), "echo started; exec sleep 1000");
        assert_eq!(work.line(), "started");
        work.signal(Signal::SIGKILL);
        // end() waits until the output is closed, so the command has ended too.
        assert_eq!(work.end().code, None, "{kind:?}");
        let grant = session.acquire(b"work", Mode::Exclusive, Some(DEADLINE)).unwrap();
        assert!(grant.orphaned, "{kind:?}");
        session.release(b"work").unwrap();
    }
}

#[test]
fn guarded_work_reports_that_it_cannot_get_the_lock() {
    let nowhere = TempDir::new().unwrap();
    for kind in ALL {
        let ended = guarded(kind, &format!("unix:{}/sock", nowhere.path().display()), "echo started").end();
        assert_eq!((ended.code, ended.lines), (Some(123), vec![]), "{kind:?}");
        assert_eq!(ended.complaints.len(), 1, "{kind:?}");
    }
}
