//! The messages of both sides about bad certificates: whose it is, in which file, and what to do.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lockd::client::{ConnectErrorKind, RemoteSession};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

use crate::authority::Authority;
use crate::clients::{HOST, assert_has, assert_logged, refusal, session, tls_url};
use crate::support::DEADLINE;
use crate::support::server::{Launch, Server};

fn serve(certificate: &Path, more: &[&str]) -> Server {
    let launch = Launch::new().listen("message+tls://127.0.0.1:0").certified(certificate);
    launch.args(more.iter().copied()).start()
}

/// Runs openssl(1) in the directory; false if it is not installed.
fn openssl(directory: &Path, arguments: &str) -> bool {
    let mut openssl = Command::new("openssl");
    openssl.args(arguments.split_whitespace()).current_dir(directory);
    match openssl.stdin(Stdio::null()).output() {
        Ok(output) => {
            assert!(
                output.status.success(),
                "openssl {arguments}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            true
        }
        Err(_) => false,
    }
}

#[test]
fn a_client_says_what_is_wrong_with_the_servers_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let namesake = authority.namesake();
    let (ca, strangers, namesakes) = (authority.ca(), stranger.ca(), namesake.ca());
    let table: [(PathBuf, &Path, &[&str]); 7] = [
        (authority.issue(HOST), &namesakes, &["is not trusted", "ca.pem (ca=)", "another key"]),
        (authority.issue(HOST), &strangers, &["is not trusted", "ca.pem", "ca="]),
        (authority.issue_expired(HOST), &ca, &["has expired", "days ago"]),
        (authority.issue_too_early(HOST), &ca, &["is not valid yet", "days"]),
        (authority.issue("other.example"), &ca, &["is for other.example", "not for localhost"]),
        (authority.issue_for("localhost", &ClientAuth), &ca, &["serverAuth"]),
        (authority.own_with_key(), &ca, &["is that of a CA", "CA:FALSE", "docs/operations.md"]),
    ];
    for (certificate, ca, parts) in table {
        let server = serve(&certificate, &[]);
        let error = RemoteSession::connect(&tls_url(&server, ca, ""), None, DEADLINE).err().unwrap();
        assert_has(&error.to_string(), &[&["the server's certificate"], parts].concat());
        assert_eq!(error.kind(), ConnectErrorKind::Tls);
        assert_logged(&server, &["refused", "the client refuses this server's certificate", "alert"]);
    }
    let server = serve(&authority.issue(HOST), &[]);
    let url = tls_url(&server, &ca, "");
    let why = refusal(url.split('?').next().unwrap());
    assert!(why.contains("?ca=FILE"), "{why}");
}

#[test]
fn a_server_warns_of_a_certificate_that_clients_will_refuse() {
    let authority = Authority::new();
    for (certificate, words) in [
        (authority.issue_expired(HOST), "has expired"),
        (authority.issue_too_early(HOST), "is not valid yet"),
        (authority.own_with_key(), "is that of a CA"),
        (authority.issue_for(HOST, &ClientAuth), "serverAuth"),
    ] {
        let server = serve(&certificate, &[]);
        let parts = ["clients will refuse", certificate.to_str().unwrap(), words];
        assert_logged(&server, &[&["WARN"][..], &parts].concat());
        let launch = Launch::new().listen("message+tls://127.0.0.1:0").certified(&certificate);
        let (status, said) = launch.args(["--check"]).run();
        assert!(status.success(), "{said}");
        assert_has(&said, &parts);
    }
    let server = serve(&authority.issue(HOST), &[]);
    assert!(!server.log().iter().any(|line| line.contains("clients will refuse")));
}

#[test]
fn both_sides_say_what_is_wrong_with_the_clients_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let namesake = authority.namesake();
    let ca = authority.ca();
    let client_ca = ["--tls-client-ca", ca.to_str().unwrap()];
    let table = [
        (
            None,
            &["wants this client to show a certificate", "cert=FILE"][..],
            "the client has shown no certificate",
        ),
        (
            Some(stranger.issue("someone")),
            &["refuses this client's certificate", "someone", "does not trust"],
            "the client's certificate is not trusted",
        ),
        (
            Some(namesake.issue("someone")),
            &["refuses this client's certificate", "someone"],
            "tls-client-ca as its signer, but was signed with another key",
        ),
        (
            Some(authority.issue_expired("someone")),
            &["refuses this client's certificate", "someone", "has expired"],
            "the client's certificate has expired",
        ),
        (
            Some(authority.issue_for("someone", &ServerAuth)),
            &["refuses this client's certificate", "someone"],
            "clientAuth",
        ),
        (
            Some(authority.own_with_key()),
            &["refuses this client's certificate", "own.pem"],
            "the client's certificate is that of a CA",
        ),
    ];
    for (certificate, told, logged) in table {
        let server = serve(&authority.issue(HOST), &client_ca);
        let showing = certificate.map_or_else(String::new, |path| format!("&cert={}", path.display()));
        let error = RemoteSession::connect(&tls_url(&server, &ca, &showing), None, DEADLINE).err().unwrap();
        assert_has(&error.to_string(), told);
        assert_eq!(error.kind(), ConnectErrorKind::Tls, "{error}");
        assert_logged(&server, &["WARN", "refused", logged]);
    }
}

#[test]
fn certificates_of_openssl_are_good_as_documented_and_told_apart_where_they_are_not() {
    let authority = Authority::new();
    let directory = authority.path("");
    let good = "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=lockd -keyout good.key -out good.pem \
                -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE";
    if !openssl(&directory, good) {
        return eprintln!("skipped: there is no openssl");
    }
    let file = |name: &str| authority.path(name).to_str().unwrap().to_owned();
    let launch = Launch::new().listen("message+tls://127.0.0.1:0");
    let server =
        launch.option("--tls-cert", &file("good.pem")).option("--tls-key", &file("good.key")).start();
    session(&tls_url(&server, &authority.path("good.pem"), ""));
    assert!(!server.log().iter().any(|line| line.contains("WARN")));

    openssl(&directory, "req -new -key good.key -subj /CN=lockd -out old.csr");
    openssl(&directory, "x509 -req -in old.csr -signkey good.key -days 30 -out old.pem");
    openssl(&directory, "pkey -in good.key -aes256 -passout pass:secret -out locked.key");
    openssl(&directory, "rsa -traditional -in good.key -aes256 -passout pass:secret -out older.key");
    openssl(&directory, "genrsa -out other.key 2048");
    for (cert, key, parts) in [
        ("old.pem", "good.key", &["old.pem", "version 1", "docs/operations.md", "-extfile"][..]),
        ("good.pem", "locked.key", &["locked.key", "passphrase", "openssl pkey"]),
        ("good.pem", "older.key", &["older.key", "passphrase"]),
        ("good.pem", "other.key", &["other.key", "does not belong", "good.pem"]),
        ("good.pem", "good.pem", &["good.pem", "no private key"]),
        ("good.key", "good.key", &["good.key", "no certificate"]),
    ] {
        let launch = Launch::new().option("--listen", "message+tls://127.0.0.1:0");
        let (status, log) = launch.args(["--tls-cert", &file(cert), "--tls-key", &file(key)]).run();
        assert_eq!(status.code(), Some(2), "{log}");
        assert_has(&log, parts);
    }
    // The same on the side of the client.
    let why = refusal(&format!("tls://{HOST}:1?cert={}&key={}", file("old.pem"), file("good.key")));
    assert_has(&why, &["old.pem", "version 1"]);
}
