//! Upgrades that come to nothing: the server says why, and goes on as before.

use std::time::Instant;

use rustix::process::Signal;

use crate::site::Site;
use crate::support::eventually;

/// A program that never ends, and says so in this file.
fn hanging(site: &Site) -> std::path::PathBuf {
    let started = site.control().with_file_name("started");
    site.install_script(&format!(": > '{}'; exec sleep 1000", started.display()));
    started
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let site = Site::start(&[]);
    let mut holder = site.server.glockd();
    assert!(holder.ask("g kept").starts_with('1'));
    let pid = site.server.pid();
    for (script, why) in [
        ("echo it is for another machine >&2; exit 1", "it is for another machine"),
        ("exit 0", "it says nothing"),
        ("echo 'lockd-upgrade {\"refused\":\"no\"}'", "no"),
        ("echo 'lockd-upgrade nonsense'", "makes no sense"),
        ("kill -SEGV $$", "SIGSEGV"),
    ] {
        site.install_script(script);
        let (status, _, error) = site.ask();
        assert!(
            status == 1 && error.contains("goes on as before") && error.contains(why),
            "{script}: {error}"
        );
        site.await_log("goes on as before: the new version cannot take over: it ended with");
    }
    // A version that knows no upgrades.
    site.install_script(
        "for last; do :; done; printf \"error: unexpected argument '$last' found\\n\\nUsage: lockd\" >&2; exit 2",
    );
    let (status, _, error) = site.ask();
    assert!(status == 1 && error.trim_end().ends_with("it is too old to be upgraded to in place"), "{error}");
    site.remove_program();
    let (status, _, error) = site.ask();
    assert!(status == 1 && error.contains("No such file"), "{error}");
    assert_eq!(site.server.pid(), pid);
    assert!(holder.ask("r kept").starts_with('1'));
    assert!(site.server.lockd().ask("g kept").starts_with('1'), "new clients are served");
}

#[test]
fn clients_are_served_while_a_program_is_tried_and_a_second_request_is_refused() {
    let site = Site::start(&[]);
    let started = hanging(&site);
    let first = site.asking().spawn().unwrap();
    eventually("the program is tried", || started.exists());
    assert!(site.server.glockd().ask("g foo").starts_with('1'));
    let (status, _, error) = site.ask();
    assert!(status == 1 && error.contains("in progress"), "{error}");
    site.server.signal(Signal::USR2);
    site.await_log("an upgrade is in progress");
    // It is ended after its limit.
    let first = first.wait_with_output().unwrap();
    let error = String::from_utf8(first.stderr).unwrap();
    assert!(first.status.code() == Some(1) && error.contains("did not end within"), "{error}");
    site.install_script("exit 0");
    assert!(site.ask().2.contains("says nothing"), "another upgrade may be tried");
}

#[test]
fn a_stop_does_not_wait_for_a_program_that_is_tried() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut site = Site::start(&[]);
        let started = hanging(&site);
        let asking = site.asking().spawn().unwrap();
        eventually("the program is tried", || started.exists());
        let begun = Instant::now();
        site.server.signal(signal);
        assert_eq!(site.server.wait().code(), Some(0));
        assert!(begun.elapsed().as_secs() < 9, "before the limit of the rehearsal");
        let asking = asking.wait_with_output().unwrap();
        assert_eq!(asking.status.code(), Some(70), "{asking:?}");
        assert!(!site.control().exists());
    }
}

#[test]
fn a_reload_waits_until_the_upgrade_has_come_to_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("lockd.toml");
    std::fs::write(&config, "locks-max = 5").unwrap();
    let site = Site::start(&["--config", config.to_str().unwrap()]);
    let started = hanging(&site);
    let asking = site.asking().spawn().unwrap();
    eventually("the program is tried", || started.exists());
    std::fs::write(&config, "locks-max = 6").unwrap();
    site.server.signal(Signal::HUP);
    asking.wait_with_output().unwrap();
    site.await_log("locks-max: from 5 to 6");
    let log = site.server.log();
    let place = |text: &str| log.iter().position(|line| line.contains(text)).unwrap();
    assert!(place("not upgraded") < place("locks-max: from 5 to 6"), "{log:?}");
}

#[test]
fn a_mistake_in_the_configuration_is_found_before_anything_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("lockd.toml");
    std::fs::write(&config, "").unwrap();
    let site = Site::start(&["--config", config.to_str().unwrap()]);
    std::fs::write(&config, "no-such-option = 1").unwrap();
    let (status, _, error) = site.ask();
    assert!(status == 1 && error.contains("no-such-option"), "{error}");
    assert!(site.server.glockd().ask("g foo").starts_with('1'));
}
