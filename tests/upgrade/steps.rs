//! Upgrades that fail at each of their steps. Afterwards everything is as if nothing had happened,
//! and a later upgrade succeeds.

use std::fs::OpenOptions;
use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::busy_clients::BusyClients;
use crate::site::Site;
use crate::support::server::program;

/// Says that the next version can take over.
const READY: &str = r#"echo 'lockd-upgrade {"ready":{"version":"9","dead_peer_timeout":25}}'"#;

#[track_caller]
fn assert_refused(site: &Site, why: &str) {
    let (status, told, error) = site.ask();
    assert!(status == 1 && error.contains("goes on as before") && error.contains(why), "{told}{error}");
}

#[track_caller]
fn assert_upgraded(site: &Site) {
    let (status, told, error) = site.ask();
    assert!(status == 0 && told.contains("\nupgraded from "), "{told}{error}");
}

/// The program is installed again, and takes over, as often as it is asked to.
#[track_caller]
fn finish(site: &Site, mut clients: BusyClients) {
    site.install_again();
    assert_upgraded(site);
    clients.note_upgrade();
    assert_upgraded(site);
    clients.assert_unchanged(&site.server);
    clients.finish();
}

/// The real program tries a state that a filter has changed.
#[test]
fn a_state_that_the_next_version_does_not_know_is_refused_before_anything_is_given_up() {
    let site = Site::start(&[]);
    let mut clients = BusyClients::join(&site.server);
    for (filter, why) in [
        ("sed '1s/state 1/state 2/'", "of a format that this version does not know"),
        (r#"sed '2s/"reload"/"relaod"/'"#, "unknown field `relaod`"),
        (r#"sed '2s/"http":\[\]/"http":[],"more":1/'"#, "unknown field `more`"),
        (r"sed 's/^lockdupg\x01/lockdupg\x02/'", "it has the format 2"),
        (r"sed 's/^lockdupg/lockdxxx/'", "not the state of a lockd"),
        (r#"sed 's/"unix_peers"/"unix_pears"/'"#, "it is damaged"),
        ("head -c -1", "it is not whole"),
        ("{ cat; echo; }", "something follows it"),
        ("head -c 100", "makes no sense"),
        ("true", "of a format that this version does not know"),
    ] {
        // Opened anew: where the file has been written to, its end has been reached.
        let text = format!(
            "LC_ALL=C; export LC_ALL; {filter} </proc/self/fd/0 >\"$0.state\"\nexec '{}' \"$@\" <\"$0.state\"",
            Path::new(&program()).display()
        );
        site.install_script(&text);
        assert_refused(&site, why);
        clients.assert_unchanged(&site.server);
    }
    finish(&site, clients);
}

#[test]
fn a_program_that_changes_after_it_was_tried_is_refused() {
    let site = Site::start(&[]);
    let mut clients = BusyClients::join(&site.server);
    for change in [
        "echo >>\"$0\"",
        "touch \"$0\"",
        "cp -p \"$0\" \"$0.new\"; mv \"$0.new\" \"$0\"",
        "rm \"$0\"",
        "mv \"$0\" \"$0.old\"; ln -s \"$0\" \"$0\"",
    ] {
        site.install_script(&format!("{change}\n{READY}\nexit"));
        assert_refused(&site, "has been replaced meanwhile");
        clients.assert_unchanged(&site.server);
    }
    finish(&site, clients);
}

/// In each case the file looks the same as when it was tried: its place, size and time.
#[test]
fn everything_goes_on_if_execve_fails() {
    let site = Site::start(&[]);
    let mut clients = BusyClients::join(&site.server);
    // Nobody may execute it any more.
    site.install_script(&format!("chmod 644 \"$0\"\n{READY}"));
    assert_refused(&site, &format!("{}: Permission denied", site.program().display()));
    clients.assert_unchanged(&site.server);
    // Its interpreter is gone.
    let interpreter = site.path("sh");
    std::os::unix::fs::symlink("/bin/sh", &interpreter).unwrap();
    let interpreter = interpreter.to_str().unwrap();
    site.install_script_of(interpreter, &format!("rm '{interpreter}'\n{READY}"));
    assert_refused(&site, "No such file");
    clients.assert_unchanged(&site.server);
    // Its text is no program any more, and of the same size.
    site.install_script(&format!(
        "{{ touch -r \"$0\" \"$0.time\"; tr '#' ' ' <\"$0\" >\"$0.text\"; cat \"$0.text\" >\"$0\"\n\
         touch -r \"$0.time\" \"$0\"\n{READY}\nexit; }}"
    ));
    assert_refused(&site, "format");
    clients.assert_unchanged(&site.server);
    finish(&site, clients);
}

/// Some kernels run such a file all the same. Then there is nothing to test.
#[test]
fn everything_goes_on_if_the_program_is_being_written() {
    let site = Site::start(&[]);
    let mut clients = BusyClients::join(&site.server);
    let (pause, wait) = site.pause("tried");
    site.install_before_program(&wait);
    let copy = site.path("copy");
    std::fs::copy(program(), &copy).unwrap();
    let writes = OpenOptions::new().append(true).open(&copy).unwrap();
    if std::process::Command::new(&copy).arg("--version").status().is_ok() {
        return;
    }
    drop(writes);
    let asking = site.asking().spawn().unwrap();
    pause.await_reached();
    let writes = OpenOptions::new().append(true).open(site.program()).unwrap();
    pause.go_on();
    let asked = asking.wait_with_output().unwrap();
    let error = String::from_utf8(asked.stderr).unwrap();
    assert!(asked.status.code() == Some(1) && error.contains("busy"), "{error}");
    clients.assert_unchanged(&site.server);
    drop(writes);
    finish(&site, clients);
}

/// A program that says that it can take over, and does not end; and one that never stops talking.
#[test]
fn a_program_that_does_not_end_is_ended_whatever_it_says() {
    let sites: Vec<_> = [format!("{READY}\nsleep 1000"), format!("{READY}\nyes")]
        .into_iter()
        .map(|text| {
            let site = Site::start(&[]);
            let clients = BusyClients::join(&site.server);
            site.install_script(&text);
            let asking = site.asking().spawn().unwrap();
            (site, clients, asking)
        })
        .collect();
    for (site, mut clients, asking) in sites {
        let asked = asking.wait_with_output().unwrap();
        let error = String::from_utf8(asked.stderr).unwrap();
        assert!(asked.status.code() == Some(1) && error.contains("did not end within"), "{error}");
        clients.assert_unchanged(&site.server);
        finish(&site, clients);
    }
}

#[test]
fn too_few_descriptors_at_either_step_change_nothing() {
    let site = Site::start(&[]);
    let mut clients = BusyClients::join(&site.server);
    let most = getrlimit(Resource::Nofile).current.unwrap();
    // Every one that it has is in use, and one more is for the request.
    let limit = || site.server.limit_descriptors(site.server.descriptors() as u64 + 1);
    limit();
    assert_refused(&site, "Too many open files");
    site.server.limit_descriptors(most);
    clients.assert_unchanged(&site.server);
    let (pause, wait) = site.pause("tried");
    site.install_script(&format!("{wait}\n{READY}"));
    let asking = site.asking().spawn().unwrap();
    pause.await_reached();
    // What is open for the child is closed before the state is written again.
    site.server.limit_descriptors(8);
    pause.go_on();
    let asked = asking.wait_with_output().unwrap();
    let error = String::from_utf8(asked.stderr).unwrap();
    assert!(asked.status.code() == Some(1) && error.contains("Too many open files"), "{error}");
    site.server.limit_descriptors(most);
    clients.assert_unchanged(&site.server);
    finish(&site, clients);
}

/// A limit of the size of files holds for the file in memory, too.
#[test]
fn a_state_that_is_larger_than_files_may_be_is_refused() {
    let site = Site::start(&[]);
    let mut clients = BusyClients::join(&site.server);
    let pid = Pid::from_raw(i32::try_from(site.server.pid()).unwrap());
    let maximum = getrlimit(Resource::Fsize).maximum;
    let limit = |bytes| prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
    limit(Some(500));
    assert_refused(&site, "the state cannot be written");
    clients.assert_unchanged(&site.server);
    limit(maximum);
    finish(&site, clients);
}

/// A thread that has more to send than may be put off cannot be stopped.
#[test]
fn a_client_that_does_not_read_a_huge_reply_delays_the_upgrade_and_loses_nothing() {
    const LOCKS: usize = 20_000;
    let site = Site::start(&["--name-max", "2000", "--line-max", "4000"]);
    let mut holder = site.server.glockd();
    let name = |number: usize| format!("{number:0>1900}");
    for number in 0..LOCKS {
        holder.send(format!("g {}\n", name(number)));
        if number % 100 == 99 {
            (0..100).for_each(|_| assert!(holder.line().starts_with('1')));
        }
    }
    let mut slow = site.server.glockd();
    slow.send("d\ng last\n");
    // The listing has begun, and is larger than what the sockets take.
    let first = slow.line();
    assert_refused(
        &site,
        &format!("{} was busy for longer than 1 s, in which nobody was served", slow.address()),
    );
    assert!(site.server.lockd().ask("i nothing").starts_with('0'), "others are served");
    assert_refused(&site, "was busy for longer than");
    let mut listed = vec![first];
    listed.extend((1..LOCKS).map(|_| slow.line()));
    assert!(slow.line().starts_with("1 Lock Get Success: last"));
    listed.sort_unstable();
    for (number, line) in listed.iter().enumerate() {
        assert!(line.starts_with(&format!("{}: ", name(number))), "{line}");
    }
    assert_upgraded(&site);
    assert!(slow.ask("r last").starts_with('1'));
    assert!(holder.ask(&format!("r {}", name(7))).starts_with('1'));
}
