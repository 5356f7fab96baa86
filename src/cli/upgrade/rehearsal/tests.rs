//! Programs that are no lockd, as an upgrade may meet them.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

/// A program that is this shell script.
fn script(directory: &TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("program");
    // Written by another process: a child that another test starts in this moment would keep the
    // file open for writing, and then it cannot be run.
    let mut write = Command::new("sh");
    write.args(["-c", "printf '%s\n' '#!/bin/sh' \"$1\" >\"$0\" && chmod 700 \"$0\""]);
    assert!(write.arg(&path).arg(text).status().unwrap().success());
    path
}

fn state() -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, b"state\n").unwrap();
    io::Seek::rewind(&mut file).unwrap();
    file.into()
}

fn verdict(program: &Path, limit: Duration) -> Result<Verdict, String> {
    let (done, has_done) = crossbeam_channel::bounded(1);
    let program = ProgramFile::open(program)?;
    let _rehearsal = Rehearsal::start(&program, state(), limit, move |verdict| done.send(verdict).unwrap());
    has_done.recv_timeout(LIMIT).unwrap()
}

fn of_script(text: &str) -> Result<Verdict, String> {
    verdict(&script(&tempfile::tempdir().unwrap(), text), LIMIT)
}

#[test]
fn a_program_that_is_ready_has_read_the_state_and_was_given_the_option() {
    let text = r#"read state && [ "$state" = state ] || exit 1
        for option; do last=$option; done
        [ "$last" = --rehearse-upgrade ] || exit 1
        echo a warning >&2
        echo 'lockd-upgrade {"ready":{"version":"7","dead_peer_timeout":30}}'"#;
    assert_eq!(
        of_script(text),
        Ok(Verdict::Ready { version: "7".to_owned(), dead_peer_timeout: 30, pid: None })
    );
    let refused = of_script(r#"echo 'lockd-upgrade {"refused":"no"}'"#);
    assert_eq!(refused, Ok(Verdict::Refused("no".to_owned())));
}

#[test]
fn what_is_no_verdict_is_shown() {
    for (text, shown) in [
        ("exit 0", "exit status: 0: it says nothing"),
        ("echo a mistake >&2; exit 2", "exit status: 2: a mistake"),
        ("echo gibberish", "exit status: 0: gibberish"),
        (r#"echo 'lockd-upgrade {"refused":"no"}'; exit 3"#, "exit status: 3"),
        ("kill -KILL $$", "signal: 9 (SIGKILL)"),
        ("head -c 1000000 /dev/zero; echo; exit 1", "exit status: 1"),
    ] {
        let error = of_script(text).unwrap_err();
        assert!(error.contains(shown), "{text}: {error}");
    }
}

#[test]
fn what_cannot_be_run_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "text").unwrap();
    for (path, why) in [(directory.path().join("missing"), "No such file"), (file, "Permission denied")] {
        let error = verdict(&path, LIMIT).unwrap_err();
        assert!(error.contains(&*path.to_string_lossy()) && error.contains(why), "{error}");
    }
}

/// Waits until `condition` holds.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_program_that_hangs_is_ended_with_what_it_has_started() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    // The limit is long enough for the script to write both ids.
    let hanging = format!("sleep 1000 & echo $! $$ > {}; wait", pids.display());
    let error = verdict(&script(&directory, &hanging), Duration::from_secs(5)).unwrap_err();
    assert_eq!(error, "it did not end within 5 s");
    let has_ended = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "))
    };
    let pids = fs::read_to_string(pids).unwrap();
    assert_eq!(pids.split_whitespace().count(), 2);
    pids.split_whitespace().for_each(|pid| eventually("the process ends", || has_ended(pid)));
}

#[test]
fn a_rehearsal_that_nobody_waits_for_is_ended_without_a_word() {
    let directory = tempfile::tempdir().unwrap();
    let started = directory.path().join("started");
    let program = script(&directory, &format!(": > {}; exec sleep 1000", started.display()));
    let program = ProgramFile::open(&program).unwrap();
    let (done, has_done) = crossbeam_channel::bounded(1);
    let rehearsal = Rehearsal::start(&program, state(), LIMIT, move |verdict| done.send(verdict).unwrap());
    eventually("it starts", || started.exists());
    drop(rehearsal.unwrap());
    assert!(has_done.recv().is_err(), "dropped without a call");
}
