//! Planted faults: each patch in `planted/` makes one client unsafe in one way, and names the
//! trials that must find it. The patch is applied to a copy of the sources, and this program runs
//! itself with the clients of that copy. A fault that no trial finds is a failure of the kit.
//!
//! A patch begins with one line that says what is wrong, and then has lines
//!
//! ```text
//! must fail: CLIENT TRIAL…
//! must pass: CLIENT TRIAL…
//! deep: WHY
//! ```
//!
//! The trials that must pass show that the client still works, so that those that fail do so for no
//! other reason. With `deep`, the fault is planted only with `--deep`; so is one that needs a build.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::arguments::Arguments;
use crate::planting::{build, plant, root};

/// What is copied for faults in PHP; below the root of the repository.
const OF_PHP: &[&str] = &["bindings/php/src", "bindings/php/compat", "bindings/php/autoload.php"];

struct Fault {
    name: String,
    path: PathBuf,
    what: String,
    /// By client: the trials, and whether each must fail.
    trials: BTreeMap<String, Vec<(String, bool)>>,
    is_in_rust: bool,
    is_deep: bool,
}

/// What became of a fault.
enum Found {
    Yes,
    /// It cannot be tried here, and why.
    Skipped(String),
    No(String),
}

/// Plants the faults that the words choose, or all.
#[expect(clippy::print_stdout, reason = "this is a program")]
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let faults = match chosen(arguments) {
        Ok(faults) => faults,
        Err(problem) => {
            println!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    let (built, ready): (Vec<_>, Vec<_>) = faults.iter().partition(|fault| fault.is_in_rust);
    let failed = AtomicUsize::new(0);
    let report = |fault: &Fault| {
        let (word, text) = match try_fault(fault) {
            Ok(Found::Yes) => ("found", String::new()),
            Ok(Found::Skipped(why)) => ("SKIPPED", format!(": {why}")),
            Ok(Found::No(why)) | Err(why) => {
                failed.fetch_add(1, Ordering::Relaxed);
                ("NOT FOUND", format!(":\n{why}"))
            }
        };
        println!("{word:9}  {:26}  {}{text}", fault.name, fault.what);
    };
    let next = Mutex::new(ready.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads() {
            scope.spawn(|| {
                let take = || next.lock().expect("no thread panics").next();
                while let Some(fault) = take() {
                    report(fault);
                }
            });
        }
    });
    // One at a time: all are built in one directory.
    built.into_iter().for_each(report);
    let (all, failed) = (faults.len(), failed.into_inner());
    println!("{} of {all} planted faults were not missed", all - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn chosen(arguments: &Arguments) -> Result<Vec<Fault>, String> {
    let entries =
        fs::read_dir(root().join("tests/conformance/planted")).map_err(|error| error.to_string())?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    paths.sort();
    let mut faults = paths.into_iter().map(Fault::read).collect::<Result<Vec<_>, _>>()?;
    let is_asked_for = |fault: &Fault| arguments.words.iter().any(|word| fault.name.contains(word.as_str()));
    faults.retain(|fault| match arguments.words.is_empty() {
        true => arguments.deep || !(fault.is_deep || fault.is_in_rust),
        false => is_asked_for(fault),
    });
    if faults.is_empty() { Err("no planted fault has such a name".to_owned()) } else { Ok(faults) }
}

impl Fault {
    fn read(path: PathBuf) -> Result<Self, String> {
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut trials: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
        for (prefix, must_fail) in [("must fail: ", true), ("must pass: ", false)] {
            for line in text.lines().filter_map(|line| line.strip_prefix(prefix)) {
                let mut words = line.split_whitespace().map(str::to_owned);
                let client = words.next().unwrap_or_default();
                trials.entry(client).or_default().extend(words.map(|trial| (trial, must_fail)));
            }
        }
        let has = |must_fail| trials.values().flatten().any(|(_, fails)| *fails == must_fail);
        if !has(true) || !has(false) {
            return Err(format!("{name}: it must say which trial must fail, and which must pass"));
        }
        let what = text.lines().next().unwrap_or_default().to_owned();
        let is_in_rust = text.lines().any(|line| line.starts_with("--- a/src/"));
        let is_deep = text.lines().any(|line| line.starts_with("deep: "));
        Ok(Self { name, path, what, trials, is_in_rust, is_deep })
    }
}

fn try_fault(fault: &Fault) -> Result<Found, String> {
    let (variable, value, _directory) = if fault.is_in_rust {
        // The library with the fault. The program that tests it, and the server, have none.
        ("CONFORMANCE_LIBRARY", build(&fault.path, &["--lib"])?.join("liblockd.so"), None)
    } else {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        plant(&fault.path, directory.path(), OF_PHP)?;
        ("CONFORMANCE_PHP", directory.path().join("bindings/php"), Some(directory))
    };
    let mut missed = String::new();
    for (client, trials) in &fault.trials {
        let output = Command::new("/proc/self/exe")
            .arg(client)
            .args(trials.iter().map(|(trial, _)| trial))
            .env(variable, &value)
            .output()
            .map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout);
        if let Some(line) = said.lines().find(|line| line.contains("SKIPPED: ")) {
            return Ok(Found::Skipped(line.to_owned()));
        }
        for (trial, must_fail) in trials {
            let expected = if *must_fail { "FAIL" } else { "ok" };
            let cell = cell_of(&said, trial);
            if cell != Some(expected) {
                missed += &format!("{client}, {trial}: {cell:?}, must be {expected:?}\n");
            }
        }
        if !missed.is_empty() {
            missed += &said;
        }
    }
    Ok(if missed.is_empty() { Found::Yes } else { Found::No(missed) })
}

/// The cell of a trial in a table that has one client.
fn cell_of<'a>(table: &'a str, trial: &str) -> Option<&'a str> {
    let cell = |line: &'a str| {
        let mut words = line.split_whitespace();
        (words.next() == Some(trial)).then(|| words.next())?
    };
    table.lines().rev().find_map(cell)
}
