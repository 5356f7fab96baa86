//! The commands that show a running server, and `kick`: `list`, `inspect`, `watch`, `stats`,
//! `kick`.
//!
//! They get everything from the server as any client could, by the protocol. Names and owners are
//! shown as [`text`](super::text) makes them safe for a terminal.
//!
//! If some of several servers cannot be reached, the commands show what the others have, name those
//! servers at the end, and exit with 1.

mod inspect;
mod kick;
mod list;
mod stats;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use lockd::Session;
use lockd::broker::LockName;
use lockd::client::{ConnectError, InspectError, MessageClient, ServerUrl};
use lockd::wire::message::ListedLock;
use serde::Serialize;
use serde_json::value::RawValue;

pub(super) use inspect::{InspectOptions, inspect};
pub(super) use kick::{KickOptions, kick};
pub(super) use list::{ListOptions, list};
pub(super) use stats::{StatsOptions, is_for_nagios, stats, unknown};
pub(super) use watch::{WatchOptions, watch};

use crate::cli::server_option::ServerOption;
use crate::cli::text::harmless;

/// How long connecting may take, and the answer to a single request.
const LIMIT: Duration = Duration::from_secs(10);
/// How many locks to ask for at once.
const PAGE: usize = 1000;

/// Why a command could not show everything.
#[derive(Debug)]
enum ShowError {
    /// The reader of the output has closed it: no reason for a message.
    NoReader,
    Failed(String),
}

impl From<io::Error> for ShowError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NoReader,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<ConnectError> for ShowError {
    fn from(error: ConnectError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<InspectError> for ShowError {
    fn from(error: InspectError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The exit status; 1 after an error, which is written to the standard error.
fn finish(result: Result<(), ShowError>) -> ExitCode {
    match result {
        Ok(()) | Err(ShowError::NoReader) => ExitCode::SUCCESS,
        Err(ShowError::Failed(why)) => {
            // If this cannot be written, the exit status still tells.
            let _ = writeln!(io::stderr(), "lockd: {}", harmless(&why));
            ExitCode::FAILURE
        }
    }
}

/// Messages about servers that do not answer, or refuse.
#[derive(Debug, Default)]
struct Unreachable(Vec<String>);

impl Unreachable {
    fn add(&mut self, server: &str, why: &impl ToString) {
        let why = why.to_string();
        self.0.push(if why.contains(server) { why } else { format!("{server}: {why}") });
    }

    /// The result of a command that has shown what the other servers have.
    fn into_result(self) -> Result<(), ShowError> {
        if self.0.is_empty() { Ok(()) } else { Err(ShowError::Failed(self.0.join("\nlockd: "))) }
    }
}

fn servers(at: &ServerOption) -> Result<Vec<ServerUrl>, ShowError> {
    ServerUrl::parse_list(&at.urls).map_err(|error| ShowError::Failed(error.to_string()))
}

/// One session on all servers that answer, and the servers that do not.
///
/// # Errors
/// If none answers.
fn connect(at: &ServerOption) -> Result<(Session, Unreachable), ShowError> {
    let servers = servers(at)?;
    let (mut alive, mut unreachable) = (Vec::new(), Unreachable::default());
    if let [only] = servers.as_slice() {
        alive.push(only.as_str());
    } else {
        // A session on several servers can list nothing if one of them is unreachable, so each is
        // tried first.
        for server in &servers {
            match Session::connect(server.as_str(), None, LIMIT) {
                Ok(_) => alive.push(server.as_str()),
                Err(error) => unreachable.add(server.as_str(), &error),
            }
        }
    }
    if alive.is_empty() {
        return unreachable.into_result().and(Err(ShowError::Failed("there is no server".to_owned())));
    }
    Ok((Session::connect(&alive.join(","), None, LIMIT)?, unreachable))
}

/// Sends a server a command that sessions do not have. Gives its result, or why it has none.
fn ask(server: &ServerUrl, command: &str, parameters: &impl Serialize) -> Result<Box<RawValue>, String> {
    let client = MessageClient::connect(server.as_str(), LIMIT).map_err(|error| error.to_string())?;
    client.rpc(command, parameters, Some(LIMIT)).map_err(|error| format!("{server}: {error}"))
}

/// Gives `each` all locks whose names begin with `prefix`, page by page, until it returns false.
fn pages(
    session: &Session,
    prefix: &[u8],
    mut each: impl FnMut(Vec<ListedLock>) -> Result<bool, ShowError>,
) -> Result<(), ShowError> {
    let mut after: Option<LockName> = None;
    loop {
        let page = session.list(prefix, after.as_ref().map(LockName::as_bytes), PAGE)?;
        // After an empty page there are no more locks.
        let Some(last) = page.locks.last() else { return Ok(()) };
        let invalid = || ShowError::Failed("the server has listed a name that makes no sense".to_owned());
        after = Some(last.name().ok_or_else(invalid)?);
        if !each(page.locks)? || !page.more {
            return Ok(());
        }
    }
}
