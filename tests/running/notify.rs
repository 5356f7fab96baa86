//! What the server reports to the service manager, and when.

use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use crate::manager::{Manager, WATCHDOG, ask, glockd_at, has};
use crate::support::eventually;

#[test]
fn it_reports_ready_when_clients_can_connect_and_reports_its_stop() {
    let manager = Manager::new();
    let path = manager.path("glockd.sock");
    let mut service = manager.start(&["--listen", &glockd_at(&path)], &[]);
    let heard = manager.hear();
    assert!(has(&heard, "READY=1") && has(&heard, "STATUS=listening; addresses: 1"), "{heard:?}");
    assert!(ask(UnixStream::connect(&path).unwrap(), "g foo").starts_with('1'));
    service.signal(Signal::TERM);
    // Nobody has asked for signs of life, so this is the next word.
    let heard = manager.hear();
    assert!(has(&heard, "STOPPING=1"), "{heard:?}");
    assert_eq!(service.wait().code(), Some(0));
}

#[test]
fn a_server_that_cannot_listen_never_says_that_it_is_ready() {
    let manager = Manager::new();
    let mut service = manager.start(&["--listen", "glockd+unix:/no/such/directory/sock"], &[]);
    assert_eq!(service.wait().code(), Some(1));
    manager.assert_silence();
}

#[test]
fn it_reports_the_start_and_the_end_of_a_reload() {
    let manager = Manager::new();
    let config = manager.path("lockd.toml");
    std::fs::write(&config, "").unwrap();
    let listen = glockd_at(&manager.path("sock"));
    let service = manager.start(&["--config", config.to_str().unwrap(), "--listen", &listen], &[]);
    manager.await_line("READY=1");
    // A configuration that makes no sense is no reason to be unready.
    for text in ["name-max = 10", "no-such-key = 1"] {
        std::fs::write(&config, text).unwrap();
        service.signal(Signal::HUP);
        let heard = manager.hear();
        let time = heard.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(has(&heard, "RELOADING=1") && time.unwrap().parse::<u64>().unwrap() > 0, "{heard:?}");
        assert!(has(&manager.hear(), "READY=1"));
    }
}

#[test]
fn it_reports_that_it_is_alive_and_its_status() {
    let manager = Manager::new();
    let path = manager.path("sock");
    let _service = manager.start(&["--listen", &glockd_at(&path)], &[WATCHDOG]);
    manager.await_line("READY=1");
    let mut client = UnixStream::connect(&path).unwrap();
    assert!(ask(&mut client, "g foo").starts_with('1'));
    for _ in 0..3 {
        manager.await_line("WATCHDOG=1");
    }
    manager.await_line("STATUS=connections: 1, locks: 1, waiting: 0");
}

#[test]
fn a_manager_that_does_not_read_is_told_later_and_delays_nothing() {
    let manager = Manager::new();
    manager.stop_hearing();
    let config = manager.path("lockd.toml");
    std::fs::write(&config, "").unwrap();
    let path = manager.path("sock");
    let arguments = ["--config", config.to_str().unwrap(), "--listen", &glockd_at(&path)];
    let mut service = manager.start(&arguments, &[WATCHDOG]);
    eventually("the server is there", || UnixStream::connect(&path).is_ok());
    assert!(ask(UnixStream::connect(&path).unwrap(), "g foo").starts_with('1'));
    service.signal(Signal::HUP);
    eventually("it has read its configuration", || service.log().contains("has been read again"));
    for line in ["READY=1", "RELOADING=1", "READY=1", "WATCHDOG=1"] {
        manager.await_line(line);
    }
    manager.stop_hearing();
    service.signal(Signal::TERM);
    assert_eq!(service.wait().code(), Some(0));
}

#[test]
fn only_the_process_that_was_asked_reports_that_it_is_alive() {
    let manager = Manager::new();
    let listen = glockd_at(&manager.path("sock"));
    let service = manager.start(&["--listen", &listen], &[WATCHDOG, ("WATCHDOG_PID", "1")]);
    manager.await_line("READY=1");
    service.signal(Signal::TERM);
    assert!(has(&manager.hear(), "STOPPING=1"));
}
