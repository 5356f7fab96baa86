//! Looking inside a server, and at who is connected to it: `list`, `inspect`, `watch`, `stats`, `kick`.
//!
//! What they show comes from the server as any client may have it; nothing here knows more than the protocol
//! tells. Names and owners are shown as [`text`](super::text) makes them safe for a terminal.
//!
//! Of several servers those that are gone keep nobody from seeing what the others have; they are named at the end,
//! and the exit status is 1.

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
use lockd::client::{ConnectError, InspectError, MessageClient, ServerUrl};
use lockd::wire::message::ListedLock;
use serde::Serialize;
use serde_json::value::RawValue;

pub(super) use inspect::{InspectOptions, inspect};
pub(super) use kick::{KickOptions, kick};
pub(super) use list::{ListOptions, list};
pub(super) use stats::{StatsOptions, is_for_nagios, stats, unknown};
pub(super) use watch::{WatchOptions, watch};

use crate::cli::server_option::ServerOption as At;
use crate::cli::text::harmless;

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

/// The servers that answer, as one session, and what there is to say of those that do not.
struct Reached {
    session: Session,
    gone: Gone,
}

/// Servers that do not answer, in words.
#[derive(Debug, Default)]
struct Gone(Vec<String>);

impl Gone {
    fn add(&mut self, server: &str, why: &impl ToString) {
        let why = why.to_string();
        self.0.push(if why.contains(server) { why } else { format!("{server}: {why}") });
    }

    /// The end of a command that has shown what the other servers have.
    fn tell(self) -> Result<(), Trouble> {
        if self.0.is_empty() { Ok(()) } else { Err(Trouble::Words(self.0.join("\nlockd: "))) }
    }
}

fn servers(at: &At) -> Result<Vec<ServerUrl>, Trouble> {
    ServerUrl::parse_list(&at.urls).map_err(|error| Trouble::Words(error.to_string()))
}

/// A session on those of the servers that answer; at least on one.
fn connect(at: &At) -> Result<Reached, Trouble> {
    let servers = servers(at)?;
    let (mut alive, mut gone) = (Vec::new(), Gone::default());
    if let [only] = servers.as_slice() {
        alive.push(only.as_str());
    } else {
        // A session on all of them would list nothing without this one.
        for server in &servers {
            match Session::connect(server.as_str(), None, LIMIT) {
                Ok(_) => alive.push(server.as_str()),
                Err(error) => gone.add(server.as_str(), &error),
            }
        }
    }
    if alive.is_empty() {
        return gone.tell().and(Err(Trouble::Words("there is no server".to_owned())));
    }
    Ok(Reached { session: Session::connect(&alive.join(","), None, LIMIT)?, gone })
}

/// What a server says, or why it says nothing, with its name.
type Answer = Result<Box<RawValue>, String>;

/// Asks each server a question that sessions do not ask.
fn ask_each(
    at: &At,
    command: &str,
    parameters: &impl Serialize,
) -> Result<Vec<(ServerUrl, Answer)>, Trouble> {
    let ask = |url: &ServerUrl| -> Answer {
        let client = MessageClient::connect(url.as_str(), LIMIT).map_err(|error| error.to_string())?;
        client.rpc(command, parameters, Some(LIMIT)).map_err(|error| format!("{url}: {error}"))
    };
    Ok(servers(at)?.into_iter().map(|url| (url.clone(), ask(&url))).collect())
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
