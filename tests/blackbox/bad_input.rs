//! Invalid input: the client gets a clear answer, keeps its locks where the protocol allows
//! it, and harms no other client.

use crate::support::frame_client::{FrameClient, frame};
use crate::support::line_client::LineClient;
use crate::support::server::Server;
use serde_json::{Value, json};

const TOO_LONG: &str = "0 Line Too Long\r\n";

/// Pseudo-random bytes, the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn text_holders(server: &Server) -> [LineClient; 4] {
    [
        LineClient::new(server.tcp("lockd")),
        LineClient::new(server.unix("lockd")),
        LineClient::new(server.tcp("glockd")),
        LineClient::new(server.unix("glockd")),
    ]
}

#[test]
fn noise_on_a_text_connection_is_survived() {
    let server = Server::start();
    for mut client in text_holders(&server) {
        client.send("g foo\n");
        assert!(client.line().starts_with('1'));
        // No reply that the random bytes may get ends like this.
        client.send([noise(200_000), b"\nr foo\ni the end of noise\n".to_vec()].concat());
        let (mut last, mut line) = (String::new(), String::new());
        while !(line.starts_with("0 Not Locked") || line == "0 Lock Not Locked: the end of noise\r\n") {
            last = std::mem::take(&mut line);
            line = String::from_utf8_lossy(&client.line_bytes()).into_owned();
        }
        assert!(last.starts_with("1 "), "foo was no longer held: {last:?}");
    }
}

#[test]
fn noise_on_a_message_connection_ends_at_most_that_connection() {
    let server = Server::start();
    let mut other = server.message();
    other.lock("foo");
    for skipped in 0..8 {
        let mut client = server.message();
        client.send_bytes(&noise(4096)[skipped..]);
        client.socket().shutdown(std::net::Shutdown::Write).unwrap();
        client.read_to_end();
        assert!(other.is_served());
    }
    assert_eq!(server.message().try_lock("foo")["status"], "timeout");
}

#[test]
fn an_endless_line_is_skipped_and_the_locks_stay() {
    let server = Server::start();
    let before = server.resident_kib();
    for mut client in text_holders(&server) {
        client.send("g foo\n");
        assert!(client.line().starts_with('1'));
        for _ in 0..160 {
            client.send([b'x'; 65536]);
        }
        client.send("\ni foo\nr foo\n");
        assert_eq!(client.line(), TOO_LONG);
        assert!(client.line().starts_with("1 "), "foo is still held");
        assert!(client.line().starts_with("1 "), "and can be released");
    }
    let growth = server.resident_kib().saturating_sub(before);
    assert!(growth < 8 * 1024, "{growth} KiB more for lines of 10 MiB");
}

#[test]
fn an_endless_line_is_refused_before_it_ends() {
    let server = Server::start();
    let mut client = server.glockd();
    client.send([b'x'; 8192]);
    assert_eq!(client.line(), TOO_LONG);
    client.send([b'x'; 8192]);
    client.send("\r\ni foo\r\n");
    assert_eq!(client.line(), "0 Lock Not Locked: foo\r\n", "one refusal is enough");
}

#[test]
fn the_line_limit_can_be_set() {
    let server = Server::with(&["--line-max", "100"]);
    let mut client = server.glockd();
    let (fits, exceeds) = ("n".repeat(90), "n".repeat(110));
    assert_eq!(client.ask(&format!("g {fits}")), format!("1 Lock Get Success: {fits}\r\n"));
    assert_eq!(client.ask(&format!("g {exceeds}")), TOO_LONG);
    client.send(format!("g {exceeds}\ni a\ng {exceeds}\ni b\n"));
    let replies = [client.line(), client.line(), client.line(), client.line()];
    assert_eq!(replies, [TOO_LONG, "0 Lock Not Locked: a\r\n", TOO_LONG, "0 Lock Not Locked: b\r\n"]);
}

#[test]
fn lines_that_are_too_long_do_not_disturb_those_around_them() {
    let server = Server::start();
    let mut client = server.lockd();
    let long = "y".repeat(100_000);
    client.send(format!("g foo\n{long}\ni foo\n{long}\r\nr foo\n"));
    let replies: Vec<String> = (0..5).map(|_| client.line()).collect();
    assert_eq!(replies, ["1 Got Lock\r\n", TOO_LONG, "1 Locked\r\n", TOO_LONG, "1 Released Lock\r\n"]);
}

