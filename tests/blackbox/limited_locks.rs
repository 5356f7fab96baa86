//! Limited locks in the `message` protocol: at most so many holders, whatever each of them asks for.

use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::server::Server;
use serde_json::{Value, json};

fn at_most(limit: u32) -> Value {
    json!({"lockName": "gpu", "limit": limit})
}

fn try_at_most(client: &mut FrameClient, limit: u32) -> Value {
    client.call("lock", json!({"lockName": "gpu", "limit": limit, "timeLimit": 0}))["status"].clone()
}

fn convert_to(limit: u32) -> Value {
    at_most(limit)
}

#[test]
fn a_limited_lock_has_so_many_holders_and_the_next_waiter_gets_the_place_of_one_that_ends() {
    let server = Server::start();
    let mut holders = [server.message(), server.message(), server.message()];
    for (number, holder) in (1..).zip(&mut holders) {
        let granted = holder.call("lock", at_most(3));
        assert_eq!([&granted["status"], &granted["holders"]], [&json!("ok"), &json!(number)]);
    }
    let (mut first, mut second) = (server.message(), server.message());
    assert_eq!(try_at_most(&mut first, 3), "timeout");
    let waits = first.request("lock", at_most(3));
    server.await_waiters("gpu", 1);
    let waits_behind = second.request("lock", at_most(5));
    server.await_waiters("gpu", 2);
    let [one, two, mut three] = holders;
    drop(one);
    assert_eq!(first.result(waits)["status"], "ok");
    drop(two);
    assert_eq!(second.result(waits_behind)["status"], "ok");
    let seen = three.call("inspect", json!({"lockName": "gpu"}));
    assert_eq!(seen, json!({"status": "ok", "mode": "shared", "limit": 3, "holders": 3, "waiters": 0}));
}

#[test]
fn the_lowest_limit_of_the_holders_is_in_force_while_it_is_held() {
    let server = Server::start();
    let (mut five, mut two, mut shared) = (server.message(), server.message(), server.message());
    assert_eq!(try_at_most(&mut five, 5), "ok");
    assert_eq!(try_at_most(&mut two, 2), "ok");
    let share = || json!({"lockName": "gpu", "mode": "shared", "timeLimit": 0});
    assert_eq!(shared.call("lock", share())["status"], "timeout");
    two.unlock("gpu");
    assert_eq!(shared.call("lock", share())["status"], "ok");
    assert_eq!(try_at_most(&mut two, 2), "timeout", "two others hold it already");
    assert_eq!(try_at_most(&mut server.message(), 5), "ok");
    assert_eq!(server.message().try_lock("gpu")["status"], "timeout");
}

#[test]
fn a_limit_of_one_is_an_exclusive_lock() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), server.message());
    assert_eq!(a.call("lock", at_most(1)).get("holders"), None);
    assert_eq!(a.call("lock", json!({"lockName": "gpu", "mode": "exclusive"}))["already"], true);
    assert_eq!(a.call("inspect", json!({"lockName": "gpu"}))["mode"], "exclusive");
    assert_eq!(try_at_most(&mut b, 9), "timeout");
}

#[test]
fn the_same_limit_again_is_already_held_and_another_one_needs_a_conversion() {
    let server = Server::start();
    let mut client = server.message();
    let token = client.call("lock", at_most(3))["token"].clone();
    let again = client.call("lock", at_most(3));
    assert_eq!(again, json!({"status": "ok", "token": token, "already": true, "holders": 1}));
    assert_eq!(client.call("lock", at_most(4))["status"], "refused");
    assert_eq!(client.call("lock", json!({"lockName": "gpu", "mode": "shared"}))["status"], "refused");
}

#[test]
fn a_conversion_to_a_lower_limit_waits_and_to_a_higher_one_does_not() {
    let server = Server::start();
    let mut holders = [server.message(), server.message(), server.message()];
    let tokens = holders.each_mut().map(|holder| holder.call("lock", at_most(3))["token"].clone());
    let mut waiter = server.message();
    let waits = waiter.request("lock", at_most(9));
    server.await_waiters("gpu", 1);
    let [one, two, three] = &mut holders;
    // Wider: at once, with the same token. The others still allow three.
    let wider = one.call("convert", convert_to(4));
    assert_eq!(wider, json!({"status": "ok", "token": tokens[0], "holders": 3}));
    // Narrower: waits until a holder goes, ahead of the waiter.
    let narrower = two.request("convert", convert_to(2));
    server.await_waiters("gpu", 2);
    three.unlock("gpu");
    let converted = two.result(narrower);
    assert_eq!(converted["status"], "ok");
    assert!(converted["token"].as_u64() > tokens[2].as_u64(), "a narrower mode has a new token");
    assert_eq!(try_at_most(&mut server.message(), 9), "timeout");
    two.call("convert", json!({"lockName": "gpu", "mode": "shared"}));
    assert_eq!(waiter.result(waits)["status"], "ok");
    assert_eq!(three.call("convert", convert_to(2))["status"], "notFound");
}

