//! Looking inside a server, and at who is connected to it: `list`, `inspect`, `watch`, `stats`, `kick`.
//!
//! What they show comes from the server as any client may have it; nothing here knows more than the protocol
//! tells. Names and owners are shown as [`text`](super::text) makes them safe for a terminal.

mod inspect;
mod kick;
mod list;
mod stats;
mod table;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use lockd::Session;
use lockd::broker::LockName;
use lockd::client::{ConnectError, InspectError, MessageClient, RpcError, ServerUrl};
use lockd::protocol::message::ListedLock;
use serde::Serialize;
use serde_json::value::RawValue;

pub(super) use inspect::{InspectOptions, inspect};
pub(super) use kick::{KickOptions, kick};
pub(super) use list::{ListOptions, list};
pub(super) use stats::{StatsOptions, stats};
pub(super) use watch::{WatchOptions, watch};

use super::at::At;
use super::text::harmless;

/// How long connecting may take, and an answer to a single question.
const LIMIT: Duration = Duration::from_secs(10);
/// How many locks to ask for at once.
const PAGE: usize = 1000;

/// Why there is nothing to show.
#[derive(Debug)]
enum Trouble {
    /// Nobody reads any more: no reason to complain.
    NoReader,
    Words(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NoReader,
            _ => Self::Words(error.to_string()),
        }
    }
}

impl From<ConnectError> for Trouble {
    fn from(error: ConnectError) -> Self {
        Self::Words(error.to_string())
    }
}

impl From<InspectError> for Trouble {
    fn from(error: InspectError) -> Self {
        Self::Words(error.to_string())
    }
}

impl From<RpcError> for Trouble {
    fn from(error: RpcError) -> Self {
        Self::Words(error.to_string())
    }
}

/// The exit status: 1 if there is trouble, which is told.
fn finish(result: Result<(), Trouble>) -> ExitCode {
    match result {
        Ok(()) | Err(Trouble::NoReader) => ExitCode::SUCCESS,
        Err(Trouble::Words(words)) => {
            // There is nobody to tell but the one who reads this.
            let _ = writeln!(io::stderr(), "lockd: {}", harmless(&words));
            ExitCode::FAILURE
        }
    }
}

fn connect(at: &At) -> Result<Session, Trouble> {
    Ok(Session::connect(&at.urls, None, LIMIT)?)
}

/// Asks the one server a question that sessions do not ask.
fn ask(at: &At, command: &str, parameters: &impl Serialize) -> Result<Box<RawValue>, Trouble> {
    let urls = ServerUrl::parse_list(&at.urls).map_err(|error| Trouble::Words(error.to_string()))?;
    let [url] = urls.as_slice() else {
        return Err(Trouble::Words(
            "this is asked of one server at a time: give one with --server".to_owned(),
        ));
    };
    let client = MessageClient::connect(url.as_str(), LIMIT)?;
    Ok(client.rpc(command, parameters, Some(LIMIT))?)
}

/// Shows all locks whose names begin so to `each`, page by page, until it has enough.
fn pages(
    session: &Session,
    prefix: &[u8],
    mut each: impl FnMut(Vec<ListedLock>) -> Result<bool, Trouble>,
) -> Result<(), Trouble> {
    let mut after: Option<LockName> = None;
    loop {
        let page = session.list(prefix, after.as_ref().map(LockName::as_bytes), PAGE)?;
        // Of an empty page there are no more.
        let Some(last) = page.locks.last() else { return Ok(()) };
        let senseless = || Trouble::Words("the server has listed a name that makes no sense".to_owned());
        after = Some(last.name().ok_or_else(senseless)?);
        if !each(page.locks)? || !page.more {
            return Ok(());
        }
    }
}
