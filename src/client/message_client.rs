//! A client for any command: sends requests, and returns each reply to the thread that asked. Apart
//! from `hello` it knows no command, so it can talk to any server of the `message` protocol.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::connect_error::{ConnectError, ConnectErrorKind, ConnectRefusal};
use super::connection::{Lost, OnSignal, ReplyWait, ServerConnection};
use super::dial::{deadline, dial, resolve};
use super::places::try_places;
use super::reply_reader::{MESSAGE_MAX, ServerReply};
use super::session::check_refusal;
use super::url::{Secret, ServerUrl};
use super::wait_hook::WaitHook;
use crate::wire::message::{HelloRequest, HelloResult, Keepalive, Status};

/// A connection to a server of the `message` protocol. It may be shared between threads; a call
/// that waits does not delay the others.
pub struct MessageClient {
    connection: ServerConnection,
}

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcError {
    /// No reply came within the time limit. It is unknown whether the server has carried out the
    /// request. A late reply is dropped.
    TimedOut,
    /// The server does not know the command.
    Unknown,
    /// The server answered with an error.
    Refused(String),
    /// The parameters cannot be written as JSON, or the request would be longer than 16 MiB.
    /// Nothing was sent.
    Invalid(String),
    /// The connection is lost, for good.
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
    /// Connects to the server at `url` (see [`ServerUrl`]) within `timeout`. If the address names a
    /// secret, it is shown with `hello`. If it names several places, `hello` finds out which of them
    /// is active. Otherwise no message is sent, so the server need not know `hello`.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub fn connect(url: &str, timeout: Duration) -> Result<Self, ConnectError> {
        let url: ServerUrl = url.parse()?;
        let secret =
            url.secret().map_err(|reason| ConnectRefusal::new(ConnectErrorKind::Local, reason).of(&url))?;
        let (client, _) = try_places(&url, timeout, &mut WaitHook::none(), |place, limit, hook| {
            let client = Self { connection: dial(&url, place, &resolve(place)?, limit, hook)? };
            if secret.is_some() || url.is_group() {
                client.say_hello(secret.as_ref(), limit).map_err(|refusal| refusal.of(place))?;
            }
            Ok(client)
        })?;
        Ok(client)
    }

    fn say_hello(&self, secret: Option<&Secret>, limit: Duration) -> Result<(), ConnectRefusal> {
        let wind_down = Duration::ZERO;
        let auth_token = secret.map(|secret| secret.text.clone());
        let hello = HelloRequest { client: None, version: None, auth_token, wind_down, resumable: false };
        let reply = match self.rpc("hello", &hello, Some(limit)) {
            Ok(reply) => reply,
            // It has accepted the secret, if there is one, but does not know the command hello.
            Err(RpcError::Unknown) => return Ok(()),
            Err(RpcError::TimedOut) => return Err(ConnectRefusal::unanswered()),
            Err(error @ RpcError::Lost(_)) => {
                return Err(ConnectRefusal::new(self.connection.loss_kind(), error.to_string()));
            }
            Err(error) => return Err(ConnectRefusal::new(ConnectErrorKind::Refused, error.to_string())),
        };
        check_refusal(&reply, secret.map(|secret| secret.file.as_path()))?;
        // After hello the server uses other keepalive figures for this client.
        serde_json::from_str(reply.get()).map_or(Ok(()), |hello: HelloResult| {
            let keepalive = Keepalive::client(hello.keepalive.dead_peer_timeout);
            let set = self.connection.set_keepalive(&keepalive);
            set.map_err(|error| ConnectRefusal::new(ConnectErrorKind::Local, error.to_string()))
        })
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
        match self.connection.wait(&[request.id], deadline, OnSignal::Continue)? {
            ReplyWait::Reply(_, reply) => result_of(reply),
            ReplyWait::TimedOut | ReplyWait::Forgotten | ReplyWait::Cancelled | ReplyWait::Interrupted => {
                self.connection.forget(request.id);
                Err(RpcError::TimedOut)
            }
        }
    }

    /// Whether the connection is alive, as far as can be known without waiting.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.connection.check().is_ok()
    }

    /// Ends the connection. Calls in progress and all later ones end with `Lost`.
    pub fn close(&self) {
        self.connection.close();
    }
}

fn result_of(reply: ServerReply) -> Result<Box<RawValue>, RpcError> {
    #[derive(Deserialize)]
    struct OnlyStatus {
        status: Status,
    }
    let result = reply.map_err(RpcError::Refused)?;
    match serde_json::from_str(result.get()) {
        Ok(OnlyStatus { status: Status::Unknown }) => Err(RpcError::Unknown),
        _ => Ok(result),
    }
}
