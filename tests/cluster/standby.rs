//! What a standby answers, on every way in, and what it refuses to do.

use std::io::Write as _;
use std::net::Shutdown;
use std::path::Path;

use lockd::client::{ConnectErrorKind, RemoteSession};
use rustix::process::Signal;
use serde_json::{Value, json};
use socket2::Socket;

use crate::authority::Authority;
use crate::clients::{HOST, TlsLines, tls_socket};
use crate::etcd::EtcdCluster;
use crate::servers::{Cluster, Ended, token};
use crate::support::frame_client::{FrameClient, frame};
use crate::support::server::Launch;
use crate::support::socket::{connect, read_to_end};
use crate::support::{DEADLINE, eventually};

/// The refusal of each request.
fn refusal(active: &str) -> Value {
    json!({
        "status": "refused",
        "cause": "standby",
        "reason": format!("this server is a standby of the cluster main; the active server is {active}"),
        "active": active,
    })
}

/// All messages until the end of the connection.
fn messages(client: &mut FrameClient) -> Vec<Value> {
    let bytes = client.read_to_end();
    let mut rest = bytes.as_slice();
    let mut messages = Vec::new();
    while let Some((length, body)) = rest.split_first_chunk() {
        let (body, next) = body.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
        messages.push(serde_json::from_slice(body).unwrap());
        rest = next;
    }
    messages
}

#[test]
fn the_first_message_is_answered_and_the_connection_ends() {
    let cluster = Cluster::start(2);
    let active = cluster.await_active();
    let standby = 1 - active;
    cluster.await_standby(standby, active);
    let refusal = refusal(&cluster.place(active));
    for (command, parameters) in [
        ("hello", json!({"resumable": true})),
        ("lock", json!({"lockName": "x"})),
        ("unlock", json!({"lockName": "x"})),
        ("resume", json!({"session": "0", "epoch": 1})),
        ("list", json!({})),
        ("ping", json!({})),
        ("no such command", json!(null)),
    ] {
        let mut client = cluster.message(standby);
        client.request(command, parameters.clone());
        client.request(command, parameters);
        assert_eq!(messages(&mut client), [json!({"id": 0, "result": refusal})], "{command}");
    }

    // The original's unlock has no id, and a reply of its own.
    let mut client = cluster.message(standby);
    client.send(&json!({"command": "unlock", "lockName": "x"}));
    assert_eq!(messages(&mut client), [json!({"attempted": "unlock", "result": "refused"})]);
    // What wants no answer gets none.
    let mut client = cluster.message(standby);
    client.send(&json!({"command": "lock", "parameters": {"lockName": "x"}}));
    assert_eq!(client.read_to_end(), b"");
    for garbage in ["", "nonsense", "[]", "{\"id\":", "\u{0}"] {
        let mut client = cluster.message(standby);
        client.send_text(garbage);
        let answers = messages(&mut client);
        assert!(matches!(&answers[..], [answer] if answer["error"].is_string()), "{garbage}: {answers:?}");
    }
    let mut client = cluster.message(standby);
    client.send_bytes(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(messages(&mut client).len(), 1);
    // Half a message, and nothing.
    for part in [&frame(b"{\"id\": 1}")[..6], &[]] {
        let mut client = cluster.message(standby);
        client.send_bytes(part);
        client.socket().shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read_to_end(), b"");
    }
    // Byte by byte.
    let mut client = cluster.message(standby);
    for byte in frame(json!({"command": "ping", "parameters": {}, "id": "a"}).to_string()) {
        client.send_bytes([byte]);
    }
    assert_eq!(messages(&mut client), [json!({"id": "a", "result": refusal})]);
    assert_eq!(cluster.active(), Some(active), "nobody has harmed anybody");
}

#[test]
fn a_standby_that_knows_no_active_server_names_none() {
    let mut cluster = Cluster::on(EtcdCluster::start(1));
    cluster.etcd.kill(0);
    let standby = cluster.add(&[]);
    let answer = cluster.message(standby).call("hello", json!({}));
    let reason = "this server is a standby of the cluster main";
    assert_eq!(answer, json!({"status": "refused", "cause": "standby", "reason": reason}));
    let url = format!("tcp://{}", cluster.place(standby));
    let error = RemoteSession::connect(&url, None, DEADLINE).map(drop).unwrap_err();
    assert!(error.to_string().contains(reason), "{error}");
}

