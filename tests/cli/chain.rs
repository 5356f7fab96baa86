//! `lockd inspect --chain`, and the chain in the message of a `lockd run` that has waited in vain.

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::server::Server;
use crate::tool::{Running, Site, text, until};

/// The session has no name, so others of its program cannot be told to be.
const UNKNOWN: &str = "no lock; whether its program waits in another session is unknown";
const WORKS: &str = "no lock: it works, or waits for something that lockd does not see";

/// A session that holds a lock and waits for another one.
fn between(site: &Site, held: &str, wanted: &str) -> FrameClient {
    let mut client = site.server.message();
    client.lock(held);
    client.request_lock(wanted);
    site.server.await_waiters(wanted, 1);
    client
}

/// `deploy`, whose holder waits for `migrate`, whose holder waits for `db`.
fn three(site: &Site) -> [FrameClient; 3] {
    let mut last = site.server.message();
    last.call("identify", json!({"name": "bob\u{9b}"}));
    last.lock("db");
    [between(site, "migrate", "db"), between(site, "deploy", "migrate"), last]
}

/// The first cell of each line, and what it waits for.
fn rows(shown: &str) -> Vec<(&str, &str)> {
    let column = shown.lines().next().unwrap().find("WAITS FOR").unwrap();
    let cells = |line: &'_ str| -> Option<(usize, usize)> { Some((line.find(' ')?, column.min(line.len()))) };
    let row = |line| cells(line).map(|(first, last)| (&line[..first], &line[last..]));
    shown.lines().skip(1).filter_map(row).collect()
}

