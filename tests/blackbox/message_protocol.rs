//! The `message` protocol as a client sees it: frames, ids, the original's requests byte for byte.

use std::collections::HashSet;

use crate::support::frame_client::{FrameClient, frame};
use crate::support::server::Server;
use serde_json::{Value, json};

fn over_tcp_and_unix(server: &Server) -> [FrameClient; 2] {
    [server.message(), FrameClient::new(server.unix("message"))]
}

/// The keys the original's clients look at.
fn original_keys(reply: &Value) -> Value {
    json!({"id": reply["id"], "result": {"status": reply["result"]["status"]}})
}

#[test]
fn the_originals_requests_get_the_originals_replies() {
    let server = Server::start();
    for mut client in over_tcp_and_unix(&server) {
        client.send_text(r#"{"command":"lock","parameters":{"lockName":"foo"},"id":0}"#);
        assert_eq!(original_keys(&client.receive()), json!({"id": 0, "result": {"status": "ok"}}));
        client.send_text(r#"{"command":"unlock","lockName":"foo"}"#);
        assert_eq!(client.receive(), json!({"attempted": "unlock", "result": "ok", "lockName": "foo"}));
        client.send_text(r#"{"command":"unlock","lockName":"foo"}"#);
        assert_eq!(client.receive(), json!({"attempted": "unlock", "result": "notFound", "lockName": "foo"}));
        client.send_text(r#"{"command":"unlock"}"#);
        assert_eq!(client.receive(), json!({"attempted": "unlock", "result": "invalid"}));
        client.send_text(r#"{"command":"lock","parameters":{},"id":1}"#);
        assert_eq!(original_keys(&client.receive()), json!({"id": 1, "result": {"status": "invalid"}}));
    }
}

#[test]
fn ids_come_back_as_they_were() {
    let server = Server::start();
    let mut client = server.message();
    let ids = [
        json!(0),
        json!(17),
        json!(-3),
        json!(1.5),
        json!(u64::MAX),
        json!(i64::MIN),
        json!("seven"),
        json!(""),
        json!("\u{1F512} \"\\\n"),
    ];
    for id in ids {
        client.send(&json!({"command": "ping", "parameters": {}, "id": id}));
        assert_eq!(client.receive()["id"], id);
        client.send(&json!({"command": "lock", "parameters": {"lockName": "foo"}, "id": id}));
        assert_eq!(client.receive()["id"], id);
    }
}

#[test]
fn white_space_and_escapes_in_json_do_not_matter() {
    let server = Server::start();
    let mut client = server.message();
    client.send_text(" {\n\t\"id\" : 5 , \"parameters\" : { \"lockName\" : \"f\\u006f\\u006F\" } , \"command\":\"l\\u006fck\" }\r\n");
    assert_eq!(original_keys(&client.receive()), json!({"id": 5, "result": {"status": "ok"}}));
    assert_eq!(server.lockd().ask("i foo"), "1 Locked\r\n");
}

#[test]
fn names_are_any_text() {
    let server = Server::start();
    let mut client = server.message();
    for name in ["", " ", "two  words", "schlo\u{df}", "\u{1F512}", "a\"b\\c", "line\nbreak", "nul\0byte"] {
        assert_eq!(client.lock(name)["status"], "ok", "{name:?}");
        assert_eq!(client.call("inspect", json!({"lockName": name}))["holders"], 1, "{name:?}");
        assert_eq!(client.unlock(name), json!({"attempted": "unlock", "result": "ok", "lockName": name}));
    }
}

/// A number is a name: its text as it was written, for example a database id.
#[test]
fn a_number_is_a_name() {
    let server = Server::start();
    let (mut client, mut other) = (server.message(), server.message());
    for (number, text) in [
        ("42", "42"),
        ("0", "0"),
        ("-1", "-1"),
        ("4.20", "4.20"),
        ("1e3", "1e3"),
        ("-0.5E+2", "-0.5E+2"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ] {
        client.send_text(format!(r#"{{"command":"lock","parameters":{{"lockName":{number}}},"id":"n"}}"#));
        assert_eq!(
            original_keys(&client.receive()),
            json!({"id": "n", "result": {"status": "ok"}}),
            "{number}"
        );
        assert_eq!(other.try_lock(text)["status"], "timeout", "{number}");
        client.send_text(format!(r#"{{"command":"inspect","parameters":{{"lockName":{number}}},"id":"n"}}"#));
        assert_eq!(client.receive()["result"]["mode"], "exclusive", "{number}");
        let convert = r#"{"command":"convert","parameters":{"mode":"shared","lockName":"#;
        client.send_text(format!(r#"{convert}{number}}},"id":"n"}}"#));
        assert_eq!(client.receive()["result"]["status"], "ok", "{number}");
        // The reply has the name as it was written in the request.
        client.send_text(format!(r#"{{"command":"unlock","lockName": {number} }}"#));
        assert_eq!(
            client.receive_text(),
            format!(r#"{{"attempted":"unlock","result":"ok","lockName":{number}}}"#)
        );
        client.send_text(format!(r#"{{"command":"unlock","parameters":{{"lockName":{number}}},"id":"n"}}"#));
        assert_eq!(client.receive()["result"]["status"], "notFound", "{number}");
        // And the other way round.
        assert_eq!(client.lock(text)["status"], "ok", "{number}");
        client.send_text(format!(r#"{{"command":"unlock","parameters":{{"lockName":{number}}},"id":"n"}}"#));
        assert_eq!(client.receive()["result"]["status"], "ok", "{number}");
    }
    assert_eq!(client.call("lock", json!({"lockNames": [1, "two", {"lockName": 3}]}))["status"], "ok");
    for name in ["1", "two", "3"] {
        assert_eq!(other.try_lock(name)["status"], "timeout", "{name}");
    }
    assert_eq!(client.call("unlock", json!({"lockNames": ["1", "two", "3"]}))["status"], "ok");
    assert_eq!(client.call("lock", json!({"lockNames": [1, "1"]}))["status"], "invalid", "one name, twice");
    for neither in [json!(true), json!([]), json!({"a": 1}), Value::Null] {
        assert_eq!(client.call("lock", json!({"lockName": neither}))["status"], "invalid", "{neither}");
    }
}

/// As in the original, which reads the name only there.
#[test]
fn an_unlock_with_its_name_at_the_top_level_releases_whatever_comes_with_it() {
    let server = Server::start();
    let (mut client, mut other) = (server.message(), server.message());
    let more = [
        json!({"parameters": {}}),
        json!({"parameters": []}),
        json!({"parameters": {"lockName": "another"}}),
        json!({"parameters": "nonsense", "id": "i"}),
        json!({"id": 7}),
        json!({"id": 7, "parameters": {"lockName": "foo"}}),
        json!({"id": null, "parameters": null}),
    ];
    for more in more {
        assert_eq!(client.lock("foo")["status"], "ok");
        assert_eq!(client.lock("another")["status"], "ok");
        let mut unlock = more.clone();
        unlock["command"] = json!("unlock");
        unlock["lockName"] = json!("foo");
        client.send(&unlock);
        let reply = json!({"attempted": "unlock", "result": "ok", "lockName": "foo"});
        assert_eq!(client.receive(), reply, "{more}");
        client.send(&unlock);
        let reply = json!({"attempted": "unlock", "result": "notFound", "lockName": "foo"});
        assert_eq!(client.receive(), reply, "{more}");
        assert_eq!(other.try_lock("foo")["status"], "ok", "{more}");
        assert_eq!(other.unlock("foo")["result"], "ok");
        assert_eq!(other.try_lock("another")["status"], "timeout", "{more}");
    }
    // A waiting request leaves the queue in the same way.
    assert_eq!(other.lock("bar")["status"], "ok");
    let id = client.request_lock("bar");
    client.send(&json!({"command": "unlock", "lockName": "bar", "parameters": {}, "id": 99}));
    assert_eq!(client.receive(), json!({"attempted": "unlock", "result": "ok", "lockName": "bar"}));
    assert_eq!(other.unlock("bar")["result"], "ok");
    client.hears_nothing();
    assert_ne!(id, 99);
    client.send(
        &json!({"command": "unlock", "lockName": true, "parameters": {"lockName": "another"}, "id": 1}),
    );
    assert_eq!(client.receive(), json!({"attempted": "unlock", "result": "invalid"}));
    assert_eq!(other.try_lock("another")["status"], "timeout");
}

#[test]
fn a_request_that_lacks_a_part_gets_no_reply() {
    let server = Server::start();
    let mut client = server.message();
    let requests = [
        json!({"command": "lock", "parameters": {"lockName": "foo"}}),
        json!({"command": "lock", "id": 900}),
        json!({"parameters": {"lockName": "foo"}, "id": 901}),
        json!({"id": 902}),
        json!({"command": "unheard of"}),
        json!({}),
    ];
    for request in requests {
        client.send(&request);
        client.hears_nothing();
    }
}

#[test]
fn unknown_commands_are_answered_if_they_have_an_id() {
    let server = Server::start();
    let mut client = server.message();
    client.send(&json!({"command": "fly", "parameters": {}, "id": 7}));
    assert_eq!(client.receive(), json!({"id": 7, "result": {"status": "unknown", "command": "fly"}}));
    client.send(&json!({"command": "fly", "parameters": {}}));
    client.hears_nothing();
}

#[test]
fn ping_echoes_its_parameters() {
    let server = Server::start();
    let mut client = server.message();
    let parameters = [json!({}), json!({"a": [1, null, {"b": "\u{e4}"}], "c": 0.25})];
    for parameters in parameters {
        let result = client.call("ping", parameters.clone());
        assert_eq!(result["status"], "ok");
        assert_eq!(result["parameters"], parameters, "{result}");
    }
}

#[test]
fn hello_tells_what_the_server_is() {
    let server = Server::start();
    let mut client = server.message();
    let result = client.call("hello", json!({"client": "a test", "version": "1.0"}));
    assert_eq!([&result["status"], &result["server"]], ["ok", "lockd"]);
    assert!(!result["version"].as_str().unwrap().is_empty());
    assert!(!result["features"].as_array().unwrap().is_empty());
    assert!(!result["keepalive"].as_object().unwrap().is_empty());
    assert_eq!(client.call("hello", json!({}))["status"], "ok", "who does not say who it is");
}

#[test]
fn hello_tells_how_a_dead_peer_is_found() {
    let keepalive =
        |options: &[&str]| Server::with(options).message().call("hello", json!({}))["keepalive"].take();
    let (default, shorter) = (keepalive(&[]), keepalive(&["--dead-peer-timeout", "15"]));
    assert_ne!(default, shorter);
}

#[test]
fn statistics_are_a_flat_object_of_numbers_that_change() {
    let server = Server::start();
    let mut client = server.message();
    let flat = |result: &Value| {
        result.as_object().unwrap().values().all(|value| !value.is_object() && !value.is_array())
    };
    let before = client.call("stats", json!({}));
    assert!(flat(&before), "{before}");
    client.lock("foo");
    let after = client.call("stats", json!({}));
    assert!(flat(&after), "{after}");
    assert_ne!(before, after);
}

#[test]
fn pipelined_requests_are_all_answered() {
    let server = Server::start();
    for mut client in over_tcp_and_unix(&server) {
        let mut requests = Vec::new();
        for id in 0..400 {
            let lock = json!({"command": "lock", "parameters": {"lockName": format!("k{id}")}, "id": id});
            let unlock = json!({"command": "unlock", "lockName": format!("k{id}")});
            requests.extend(frame(lock.to_string()));
            requests.extend(frame(unlock.to_string()));
        }
        client.send_bytes(requests);
        let mut answered = HashSet::new();
        for _ in 0..800 {
            let reply = client.receive();
            if reply.get("attempted").is_some() {
                assert_eq!(reply["result"], "ok");
                assert!(answered.insert(reply["lockName"].to_string()));
            } else {
                assert_eq!(reply["result"]["status"], "ok");
                assert!(answered.insert(reply["id"].to_string()));
            }
        }
        client.hears_nothing();
    }
}

#[test]
fn requests_may_arrive_in_any_pieces() {
    let server = Server::start();
    let requests = [
        frame(r#"{"command":"lock","parameters":{"lockName":"foo"},"id":0}"#),
        frame("{}"),
        frame(r#"{"command":"unlock","lockName":"foo"}"#),
    ]
    .concat();
    let mut bystander = server.message();
    let check = |client: &mut FrameClient, how: &str| {
        assert_eq!(original_keys(&client.receive()), json!({"id": 0, "result": {"status": "ok"}}), "{how}");
        assert_eq!(client.receive()["result"], "ok", "{how}");
    };
    for mut client in over_tcp_and_unix(&server) {
        for split in 1..requests.len() {
            client.send_bytes(&requests[..split]);
            // Another client's round trip gives the server time to read the first piece alone.
            assert!(bystander.is_served());
            client.send_bytes(&requests[split..]);
            check(&mut client, &format!("split at {split}"));
        }
        for byte in &requests {
            client.send_bytes([*byte]);
        }
        check(&mut client, "byte by byte");
    }
}

#[test]
fn connections_do_not_disturb_each_other() {
    let server = Server::start();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let socket = if number % 2 == 0 { server.tcp("message") } else { server.unix("message") };
            let mut client = FrameClient::new(socket);
            scope.spawn(move || {
                for round in 0..50 {
                    let own = format!("of {number} in {round}");
                    assert_eq!(client.try_lock(&own)["status"], "ok");
                    assert_eq!(client.lock("everybody's")["status"], "ok");
                    assert_eq!(client.unlock("everybody's")["result"], "ok");
                    assert_eq!(client.unlock(&own)["result"], "ok");
                }
            });
        }
    });
    server.await_free("everybody's");
}
