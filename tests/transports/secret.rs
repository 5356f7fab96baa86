//! The secret: a client that does not know it gets nothing.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lockd::broker::Mode;
use lockd::client::MessageClient;
use serde_json::json;

use crate::clients::{address, refusal, session};
use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::server::{Launch, Server};

const SECRET: &str = "a secret that is long enough";
const URL: &str = "TRANSPORTS_TEST_URL";

fn serve() -> (Server, PathBuf) {
    let launch = Launch::everywhere();
    let path = launch.path("secret");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    let server = launch.option("--auth-token-file", path.to_str().unwrap()).start();
    (server, path)
}

fn url(server: &Server, more: &str) -> String {
    format!("tcp://{}{more}", address(server, "message"))
}

#[test]
fn only_clients_that_know_the_secret_are_served() {
    let (server, path) = serve();
    let why = refusal(&url(&server, ""));
    assert!(why.contains("secret") && why.contains("?auth-token-file=FILE"), "{why}");
    let why = refusal(&url(&server, "?auth-token-file=/nonexistent"));
    assert!(why.contains("/nonexistent"), "{why}");
    let good = session(&url(&server, &format!("?auth-token-file={}", path.display())));
    good.acquire(b"x", Mode::Exclusive, Some(Duration::ZERO)).unwrap();
    assert!(!server.log().iter().any(|line| line.contains(SECRET)));
}

#[test]
fn a_wrong_secret_is_refused_and_logged() {
    let (server, path) = serve();
    let wrong = path.with_file_name("wrong");
    std::fs::write(&wrong, "a secret that is long enougj").unwrap();
    let why = refusal(&url(&server, &format!("?auth-token-file={}", wrong.display())));
    let said = format!("the secret in {} is not this server's", wrong.display());
    assert!(why.contains(&said), "{why}");
    // The first refusal within a second has a line of its own.
    eventually("it is logged", || {
        server.log().iter().any(|line| line.contains("WARN") && line.contains("wrong authToken"))
    });
}

#[test]
fn a_message_client_shows_the_secret_that_its_address_names() {
    let (server, path) = serve();
    let client = |more: &str| MessageClient::connect(&url(&server, more), Duration::from_secs(10));
    let stranger = client("").unwrap();
    let reply = stranger.rpc("stats", &json!({}), Some(Duration::from_secs(10))).unwrap();
    assert!(reply.get().contains("refused"), "{reply}");
    let friend = client(&format!("?auth-token-file={}", path.display())).unwrap();
    let reply = friend.rpc("stats", &json!({}), Some(Duration::from_secs(10))).unwrap();
    assert!(reply.get().contains("uptime"), "{reply}");
    std::fs::write(&path, "a secret that is long enougj").unwrap();
    assert!(client(&format!("?auth-token-file={}", path.display())).is_err());
}

#[test]
fn before_the_secret_everything_is_refused_and_nothing_happens() {
    let (server, path) = serve();
    let mut stranger = server.message();
    for command in
        ["lock", "unlock", "convert", "cancel", "inspect", "list", "stats", "identify", "ping", "hello"]
    {
        let parameters = json!({"lockName": "x", "mode": "shared", "id": 1, "name": "me"});
        let result = stranger.call(command, parameters);
        assert_eq!(result["status"], "refused", "{command}: {result}");
        assert!(result["reason"].as_str().unwrap().contains("secret"), "{result}");
    }
    // An unknown command is refused as well.
    assert_eq!(stranger.call("nonsense", json!({}))["status"], "refused");
    assert_eq!(stranger.unlock("x")["result"], "refused");
    // The old form of `unlock` keeps its shape, whatever keys come with the name.
    stranger.send(&json!({"command": "unlock", "lockName": "x", "parameters": {}, "id": 1}));
    assert_eq!(stranger.receive(), json!({"attempted": "unlock", "result": "refused"}));
    assert_eq!(stranger.call("hello", json!({"authToken": 7}))["status"], "invalid");
    stranger.send_text("no JSON");
    assert!(stranger.receive()["error"].is_string());
    // Without an id there is no answer to these.
    stranger.send(&json!({"command": "lock", "parameters": {"lockName": "x"}}));
    let mut friend = server.message();
    let hello = friend.call("hello", json!({"authToken": SECRET}));
    assert_eq!(hello["status"], "ok");
    assert_eq!(friend.call("list", json!({}))["locks"], json!([]));
    // The client has no session, and no counter has changed.
    assert_eq!(friend.call("stats", json!({}))["sessions"], 1);
    // The client may still send the secret.
    assert_eq!(stranger.call("hello", json!({"authToken": SECRET}))["status"], "ok");
    assert_eq!(stranger.lock("x")["status"], "ok");
    drop(path);
}

