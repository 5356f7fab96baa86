//! The commands with a server that may be at several places, of which some have standbys.

use rustix::process::Signal;

use crate::place::{Place, stop};
use crate::resuming::{GOES_ON, RESUMED, await_resumed, hold_at};
use crate::standby::{standby, vacant};
use crate::tool::Site;

#[test]
fn a_command_lives_through_a_move_of_its_server_to_another_place() {
    for signal in [Signal::KILL, Signal::TERM] {
        let mut place = Place::tcp().with_state();
        let (first, second) = (place.listen.clone(), format!("message://{}", vacant()));
        let bare = |listen: &str| listen.strip_prefix("message://").unwrap().to_owned();
        let url = format!("tcp://{},{},{}", bare(&first), standby(), bare(&second));
        let server = place.serve();
        let (mut running, token) = hold_at(&place, &url, &["a"]);
        let mut waiting = place.run_at(&url, "0", "waiting", &["a"], "echo $LOCKD_TOKEN > next");
        server.await_waiters("a", 1);
        stop(server, signal);
        place.await_said("errors", GOES_ON);
        place.listen = second;
        let server = place.serve();
        await_resumed(&place, &server, token);
        server.await_waiters("a", 1);
        place.await_said("errors", RESUMED);
        assert!(!place.site.path("next").exists());
        place.site.write("stop");
        assert_eq!((running.code(), waiting.code()), (5, 0));
        assert!(place.site.line("next").parse::<u64>().unwrap() > token);
    }
}

#[test]
fn each_command_asks_the_active_server() {
    let site = Site::start();
    let url = format!("tcp://{},{}", standby(), site.url().strip_prefix("tcp://").unwrap());
    for (arguments, said) in [
        (&["list"][..], ""),
        (&["inspect", "a"], "a"),
        (&["stats"], "connections"),
        (&["run", "-n", "a", "--", "echo", "done"], "done"),
    ] {
        let (command, rest) = arguments.split_first().unwrap();
        let (code, output, errors) = site.said(&[&[*command, "--server", &url], rest].concat());
        assert_eq!((code, errors.as_str()), (0, ""), "{arguments:?}");
        assert!(output.contains(said), "{arguments:?}: {output}");
    }
}

#[test]
fn without_an_active_server_each_command_says_so() {
    let site = Site::start();
    let (place, vacant) = (standby(), vacant());
    let url = format!("tcp://{place},{vacant}");
    let reason = format!(
        "{url} cannot be reached: no server of the group is active: {place}: standby; {vacant}: Connection refused"
    );
    for (arguments, status) in [
        (&["list"][..], 1),
        (&["inspect", "a"], 1),
        (&["stats"], 1),
        (&["run", "-n", "a", "--", "true"], 69),
        (&["run", "--wait", "0.2", "a", "--", "true"], 69),
    ] {
        let (command, rest) = arguments.split_first().unwrap();
        let (code, _, errors) = site.said(&[&[*command, "--server", &url], rest].concat());
        assert_eq!(code, status, "{arguments:?}: {errors}");
        assert!(errors.contains(&reason), "{arguments:?}: {errors}");
    }
    let alone = format!("tcp://{place}");
    for arguments in [&["list"][..], &["stats"], &["kick", "--owner", "a"]] {
        let (code, _, errors) = site.said(&[arguments, &["--server", &alone]].concat());
        assert_eq!(code, 1, "{arguments:?}: {errors}");
        assert!(errors.contains("this server is a standby of the cluster jobs"), "{arguments:?}: {errors}");
    }
}
