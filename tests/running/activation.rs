//! Sockets that the service manager has bound.

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::Signal;

use crate::manager::{Manager, ask, glockd_at};

#[test]
fn it_serves_the_sockets_that_it_is_given_by_name_and_no_others() {
    let manager = Manager::new();
    let path = manager.path("glockd.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    // A client that connects before the server has started is served once it has.
    let early = UnixStream::connect(&path).unwrap();
    let mut service = manager.activate(vec![tcp.into(), unix.into()], "lockd:glockd", &[]);
    manager.await_line("READY=1");
    assert!(ask(early, "g foo").starts_with("1 Lock Get Success"));
    let glockd = ask(UnixStream::connect(&path).unwrap(), "i foo");
    let lockd = ask(TcpStream::connect(address).unwrap(), "i foo");
    assert_ne!(glockd, lockd, "the protocols say it in other words");
    service.await_listening(&[format!("lockd://{address}"), glockd_at(&path)]);
    for number in [3, 4] {
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", service.pid())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        assert_ne!(
            u32::from_str_radix(flags, 8).unwrap() & 0o2_000_000,
            0,
            "{number} outlives exec: {flags}"
        );
    }
    service.signal(Signal::TERM);
    assert_eq!(service.wait().code(), Some(0));
    assert!(path.exists(), "it is the service manager's");
}

#[test]
fn it_also_listens_on_the_configured_addresses() {
    let manager = Manager::new();
    let own = manager.path("own.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let service = manager.activate(vec![tcp.into()], "glockd", &["--listen", &glockd_at(&own)]);
    manager.await_line("READY=1");
    let mut holder = UnixStream::connect(&own).unwrap();
    assert!(ask(&mut holder, "g foo").starts_with('1'));
    assert!(ask(TcpStream::connect(address).unwrap(), "g foo").starts_with('0'));
    service.await_listening(&[glockd_at(&own), format!("glockd://{address}")]);
}

#[test]
fn the_access_list_holds_for_inherited_sockets() {
    let manager = Manager::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let _service = manager.activate(vec![tcp.into()], "glockd", &["--allow", "10.0.0.0/8"]);
    manager.await_line("READY=1");
    let mut stranger = TcpStream::connect(address).unwrap();
    let nothing = std::io::Read::read(&mut stranger, &mut [0; 16]);
    assert!(matches!(nothing, Ok(0) | Err(_)), "{nothing:?}");
}

#[test]
fn a_socket_that_it_cannot_serve_is_refused_by_name() {
    let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = || {
        let listener = tcp();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    };
    for (socket, name, what) in [
        (tcp().into(), "http", "http"),
        (tcp().into(), "", "no protocol"),
        (connected().into(), "glockd", "listens"),
        (std::fs::File::open("/dev/null").unwrap().into(), "glockd", "glockd"),
    ] {
        let manager = Manager::new();
        let mut service = manager.activate(vec![socket], name, &[]);
        assert_eq!(service.wait().code(), Some(1), "{name}");
        let log = service.log();
        assert!(log.contains(what) && !log.contains("panicked"), "{log}");
    }
}