#[test]
fn the_chain_is_followed_to_its_end() {
    let site = Site::start();
    let clients = three(&site);
    let (code, shown, errors) = site.said(&["inspect", "deploy", "--chain"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert_eq!(rows(&shown), [("deploy", "migrate"), ("migrate", "db"), ("db", WORKS)], "{shown}");
    assert!(shown.contains(&clients[0].address()) && shown.contains(r"bob\u{9b}"), "{shown}");
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    let (code, free, _) = site.said(&["inspect", "other", "--chain"]);
    assert!(code == 0 && free.contains("other  free"), "{free}");

    let (_, told, _) = site.said(&["inspect", "deploy", "--chain", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let locks = told["locks"].as_array().unwrap();
    assert_eq!(locks[0]["holders"][0]["waitsFor"][0]["lockName"], "migrate");
    assert_eq!(locks[0]["holders"][0]["waitsFor"][0]["by"], "session");
    assert_eq!((locks.len(), &locks[2]["holders"][0]["waitsFor"]), (3, &json!([])));
    assert_eq!(
        (&locks[1]["mode"], &locks[1]["waiters"], &told["more"]),
        (&json!("exclusive"), &json!(1), &json!(false))
    );
}

#[test]
fn a_run_that_waited_in_vain_says_what_the_holder_waits_for() {
    let site = Site::start();
    let _clients = three(&site);
    let (code, _, errors) = site.said(&["run", "-w", "0.2", "deploy", "--", "true"]);
    assert_eq!((code, errors.lines().count()), (124, 1), "{errors}");
    let (_, chain) = errors.split_once("; the holder waits for migrate, held by ").expect(&errors);
    assert!(chain.contains(", which waits for db, held by \"bob"), "{errors}");
    assert!(chain.ends_with(", which works, or waits for something that lockd does not see\n"), "{errors}");
    let (code, _, errors) = site.said(&["run", "-w", "0.2", "db", "--", "true"]);
    assert!(code == 124 && !errors.contains("waits for"), "{errors}");
    // It says at once that a lock is busy.
    let (code, _, errors) = site.said(&["run", "-n", "deploy", "--", "true"]);
    assert!(code == 75 && !errors.contains("waits for"), "{errors}");
}

#[test]
fn a_lockd_run_waits_for_what_one_in_its_command_waits_for() {
    let site = Site::start();
    let mut holder = site.server.message();
    holder.lock("db");
    // Several levels: each of the outer ones waits for what the innermost one waits for.
    let inner = "\"$LOCKD\" run stage -- \"$LOCKD\" run step -- \"$LOCKD\" run db -- true";
    let script = format!("{inner}; {}", until("end"));
    let mut outer = site.tool(&["run", "deploy", "--", "sh", "-c", &script]);
    let _outer = Running(outer.env("LOCKD", crate::support::server::program()).spawn().unwrap());
    site.server.await_waiters("db", 1);
    for name in ["deploy", "stage", "step"] {
        let (_, shown, _) = site.said(&["inspect", name, "--chain"]);
        assert_eq!(rows(&shown), [(name, "db, in a lockd run under it"), ("db", UNKNOWN)], "{shown}");
    }
    site.write("end");
}

#[test]
fn two_lockd_runs_that_wait_for_each_other_are_shown_as_a_circle() {
    let site = Site::start();
    let crosswise = |held: &str, wanted: &str| {
        let script = format!("echo >{held}; {}; exec \"$LOCKD\" run {wanted} -- true", until(wanted));
        let mut run = site.tool(&["run", held, "--", "sh", "-c", &script]);
        Running(run.env("LOCKD", crate::support::server::program()).spawn().unwrap())
    };
    let _both = [crosswise("a", "b"), crosswise("b", "a")];
    ["a", "b"].iter().for_each(|name| site.server.await_waiters(name, 1));
    let (code, shown, _) = site.said(&["inspect", "a", "--chain"]);
    let expected =
        [("a", "b, in a lockd run under it"), ("b", "a, in a lockd run under it, which closes a circle")];
    assert_eq!((code, &rows(&shown)[..2]), (0, &expected[..]), "{shown}");
    assert!(shown.contains("is a deadlock that no server sees"), "{shown}");
}

#[test]
fn what_cannot_be_known_is_said() {
    let site = Site::with(&["--no-dump"]);
    let _clients = three(&site);
    let (code, shown, errors) = site.said(&["inspect", "deploy", "--chain"]);
    assert!(shown.contains("held exclusively by one session"), "{shown}");
    assert!(code == 1 && errors.contains("listing is disabled on this server (no-dump)"), "{errors}");
    let (code, _, errors) = site.said(&["run", "-w", "0.2", "deploy", "--", "true"]);
    assert!(code == 124 && errors.contains("its holder is unknown"), "{errors}");
    // Without names, nobody knows whether a lockd run has others under it.
    let site = Site::with(&["--no-registry"]);
    let _run = site.run(&["deploy"], "sleep 1000");
    eventually("it runs", || site.said(&["inspect", "deploy"]).1.contains("held exclusively"));
    let (_, shown, _) = site.said(&["inspect", "deploy", "--chain"]);
    assert_eq!(rows(&shown), [("deploy", UNKNOWN)], "{shown}");
}

#[test]
fn a_chain_goes_from_one_server_to_another() {
    let (one, two) = (Site::start(), Site::start());
    let both = format!("{},{}", one.url(), two.url());
    // Which server has which name is known only from what a run does: some names are on each.
    let names: Vec<String> = (0..40).map(|number| format!("n{number}")).collect();
    let on = |server: &Server| {
        let is_there = |name: &&String| {
            let mut probe = one.tool(&["run", "--server", &both, name, "--", "sh", "-c", "echo; read x"]);
            let mut run = Running(probe.stdin(std::process::Stdio::piped()).spawn().unwrap());
            let mut line = [0; 1];
            std::io::Read::read_exact(run.0.stdout.as_mut().unwrap(), &mut line).unwrap();
            let mut client = server.message();
            client.call("inspect", json!({"lockName": name}))["holders"] == 1
        };
        names.iter().find(is_there).expect("with forty names").clone()
    };
    let (first, second) = (on(&one.server), on(&two.server));
    let (mut holder, mut there, mut last) =
        (one.server.message(), two.server.message(), two.server.message());
    for client in [&mut holder, &mut there] {
        client.call("identify", json!({"name": "worker 7"}));
    }
    holder.lock(&first);
    last.lock(&second);
    there.request_lock(&second);
    two.server.await_waiters(&second, 1);
    let (code, shown, errors) = one.said(&["inspect", &first, "--chain", "--server", &both]);
    assert_eq!(code, 0, "{errors}");
    let found = rows(&shown);
    assert_eq!(found[0].1, format!("{second}, if the owner of the same name there is the same"), "{shown}");
    assert_eq!((found[1].0, found.len()), (second.as_str(), 2), "{shown}");
    assert_eq!(found[1].1, UNKNOWN, "without a name: {shown}");

    let gone = format!("{},unix:/nonexistent/lockd.sock", one.url());
    let output = one.output(&["inspect", &first, "--chain", "--server", &gone]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nonexistent/lockd.sock"), "{output:?}");
}
