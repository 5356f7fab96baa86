//! Upgrades of a server that a service manager has started, and of one that has become another
//! user.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::Signal;

use crate::manager::{Manager, Service, WATCHDOG, ask, glockd_at, has};
use crate::site::{Site, asking_at, said};
use crate::support::eventually;

/// The next notification that is no sign of life.
fn news(manager: &Manager) -> Vec<String> {
    loop {
        let heard = manager.hear();
        if !has(&heard, "WATCHDOG=1") {
            return heard;
        }
    }
}

#[test]
fn the_manager_is_told_in_order_and_gets_signs_of_life_from_the_next_version() {
    let manager = Manager::new();
    let path = manager.path("sock");
    let service = manager.start(&["--listen", &glockd_at(&path)], &[WATCHDOG]);
    assert!(has(&news(&manager), "READY=1"));
    let mut client = UnixStream::connect(&path).unwrap();
    assert!(ask(&mut client, "g foo").starts_with("1 "));
    for number in 1..=3 {
        service.signal(Signal::USR2);
        let heard = news(&manager);
        let time = heard.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(has(&heard, "RELOADING=1") && time.unwrap().parse::<u64>().unwrap() > 0, "{heard:?}");
        assert!(has(&news(&manager), "STATUS=upgrading"));
        let heard = news(&manager);
        assert!(has(&heard, "READY=1") && has(&heard, "STATUS=listening; addresses: 1"), "{heard:?}");
        manager.await_line("WATCHDOG=1");
        manager.await_line("STATUS=connections: 1, locks: 1, waiting: 0");
        eventually("it says so", || service.log().matches("nobody was served for").count() == number);
    }
    assert!(ask(&mut client, "r foo").starts_with("1 "));
}

#[test]
fn the_manager_is_told_that_a_server_that_was_not_upgraded_is_ready() {
    let manager = Manager::new();
    let config = manager.path("lockd.toml");
    std::fs::write(&config, "").unwrap();
    let listen = glockd_at(&manager.path("sock"));
    let service = manager.start(&["--config", config.to_str().unwrap(), "--listen", &listen], &[]);
    manager.await_line("READY=1");
    // It is refused before anything is given up, so the manager is told nothing of it.
    std::fs::write(&config, "no-such-key = 1").unwrap();
    service.signal(Signal::USR2);
    eventually("it is refused", || service.log().contains("goes on as before"));
    service.signal(Signal::TERM);
    assert!(has(&manager.hear(), "STOPPING=1"));
}

/// It has told its manager that it is upgrading, and then cannot: its program may not be executed
/// any more.
#[test]
fn the_manager_is_told_when_an_upgrade_has_failed_at_last() {
    let manager = Manager::new();
    let site = Site::start_with(|launch, _| {
        let notify = manager.path("notify");
        launch.env("NOTIFY_SOCKET", notify.to_str().unwrap()).listen("glockd://127.0.0.1:0")
    });
    assert!(has(&manager.hear(), "READY=1"));
    site.install_script(
        "chmod 644 \"$0\"; echo 'lockd-upgrade {\"ready\":{\"version\":\"9\",\"dead_peer_timeout\":25}}'",
    );
    assert_eq!(site.ask().0, 1);
    assert!(has(&manager.hear(), "RELOADING=1"));
    assert!(has(&manager.hear(), "STATUS=upgrading"));
    let heard = manager.hear();
    assert!(has(&heard, "READY=1") && has(&heard, "STATUS=listening; addresses: 1"), "{heard:?}");
}

#[track_caller]
fn upgrade(service: &Service, control: &std::path::Path) {
    let pid = service.pid();
    let (status, told, error) = said(&mut asking_at(control));
    assert!(status == 0, "{told}{error}");
    assert_eq!(service.pid(), pid);
}

#[test]
fn sockets_of_the_manager_are_served_on_and_left_to_it_at_the_end() {
    let manager = Manager::new();
    let (path, own, control) = (manager.path("glockd.sock"), manager.path("own"), manager.path("control"));
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let options = ["--control", control.to_str().unwrap(), "--listen", &glockd_at(&own)];
    let mut service = manager.activate(vec![tcp.into(), unix.into()], "lockd:glockd", &options);
    manager.await_line("READY=1");
    let mut holder = UnixStream::connect(&path).unwrap();
    assert!(ask(&mut holder, "g foo").starts_with("1 Lock Get Success"));
    for _ in 0..3 {
        upgrade(&service, &control);
        // A program that served them as at a start would find nothing.
        let environment = std::fs::read(format!("/proc/{}/environ", service.pid())).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains("LISTEN_"));
        let listening = manager.await_line("READY=1");
        assert!(has(&listening, "STATUS=listening; addresses: 3"), "{listening:?}");
        assert!(ask(TcpStream::connect(address).unwrap(), "i foo").starts_with("1 "));
        assert!(ask(UnixStream::connect(&path).unwrap(), "i foo").starts_with("1 "));
        assert!(ask(UnixStream::connect(&own).unwrap(), "i foo").starts_with("1 "));
    }
    assert!(ask(&mut holder, "r foo").starts_with("1 "));
    service.signal(Signal::TERM);
    assert_eq!(service.wait().code(), Some(0));
    assert!(path.exists() && !own.exists(), "only its own socket is removed");
}

#[test]
fn a_server_that_has_become_another_user_stays_that_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid;
    let mut site = Site::start_with(|launch, directory| {
        let place = directory.join("place");
        std::fs::create_dir(&place).unwrap();
        // Like /tmp: every user may create files there and remove their own.
        std::fs::set_permissions(&place, PermissionsExt::from_mode(0o1777)).unwrap();
        let at = |name: &str| place.join(name).display().to_string();
        launch
            .listen(&format!("glockd+unix:{}", at("sock")))
            .args(["--first-start"])
            .option("--state-dir", &at("state"))
            .option("--pidfile", &at("pid"))
            .option("--user", "nobody")
    });
    let mut holder = UnixStream::connect(site.path("place/sock")).unwrap();
    assert!(ask(&mut holder, "g foo").starts_with("1 "));
    for _ in 0..2 {
        let (status, told, error) = site.ask();
        assert!(status == 0, "{told}{error}");
        let of_server = std::fs::read_to_string(format!("/proc/{}/status", site.server.pid())).unwrap();
        let ids = of_server.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
        assert!(ids.split_whitespace().all(|id| id == nobody.to_string()), "{ids}");
    }
    assert!(ask(&mut holder, "i foo").starts_with("1 "));
    assert!(ask(UnixStream::connect(site.path("place/sock")).unwrap(), "g foo").starts_with("0 "));
    site.server.signal(Signal::TERM);
    assert_eq!(site.server.wait().code(), Some(0));
    assert!(!site.path("place/sock").exists());
}
