//! The general message service: named commands and their handlers. The lock commands are one set of
//! them ([`Service::locks`]); a program adds its own beside them, or serves only its own.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::send_queue::SendQueue;
use super::MessageConnection;
use super::locks;
use crate::broker::ObservedSession;
use crate::os::sync::Arc;
use crate::wire::frame;
use crate::wire::message::{Envelope, encode_result, encode_unknown};

/// What is done when a command comes.
///
/// Called in the connection's thread: the connection's next message is handled when it returns. A
/// handler that takes long takes a [`Responder`] and replies from elsewhere. A panic in a handler ends
/// the connection.
pub trait Handler: Send + Sync {
    /// Handles one message.
    fn handle(&self, call: &mut Call<'_, '_>);
}

impl<F: Fn(&mut Call<'_, '_>) + Send + Sync> Handler for F {
    fn handle(&self, call: &mut Call<'_, '_>) {
        self(call);
    }
}

/// Commands by name.
///
/// ```
/// use lockd::broker::Broker;
/// use lockd::server::{Call, Config, Server, Service};
/// use serde_json::json;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut service = Service::locks();
/// service.on("greet", |call: &mut Call<'_, '_>| {
///     let peer = call.session().info().address().to_owned();
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
    handlers: HashMap<String, Arc<dyn Handler>>,
}

impl Service {
    /// No commands at all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The lock commands.
    #[must_use]
    pub fn locks() -> Self {
        let mut service = Self::new();
        locks::add_to(&mut service);
        service
    }

    /// Gives messages with this command to `handler`, in place of the one that had them before.
    pub fn on(&mut self, command: &str, handler: impl Handler + 'static) -> &mut Self {
        self.handlers.insert(command.to_owned(), Arc::new(handler));
        self
    }

    /// Gives the message to the handler of its command. A command that nobody handles is answered with
    /// the status `unknown`, if the message has an id.
    pub(super) fn dispatch(&self, connection: &mut MessageConnection<'_>, envelope: &Envelope<'_>) {
        let command = envelope.command.as_deref();
        if let Some(handler) = command.and_then(|command| self.handlers.get(command)) {
            return handler.handle(&mut Call { connection, envelope });
        }
        if let (Some(id), Some(command)) = (envelope.id, command) {
            connection.reply(|out| encode_unknown(out, id, command));
        }
    }
}

/// One message, for the handler of its command.
pub struct Call<'a, 'c> {
    pub(super) connection: &'a mut MessageConnection<'c>,
    pub(super) envelope: &'a Envelope<'a>,
}

impl<'a> Call<'a, '_> {
    /// The command.
    #[must_use]
    pub fn command(&self) -> &str {
        self.envelope.command.as_deref().unwrap_or_default()
    }

    /// The id the reply will have; without one the message gets no reply.
    #[must_use]
    pub fn id(&self) -> Option<&'a RawValue> {
        self.envelope.id
    }

    /// The parameters as they came; `None` if there are none.
    #[must_use]
    pub fn parameters(&self) -> Option<&'a RawValue> {
        self.envelope.parameters
    }

    /// The whole message, a JSON object.
    #[must_use]
    pub fn body(&self) -> &'a str {
        self.envelope.body
    }

    /// The session of the connection: who is calling, and the locks it has.
    #[must_use]
    pub fn session(&self) -> &ObservedSession {
        &self.connection.base.session
    }

    /// Replies `{"id":…,"result":result}`; does nothing if the message has no id.
    pub fn reply(&mut self, result: &impl Serialize) {
        if let Some(id) = self.envelope.id {
            // Written apart: should `result` panic, no half of it must stand before other replies.
            let mut body = Vec::new();
            encode_result(&mut body, id, result);
            self.connection.reply(|out| out.extend_from_slice(&body));
        }
    }

    /// What the message can be replied to with later, from any thread; `None` if it has no id.
    #[must_use]
    pub fn responder(&self) -> Option<Responder> {
        let id = self.envelope.id?.to_owned();
        Some(Responder { send_queue: self.connection.base.send_queue.clone(), id })
    }
}

/// A reply that is still to be given.
pub struct Responder {
    send_queue: Arc<SendQueue>,
    id: Box<RawValue>,
}

impl Responder {
    /// Replies. Never waits for the client; one that does not read is cut off when too much is due to it.
    pub fn reply(self, result: &impl Serialize) {
        let mut framed = Vec::new();
        frame::encode(&mut framed, |body| encode_result(body, &self.id, result));
        self.send_queue.note(|out| out.extend_from_slice(&framed));
        self.send_queue.deliver();
    }
}
