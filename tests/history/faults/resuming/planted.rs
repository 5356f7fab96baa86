//! The rules for servers, each broken by a patch in `tests/history/planted`: the checker must convict
//! the server that is built with it. The same story with the server as it is must be acquitted.
//!
//! A patch begins with one line that says what is wrong, and a line `must fail: STORY`.

use std::fs;
use std::path::{Path, PathBuf};

use super::stage::Stage;
use super::stories;
use crate::checker::{Model, Verdict};
use crate::faults::daemon::Daemon;
use crate::faults::run::say;
use crate::history::History;
use crate::planting::{apply, build, root};

type Story = fn(&mut Stage, &mut Daemon);

/// By their names; with the dead-peer timeout that each begins with.
const STORIES: [(&str, u64, Story); 4] = [
    ("a_is_cut_off_for_good", 12, |stage, daemon| {
        stories::a_is_cut_off_for_good(stage, daemon.address(), 0, None);
    }),
    ("the_timeout_becomes_shorter", 25, stories::the_timeout_becomes_shorter),
    ("a_sleeps_past_its_time", 12, stories::a_sleeps_past_its_time),
    ("a_sleeps_through_a_run", 12, stories::a_sleeps_through_a_run),
];

/// Tells a story with this server.
fn told(program: &Path, (_, dead_peer_timeout, story): (&str, u64, Story)) -> (History, Verdict) {
    let mut stage = Stage::new();
    let mut daemon = stage.server_that_is(program, dead_peer_timeout);
    story(&mut stage, &mut daemon);
    stage.judge(&daemon)
}

/// A server with a fault.
pub(crate) struct Planted {
    /// What is wrong with it.
    pub(crate) what: String,
    /// The name of the story that brings it out.
    pub(crate) story: String,
    pub(crate) program: PathBuf,
}

pub(crate) fn plant(patch: &Path, into: &Path) -> Planted {
    let text = fs::read_to_string(patch).unwrap();
    let mut lines = text.lines();
    let what = lines.next().expect("a line that says what is wrong").to_owned();
    let story = lines.next().and_then(|line| line.strip_prefix("must fail: ")).expect("the name of a story");
    let built = build(patch, &["--bin", "lockd"]).unwrap_or_else(|problem| panic!("{problem}"));
    let program = into.join(patch.file_stem().expect("a name"));
    fs::copy(built.join("lockd"), &program).unwrap();
    Planted { what, story: story.to_owned(), program }
}

/// The patches in a directory below `tests/history/planted`.
pub(crate) fn patches(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("tests/history/planted").join(directory)).unwrap();
    let mut patches: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    patches.retain(|path| path.extension().is_some_and(|kind| kind == "patch"));
    patches.sort();
    assert!(!patches.is_empty(), "no patches in {directory}");
    patches
}

/// All patches there must fit.
pub(crate) fn patches_fit(directory: &str) {
    for patch in patches(directory) {
        apply(&patch, root(), &["--dry-run"]).unwrap_or_else(|problem| panic!("{problem}"));
    }
}

#[test]
fn the_patches_fit_the_sources() {
    patches_fit("");
}

#[test]
#[ignore = "builds the server again and again: make check-deep"]
fn deep_a_server_that_breaks_a_rule_for_resuming_is_convicted() {
    let directory = tempfile::tempdir().unwrap();
    let planted: Vec<Planted> = patches("").iter().map(|patch| plant(patch, directory.path())).collect();
    std::thread::scope(|scope| {
        for story in STORIES {
            scope.spawn(move || {
                let (history, verdict) = told(Path::new(env!("CARGO_BIN_EXE_lockd")), story);
                assert!(verdict.acquits(), "{}: {}", story.0, verdict.report(&history));
            });
        }
        for Planted { what, story, program } in &planted {
            scope.spawn(move || {
                let story = STORIES.into_iter().find(|(name, ..)| name == story).expect("a story");
                let (history, verdict) = told(program, story);
                let report = verdict.report(&history);
                assert!(verdict.convicts(Model::Mutex), "{what} {} was not convicted: {report}", story.0);
                say(&format!("{what}\n{report}"));
            });
        }
    });
}
