//! `lockd run` under `lockd run`: an inner one can never get what an outer one holds.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::server::program;
use crate::tool::{Running, Site, argument, until};

/// A script that runs `lockd run` with these arguments; `lockd` in it is the program under test.
fn script(text: &str) -> String {
    format!("lockd() {{ \"{}\" \"$@\"; }}; {text}", argument(program().as_ref()))
}

/// The exit status and the messages of `lockd run NAME…` with a script.
fn said(site: &Site, arguments: &[&str], text: &str) -> (i32, String) {
    let (code, _, errors) = site.said(&[&["run"], arguments, &["--", "sh", "-c", &script(text)]].concat());
    (code, errors)
}

#[test]
fn a_lock_that_an_outer_command_holds_is_refused_at_once() {
    let site = Site::start();
    for (arguments, text) in [
        (&["a"][..], "lockd run a -- echo never"),
        (&["a"], "lockd run -w 1000 a -- echo never"),
        (&["-s", "a"], "lockd run a -- echo never"),
        (&["a"], "lockd run -s a -- echo never"),
        (&["a"], "lockd run b a -- echo never"),
        (&["a", "b"], "lockd run b -- echo never"),
        // Two levels down, with an unrelated outer one in between.
        (&["a"], "lockd run b -- sh -c \"$1\""),
    ] {
        let inner = format!("{} run a -- echo never", argument(program().as_ref()));
        let text = text.replace("\"$1\"", &format!("'{inner}'"));
        let (code, errors) = said(&site, arguments, &text);
        assert_eq!(code, 125, "{text}: {errors}");
        assert!(errors.contains("this one runs under") && errors.lines().count() == 1, "{errors}");
    }
    site.server.await_free("a");
    let (code, errors) = said(&site, &["a"], "lockd run -n a -- echo never");
    assert!(code == 75 && errors.contains("this one runs under"), "{code}: {errors}");
    assert_eq!(said(&site, &["a"], "lockd run -q -n -E 9 a -- echo never"), (9, String::new()));
}

#[test]
fn names_may_be_any_bytes() {
    let site = Site::start();
    for name in [&b"a b"[..], b"a,b:c %41", b"a\nb", "\u{fc}".as_bytes(), b"\xff\xfe"] {
        let mut command = site.tool(&["run"]);
        let text = script("lockd run \"$1\" -- echo never");
        let name = OsStr::from_bytes(name);
        command.arg(name).args(["--", "sh", "-c", &text, "sh"]).arg(name);
        let mut running = Running(command.spawn().unwrap());
        assert_eq!(running.code(), 125, "{name:?}: {}", running.errors());
    }
    // These are different locks.
    assert_eq!(said(&site, &["a b"], "lockd run a b -- true").0, 0);
    assert_eq!(said(&site, &["a,b"], "lockd run a -- true").0, 0);
}

#[test]
fn a_lock_that_no_outer_command_holds_is_granted() {
    let site = Site::start();
    let other = Site::start();
    let elsewhere = format!("lockd run --server {} a -- true", other.url());
    for (arguments, text) in
        [(&["a"][..], "lockd run b -- true"), (&["-s", "a"], "lockd run -s a -- true"), (&["a"], &elsewhere)]
    {
        assert_eq!(said(&site, arguments, text), (0, String::new()), "{text}");
    }
}

#[test]
fn a_shared_request_is_refused_if_a_writer_waits_for_the_outer_command() {
    let site = Site::start();
    let text = script(&format!("echo > runs; {}; lockd run -s a -- echo never", until("go")));
    let mut running = site.run(&["-s", "a"], &text);
    site.line("runs");
    let mut writer = site.server.message();
    writer.request_lock("a");
    site.server.await_waiters("a", 1);
    site.write("go");
    assert_eq!(running.code(), 125);
    let errors = running.errors();
    assert!(errors.contains("this one runs under"), "{errors}");
}

#[test]
fn a_process_that_outlives_the_outer_command_may_have_its_lock() {
    let site = Site::start();
    let daemon = format!("{}; lockd run a -- true; echo $? > code", until("go"));
    let text = format!("({daemon}) > /dev/null 2>&1 < /dev/null & exit 0");
    assert_eq!(said(&site, &["a"], &text).0, 0);
    // Another session holds it now, so `lockd run` waits.
    let mut holder = site.server.message();
    holder.lock("a");
    site.write("go");
    site.server.await_waiters("a", 1);
    holder.unlock("a");
    assert_eq!(site.line("code"), "0");
}

/// The place of another job is free sooner or later. That of the outer command is not.
#[test]
fn a_slot_is_waited_for_unless_only_the_outer_command_could_free_it() {
    let site = Site::start();
    let mut other = site.server.message();
    other.call("lock", serde_json::json!({"lockName": "a", "limit": 2}));
    let text = script("lockd run --at-most 2 a -- true");
    let mut waits = site.run(&["--at-most", "2", "a"], &text);
    site.server.await_waiters("a", 1);
    other.unlock("a");
    assert_eq!(waits.code(), 0);

    let inner = format!("{} run --at-most 2 a -- echo never", argument(program().as_ref()));
    for text in ["lockd run a -- echo never", &format!("lockd run --at-most 2 a -- {inner}")] {
        let (code, errors) = said(&site, &["--at-most", "2", "a"], text);
        assert_eq!(code, 125, "{errors}");
        assert!(errors.contains("this one runs under"), "{errors}");
    }
}