#[test]
fn each_name_of_a_set_has_its_limit() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), server.message());
    let names = json!(["a", {"lockName": "b", "limit": 2}, {"lockName": "c", "mode": "shared"}, {"lockName": "d", "limit": 1}]);
    assert_eq!(a.call("lock", json!({"lockNames": names, "limit": 3}))["status"], "ok");
    let seen = ["a", "b", "c", "d"].map(|name| {
        let seen = b.call("inspect", json!({"lockName": name}));
        (seen["mode"].clone(), seen["limit"].clone())
    });
    let expected =
        [("shared", json!(3)), ("shared", json!(2)), ("shared", json!(null)), ("exclusive", json!(null))];
    assert_eq!(seen, expected.map(|(mode, limit)| (json!(mode), limit)));
}

#[test]
fn a_listing_shows_the_limit_in_force_and_that_of_each_holder_and_waiter() {
    let server = Server::start();
    let (mut a, mut b, mut c) = (server.message(), server.message(), server.message());
    a.call("lock", at_most(4));
    b.call("lock", at_most(2));
    c.request("lock", at_most(7));
    server.await_waiters("gpu", 1);
    let lock = a.call("list", json!({}))["locks"][0].clone();
    assert_eq!([&lock["mode"], &lock["limit"]], [&json!("shared"), &json!(2)]);
    let limits =
        |of: &str| lock[of].as_array().unwrap().iter().map(|one| one["limit"].clone()).collect::<Vec<_>>();
    assert_eq!([limits("holders"), limits("waiters")], [vec![json!(4), json!(2)], vec![json!(7)]]);
    assert_eq!(lock["waiters"][0]["mode"], "shared");
}

#[test]
fn a_limit_that_makes_no_sense_is_invalid() {
    let server = Server::start();
    let mut client = server.message();
    for limit in [json!(0), json!(-1), json!(2.5), json!(16_777_216), json!("4"), json!([4]), json!(true)] {
        let told = client.call("lock", json!({"lockName": "gpu", "limit": limit}));
        let expected = "limit is not a whole number from 1 to 16777215";
        assert_eq!([&told["status"], &told["reason"]], [&json!("invalid"), &json!(expected)], "{limit}");
    }
    let told = client.call("lock", json!({"lockName": "gpu", "mode": "shared", "limit": 4}));
    assert_eq!([&told["status"], &told["reason"]], ["invalid", "limit stands beside the mode shared"]);
    let told = client.call("convert", json!({"lockName": "gpu"}));
    assert_eq!([&told["status"], &told["reason"]], ["invalid", "mode is missing"]);
    let most = json!({"lockName": "gpu", "mode": "exclusive", "limit": 16_777_215});
    assert_eq!(client.call("lock", most)["holders"], 1);
    client.call("lock", json!({"lockName": "a", "limit": null}));
    assert_eq!(client.call("inspect", json!({"lockName": "a"}))["mode"], "exclusive");
    let features = client.call("hello", json!({}))["features"].clone();
    assert!(features.as_array().unwrap().contains(&json!("limit")), "{features}");
}

#[test]
fn a_limited_lock_refuses_the_text_protocols_as_an_exclusive_one_does() {
    let server = Server::start();
    let mut holder = server.message();
    holder.call("lock", at_most(2));
    assert_eq!(server.lockd().ask("g gpu"), "0 Cannot Get Lock\r\n");
    assert_eq!(server.glockd().ask("g gpu"), "0 Lock Get Failure: gpu\r\n");
    let mut waiting = server.glockd();
    waiting.send("gw 10 gpu\n");
    server.await_waiters("gpu", 1);
    assert_eq!(try_at_most(&mut server.message(), 2), "timeout", "nobody overtakes the waiting line");
    holder.unlock("gpu");
    assert_eq!(waiting.line(), "1 Lock Get Success: gpu\r\n");
    assert_eq!(try_at_most(&mut holder, 2), "timeout");
}

#[test]
fn limited_and_shared_locks_of_text_clients_exclude_each_other_only_if_the_server_was_told_so() {
    let server = Server::with(&["--shared-excludes"]);
    let (mut one, mut two, mut text) = (server.message(), server.message(), server.glockd());
    assert_eq!(try_at_most(&mut one, 2), "ok");
    assert_eq!(text.ask("sg gpu"), "2 Shared Lock Get Success: gpu\r\n");
    assert_eq!(text.ask("si gpu"), "2 Shared Lock Is Locked: gpu\r\n");
    assert_eq!(text.ask("i gpu"), "0 Lock Not Locked: gpu\r\n");
    assert_eq!(try_at_most(&mut two, 2), "timeout");
    assert_eq!(text.ask("sr gpu"), "1 Shared Lock Release Success: gpu\r\n");
    eventually("the place of the text client is free", || try_at_most(&mut two, 2) == "ok");
}