/// Where clients are told to go is what the server was given, whatever that is.
#[test]
fn an_address_that_was_given_is_what_others_are_told() {
    let mut cluster = Cluster::on(EtcdCluster::start(1));
    let active = cluster.add(&["--advertise", "locks.example.org:20934"]);
    assert_eq!(cluster.await_active(), active);
    let standby = cluster.add(&[]);
    let words = "standby of the cluster main; the active server is locks.example.org:20934\n";
    eventually(words, || cluster.page(standby, "/healthz") == Some((503, words.to_owned())));
    assert_eq!(cluster.message(standby).lock("x"), refusal("locks.example.org:20934"));
}

#[test]
fn pages_and_figures_say_who_is_active() {
    let mut cluster = Cluster::start(2);
    let active = cluster.await_active();
    let standby = 1 - active;
    cluster.await_standby(standby, active);
    let figure = |index, name: &str| cluster.metric(index, &format!("lockd_cluster_{name}"));
    let ok = Some((200, "ok\n".to_owned()));
    assert_eq!((cluster.page(active, "/healthz"), cluster.page(active, "/livez")), (ok.clone(), ok.clone()));
    assert_eq!(cluster.page(standby, "/livez"), ok);
    assert_eq!((figure(active, "active"), figure(standby, "active")), (Some(1.0), Some(0.0)));
    eventually("both know the run", || {
        [active, standby].iter().all(|&index| figure(index, "epoch") == Some(1.0))
    });
    let left = figure(active, "seconds_left").unwrap();
    assert!(left > 0.0 && left <= 1.8, "{left}");
    assert_eq!(figure(standby, "seconds_left"), None);
    for index in [active, standby] {
        assert_eq!(figure(index, "leader_changes_total"), Some(1.0));
        assert_eq!(figure(index, "etcd_failing"), Some(0.0));
    }
    assert_eq!(cluster.stand_down(active), Ended::With(4));
    assert_eq!(cluster.await_next(active), standby);
    let figure = |name: &str| cluster.metric(standby, &format!("lockd_cluster_{name}"));
    assert_eq!((figure("active"), figure("epoch")), (Some(1.0), Some(2.0)));
    assert_eq!(figure("leader_changes_total"), Some(2.0));
}

/// Adds two servers with these options and listeners, and returns the standby and the active one.
fn two_with(cluster: &mut Cluster, options: &[&str]) -> (usize, usize) {
    for _ in 0..2 {
        cluster.add(options);
    }
    let active = cluster.await_active();
    cluster.await_standby(1 - active, active);
    (1 - active, active)
}

fn send(socket: &mut Socket, bytes: &[u8]) {
    // The server may have ended the connection already.
    let _ = socket.write_all(bytes);
}

#[test]
fn in_tls_and_in_websocket_it_is_the_same() {
    let authority = Authority::new();
    let certificate = authority.issue(HOST);
    let certificate = certificate.to_str().unwrap();
    let mut cluster = Cluster::on(EtcdCluster::start(1));
    let options = ["--tls-cert", certificate, "--tls-key", certificate];
    let listen =
        ["message+tls", "glockd+tls", "glockd+ws"].map(|protocol| format!("{protocol}://127.0.0.1:0"));
    let listen: Vec<&str> = listen.iter().flat_map(|address| ["--listen", address]).collect();
    let (standby, active) = two_with(&mut cluster, &[&options[..], &listen].concat());
    let server = cluster.server(standby);

    let mut tls = tls_socket(server, "message+tls", &authority.ca());
    tls.write_all(&frame(json!({"command": "hello", "parameters": {}, "id": 7}).to_string())).unwrap();
    let answer = json!({"id": 7, "result": refusal(&cluster.place(active))});
    let received = read_to_end(&mut tls);
    let (length, body) = received.split_first_chunk().unwrap();
    assert_eq!(usize::try_from(u32::from_be_bytes(*length)).unwrap(), body.len());
    assert_eq!(serde_json::from_slice::<Value>(body).unwrap(), answer);
    // Text in TLS, and in WebSocket: not even a handshake.
    let mut raw = connect(&server.tcp_endpoint("glockd+tls"));
    send(&mut raw, b"\x16\x03\x01");
    // TLS has a message of its own that says that the connection ends.
    assert!(matches!(read_to_end(&mut raw)[..], [] | [21, ..]));
    let mut raw = connect(&server.tcp_endpoint("glockd+ws"));
    send(&mut raw, b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(read_to_end(&mut raw), b"");

    assert_eq!(cluster.stand_down(active), Ended::With(4));
    assert_eq!(cluster.await_next(active), standby);
    let mut lines = TlsLines::new(cluster.server(standby), "glockd+tls", &authority.ca());
    assert_eq!(lines.ask("g x"), "1 Lock Get Success: x\r\n");
}

#[test]
fn a_client_without_the_secret_is_not_told_who_is_active() {
    let mut cluster = Cluster::on(EtcdCluster::start(1));
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, secret: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, secret).unwrap();
        path
    };
    let (good, wrong) =
        (write("good", "a secret that is long enough"), write("wrong", "a secret that is wrong"));
    let (standby, active) = two_with(&mut cluster, &["--auth-token-file", good.to_str().unwrap()]);
    let connect = |index: usize, secret: Option<&Path>| {
        let secret = secret.map(|file| format!("?auth-token-file={}", file.display())).unwrap_or_default();
        RemoteSession::connect(&format!("tcp://{}{secret}", cluster.place(index)), None, DEADLINE).map(drop)
    };
    connect(active, Some(&good)).unwrap();
    let error = connect(standby, Some(&good)).unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Standby, "{error}");
    assert!(error.to_string().contains(&cluster.place(active)), "{error}");
    for secret in [Some(wrong.as_path()), None] {
        let error = connect(standby, secret).unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::Secret, "{error}");
        assert!(!error.to_string().contains(&cluster.place(active)), "{error}");
    }
}

