//! A client for commands of one's own: requests go out, replies come back to whoever asked. Knows no
//! command, so it can talk to any server of the `message` protocol.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::connection::{Connection, Lost, Signals, Waited};
use super::dial::{ConnectError, deadline, dial};
use super::input::{MESSAGE_MAX, Reply};
use super::url::ServerUrl;
use crate::protocol::message::Status;

/// A connection to a server of the `message` protocol. May be shared between threads; a call that waits
/// holds up no other.
pub struct MessageClient {
    connection: Connection,
}

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcError {
    /// No reply came within the time limit. Whether the server did what it was asked is unknown; a reply
    /// that comes late is dropped.
    TimedOut,
    /// The server does not know the command.
    Unknown,
    /// The server answered with an error.
    Refused(String),
    /// The parameters cannot be written as JSON, or the request would be longer than 16 MiB. Nothing was
    /// sent.
    Invalid(String),
    /// The connection is gone, for good.
    Lost(String),
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("no reply within the time limit"),
            Self::Unknown => f.write_str("the server does not know the command"),
            Self::Refused(reason) => write!(f, "the server answered with an error: {reason}"),
            Self::Invalid(reason) => write!(f, "invalid request: {reason}"),
            Self::Lost(reason) => write!(f, "the connection is lost: {reason}"),
        }
    }
}

impl std::error::Error for RpcError {}

impl From<Lost> for RpcError {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost.0)
    }
}

impl MessageClient {
    /// Connects to the server at `url` (see [`ServerUrl`]) within `timeout`. Sends no message, so that any
    /// server will do; to one that asks for a secret, `hello` with the `authToken` must be the first.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub fn connect(url: &str, timeout: Duration) -> Result<Self, ConnectError> {
        Ok(Self { connection: dial(&url.parse::<ServerUrl>()?, timeout)? })
    }

    /// Sends a request and waits for its result, for up to `limit`; `None` waits without limit.
    ///
    /// # Errors
    /// [`RpcError`]
    pub fn rpc(
        &self,
        command: &str,
        parameters: &impl Serialize,
        limit: Option<Duration>,
    ) -> Result<Box<RawValue>, RpcError> {
        let deadline = deadline(limit);
        let request = self.connection.request(command, parameters, MESSAGE_MAX).map_err(RpcError::Invalid)?;
        self.connection.post(&[&request])?;
        self.connection.flush();
        match self.connection.wait(&[request.id], deadline, Signals::Ignored)? {
            Waited::Reply(_, reply) => result_of(reply),
            Waited::TimedOut | Waited::Forgotten | Waited::Interrupted => {
                self.connection.forget(request.id);
                Err(RpcError::TimedOut)
            }
        }
    }

    /// Whether the connection stands, as far as can be known without waiting.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.connection.check().is_ok()
    }

    /// Ends the connection. Calls that wait, and later ones, end with `Lost`.
    pub fn close(&self) {
        self.connection.close();
    }
}

fn result_of(reply: Reply) -> Result<Box<RawValue>, RpcError> {
    #[derive(Deserialize)]
    struct Only {
        status: Status,
    }
    let result = reply.map_err(RpcError::Refused)?;
    match serde_json::from_str(result.get()) {
        Ok(Only { status: Status::Unknown }) => Err(RpcError::Unknown),
        _ => Ok(result),
    }
}
