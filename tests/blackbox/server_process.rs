//! The server as a process: its options, files and signals.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::support::eventually;
use crate::support::line_client::LineClient;
use crate::support::server::{Launch, Server};
use crate::support::socket::{Endpoint, connect};
use rustix::process::Signal;

const ANY_PORT: &str = "glockd://127.0.0.1:0";

fn listening_at(path: &Path) -> String {
    format!("glockd+unix:{}", path.display())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Asserts that this server does not start: by its exit status, and a message that names `what`.
#[track_caller]
fn assert_refuses_to_start(launch: Launch, what: &str) {
    let (status, log) = launch.run();
    assert!(status.code().is_some_and(|code| code != 0), "{status}: {log}");
    assert!(log.contains(what), "{what:?} is not in: {log}");
    assert!(!log.contains("panicked"), "{log}");
}

fn is_served(endpoint: &Endpoint) -> bool {
    let mut client = LineClient::new(connect(endpoint));
    // The server may refuse the client before or after it has written.
    let _ = client.socket().send(b"i foo\n");
    client.read_line_or_end() == Some("0 Lock Not Locked: foo\r\n".to_owned())
}

#[test]
fn serve_is_what_it_does_by_default() {
    let server = Launch::new().args(["serve"]).listen(ANY_PORT).start();
    assert!(is_served(&server.tcp_endpoint("glockd")));
}

#[test]
fn signals_stop_it_with_success() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start();
        let mut client = server.glockd();
        assert!(client.ask("g foo").starts_with('1'));
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "{signal:?}");
        assert_eq!(client.read_to_end(), b"");
    }
}

#[test]
fn bad_options_are_refused_by_name() {
    let refused = [
        (["--no-such-option", "1"], "--no-such-option"),
        (["--listen", "ftp://127.0.0.1:0"], "ftp"),
        (["--listen", "glockd"], "glockd"),
        (["--listen", "glockd://127.0.0.1:port"], "127.0.0.1:port"),
        (["--listen", "glockd://127.0.0.1:70000"], "70000"),
        (["--allow", "300.0.0.1"], "300.0.0.1"),
        (["--allow", "10.0.0.0/33"], "10.0.0.0/33"),
        (["--unix-mode", "rw"], "rw"),
        (["--unix-mode", "0999"], "0999"),
        (["--scheduling", "idle"], "idle"),
        (["--dead-peer-timeout", "soon"], "soon"),
        (["--connections-max", "many"], "many"),
        (["--locks-max", "-1"], "-1"),
        (["--config", "/no/such/file.toml"], "/no/such/file.toml"),
        (["--pidfile", "/no/such/directory/pid"], "pidfile"),
    ];
    for (arguments, what) in refused {
        assert_refuses_to_start(Launch::new().listen(ANY_PORT).args(arguments), what);
    }
}

#[test]
fn an_address_in_use_is_refused_by_name() {
    let server = Launch::new().listen(ANY_PORT).start();
    let Endpoint::Tcp(address) = server.tcp_endpoint("glockd") else { unreachable!() };
    assert_refuses_to_start(Launch::new().listen(&format!("lockd://{address}")), &address.to_string());
    assert!(is_served(&server.tcp_endpoint("glockd")));
}

#[test]
fn help_and_version_are_printed_with_success() {
    for option in ["--help", "--version"] {
        let (status, _) = Launch::new().args([option]).run();
        assert_eq!(status.code(), Some(0), "{option}");
    }
}

#[test]
fn the_pidfile_is_held_for_the_life_of_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let pidfile = directory.path().join("lockd.pid");
    let launch = || Launch::new().listen(ANY_PORT).option("--pidfile", text(&pidfile));
    let mut first = launch().start();
    assert_eq!(std::fs::read_to_string(&pidfile).unwrap().trim(), first.pid().to_string());
    assert_refuses_to_start(launch(), &first.pid().to_string());
    assert_eq!(std::fs::read_to_string(&pidfile).unwrap().trim(), first.pid().to_string());
    first.signal(Signal::TERM);
    first.wait();
    let second = launch().start();
    assert_eq!(std::fs::read_to_string(&pidfile).unwrap().trim(), second.pid().to_string());
}

#[test]
fn the_pidfile_of_a_killed_process_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let pidfile = directory.path().join("lockd.pid");
    let launch = || Launch::new().listen(ANY_PORT).option("--pidfile", text(&pidfile));
    let mut first = launch().start();
    first.signal(Signal::KILL);
    first.wait();
    let second = launch().start();
    assert_eq!(std::fs::read_to_string(&pidfile).unwrap().trim(), second.pid().to_string());
}

#[test]
fn a_unix_socket_is_for_its_owner_unless_told_otherwise() {
    let mode = |server: &Server| {
        let Endpoint::Unix(path) = server.unix_endpoint("glockd") else { unreachable!() };
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(mode(&Server::start()), 0o600);
    assert_eq!(mode(&Server::with(&["--unix-mode", "0660"])), 0o660);
    assert_eq!(mode(&Server::with(&["--unix-mode", "0666"])), 0o666);
}

#[test]
fn a_stale_socket_file_is_replaced() {
    let launch = Launch::new();
    let path = launch.path("stale.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = launch.listen(&listening_at(&path)).start();
    assert!(is_served(&server.unix_endpoint("glockd")));
}

#[test]
fn the_socket_file_of_a_killed_server_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let mut first = Launch::new().listen(&listening_at(&path)).start();
    first.signal(Signal::KILL);
    first.wait();
    let second = Launch::new().listen(&listening_at(&path)).start();
    assert!(is_served(&second.unix_endpoint("glockd")));
}

#[test]
fn a_live_socket_is_not_taken_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let first = Launch::new().listen(&listening_at(&path)).start();
    assert_refuses_to_start(Launch::new().listen(&listening_at(&path)), text(&path));
    assert!(is_served(&first.unix_endpoint("glockd")));
}