#[test]
fn a_member_is_neither_upgraded_in_place_nor_given_another_dead_peer_timeout() {
    let mut cluster = Cluster::on(EtcdCluster::start(1));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lockd.toml");
    std::fs::write(&file, "locks-max = 10\n").unwrap();
    // On the command line, the timeout could not be changed.
    let mut options = cluster.options();
    let place = options.iter().position(|option| option == "--dead-peer-timeout").unwrap();
    options.drain(place..place + 2);
    options.extend(["--config".to_owned(), file.to_str().unwrap().to_owned()]);
    std::fs::write(&file, "dead-peer-timeout = 12\nlocks-max = 10\n").unwrap();
    for _ in 0..2 {
        cluster.add_with(options.clone());
    }
    let active = cluster.await_active();
    cluster.await_standby(1 - active, active);
    let mut client = cluster.message(active);
    client.lock("x");
    for index in [active, 1 - active] {
        let (code, said, errors) = cluster.ask(index, "upgrade");
        assert_eq!((code, said.as_str()), (1, ""));
        assert!(errors.contains("a member of a cluster is not upgraded in place"), "{errors}");
        assert!(errors.contains("stand down"), "{errors}");
    }
    std::fs::write(&file, "dead-peer-timeout = 15\nlocks-max = 11\n").unwrap();
    for index in [active, 1 - active] {
        cluster.server(index).signal(Signal::HUP);
        cluster.await_log(index, "dead-peer-timeout: all servers of a cluster need the same");
        assert!(
            !cluster.server(index).log().iter().any(|line| line.contains("from 10 to 11")),
            "all or nothing"
        );
    }
    // Anything else can be changed.
    std::fs::write(&file, "dead-peer-timeout = 12\nlocks-max = 12\n").unwrap();
    for index in [active, 1 - active] {
        cluster.server(index).signal(Signal::HUP);
        cluster.await_log(index, "locks-max: from 10 to 12");
    }
    assert!(client.is_served());
    assert_eq!(cluster.active(), Some(active));
}

/// Of a cluster, it is etcd that keeps what a run leaves to the next.
#[test]
fn a_state_directory_is_not_used() {
    let mut cluster = Cluster::on(EtcdCluster::start(1));
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let index = cluster.add(&["--state-dir", state.to_str().unwrap()]);
    assert_eq!(cluster.await_active(), index);
    token(&cluster.message(index).try_lock("x"));
    cluster.await_log(index, "state-dir is not used");
    assert!(!state.exists());
}

#[test]
fn times_that_do_not_fit_together_are_refused_before_anything_is_done() {
    for (timeout, leader) in [("12", "3"), ("25", "9")] {
        let launch = Launch::new().listen("message://127.0.0.1:0");
        let launch = launch.option("--cluster", "etcd://127.0.0.1:1/main");
        let launch = launch.option("--dead-peer-timeout", timeout).option("--leader-timeout", leader);
        let (status, log) = launch.run();
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(log.contains("leader-timeout") && log.contains("0.99·T"), "{log}");
        assert!(!log.contains("listening"), "{log}");
    }
}
