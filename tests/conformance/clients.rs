//! The clients that are tested: how the driver of each is started, and why it may not be there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::arguments::Arguments;
use crate::building::{compiled, drivers, library, python};
use crate::driver::Driver;
use crate::support::environment::without_options;
use crate::transcript::Transcript;
use crate::verdict::{Failure, Verdict};

/// A client, and how its driver is started.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) name: &'static str,
    start: Start,
    /// The trials that this client must fail, since it is not safe: if it passes one of them, the
    /// trial shows nothing.
    pub(crate) convicted_in: &'static [&'static str],
}

/// Paths of drivers are below `drivers/`.
#[derive(Clone)]
enum Start {
    /// This program itself.
    Itself,
    /// A C program that is compiled for it.
    C(&'static str),
    Php(&'static str, &'static [&'static str]),
    Python(&'static str),
    /// A line for the shell.
    Shell(String),
}

const CLIENTS: [Client; 10] = [
    Client { name: "rust", start: Start::Itself, convicted_in: &[] },
    Client { name: "c", start: Start::C("c/driver.c"), convicted_in: &[] },
    Client { name: "php", start: Start::Php("php/client.php", &["streams"]), convicted_in: &[] },
    Client { name: "php-ffi", start: Start::Php("php/client.php", &["ffi"]), convicted_in: &[] },
    Client { name: "lockd-run", start: Start::Python("lockd_run.py"), convicted_in: &[] },
    Client { name: "lockc", start: Start::Php("php/lockc.php", &["lockd"]), convicted_in: &[] },
    Client { name: "lockc-glockd", start: Start::Php("php/lockc.php", &["glockd"]), convicted_in: &[] },
    Client { name: "pkLockClient", start: Start::Php("php/pklockclient.php", &[]), convicted_in: &[] },
    Client { name: "python", start: Start::Python("python/safe.py"), convicted_in: &[] },
    Client { name: "naive", start: Start::Python("python/naive.py"), convicted_in: NAIVE },
];

/// What a client gets wrong that believes every reply and looks at nothing else.
const NAIVE: &[&str] = &[
    "full",
    "storm",
    "unix-lost",
    "fork",
    "fork-outlives",
    "stale-kicked",
    "stale-server-stopped",
    "stale-server-killed",
    "stale-fin",
    "stale-reset",
    "stale-unix",
    "stale-answer",
    "stale-held",
    "lost-check",
    "liar-words",
    "liar-token",
    "liar-garbage",
    "liar-grant-and-end",
    "liar-grant-and-more",
    "liar-twice",
    "liar-release",
    "liar-convert",
    "address-swallows",
    "stale-converted",
    "cut-held",
    "cut-held-replies",
    "cut-held-requests",
    "cut-held-silent",
    "cut-waiting",
    "cut-waiting-replies",
    "cut-stale",
    "cut-stale-silent",
    "resume-fin",
    "resume-stale",
    "resume-away",
    "resume-paused",
    "resume-paused-holder",
    "doubt-calls",
    "doubt-streams",
    "doubt-released",
    "doubt-converted",
    "doubt-ended",
    "doubt-late",
    "doubt-proof",
];

/// What a client can do, by its driver's greeting.
#[derive(Clone, Default)]
pub(crate) struct Abilities {
    can: BTreeSet<String>,
    /// With the reasons.
    cannot: BTreeMap<String, String>,
}

/// All abilities of the contract.
const ABILITIES: [&str; 28] = [
    "message",
    "glockd",
    "lockd",
    "unix",
    "tls",
    "secret",
    "several",
    "wait",
    "limit-wait",
    "shared",
    "limit",
    "convert",
    "set",
    "token",
    "orphaned",
    "check",
    "inspect",
    "background",
    "cancel",
    "fork",
    "notice",
    "bounded",
    "names",
    "zero-byte",
    "deadlock",
    "patient",
    "session-per-lock",
    "resume",
];

impl Abilities {
    /// Reads a line of a greeting.
    pub(crate) fn learn(&mut self, line: &str) -> Verdict {
        let words: Vec<_> = line.split(' ').collect();
        let known = |word: &str| ABILITIES.contains(&word);
        match words.as_slice() {
            ["can", abilities @ ..] if abilities.iter().all(|ability| known(ability)) => {
                self.can.extend(abilities.iter().map(|&ability| ability.to_owned()));
            }
            ["cannot", ability, reason @ ..] if known(ability) => {
                self.cannot.insert((*ability).to_owned(), reason.join(" "));
            }
            _ => {
                return Err(Failure::new(format!(
                    "the greeting has a line that is not in the contract: {line:?}"
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn can(&self, ability: &str) -> bool {
        self.can.contains(ability)
    }

    /// Why not, in the driver's words.
    pub(crate) fn reason(&self, ability: &str) -> String {
        let reason = self.cannot.get(ability).filter(|reason| !reason.is_empty());
        reason.map_or_else(|| format!("no `{ability}`"), |reason| format!("no `{ability}`: {reason}"))
    }

    pub(crate) fn protocol(&self) -> &'static str {
        ["lockd", "glockd"].into_iter().find(|protocol| self.can(protocol)).unwrap_or("message")
    }
}

impl Client {
    fn path(&self) -> Option<PathBuf> {
        match self.start {
            Start::Itself | Start::Shell(_) => None,
            Start::C(path) | Start::Php(path, _) | Start::Python(path) => Some(drivers().join(path)),
        }
    }

    /// The driver, ready to be started.
    pub(crate) fn command(&self) -> Command {
        let mut command = match &self.start {
            Start::Itself => Command::new("/proc/self/exe"),
            Start::C(_) => Command::new(compiled().as_ref().expect("it was compiled before")),
            Start::Php(..) => Command::new("php"),
            Start::Python(_) => Command::new(python().as_ref().expect("there is one")),
            Start::Shell(_) => Command::new("sh"),
        };
        match &self.start {
            Start::Itself => drop(command.arg("--as-rust-driver")),
            Start::C(_) => {}
            Start::Php(_, arguments) => drop(command.args(self.path()).args(*arguments)),
            Start::Python(_) => drop(command.args(self.path())),
            Start::Shell(line) => drop(command.arg("-c").arg(format!("exec {line}"))),
        }
        without_options(&mut command);
        command.env_remove("LD_LIBRARY_PATH");
        command.env("LOCKD", crate::support::server::program()).env("LOCKD_LIBRARY", library());
        command
    }

    /// Why it cannot be tried on this machine, if it cannot.
    fn absence(&self) -> Option<String> {
        let needs = |program: &str| {
            let mut command = Command::new(program);
            let tried = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            (!tried.is_ok_and(|status| status.success())).then(|| format!("there is no {program} here"))
        };
        match &self.start {
            Start::Itself | Start::Shell(_) => None,
            Start::C(_) => needs("cc").or_else(|| compiled().as_ref().err().cloned()),
            Start::Php(..) => needs("php"),
            Start::Python(_) => python().is_none().then(|| "there is no python3 here".to_owned()),
        }
    }

    /// Starts a driver to learn what the client can do.
    pub(crate) fn abilities(&self) -> Verdict<Abilities> {
        let transcript = Transcript::new();
        let driver = Driver::start(self.name, self.command(), &transcript);
        let driver =
            driver.map_err(|failure| Failure(format!("{}\n{}", failure.0, transcript.end(20).join("\n"))))?;
        driver.end()?;
        Ok(driver.abilities.clone())
    }
}

/// The names of all clients.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    CLIENTS.into_iter().map(|client| client.name)
}

/// The clients that the arguments choose, and those of them that cannot be tried, with the reason.
pub(crate) fn chosen(arguments: &Arguments, trials: &[&str]) -> (Vec<Client>, Vec<(&'static str, String)>) {
    let mut clients: Vec<_> = match &arguments.driver {
        Some(line) => vec![Client { name: "driver", start: Start::Shell(line.clone()), convicted_in: &[] }],
        None => CLIENTS.into(),
    };
    clients.retain(|client| client.path().is_none_or(|path| path.exists()));
    let chosen = arguments.choose(&clients.iter().map(|client| client.name).collect::<Vec<_>>(), trials);
    clients.retain(|client| chosen.contains(&client.name));
    let mut absent = Vec::new();
    clients.retain(|client| match client.absence() {
        Some(why) => {
            absent.push((client.name, why));
            false
        }
        None => true,
    });
    (clients, absent)
}
