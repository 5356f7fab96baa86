//! Clients at a wrong port: each side says what was probably meant, and no request is carried out.

use std::io::{Read, Write};
use std::process::{Command, Output};
use std::time::Duration;

use lockd::client::{ConnectErrorKind, MessageClient, RemoteSession};

use crate::authority::Authority;
use crate::clients::{HOST, address, assert_has, assert_logged};
use crate::support::DEADLINE;
use crate::support::server::{Launch, Server, program};

/// A server with one listener of this kind, and one for `message` for the test's own questions.
fn serve(authority: &Authority, listener: &str) -> Server {
    let launch = Launch::new().listen("message://127.0.0.1:0").certified(&authority.issue(HOST));
    match listener {
        "message" => launch.start(),
        "http" => launch.option("--http", "127.0.0.1:0").expecting(1).start(),
        other => launch.listen(&format!("{other}://127.0.0.1:0")).start(),
    }
}

/// The scheme of a client, a listener, and the message that the client must print.
const CLIENTS: [(&str, &str, &[&str]); 15] = [
    ("tcp", "lockd", &["text protocol", "this port speaks lockd", "`message`", "20934"]),
    ("tcp", "glockd", &["text protocol", "this port speaks glockd", "`message`", "20934"]),
    ("tcp", "glockd+ws", &["HTTP", "`message`", "20934"]),
    ("tcp", "http", &["HTTP", "`message`"]),
    ("tcp", "message+tls", &["TLS", "write tls:// instead of tcp://"]),
    ("tcp", "lockd+tls", &["TLS", "write tls://"]),
    ("tcp", "glockd+ws+tls", &["TLS", "write tls://"]),
    ("tls", "message", &["does not speak TLS", "write tcp:// instead of tls://"]),
    ("tls", "lockd", &["does not speak TLS", "this port speaks lockd", "`message`"]),
    ("tls", "glockd", &["does not speak TLS", "this port speaks glockd", "`message`"]),
    ("tls", "glockd+ws", &["does not speak TLS", "HTTP"]),
    ("tls", "http", &["does not speak TLS", "HTTP"]),
    ("tls", "lockd+tls", &["text protocol", "this port speaks lockd", "`message`"]),
    ("tls", "glockd+tls", &["text protocol", "this port speaks glockd", "`message`"]),
    ("tls", "glockd+ws+tls", &["HTTP", "`message`"]),
];

fn url(scheme: &str, server: &Server, listener: &str, authority: &Authority) -> String {
    let port = address(server, listener).port();
    let ca = if scheme == "tls" { format!("?ca={}", authority.ca().display()) } else { String::new() };
    format!("{scheme}://{HOST}:{port}{ca}")
}

fn tool(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).env_remove("LOCKD_SERVER").output().unwrap()
}

#[test]
fn a_session_on_a_wrong_port_says_what_was_meant_and_is_a_mistake() {
    let authority = Authority::new();
    for (scheme, listener, parts) in CLIENTS {
        let server = serve(&authority, listener);
        let error = RemoteSession::connect(&url(scheme, &server, listener, &authority), None, DEADLINE)
            .err()
            .unwrap();
        assert_has(&error.to_string(), parts);
        let kinds = [ConnectErrorKind::Tls, ConnectErrorKind::WrongProtocol];
        assert!(kinds.contains(&error.kind()), "{scheme} on {listener}: {:?}: {error}", error.kind());
    }
}

#[test]
fn a_message_client_on_a_wrong_port_is_told_what_is_spoken_there() {
    let authority = Authority::new();
    for (scheme, listener, parts) in CLIENTS {
        let server = serve(&authority, listener);
        let said = match MessageClient::connect(&url(scheme, &server, listener, &authority), DEADLINE) {
            Err(error) => error.to_string(),
            Ok(client) => {
                client.rpc("stats", &serde_json::json!({}), Some(DEADLINE)).unwrap_err().to_string()
            }
        };
        assert_has(&said, parts);
    }
}

