//! The general message service: commands by name and their handlers. The lock commands are one set
//! of them ([`Service::locks`]); a program adds its own to them, or serves only its own. Knows no
//! command.

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::send_queue::SendQueue;
use super::connection::MessageConnection;
use crate::broker::ObservedSession;
use crate::os::sync::Arc;
use crate::wire::frame;
use crate::wire::message::{
    LockResult, Malformed, RequestEnvelope, Status, encode_result, encode_status, encode_unknown,
};

/// Handles the messages of one command.
type Handler = dyn Fn(&mut Call<'_, '_>) + Send + Sync;

/// Commands by name, each with the function that handles it.
///
/// ```
/// use lockd::broker::Broker;
/// use lockd::server::{Call, Config, Server, Service};
/// use serde_json::json;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut service = Service::locks();
/// service.on("greet", |call: &mut Call<'_, '_>| {
///     let peer = call.session().info().address();
///     call.reply(&json!({"status": "ok", "greeting": format!("hello, {peer}")}));
/// });
/// let config = Config { listen: vec!["message://127.0.0.1:0".parse()?], ..Config::default() };
/// let server = Server::start(&Broker::default(), config, service)?;
/// # server.stop();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Service {
    /// A list, because a program has few commands, and those that are asked for most are its first.
    handlers: Vec<(String, Arc<Handler>)>,
}

impl Service {
    /// No commands at all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives messages with this command to `handler`, which replaces the command's earlier handler.
    ///
    /// The handler is called in the connection's thread: the connection's next message is handled
    /// when it returns. If it takes long, it keeps a [`Responder`] and replies from another thread.
    /// If it panics, the connection ends.
    pub fn on(
        &mut self,
        command: &str,
        handler: impl Fn(&mut Call<'_, '_>) + Send + Sync + 'static,
    ) -> &mut Self {
        let handler = Arc::new(handler);
        match self.handlers.iter_mut().find(|(known, _)| known == command) {
            Some((_, earlier)) => *earlier = handler,
            None => self.handlers.push((command.to_owned(), handler)),
        }
        self
    }

    /// Gives the message to the handler of its command. A command without a handler is answered
    /// with the status `unknown`, if the message has an id.
    pub(super) fn dispatch(&self, connection: &mut MessageConnection<'_>, envelope: &RequestEnvelope<'_>) {
        let command = envelope.command.as_deref();
        let handler = command.and_then(|command| self.handlers.iter().find(|(known, _)| known == command));
        if let Some((_, handler)) = handler {
            return handler(&mut Call { connection, envelope });
        }
        if let (Some(id), Some(command)) = (envelope.id, command) {
            connection.reply(|out| encode_unknown(out, id, command));
        }
    }
}

/// One message, for the handler of its command.
pub struct Call<'a, 'c> {
    pub(super) connection: &'a mut MessageConnection<'c>,
    pub(super) envelope: &'a RequestEnvelope<'a>,
}

impl<'a> Call<'a, '_> {
    /// The command.
    #[must_use]
    pub fn command(&self) -> &str {
        self.envelope.command.as_deref().unwrap_or_default()
    }

    /// The id that the reply will have. A message without one gets no reply.
    #[must_use]
    pub fn id(&self) -> Option<&'a RawValue> {
        self.envelope.id
    }

    /// The parameters as they came; `None` if the message has none.
    #[must_use]
    pub fn parameters(&self) -> Option<&'a RawValue> {
        self.envelope.parameters
    }

    /// The whole message, a JSON object.
    #[must_use]
    pub fn body(&self) -> &'a str {
        self.envelope.body
    }

    /// The session of the connection: its address and name, and the locks it holds.
    #[must_use]
    pub fn session(&self) -> &ObservedSession {
        &self.connection.base.session
    }

    /// Replies `{"id":…,"result":result}`. Does nothing if the message has no id.
    pub fn reply(&mut self, result: &impl Serialize) {
        if let Some(id) = self.envelope.id {
            // Written to a buffer of its own: if `result` panics, the send queue must not be left
            // with half a reply in front of others.
            let mut body = Vec::new();
            encode_result(&mut body, id, result);
            self.connection.reply(|out| out.extend_from_slice(&body));
        }
    }

    /// Replies with only a status.
    pub(super) fn reply_status(&mut self, status: Status) {
        if let Some(id) = self.envelope.id {
            self.connection.reply(|out| encode_status(out, id, status));
        }
    }

    /// With this the message can be replied to later, from any thread. `None` if the message has no
    /// id.
    #[must_use]
    pub fn responder(&self) -> Option<Responder> {
        let id = self.envelope.id?.to_owned();
        Some(Responder { send_queue: self.connection.base.send_queue.clone(), id })
    }

    /// Replies with `result` of the parameters, or with what is wrong with them. A message without
    /// parameters is read as if it had an empty object: the commands that are read so are not of
    /// the original, which would not have replied.
    pub(super) fn answer<P, R: Serialize>(
        &mut self,
        parse: impl FnOnce(&RawValue) -> Result<P, Malformed>,
        result: impl FnOnce(&Self, P) -> R,
    ) {
        match parse(self.parameters().unwrap_or(RawValue::NULL)) {
            Ok(parameters) => {
                let result = result(self, parameters);
                self.reply(&result);
            }
            Err(malformed) => self.reply(&LockResult::from(malformed)),
        }
    }
}

/// A reply that has not been given yet. If it is dropped, the message gets no reply.
pub struct Responder {
    send_queue: Arc<SendQueue>,
    id: Box<RawValue>,
}

impl Responder {
    /// Replies. Never waits for the client: one that does not read is disconnected once more is due
    /// to it than [`Config::outbox_bytes_max`](crate::server::Config::outbox_bytes_max).
    pub fn reply(self, result: &impl Serialize) {
        let mut framed = Vec::new();
        frame::encode(&mut framed, |body| encode_result(body, &self.id, result));
        self.send_queue.push(|out| out.extend_from_slice(&framed));
        self.send_queue.deliver();
    }
}
