//! `lockd kick`: asks the server to end connections.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use lockd::wire::message::{KickRequest, LockResult, Status};

use crate::cli::server_option::ServerOption;
use crate::cli::show::{ShowError, Unreachable, ask, finish, servers};

/// Which connections to end.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("whom").required(true)), after_help = "\
The client learns that its connection has ended, and then its locks are released. lockd run first ends its command, \
within the time that its --grace gives; kick it a second time to give it no more time for that. The server must have \
been started with --allow-kick; then every client that may connect may kick. Several servers are all asked.")]
pub(crate) struct KickOptions {
    /// The connection's address, as list and inspect show it
    #[arg(value_name = "ADDRESS", group = "whom")]
    address: Option<String>,

    /// All connections of this owner, by the name that list and inspect show
    #[arg(long, value_name = "NAME", group = "whom")]
    owner: Option<String>,

    #[command(flatten)]
    at: ServerOption,
}

pub(crate) fn kick(options: &KickOptions) -> ExitCode {
    finish(ask_for(options))
}

fn ask_for(options: &KickOptions) -> Result<(), ShowError> {
    let request = KickRequest { address: options.address.clone(), name: options.owner.clone() };
    let (mut kicked, mut failed) = (false, Unreachable::default());
    for server in servers(&options.at)? {
        let result = ask(&server, "kick", &request).and_then(|reply| {
            serde_json::from_str::<LockResult>(reply.get())
                .map_err(|error| format!("the server's answer makes no sense: {error}"))
        });
        match result {
            Ok(LockResult { status: Status::Ok, .. }) => kicked = true,
            Ok(LockResult { status: Status::NotFound, .. }) => {}
            Ok(LockResult { status, reason, .. }) => {
                failed.add(server.as_str(), &reason.unwrap_or_else(|| format!("the server says {status:?}")));
            }
            Err(error) => failed.add(server.as_str(), &error),
        }
    }
    // A server that could not be asked may have such a connection.
    let may_exist = kicked || !failed.0.is_empty();
    if may_exist { failed.into_result() } else { Err(ShowError::Failed(not_found(options))) }
}

/// The message if no server has such a connection.
fn not_found(options: &KickOptions) -> String {
    match (&options.address, &options.owner) {
        (Some(address), _) if !is_address(address) => format!(
            "{address:?} is not the address of a connection, as list and inspect show it; did you mean --owner {address}?"
        ),
        (Some(address), _) => format!("no connection has the address {address}"),
        (_, owner) => format!("no connection has an owner named {}", owner.as_deref().unwrap_or_default()),
    }
}

/// Whether this is the form of a connection's address: `IP:PORT` or `unix:NUMBER`.
fn is_address(text: &str) -> bool {
    let number = text.strip_prefix("unix:");
    number.is_some_and(|number| number.parse::<u64>().is_ok()) || text.parse::<SocketAddr>().is_ok()
}
