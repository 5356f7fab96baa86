//! `lockd kick`: an operator ends a connection, and its client knows before another session has its
//! locks.

use serde_json::json;

use crate::support::eventually;
use crate::tool::{Site, await_end, until};

#[test]
fn a_kicked_owner_is_gone_and_the_next_one_has_the_lock() {
    let site = Site::with(&["--allow-kick"]);
    let (mut holder, mut waiter) = (site.server.message(), site.server.message());
    holder.lock("a");
    let asked = waiter.request_lock("a");
    site.server.await_waiters("a", 1);
    let address = holder.address();
    assert_eq!(site.said(&["kick", &address]).0, 0);
    let granted = waiter.result(asked);
    assert_eq!((&granted["status"], &granted["orphaned"]), (&json!("ok"), &json!(true)));
    assert_eq!(holder.read_to_end(), b"");
    let (code, _, errors) = site.said(&["kick", &address]);
    assert!(code == 1 && errors.contains(&format!("no connection has the address {address}")), "{errors}");
    let logged = || {
        site.server.log().iter().any(|line| line.contains(&format!("{address} ")) && line.contains("kicked"))
    };
    eventually("it is logged", logged);
}

#[test]
fn waiters_and_text_clients_can_be_kicked_too() {
    let site = Site::with(&["--allow-kick"]);
    let (mut holder, mut waiter, mut text) =
        (site.server.message(), site.server.message(), site.server.glockd());
    holder.lock("a");
    waiter.request_lock("a");
    text.send("gw 60 a\n");
    site.server.await_waiters("a", 2);
    for address in [waiter.address(), text.address()] {
        assert_eq!(site.said(&["kick", &address]).0, 0);
    }
    assert_eq!((waiter.read_to_end(), text.read_to_end()), (vec![], vec![]));
    site.server.await_waiters("a", 0);
    assert_eq!(holder.call("inspect", json!({"lockName": "a"}))["holders"], 1);
}

#[test]
fn an_owner_is_kicked_with_all_connections() {
    let site = Site::with(&["--allow-kick"]);
    let mut all = ["bob", "bob", "eve"].map(|name| {
        let mut client = site.server.message();
        client.call("identify", json!({"name": name}));
        client
    });
    assert_eq!(site.said(&["kick", "--owner", "bob"]).0, 0);
    for (arguments, said) in [
        (&["kick", "eve"][..], "did you mean --owner eve?"),
        (&["kick", "--owner", "bob"], "no connection has an owner named bob"),
    ] {
        let (code, _, errors) = site.said(arguments);
        assert!(code == 1 && errors.contains(said), "{errors}");
    }
    let [first, second, other] = &mut all;
    assert_eq!((first.read_to_end(), second.read_to_end()), (vec![], vec![]));
    assert!(other.is_served());
}

#[test]
fn a_command_whose_connection_is_kicked_is_ended_and_the_next_one_runs() {
    let site = Site::with(&["--allow-kick"]);
    let script = "echo $$ > pid; exec sleep 1000";
    let mut running = site.run(&["a"], script);
    let pid = site.pid("pid");
    let mut next = site.run(&["a"], &format!("echo > next; {}", until("stop")));
    site.server.await_waiters("a", 1);
    let owner = format!(", pid {}, id ", running.pid());
    let listed = site.server.message().call("list", json!({}));
    let holder = &listed["locks"][0]["holders"][0];
    assert!(holder["name"].as_str().unwrap().contains(&owner), "{holder}");
    assert_eq!(site.said(&["kick", holder["address"].as_str().unwrap()]).0, 0);
    assert_eq!(running.code(), 76);
    await_end(pid);
    site.line("next");
    site.write("stop");
    assert_eq!(next.code(), 0);
}

/// Kicks the one holder of `a`.
fn kick_holder(site: &Site) {
    let listed = site.server.message().call("list", json!({}));
    let address = listed["locks"][0]["holders"][0]["address"].as_str().unwrap().to_owned();
    assert_eq!(site.said(&["kick", &address]).0, 0);
}

#[test]
fn the_lock_of_a_kicked_command_is_kept_until_the_command_has_ended() {
    let site = Site::with(&["--allow-kick"]);
    let finish = format!("echo > heard; {}; echo > finished; exit", until("go"));
    let script = format!("trap '{finish}' TERM; echo > runs; while :; do sleep 0.01; done");
    let mut running = site.run(&["--grace", "1000", "a"], &script);
    site.line("runs");
    let mut next = site.run(&["a"], "[ -e finished ]; echo $? > next");
    site.server.await_waiters("a", 1);
    kick_holder(&site);
    site.line("heard");
    site.server.await_waiters("a", 1);
    site.write("go");
    assert_eq!(running.code(), 76);
    assert_eq!((site.line("next"), next.code()), ("0".to_owned(), 0));
}

#[test]
fn the_lock_of_a_kicked_command_that_does_not_end_is_kept_until_it_is_killed() {
    let site = Site::with(&["--allow-kick"]);
    let script = "trap '' TERM; echo $$ > pid; while :; do sleep 0.01; done";
    let mut running = site.run(&["--grace", "1", "a"], script);
    let pid = site.pid("pid");
    let mut next = site.run(&["a"], &format!("kill -0 {pid} 2> /dev/null; echo $? > next"));
    site.server.await_waiters("a", 1);
    kick_holder(&site);
    assert_eq!(running.code(), 76);
    assert_eq!((site.line("next"), next.code()), ("1".to_owned(), 0));
}

#[test]
fn no_client_is_kicked_unless_the_server_allows_it() {
    let site = Site::start();
    let mut client = site.server.message();
    let (code, _, errors) = site.said(&["kick", &client.address()]);
    assert!(code == 1 && errors.contains("kicking is disabled"), "{errors}");
    assert!(errors.contains("--allow-kick"), "{errors}");
    assert!(client.is_served());
    for arguments in [&["kick"][..], &["kick", "a", "--owner", "b"]] {
        let (code, _, errors) = site.said(arguments);
        assert!(code == 2 && errors.contains("ADDRESS") && errors.contains("--owner"), "{errors}");
    }
}
