//! The control socket: who may use it, and what comes over it.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

use rustix::process::Signal;

use crate::site::{Site, asking_at, said};
use crate::support::server::Launch;

#[test]
fn it_is_for_its_owner_and_gone_after_a_stop() {
    let mut site = Site::start(&[]);
    let found = std::fs::metadata(site.control()).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    site.server.signal(Signal::TERM);
    assert_eq!(site.server.wait().code(), Some(0));
    assert!(!site.control().exists());
}

#[test]
fn without_a_server_it_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let (status, _, error) = said(&mut asking_at(&path));
    assert!(status == 69 && error.contains(path.to_str().unwrap()), "{error}");
    // The socket of a server that was killed.
    let mut site = Site::start(&[]);
    site.server.signal(Signal::KILL);
    site.server.wait();
    assert_eq!(site.ask().0, 69);
}

#[test]
fn a_path_in_use_is_refused_by_name_and_that_of_a_killed_server_is_taken_over() {
    let mut site = Site::start(&[]);
    let control = site.control();
    let control = control.to_str().unwrap();
    let launch = || Launch::new().listen("glockd://127.0.0.1:0").option("--control", control);
    let (status, log) = launch().run();
    assert!(status.code() == Some(1) && log.contains(control), "{log}");
    site.server.signal(Signal::KILL);
    site.server.wait();
    drop(launch().start());
}

/// What the server answers to these bytes.
fn answer(site: &Site, sent: &[u8]) -> String {
    let mut stream = UnixStream::connect(site.control()).unwrap();
    stream.write_all(sent).unwrap();
    let mut answer = Vec::new();
    // A reset at the end is all the same: the server has not read everything.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn what_is_no_order_is_refused_and_delays_nobody() {
    let site = Site::start(&[]);
    let _silent = UnixStream::connect(site.control()).unwrap();
    for sent in [&b"\n"[..], b"upgrade now\n", b"UPGRADE\n", b"\0\xff\n", &[b'x'; 100_000]] {
        assert_eq!(answer(&site, sent), "error there is no such order\n");
    }
    site.install_script("exit 0");
    assert!(site.ask().2.contains("says nothing"), "orders are taken");
    assert!(site.server.glockd().ask("g foo").starts_with('1'));
}

#[test]
fn a_client_that_goes_away_does_not_end_the_server() {
    let site = Site::start(&[]);
    site.install_script("exit 0");
    for _ in 0..3 {
        let mut stream = UnixStream::connect(site.control()).unwrap();
        stream.write_all(b"upgrade\n").unwrap();
        drop(stream);
        site.await_log("not upgraded");
    }
    assert!(site.server.glockd().ask("g foo").starts_with('1'));
}

#[test]
fn other_users_may_not_ask_even_if_they_can_connect() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    // Whatever the way to it allows, the directories of the tests are for one user.
    let directory = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let control = directory.path().join("control");
    let text = control.to_str().unwrap();
    let server = Launch::new().listen("glockd://127.0.0.1:0").option("--control", text).start();
    let as_nobody = || said(asking_at(&control).uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw()));
    let (status, _, error) = as_nobody();
    assert!(status == 69 && error.contains("ermission denied"), "{error}");
    std::fs::set_permissions(&control, PermissionsExt::from_mode(0o666)).unwrap();
    let (status, _, error) = as_nobody();
    assert!(status == 70, "{error}");
    assert!(!server.log().iter().any(|line| line.contains("upgrading")), "it was not even tried");
}

#[test]
fn the_user_that_it_becomes_has_the_socket() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // Like /tmp: every user may create files there and remove their own.
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    let control = directory.path().join("control");
    let text = control.to_str().unwrap();
    let launch = Launch::new().listen("glockd://127.0.0.1:0").option("--control", text);
    let mut server = launch.option("--user", "nobody").start();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    assert_eq!(std::fs::metadata(&control).unwrap().uid(), nobody);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
}
