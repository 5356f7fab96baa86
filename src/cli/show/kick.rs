//! `lockd kick`: asks the server to end connections.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use lockd::wire::message::{KickRequest, LockResult, Status};

use crate::cli::server_option::ServerOption as At;
use crate::cli::show::{Gone, Trouble, ask_each, finish};

/// Whom to kick.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("whom").required(true)), after_help = "\
The client is told that its connection has ended, and then its locks go to others. lockd run first ends its \
command, for which it has its --grace; kick a second time to wait for that no longer. The server must have been \
started with --allow-kick; then anybody may do this who may connect to it. Of several servers all are asked.")]
pub(in crate::cli) struct KickOptions {
    /// The connection's address, as list and inspect show it
    #[arg(value_name = "ADDRESS", group = "whom")]
    address: Option<String>,

    /// All connections of this owner, by the name that list and inspect show
    #[arg(long, value_name = "NAME", group = "whom")]
    owner: Option<String>,

    #[command(flatten)]
    at: At,
}

pub(in crate::cli) fn kick(options: &KickOptions) -> ExitCode {
    finish(ask_for(options))
}

fn ask_for(options: &KickOptions) -> Result<(), Trouble> {
    let request = KickRequest { address: options.address.clone(), name: options.owner.clone() };
    let (mut kicked, mut troubles) = (false, Gone::default());
    for (server, reply) in ask_each(&options.at, "kick", &request)? {
        let result = reply.and_then(|reply| {
            serde_json::from_str::<LockResult>(reply.get())
                .map_err(|error| format!("the server's answer makes no sense: {error}"))
        });
        match result {
            Ok(LockResult { status: Status::Ok, .. }) => kicked = true,
            Ok(LockResult { status: Status::NotFound, .. }) => {}
            Ok(LockResult { status, reason, .. }) => {
                troubles
                    .add(server.as_str(), &reason.unwrap_or_else(|| format!("the server says {status:?}")));
            }
            Err(error) => troubles.add(server.as_str(), &error),
        }
    }
    // A server that could not be asked may have had it.
    let is_known = kicked || !troubles.0.is_empty();
    if is_known { troubles.tell() } else { Err(Trouble::Words(nobody(options))) }
}

/// What is said when no server has such a connection.
fn nobody(options: &KickOptions) -> String {
    match (&options.address, &options.owner) {
        (Some(address), _) if !is_address(address) => format!(
            "{address:?} is no address of a connection, as list and inspect show it; did you mean --owner {address}?"
        ),
        (Some(address), _) => format!("no connection has the address {address}"),
        (_, owner) => format!("no connection has an owner named {}", owner.as_deref().unwrap_or_default()),
    }
}

/// Whether a connection could have this address: `IP:PORT`, or `unix:NUMBER`.
fn is_address(text: &str) -> bool {
    let number = text.strip_prefix("unix:");
    number.is_some_and(|number| number.parse::<u64>().is_ok()) || text.parse::<SocketAddr>().is_ok()
}