#[test]
fn the_commands_of_lockd_report_it_too() {
    let authority = Authority::new();
    for command in [&["list"][..], &["inspect", "x"], &["stats"], &["run", "x", "--", "true"]] {
        for (scheme, listener, parts) in [CLIENTS[0], CLIENTS[4], CLIENTS[7]] {
            let server = serve(&authority, listener);
            let url = url(scheme, &server, listener, &authority);
            let output = tool(&[&[command[0], "--server", &url], &command[1..]].concat());
            assert!(!output.status.success());
            assert_has(&String::from_utf8(output.stderr).unwrap(), parts);
        }
    }
}

#[test]
fn kicking_and_watching_report_it_too() {
    let authority = Authority::new();
    for command in [&["kick", "--owner", "x"][..], &["watch"]] {
        for (scheme, listener, parts) in
            [CLIENTS[0], CLIENTS[3], CLIENTS[4], CLIENTS[7], CLIENTS[8], CLIENTS[11]]
        {
            let server = serve(&authority, listener);
            let url = url(scheme, &server, listener, &authority);
            let output = tool(&[command, &["--server", &url]].concat());
            assert_eq!(output.status.code(), Some(1));
            assert_has(&String::from_utf8(output.stderr).unwrap(), parts);
        }
    }
}

/// The protocol of `lockd bench`, a listener, and the message that it must print.
const BENCHES: [(&str, &str, &[&str]); 10] = [
    ("lockd", "message", &["speaks message", "write message:// instead of lockd://"]),
    ("glockd", "message", &["speaks message", "write message:// instead of glockd://"]),
    ("message", "lockd", &["speaks lockd", "write lockd:// instead of message://"]),
    ("message", "glockd", &["speaks glockd", "write glockd:// instead of message://"]),
    ("lockd", "lockd+tls", &["TLS", "a listener without TLS"]),
    ("glockd", "message+tls", &["TLS", "a listener without TLS"]),
    ("message", "message+tls", &["TLS", "a listener without TLS"]),
    ("message", "http", &["HTTP"]),
    ("glockd", "http", &["HTTP"]),
    ("glockd", "glockd+ws", &["HTTP"]),
];

#[test]
fn a_measurement_at_a_wrong_port_reports_it_too() {
    let authority = Authority::new();
    for (protocol, listener, parts) in BENCHES {
        let server = serve(&authority, listener);
        let url = format!("{protocol}://{}", address(&server, listener));
        for more in [&[][..], &["--idle", "1"]] {
            let output = tool(&[&["bench", "-t", "0.1", "-r", "1", "--server", &url], more].concat());
            assert_eq!(output.status.code(), Some(1));
            assert_has(&String::from_utf8(output.stderr).unwrap(), &[parts, &[&url]].concat());
        }
    }
}

#[test]
fn a_measurement_without_a_server_or_without_the_secret_reports_it() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let authority = Authority::new();
    let secret = authority.path("secret");
    std::fs::write(&secret, "a secret that is long enough").unwrap();
    let launch = Launch::new().listen("message://127.0.0.1:0");
    let server = launch.option("--auth-token-file", secret.to_str().unwrap()).start();
    for (address, said) in [(free, "refused"), (address(&server, "message"), "without --auth-token-file")] {
        let url = format!("message://{address}");
        let output = tool(&["bench", "-t", "0.1", "-r", "1", "--server", &url]);
        assert_eq!(output.status.code(), Some(1));
        assert_has(&String::from_utf8(output.stderr).unwrap(), &[&url, said]);
    }
}