fn message_holder(server: &Server) -> FrameClient {
    let mut holder = server.message();
    assert_eq!(holder.lock("foo")["status"], "ok");
    holder
}

/// Asserts that the connection is still open and has kept its lock.
fn still_holds_foo(server: &Server, holder: &mut FrameClient) {
    assert!(holder.is_served());
    assert_eq!(server.message().try_lock("foo")["status"], "timeout");
}

#[test]
fn a_frame_that_is_not_a_json_object_is_an_error_and_the_connection_stays_open() {
    let server = Server::start();
    let mut holder = message_holder(&server);
    let texts: [&[u8]; 14] = [
        b"",
        b" ",
        b"{",
        b"{}}",
        b"nonsense",
        b"[]",
        b"[1,2]",
        b"null",
        b"true",
        b"5",
        b"\"text\"",
        b"{\"id\":1,}",
        b"{\"id\":\"\xff\xfe\"}",
        b"\0\0\0\0",
    ];
    for text in texts {
        holder.send_text(text);
        let reply = holder.receive();
        assert!(reply["error"].is_string(), "{reply} to {:?}", text.escape_ascii().to_string());
    }
    still_holds_foo(&server, &mut holder);
}

#[test]
fn deep_nesting_does_no_harm() {
    let server = Server::start();
    let mut holder = message_holder(&server);
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let texts = [
            nested.clone(),
            format!(r#"{{"command":"ping","parameters":{nested},"id":"deep"}}"#),
            format!(r#"{{"command":"lock","parameters":{{"lockName":{nested}}},"id":"deep"}}"#),
            open.repeat(200_000),
        ];
        for text in texts {
            holder.send_text(text);
            still_holds_foo_among_replies(&server, &mut holder);
        }
    }
}

/// Like `still_holds_foo`, but without parsing other replies, which may be nested as deeply.
fn still_holds_foo_among_replies(server: &Server, holder: &mut FrameClient) {
    holder.send(&json!({"command": "ping", "parameters": {}, "id": "the last"}));
    loop {
        let body = holder.receive_text();
        if body.contains("\"the last\"") {
            break;
        }
    }
    assert_eq!(server.message().try_lock("foo")["status"], "timeout");
}

#[test]
fn a_length_over_the_limit_is_an_error_and_ends_the_connection() {
    let server = Server::start();
    for length in [u32::MAX, 0x8000_0000, 1024 * 1024 + 1, u32::from_be_bytes(*b"g fo")] {
        let mut client = message_holder(&server);
        client.send_bytes(length.to_be_bytes());
        let error = client.receive();
        assert!(error["error"].is_string(), "{error} to a length of {length}");
        assert_eq!(client.read_to_end(), b"");
        server.await_free("foo");
    }
}

#[test]
fn the_message_limit_can_be_set() {
    let server = Server::with(&["--message-max", "1000"]);
    let mut client = server.message();
    assert_eq!(client.call("ping", json!({"text": "x".repeat(800)}))["status"], "ok");
    client.send(&json!({"command": "ping", "parameters": {"text": "x".repeat(1000)}, "id": 9}));
    assert!(client.receive()["error"].is_string());
    client.read_to_end();
}

#[test]
fn announced_lengths_cost_no_memory() {
    let server = Server::with(&["--message-max", "67108864"]);
    let mut clients: Vec<FrameClient> = (0..50).map(|_| server.message()).collect();
    assert!(clients.iter_mut().all(FrameClient::is_served));
    let before = server.resident_kib();
    for client in &mut clients {
        // The reply to the ping shows that the length after it has been read too.
        let mut bytes = frame(r#"{"command":"ping","parameters":{},"id":0}"#);
        bytes.extend(67_108_864_u32.to_be_bytes());
        bytes.extend(b"{");
        client.send_bytes(bytes);
        assert_eq!(client.receive()["result"]["status"], "ok");
    }
    let growth = server.resident_kib().saturating_sub(before);
    assert!(growth < 4 * 1024, "{growth} KiB more for 50 announcements of 64 MiB");
    assert!(server.message().is_served());
}

#[test]
fn half_a_request_and_silence_delay_no_other_client() {
    let server = Server::start();
    let mut half_lines = text_holders(&server);
    for client in &mut half_lines {
        client.send("g fo");
    }
    let whole = frame(r#"{"command":"lock","parameters":{"lockName":"foo"},"id":0}"#);
    let mut half_frames: Vec<FrameClient> = [1, 3, 4, 5, whole.len() - 1]
        .map(|length| {
            let mut client = server.message();
            client.send_bytes(&whole[..length]);
            client
        })
        .into();
    assert_eq!(server.lockd().ask("i foo"), "0 Not Locked\r\n");
    assert_eq!(server.glockd().ask("i foo"), "0 Lock Not Locked: foo\r\n");
    assert!(server.message().is_served());
    half_frames[4].send_bytes(&whole[whole.len() - 1..]);
    assert_eq!(half_frames[4].receive()["result"]["status"], "ok");
}

fn of_wrong_type() -> Vec<(&'static str, Value)> {
    let wrong_names = [json!(null), json!(true), json!([]), json!({}), json!(["foo"])];
    let wrong_modes =
        [json!(5), json!(1.5), json!(true), json!([]), json!({}), json!(["foo"]), json!("both"), json!("")];
    let mut requests = Vec::new();
    for command in ["lock", "unlock", "convert", "inspect"] {
        for name in &wrong_names {
            requests.push((command, json!({"lockName": name, "mode": "shared", "timeLimit": 0})));
        }
    }
    for mode in &wrong_modes {
        requests.push(("lock", json!({"lockName": "bar", "mode": mode, "timeLimit": 0})));
        requests.push(("convert", json!({"lockName": "foo", "mode": mode, "timeLimit": 0})));
        requests.push(("lock", json!({"lockNames": [{"lockName": "bar", "mode": mode}], "timeLimit": 0})));
    }
    for limit in [json!("5"), json!(true), json!(-1), json!([]), json!({})] {
        requests.push(("lock", json!({"lockName": "bar", "timeLimit": limit})));
        requests.push(("convert", json!({"lockName": "foo", "mode": "shared", "timeLimit": limit})));
    }
    for names in
        [json!("bar"), json!(5), json!({}), json!([true]), json!([null]), json!([{}]), json!(["bar", true])]
    {
        requests.push(("lock", json!({"lockNames": names, "timeLimit": 0})));
        requests.push(("unlock", json!({"lockNames": names})));
    }
    requests
}

#[test]
fn parameters_of_the_wrong_type_are_invalid() {
    let server = Server::start();
    let mut holder = message_holder(&server);
    let wrong: Vec<String> = of_wrong_type()
        .into_iter()
        .filter_map(|(command, parameters)| {
            let result = holder.call(command, parameters.clone());
            (result["status"] != "invalid").then(|| format!("{result} to {command} {parameters}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    still_holds_foo(&server, &mut holder);
    assert_eq!(holder.call("inspect", json!({"lockName": "foo"}))["mode"], "exclusive");
    assert_eq!(holder.call("inspect", json!({"lockName": "bar"}))["holders"], 0);
}

#[test]
fn queries_with_parameters_of_the_wrong_type_are_answered() {
    let server = Server::start();
    let mut holder = message_holder(&server);
    for value in [json!(5), json!(-1), json!("x"), json!(true), json!([]), json!({}), json!(1e300)] {
        for (command, key) in [("list", "prefix"), ("list", "limit"), ("list", "after"), ("identify", "name")]
        {
            let result = holder.call(command, json!({key: value}));
            assert!(result["status"].is_string(), "{result} to {command} with {key} {value}");
        }
        for command in ["list", "stats", "hello", "identify", "lock", "unlock", "convert", "inspect", "ping"]
        {
            let result = holder.call(command, value.clone());
            assert!(result["status"].is_string(), "{result} to {command} with {value}");
        }
    }
    still_holds_foo(&server, &mut holder);
}

#[test]
fn messages_with_parts_of_the_wrong_type_are_survived() {
    let server = Server::start();
    let mut holder = message_holder(&server);
    for value in [json!(null), json!(5), json!(true), json!([1]), json!({"a": 1})] {
        holder.send(&json!({"command": value, "parameters": {}, "id": "odd"}));
        holder.send(&json!({"command": "ping", "parameters": {}, "id": value}));
        holder.send(&json!({"command": "unlock", "lockName": value}));
        holder.send(&json!({"command": "unlock", "lockNames": value}));
        still_holds_foo_among_replies(&server, &mut holder);
    }
}
