//! Clients that are not answered: pages of other sites in the browser of an allowed user, by
//! whatever name they reach the server, and clients that are not on the access list.

use std::io::Read;

use rustix::process::Signal;

use crate::client::{ask, get, launch, start};
use crate::support::eventually;
use crate::support::server::Server;

const ROUTES: [&str; 7] = ["/", "/locks", "/history", "/cluster", "/metrics", "/healthz", "/nowhere"];

fn assert_refused(server: &Server, headers: &str) {
    for path in ROUTES {
        let answer = ask(server, path, headers);
        assert_eq!(answer.status, 403, "{path} {headers}");
        assert!(answer.body.lines().count() == 1 && !answer.body.contains("secret"), "{}", answer.body);
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

#[test]
fn a_host_name_of_another_server_is_not_served() {
    let server = start();
    let mut holder = server.message();
    holder.try_lock("secret");
    for host in ["evil.example", "evil.example:2627", "localhost.evil.example", "10.1.2.3", "0.0.0.0"] {
        assert_refused(&server, &format!("Host: {host}\n"));
    }
    for host in ["localhost", "127.0.0.1:2627", "[::1]:80"] {
        assert!(ask(&server, "/locks", &format!("Host: {host}\n")).body.contains("secret"), "{host}");
    }
    assert_eq!(ask(&server, "/locks", "").status, 400);
    assert_eq!(ask(&server, "/locks", "Host: localhost\nHost: evil.example\n").status, 400);
}

#[test]
fn configured_host_names_are_served() {
    let launch = launch().args(["--http-host", "locks.example", "--http-host", "other.example"]);
    let server = launch.start();
    for host in ["locks.example:2627", "Other.Example", "localhost"] {
        assert_eq!(ask(&server, "/locks", &format!("Host: {host}\n")).status, 200, "{host}");
    }
    assert_refused(&server, "Host: third.example\n");
    assert_refused(&server, "Host: locks.example\nOrigin: http://other.example\n");
}

#[test]
fn pages_of_others_are_not_answered() {
    let server = start();
    let mut holder = server.message();
    holder.try_lock("secret");
    for other in [
        "Origin: https://evil.example",
        "Origin: http://localhost:1",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Origin: http://localhost\nSec-Fetch-Site: cross-site",
    ] {
        assert_refused(&server, &format!("Host: localhost\n{other}\n"));
    }
    let own = "Host: localhost\nOrigin: http://localhost\nSec-Fetch-Site: same-origin\n";
    assert!(ask(&server, "/locks", own).body.contains("secret"));
    assert_eq!(ask(&server, "/", "Host: localhost\nSec-Fetch-Site: none\n").status, 200);
}

#[test]
fn a_client_gets_nothing_until_it_is_on_the_access_list() {
    let launch = launch().args(["--http-host", "x"]);
    let path = launch.path("lockd.toml");
    let path_text = path.to_str().unwrap().to_owned();
    std::fs::write(&path, "allow = ['10.0.0.0/8']").unwrap();
    let server = launch.option("--config", &path_text).start();
    let mut received = Vec::new();
    // It is closed at once, or reset if it had sent something.
    let _ = server.tcp("http").read_to_end(&mut received);
    assert!(received.is_empty());
    std::fs::write(&path, "allow = ['127.0.0.1']\nhttp-host = ['y']").unwrap();
    server.signal(Signal::HUP);
    eventually("the access list is read again", || {
        server.log().iter().any(|line| line.contains("read again"))
    });
    assert!(get(&server, "/metrics").body.contains("\nlockd_http_connections_refused_total 1\n"));
}