#[test]
fn a_mistake_with_one_of_several_servers_is_not_taken_for_its_absence() {
    let authority = Authority::new();
    let (right, wrong) = (serve(&authority, "message"), serve(&authority, "lockd"));
    let wrong_url = url("tcp", &wrong, "lockd", &authority);
    let urls = format!("{},{wrong_url}", url("tcp", &right, "message", &authority));
    let session = lockd::Session::connect(&urls, None, DEADLINE).unwrap();
    let name = (0..).map(|n| format!("job:{n}"));
    let name = name.take(1000).find(|name| session.connect_error(name.as_bytes()).is_some()).unwrap();
    let kind = session.connect_error(name.as_bytes()).unwrap().kind();
    assert_eq!(kind, ConnectErrorKind::WrongProtocol);
    let output = tool(&["run", "--server", &urls, &name, "--", "echo", "run"]);
    assert_eq!((output.status.code(), &*output.stdout), (Some(125), &b""[..]));
    assert_has(&String::from_utf8(output.stderr).unwrap(), &[&wrong_url, "this port speaks lockd"]);
}

/// What a client sends, a listener, the reply, and the log line.
type Stranger = (&'static [u8], &'static str, &'static [u8], &'static [&'static str]);
const STRANGERS: [Stranger; 14] = [
    (REQUEST, "message", b"HTTP/1.1 400", &["speaks HTTP on a listener of message"]),
    (REQUEST, "lockd", b"HTTP/1.1 400", &["speaks HTTP on a listener of lockd"]),
    (REQUEST, "glockd", b"HTTP/1.1 400", &["speaks HTTP on a listener of glockd"]),
    (REQUEST, "message+tls", b"HTTP/1.1 400", &["without TLS (HTTP)", "message in TLS"]),
    (b"g x\n", "message", b"0 Refused: this port speaks message, not text\r\n", &["speaks text"]),
    (b"g x\n", "glockd+tls", b"0 Refused: this port speaks glockd in TLS\r\n", &["without TLS (text)"]),
    (
        b"g x\n",
        "glockd+ws",
        b"HTTP/1.1 400",
        &["no request for a WebSocket, which this port speaks: it is text"],
    ),
    (FRAME, "lockd", b"0 Refused: this port speaks lockd, not message\r\n", &["speaks message"]),
    (FRAME, "glockd", b"0 Refused: this port speaks glockd, not message\r\n", &["speaks message"]),
    (FRAME, "message+tls", b"\x15\x03", &["without TLS (message)"]),
    (CLIENT_HELLO, "message", b"\0\0\0", &["a TLS client on a listener without TLS"]),
    (CLIENT_HELLO, "lockd", b"0 Refused", &["a TLS client on a listener without TLS"]),
    (CLIENT_HELLO, "glockd", b"0 Refused", &["a TLS client on a listener without TLS"]),
    (CLIENT_HELLO, "glockd+ws", b"HTTP/1.1 400", &["no request for a WebSocket, which this port speaks"]),
];
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const FRAME: &[u8] = b"\0\0\0\x20{\"command\":\"ping\",\"id\":1}       ";
/// The beginning of a handshake: long enough, and with line breaks in it.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\0\xf8\x01\0\0\xf4\x03\x03\ng x\n";

#[test]
fn a_stranger_is_told_what_is_spoken_and_the_log_says_what_it_was() {
    let authority = Authority::new();
    for (words, listener, told, logged) in STRANGERS {
        // In one piece, and with a first byte that comes alone, by which TLS already sees that it
        // is not TLS.
        let pieces = if listener.ends_with("tls") { 1..=1 } else { 1..=2 };
        for first in pieces.map(|pieces| if pieces == 1 { words.len() } else { 1 }) {
            let server = serve(&authority, listener);
            let mut socket = server.tcp(listener);
            socket.set_tcp_nodelay(true).unwrap();
            let (early, late) = words.split_at(first);
            socket.write_all(early).unwrap();
            if !late.is_empty() {
                // So that the byte comes alone: a request that is sent later is answered first.
                server.message().call("ping", serde_json::json!({}));
                socket.write_all(late).unwrap();
            }
            let mut heard = Vec::new();
            socket.read_to_end(&mut heard).unwrap();
            assert!(heard.starts_with(told), "{listener}: {:?}", String::from_utf8_lossy(&heard));
            assert_logged(&server, &[&["WARN", "refused 127.0.0.1"], logged].concat());
            let stats = server.message().call("stats", serde_json::json!({}));
            assert_eq!(stats["locks"], 0, "{stats}");
        }
    }
}

#[test]
fn a_stranger_is_told_so_also_where_a_secret_is_asked_for() {
    let authority = Authority::new();
    let secret = authority.path("secret");
    std::fs::write(&secret, "a secret that is long enough").unwrap();
    for (words, told, logged) in [
        (REQUEST, &b"HTTP/1.1 400"[..], "speaks HTTP"),
        (CLIENT_HELLO, b"\0\0\0", "a TLS client on a listener without TLS"),
        (b"g x\n", b"0 Refused: this port speaks message", "speaks text"),
    ] {
        let launch = Launch::new().listen("message://127.0.0.1:0");
        let server = launch.option("--auth-token-file", secret.to_str().unwrap()).start();
        let mut socket = server.tcp("message");
        socket.write_all(words).unwrap();
        let mut heard = Vec::new();
        socket.read_to_end(&mut heard).unwrap();
        assert!(heard.starts_with(told), "{:?}", String::from_utf8_lossy(&heard));
        assert_logged(&server, &["WARN", "refused", logged]);
    }
}

#[test]
fn a_line_that_only_looks_like_another_protocol_is_a_line() {
    let server = Server::start();
    for (line, reply) in [("GET x", None), ("g GET / HTTP/1.1", Some("1 Got Lock\r\n"))] {
        let mut client = server.lockd();
        client.send(format!("{line}\n"));
        if let Some(reply) = reply {
            assert_eq!(client.line(), reply);
        }
        assert_eq!(client.ask("i none"), "0 Not Locked\r\n");
    }
}

/// What a page in a browser can make it send: the body must not be carried out, however long the
/// path is.
#[test]
fn a_request_of_a_browser_is_not_carried_out_even_if_its_first_line_is_too_long() {
    let server = Server::start();
    for length in [4_090, 4_097, 5_000, 70_000] {
        let mut socket = server.tcp("lockd");
        let path = "a".repeat(length);
        let request = format!("POST /{path} HTTP/1.1\r\nContent-Length: 10\r\n\r\ng browser\n");
        let (first, rest) = request.as_bytes().split_at(request.len().min(4_200));
        socket.write_all(first).unwrap();
        // The server may have ended the connection by now.
        let _ = socket.write_all(rest);
        let mut heard = Vec::new();
        let _ = socket.read_to_end(&mut heard);
        let heard = String::from_utf8_lossy(&heard).into_owned();
        assert!(!heard.contains("Lock"), "{length}: {heard}");
        assert_eq!(server.lockd().ask("i browser"), "0 Not Locked\r\n", "{length}");
    }
}

#[test]
fn a_server_that_is_not_there_is_no_mistake() {
    let kind = |url: &str, timeout| RemoteSession::connect(url, None, timeout).err().unwrap().kind();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("tcp://{free}"), format!("tls://{free}"), "unix:/nonexistent".to_owned()] {
        assert_eq!(kind(&url, DEADLINE), ConnectErrorKind::NotListening, "{url}");
    }
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", silent.local_addr().unwrap());
    assert_eq!(kind(&url, Duration::from_millis(100)), ConnectErrorKind::TimedOut);
    assert_eq!(kind("tcp://nobody..invalid:1", DEADLINE), ConnectErrorKind::UnknownHost);
    let full = Launch::new().listen("message://127.0.0.1:0").option("--connections-max", "1").start();
    let _only = full.message();
    assert_eq!(kind(&format!("tcp://{}", address(&full, "message")), DEADLINE), ConnectErrorKind::Closed);
}
