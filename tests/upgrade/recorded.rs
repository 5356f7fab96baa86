//! The state that version 0.1.0 hands over, as it was recorded: `program-state-1.json` is the part of
//! the program, and `state-1.json` that of the server. Every later version must be able to take it
//! over, so these files stay as they are. What is added to a state has a default. If that is not
//! enough, its format gets a new version, for which another file is recorded (a script in place of
//! the program can keep its standard input; `src/server/snapshot/tests/recorded.rs` records the
//! server's part), and this one is still read.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Output};

use siphasher::sip::SipHasher13;

use crate::support::environment::without_options;
use crate::support::server::program;

const PROGRAM_STATE: &str = include_str!("program-state-1.json");
const SERVER_STATE: &str = include_str!("state-1.json");

/// The bytes of a state of the first format.
fn recorded() -> Vec<u8> {
    let body = SERVER_STATE.as_bytes();
    let length = u64::try_from(body.len()).unwrap();
    [
        b"lockd program state 1\n",
        PROGRAM_STATE.as_bytes(),
        b"lockdupg",
        &1_u32.to_le_bytes(),
        &length.to_le_bytes(),
        &SipHasher13::new().hash(body).to_le_bytes(),
        body,
    ]
    .concat()
}

/// What the program says of a state, as a running server asks it.
fn rehearse(state: &[u8]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    File::create(&path).unwrap().write_all(state).unwrap();
    let mut command = Command::new(program());
    without_options(&mut command).args(["serve", "--rehearse-upgrade"]);
    command.stdin(File::open(&path).unwrap()).output().unwrap()
}

#[test]
fn the_state_of_the_first_version_with_upgrades_can_be_taken_over() {
    let output = rehearse(&recorded());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.starts_with("lockd-upgrade {\"ready\":"), "{said}");
}

#[test]
fn it_cannot_if_a_byte_of_it_is_missing_or_another() {
    let recorded = recorded();
    let mut another = recorded.clone();
    *another.last_mut().unwrap() ^= 1;
    for state in [&recorded[..recorded.len() - 1], &another] {
        let said = String::from_utf8(rehearse(state).stdout).unwrap();
        assert!(said.starts_with("lockd-upgrade {\"refused\":"), "{said}");
    }
}
