//! What is executed at an upgrade, and as which process: a program that would not take over what it
//! finds must not serve either.

use std::fs;
use std::path::Path;

use crate::site::Site;
use crate::support::server::program;

/// Its arguments, the first of which is its name.
fn arguments(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    text.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
}

#[test]
fn the_process_is_called_as_before_after_any_number_of_upgrades() {
    let site = Site::start(&[]);
    let pid = site.server.pid();
    let started_with = arguments(pid);
    let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name(), "lockd\n");
    for number in 1..=3 {
        let (status, told, error) = site.ask();
        assert!(status == 0, "{number}: {told}{error}");
        assert_eq!(name(), "lockd\n");
        let arguments = arguments(pid);
        let (last, others) = arguments.split_last().unwrap();
        assert_eq!((&**last, others), ("--take-over-upgrade", &*started_with));
        // It is looked for at the path by which it was started.
        site.install_script("echo from there; exit 1");
        assert!(site.ask().2.contains("from there"));
        site.install_again();
    }
}

/// A script that does this with the real program, whose path is `$real`, once it has replaced the
/// server. It lets the real program try before.
fn at_taking_over(site: &Site, text: &str) {
    let real = program();
    let real = Path::new(&real).display();
    site.install_script(&format!(
        "real='{real}'\nif [ -n \"$LOCKD_UPGRADE_STATE\" ]; then\n{text}\nfi\nexec \"$real\" \"$@\""
    ));
}

/// The server ends, and no process serves in its place.
#[track_caller]
fn assert_ends_unserved(mut site: Site, why: &str) {
    let mut holder = site.server.glockd();
    assert!(holder.ask("g held").starts_with('1'));
    let asked = site.ask();
    assert_eq!(asked.0, 70, "{asked:?}");
    assert_eq!(site.server.wait().code(), Some(1));
    site.await_log(why);
    assert_eq!(holder.read_line_or_end(), None);
}

#[test]
fn a_program_that_finds_no_state_does_not_serve() {
    let site = Site::start(&[]);
    at_taking_over(&site, "exec env -u LOCKD_UPGRADE_STATE \"$real\" \"$@\"");
    assert_ends_unserved(site, "cannot take over: LOCKD_UPGRADE_STATE is missing");
}

#[test]
fn a_program_that_is_not_told_to_take_over_does_not_serve() {
    let site = Site::start(&[]);
    at_taking_over(
        &site,
        "for one; do shift; [ \"$one\" = --take-over-upgrade ] || set -- \"$@\" \"$one\"; done\nexec \"$real\" \"$@\"",
    );
    assert_ends_unserved(site, "cannot take over: the last argument is missing");
}

#[test]
fn a_program_that_runs_as_another_process_does_not_serve() {
    let site = Site::start(&[]);
    at_taking_over(&site, "\"$real\" \"$@\"; exit $?");
    assert_ends_unserved(site, "cannot take over: this is another process");
}

#[test]
fn a_script_that_runs_the_program_as_a_child_is_refused() {
    let site = Site::start(&[]);
    let mut holder = site.server.glockd();
    assert!(holder.ask("g held").starts_with('1'));
    site.install_script(&format!("'{}' \"$@\"; exit $?", Path::new(&program()).display()));
    let (status, _, error) = site.ask();
    assert!(status == 1 && error.contains("it runs as another process"), "{error}");
    assert!(holder.ask("r held").starts_with('1'));
}
