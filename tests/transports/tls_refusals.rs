//! Clients that fail in TLS: they are told why, the log says it once, and nothing else happens.

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use lockd::broker::Mode;

use crate::authority::Authority;
use crate::clients::{HOST, refusal, session, tls_url};
use crate::support::eventually;
use crate::support::server::{Launch, Server};
use crate::tls::serve;

/// Waits for a line of the log that contains all of these parts.
#[track_caller]
fn assert_logged(server: &Server, parts: &[&str]) {
    eventually(&format!("a line of the log has {parts:?}"), || {
        server.log().iter().any(|line| parts.iter().all(|part| line.contains(part)))
    });
}

/// The server works, and nothing remains of the clients it refused.
#[track_caller]
fn assert_calm(server: &Server, url: &str) {
    let session = session(url);
    session.acquire(b"calm", Mode::Exclusive, Some(Duration::ZERO)).unwrap();
    eventually("all other clients are gone", || {
        let stats = server.message().call("stats", serde_json::json!({}));
        stats["sessions"] == 2 && stats["connections"] == 2
    });
}

#[test]
fn a_plain_client_is_refused_by_a_tls_listener() {
    let authority = Authority::new();
    let server = serve(&authority, &[]);
    for (protocol, words) in [("glockd+tls", &b"g x\nr x\n"[..]), ("message+tls", b"\0\0\0\x02{}")] {
        let mut socket = server.tcp(protocol);
        socket.write_all(words).unwrap();
        let mut heard = Vec::new();
        socket.read_to_end(&mut heard).unwrap();
        // An alert, after text that a text client may understand.
        assert!(heard[0] == 21 || heard.starts_with(b"0 Refused: "), "{heard:?}");
        assert_logged(&server, &["WARN", "refused"]);
        assert_logged(&server, &["no TLS"]);
    }
    let port = crate::clients::address(&server, "message+tls").port();
    assert!(refusal(&format!("tcp://127.0.0.1:{port}")).contains("no session on"));
    assert_calm(&server, &tls_url(&server, &authority.ca(), ""));
}

#[test]
fn a_silent_client_is_disconnected_after_a_while() {
    let authority = Authority::new();
    let server = serve(&authority, &[]);
    let start = Instant::now();
    let mut socket = server.tcp("message+tls");
    // A part of the handshake comes in time, but not all of it.
    socket.write_all(b"\x16\x03\x01").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert!(socket.read(&mut [0; 100]).is_ok());
    assert!(start.elapsed() > Duration::from_secs(5));
    assert_logged(&server, &["WARN", "refused", "within 10 s"]);
    assert_calm(&server, &tls_url(&server, &authority.ca(), ""));
}

#[test]
fn nothing_is_sent_to_a_wrong_server() {
    let authority = Authority::new();
    let server = serve(&authority, &[]);
    let stranger = Authority::new();
    let why = refusal(&tls_url(&server, &stranger.ca(), ""));
    assert!(why.contains("certificate"), "{why}");
    assert_logged(&server, &["WARN", "refused", "alert"]);
    let port = crate::clients::address(&server, "message+tls").port();
    let why = refusal(&format!("tls://127.0.0.1:{port}?ca={}", authority.ca().display()));
    assert!(why.contains("certificate") && why.contains("127.0.0.1"), "{why}");
    // No CA that the system trusts has signed it.
    let why = refusal(&format!("tls://{HOST}:{port}"));
    assert!(why.contains("certificate") || why.contains("trusts"), "{why}");
    let plain = crate::clients::address(&server, "message").port();
    let why = refusal(&format!("tls://{HOST}:{plain}?ca={}", authority.ca().display()));
    assert!(why.contains("does not speak TLS"), "{why}");
    assert_calm(&server, &tls_url(&server, &authority.ca(), ""));
}

#[test]
fn each_place_of_a_group_must_show_a_certificate_for_its_own_host() {
    let authority = Authority::new();
    let server = serve(&authority, &[]);
    let (port, ca) = (crate::clients::address(&server, "message+tls").port(), authority.ca());
    // Nothing listens at the first place.
    let found = session(&format!("tls://127.0.7.6:{port},{HOST}:{port}?ca={}", ca.display()));
    assert!(found.is_alive());
    let why = refusal(&format!("tls://127.0.0.1:{port},{HOST}:{port}?ca={}", ca.display()));
    assert!(why.starts_with(&format!("no session on 127.0.0.1:{port}: ")), "{why}");
    assert!(why.contains("certificate"), "{why}");
}

#[test]
fn an_expired_certificate_of_the_server_is_refused_by_clients() {
    let authority = Authority::new();
    let server =
        Launch::new().listen("message+tls://127.0.0.1:0").certified(&authority.issue_expired(HOST)).start();
    let why = refusal(&tls_url(&server, &authority.ca(), ""));
    assert!(why.contains("expired"), "{why}");
    assert_logged(&server, &["WARN", "refused", "CertificateExpired"]);
}

#[test]
fn clients_show_certificates_if_the_server_requests_them() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = authority.ca();
    let serve = || serve(&authority, &["--tls-client-ca", ca.to_str().unwrap()]);
    let with = |server: &Server, more: &str| tls_url(server, &ca, more);
    let showing = |certificate: &Path| format!("&cert={}", certificate.display());
    for (more, logged) in [
        (String::new(), "no certificate"),
        (showing(&stranger.issue("someone")), "is not trusted"),
        (showing(&authority.issue_expired("someone")), "xpired"),
    ] {
        // A server for each case: of several refusals within a second only the first is logged.
        let server = serve();
        let why = refusal(&with(&server, &more));
        assert!(why.contains("alert"), "{why}");
        assert_logged(&server, &["WARN", "refused", logged]);
    }
    let server = serve();
    let key = authority.path("key.pem");
    let both = authority.issue("someone");
    std::fs::copy(&both, &key).unwrap();
    let good = tls_url(&server, &ca, &format!("&cert={}&key={}", both.display(), key.display()));
    assert_calm(&server, &good);
    // A mistake on the client's side is reported without asking the server.
    let why = refusal(&with(&server, &showing(&authority.path("none.pem"))));
    assert!(why.contains("none.pem"), "{why}");
    let why = refusal(&tls_url(&server, &authority.path("none.pem"), ""));
    assert!(why.contains("none.pem"), "{why}");
}

#[test]
fn a_server_with_incomplete_tls_options_does_not_start() {
    let authority = Authority::new();
    let (good, other) = (authority.issue(HOST), authority.issue("other"));
    let start = |options: &[&str]| {
        let launch = Launch::new().option("--listen", "message+tls://127.0.0.1:0");
        let (status, log) = launch.args(options.iter().copied()).run();
        assert_eq!(status.code(), Some(2), "{log}");
        log
    };
    let [good, other, ca] = [good, other, authority.ca()].map(|path| path.to_str().unwrap().to_owned());
    assert!(start(&[]).contains("tls-cert"));
    assert!(start(&["--tls-cert", &good]).contains("tls-key"));
    assert!(start(&["--tls-key", &good]).contains("tls-cert"));
    assert!(start(&["--tls-cert", "/nonexistent", "--tls-key", &good]).contains("/nonexistent"));
    assert!(start(&["--tls-cert", &good, "--tls-key", &other]).contains("other"));
    assert!(start(&["--tls-cert", &good, "--tls-key", &ca]).contains("ca.pem"));
    assert!(
        start(&["--tls-cert", &good, "--tls-key", &good, "--tls-client-ca", "/dev/null"]).contains("null")
    );
}