#[test]
fn a_server_that_has_lost_its_socket_file_keeps_others_from_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let mut first = Launch::new().listen(&listening_at(&path)).start();
    std::fs::remove_file(&path).unwrap();
    assert_refuses_to_start(Launch::new().listen(&listening_at(&path)), "s.sock.lock");
    first.signal(Signal::TERM);
    assert_eq!(first.wait().code(), Some(0));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
    let second = Launch::new().listen(&listening_at(&path)).start();
    assert!(is_served(&second.unix_endpoint("glockd")));
}

#[test]
fn another_user_that_it_becomes_has_the_socket_and_its_lock() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Like /tmp: every user may create files there and remove their own.
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o1777)).unwrap();
    let path = directory.path().join("s.sock");
    let launch = || Launch::new().listen(&listening_at(&path)).option("--user", "nobody");
    let mut killed = launch().start();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    for file in ["s.sock", "s.sock.lock"] {
        assert_eq!(std::fs::metadata(directory.path().join(file)).unwrap().uid(), nobody, "{file}");
    }
    killed.signal(Signal::KILL);
    killed.wait();
    let mut stopped = launch().start();
    assert!(is_served(&stopped.unix_endpoint("glockd")));
    stopped.signal(Signal::TERM);
    assert_eq!(stopped.wait().code(), Some(0));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let launch = Launch::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    assert_refuses_to_start(launch.listen(&listening_at(&path)), text(&path));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
}

#[test]
fn connections_that_are_not_allowed_are_closed_at_once() {
    let server = Server::with(&["--allow", "10.0.0.0/8"]);
    for protocol in ["lockd", "glockd", "message"] {
        let mut client = LineClient::new(server.tcp(protocol));
        assert_eq!(client.read_line_or_end(), None, "{protocol}");
    }
    assert!(is_served(&server.unix_endpoint("glockd")), "a Unix socket's access is its file mode");
}

#[test]
fn several_can_be_allowed() {
    for allowed in ["127.0.0.1", "127.0.0.0/8", "0.0.0.0/0"] {
        let server = Server::with(&["--allow", "10.0.0.0/8", "--allow", allowed]);
        assert!(is_served(&server.tcp_endpoint("glockd")), "{allowed}");
    }
}

#[test]
fn loopback_is_allowed_by_default() {
    let server = Launch::new().listen("glockd://0.0.0.0:0").start();
    let Endpoint::Tcp(address) = server.tcp_endpoint("glockd") else { unreachable!() };
    for host in ["127.0.0.1", "127.0.0.2"] {
        let endpoint = Endpoint::Tcp(format!("{host}:{}", address.port()).parse().unwrap());
        assert!(is_served(&endpoint), "{host}");
    }
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        let server = Launch::new().listen("glockd://[::1]:0").start();
        assert!(is_served(&server.tcp_endpoint("glockd")), "IPv6");
    }
}

#[test]
fn a_peer_is_the_same_over_a_dual_stack_listener() {
    if std::net::TcpListener::bind("[::]:0").is_err() {
        return;
    }
    let server = Launch::new().listen("glockd://[::]:0").option("--allow", "127.0.0.0/8").start();
    let Endpoint::Tcp(address) = server.tcp_endpoint("glockd") else { unreachable!() };
    let endpoint = Endpoint::Tcp(format!("127.0.0.1:{}", address.port()).parse().unwrap());
    // If IPv6 listeners accept only IPv6, there is nothing to test.
    if crate::support::socket::try_connect(&endpoint).is_ok() {
        eventually("the IPv4 client is recognised", || is_served(&endpoint));
    }
}

#[test]
fn a_host_name_is_listened_on_at_each_of_its_addresses() {
    use std::net::ToSocketAddrs;
    let addresses: std::collections::BTreeSet<_> = "localhost:0".to_socket_addrs().unwrap().collect();
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    let usable = addresses.iter().filter(|address| address.is_ipv4() || has_ipv6).count();
    let server = Launch::new().listen("glockd://localhost:0").expecting(usable - 1).start();
    assert_eq!(server.endpoints().len(), usable);
    let ports = server.endpoints().iter().map(|(_, endpoint)| match endpoint {
        Endpoint::Tcp(address) => address.port(),
        Endpoint::Unix(_) => unreachable!(),
    });
    assert_eq!(ports.collect::<std::collections::BTreeSet<_>>().len(), 1, "the same port at each");
    assert!(server.endpoints().iter().all(|(_, endpoint)| is_served(endpoint)));
}

#[test]
fn a_mistake_is_reported_without_waiting_for_a_reader() {
    let (reader, writer) = std::io::pipe().unwrap();
    // The pipe is full, and has no reader.
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while rustix::io::write(&writer, &[b'x'; 4096]).is_ok() {}
    while rustix::io::write(&writer, b"x").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    for arguments in [&["--unix-mode", "rw"][..], &["--no-such-option"]] {
        let mut command = std::process::Command::new(crate::support::server::program());
        let mut child = command.args(arguments).stderr(writer.try_clone().unwrap()).spawn().unwrap();
        assert_eq!(crate::support::end_of("the server", &mut child).code(), Some(2));
    }
    drop(reader);
}