#[test]
fn requests_after_the_secret_are_handled_and_requests_before_it_are_not() {
    let (server, _) = serve();
    let mut client = server.message();
    let before = client.request("lock", json!({"lockName": "before"}));
    let hello = client.request("hello", json!({"authToken": SECRET}));
    let behind = client.request("lock", json!({"lockName": "behind"}));
    assert_eq!(client.result(before)["status"], "refused");
    assert_eq!(client.result(hello)["status"], "ok");
    assert_eq!(client.result(behind)["status"], "ok");
    let listed = client.call("list", json!({}));
    assert_eq!(listed["locks"].as_array().unwrap().len(), 1, "{listed}");
}

#[test]
fn a_wrong_secret_ends_the_connection() {
    let (server, _) = serve();
    for wrong in ["", "x", &SECRET[1..], &format!("{SECRET}!")] {
        let mut client = server.message();
        let id = client.request("hello", json!({"authToken": wrong}));
        client.request("lock", json!({"lockName": "x"}));
        assert_eq!(client.result(id)["status"], "refused");
        assert_eq!(client.read_to_end(), b"");
    }
    // A client without the secret cannot make the server keep much.
    let mut client = server.message();
    client.socket().write_all(&(100_000_u32).to_be_bytes()).unwrap();
    let said = String::from_utf8(client.read_to_end()).unwrap();
    assert!(said.contains("before the secret"), "{said}");
    let mut unix = FrameClient::new(server.unix("message"));
    assert_eq!(unix.call("stats", json!({}))["locks"], 0);
}

#[test]
fn unix_sockets_and_local_text_protocols_need_no_secret() {
    let (server, _) = serve();
    let mut unix = FrameClient::new(server.unix("message"));
    assert_eq!(unix.lock("x")["status"], "ok");
    assert_eq!(server.glockd().ask("g x"), "0 Lock Get Failure: x\r\n");
    assert_eq!(server.lockd().ask("g y"), "1 Got Lock\r\n");
}

#[test]
fn a_session_takes_the_secret_from_the_file_in_the_environment() {
    let (server, path) = serve();
    let run = |file: &str| {
        let test = std::env::current_exe().unwrap();
        let mut child = Command::new(test);
        child.args(["--exact", "secret::opens_a_session", "--ignored"]);
        child.env(URL, url(&server, "")).env("LOCKD_AUTH_TOKEN_FILE", file);
        child.output().unwrap()
    };
    let output = run(path.to_str().unwrap());
    assert!(output.status.success(), "{output:?}");
    assert!(!run("/nonexistent").status.success());
    assert!(!run("").status.success());
}

#[test]
#[ignore = "another test runs it, in a process with another environment"]
fn opens_a_session() {
    session(&std::env::var(URL).unwrap()).acquire(b"x", Mode::Exclusive, Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_missing_or_too_short_secret_is_refused() {
    let path = |launch: &Launch| launch.path("secret").to_str().unwrap().to_owned();
    for secret in ["", "\n", "short"] {
        let launch = Launch::everywhere();
        let file = path(&launch);
        std::fs::write(&file, secret).unwrap();
        let (status, log) = launch.option("--auth-token-file", &file).run();
        assert_eq!(status.code(), Some(2));
        assert!(log.contains("auth-token-file") && log.contains("16"), "{log}");
    }
    let (status, log) = Launch::everywhere().option("--auth-token-file", "/nonexistent").run();
    assert!(status.code() == Some(2) && log.contains("/nonexistent"), "{log}");
}

#[test]
fn a_client_without_the_secret_is_logged_however_it_ends() {
    let (server, _path) = serve();
    for attempt in 1..=3 {
        let mut stranger = server.message();
        assert_eq!(stranger.call("ping", json!({}))["status"], "refused");
        drop(stranger);
        // The first refusal is logged by itself, the others together.
        let told = || -> usize {
            let log = server.log();
            let by_itself = log.iter().filter(|line| line.contains("it has not shown the secret")).count();
            let more = log.iter().filter_map(|line| {
                line.split_once(" more connections were refused")?
                    .0
                    .split_whitespace()
                    .last()?
                    .parse::<usize>()
                    .ok()
            });
            by_itself + more.sum::<usize>()
        };
        eventually("it is logged", || told() == attempt);
    }
}
