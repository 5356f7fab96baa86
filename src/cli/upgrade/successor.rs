//! The next version, which finds the state of the one before it: it says whether it could take
//! over, or does.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use lockd::server::snapshot::{ServerSnapshot, decode};
use log::Level;

use crate::cli::configuration;
use crate::cli::options::{ServeOptions, Settings};
use crate::cli::reload::ActiveOptions;
use crate::cli::upgrade::descriptors::own;
use crate::cli::upgrade::program::{STATE_VARIABLE, takes_over};
use crate::cli::upgrade::state::{self, ProgramState};
use crate::cli::upgrade::verdict::Verdict;

/// What the version before this one has handed over.
pub(crate) struct Predecessor {
    pub(crate) program: ProgramState,
    pub(crate) server: ServerSnapshot,
}

/// The settings with which a version takes over.
pub(crate) struct SuccessorSettings {
    pub(crate) settings: Settings,
    pub(crate) active: ActiveOptions,
    /// What has changed, for the log.
    pub(crate) changes: Vec<(Level, String)>,
}

impl Predecessor {
    /// What this process has been handed over; `None` if it was started, and has not replaced
    /// another version.
    ///
    /// # Errors
    /// If that cannot be read. Then this process must not serve: it could grant locks that others
    /// hold.
    pub(crate) fn find() -> Result<Option<Self>, String> {
        let number = match (std::env::var_os(STATE_VARIABLE), takes_over()) {
            (Some(number), true) => number,
            (None, false) => return Ok(None),
            (Some(_), false) => {
                return Err("the last argument is missing: a script must pass on all of them".to_owned());
            }
            (None, true) => return Err(format!("{STATE_VARIABLE} is missing")),
        };
        let number = number.to_str().and_then(|number| number.parse().ok());
        let number = number.ok_or_else(|| format!("{STATE_VARIABLE} is no number"))?;
        let file = own(number).map_err(|error| format!("{STATE_VARIABLE}: {error}"))?;
        let predecessor = Self::read(file)?;
        if predecessor.program.pid != std::process::id() {
            return Err("this is another process: a script must become the server by exec".to_owned());
        }
        Ok(Some(predecessor))
    }

    fn read(file: OwnedFd) -> Result<Self, String> {
        let (program, server) = state::read(file)?;
        let server = decode(&server).map_err(|error| format!("the server's state: {error}"))?;
        Ok(Self { program, server })
    }

    /// The settings for going on: the present ones, as after a reload. If there is a mistake in
    /// them, those that were in effect.
    ///
    /// # Errors
    /// If not even those can be in effect.
    pub(crate) fn settings(&self, options: &ServeOptions) -> Result<SuccessorSettings, String> {
        let mut active = ActiveOptions::new(self.program.options.clone());
        let changes = match configuration::settings(options) {
            Ok(present) => active.reload(present.given),
            Err(error) => vec![(Level::Error, format!("the configuration stays as it was: {error}"))],
        };
        let settings = Settings::of_given(active.values()).map_err(|error| error.to_string())?;
        Ok(SuccessorSettings { settings, active, changes })
    }
}

/// Says on standard output whether this version could take over the state on standard input.
pub(crate) fn rehearse(options: &ServeOptions) -> ExitCode {
    let verdict = try_state(options).unwrap_or_else(Verdict::Refused);
    // If it cannot be written, there is no verdict, which counts as a refusal.
    let _ = io::stdout().write_all(verdict.line().as_bytes());
    ExitCode::SUCCESS
}

fn try_state(options: &ServeOptions) -> Result<Verdict, String> {
    let file = io::stdin().as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
    let predecessor = Predecessor::read(file)?;
    // A mistake in the configuration is found now rather than after the upgrade.
    configuration::settings(options)?;
    let settings = predecessor.settings(options)?.settings;
    predecessor.server.check(&settings.config, settings.limits)?;
    let dead_peer_timeout = settings.config.dead_peer_timeout.as_secs();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Verdict::Ready { version, dead_peer_timeout, pid: Some(std::process::id()) })
}
