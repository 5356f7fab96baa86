//! `lockd run -c`: a line for the shell, as flock(1) has it.

use serde_json::json;

use crate::tool::{Running, Site, text, until};

#[test]
fn the_shell_runs_the_line_and_its_status_is_passed_on() {
    let site = Site::start();
    for (arguments, code, out) in [
        (&["a", "-c", "printf 'b\\na\\n' | sort; exit 3"][..], 3, "a\nb\n"),
        (&["-n", "a b", "c", "-c", "echo \"$LOCKD_NAMES\""], 0, "a b\nc\n"),
        (&["a", "--command", "echo $0 $#"], 0, "/bin/sh 0\n"),
        (&["a", "--command=exit 4"], 4, ""),
        (&["-nc", "", "a"], 2, ""),
        (&["a", "-nc", ""], 0, ""),
        (&["a", "-c", "kill -TERM $$"], 143, ""),
        (&["a", "-c", "exec ./no-such-program 2> /dev/null"], 127, ""),
    ] {
        let output = site.tool(&[&["run"], arguments].concat()).env_remove("SHELL").output().unwrap();
        assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(code), out), "{output:?}");
    }
}

#[test]
fn the_shell_is_the_users() {
    let site = Site::start();
    for (shell, code, out) in [
        ("/bin/echo", 0, "-c the line\n"),
        ("echo", 0, "-c the line\n"),
        ("", 127, ""),
        ("/nonexistent", 127, ""),
    ] {
        let output = site.tool(&["run", "a", "-c", "the line"]).env("SHELL", shell).output().unwrap();
        assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(code), out), "{output:?}");
    }
}

#[test]
fn others_see_the_shell_as_the_owner_and_not_the_line() {
    let site = Site::start();
    let line = format!("echo secret > runs; {}", until("stop"));
    let mut command = site.tool(&["run", "a", "-c", &line]);
    let mut running = Running(command.env("SHELL", "/bin/sh").spawn().unwrap());
    site.line("runs");
    let listed = site.server.message().call("list", json!({}));
    let owner = listed["locks"][0]["holders"][0]["name"].as_str().unwrap();
    assert!(owner.starts_with("run: sh (") && !owner.contains("secret"), "{owner}");
    site.write("stop");
    assert_eq!(running.code(), 0);
}

#[test]
fn a_line_that_is_not_one_argument_is_refused_with_the_line_as_it_should_be() {
    let site = Site::start();
    for (arguments, line) in [
        (&["a", "-c", "echo", "run"][..], "lockd run a -c 'echo run'"),
        (&["-w", "5", "a b", "-c", "ls", "-l", "-n"], "lockd run -w 5 'a b' -c 'ls -l -n'"),
        (&["a", "-c", "ls", "-n"], "lockd run a -c 'ls -n'"),
        (&["a", "-nc", "ls", "x"], "lockd run a -nc 'ls x'"),
        (&["a", "--command=ls", "x"], "lockd run NAME -c 'COMMAND'"),
        (&["a", "--command", "echo it's", "x"], "lockd run a --command 'echo it'\\''s x'"),
        (&["-c", "echo run", "a"], "lockd run NAME -c 'COMMAND'"),
    ] {
        let (code, out, errors) = site.said(&[&["run"], arguments].concat());
        assert_eq!((code, &*out), (2, ""), "{errors}");
        assert!(errors.contains("-c takes one argument") && errors.contains(line), "{line}: {errors}");
    }
    for (arguments, complaint) in [
        (&["a", "-c", "true", "--", "true"][..], "cannot be used with"),
        (&["a", "-c"], "a value is required"),
        (&["-c", "true"], "<NAME>"),
        (&["a", "-c", "true", "-c", "true"], "-c takes one argument"),
    ] {
        let (code, out, errors) = site.said(&[&["run"], arguments].concat());
        assert_eq!((code, &*out), (2, ""), "{errors}");
        assert!(errors.contains(complaint), "{complaint}: {errors}");
    }
    let (code, out, _) = site.said(&["run", "a", "-c", "true", "--help"]);
    assert!(code == 0 && out.contains("lockd run [OPTIONS] NAME... -c 'COMMAND'"), "{out}");
}
