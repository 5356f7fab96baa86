//! Sessions that resume, on the wire.

use std::time::Duration;

use serde_json::{Value, json};
use socket2::Socket;

use super::frame_client::FrameClient;
use super::server::Server;

/// What a session is told, with which it can resume.
pub(crate) struct Told {
    pub(crate) session: Value,
    pub(crate) epoch: Value,
    pub(crate) secret: Value,
    pub(crate) timeout: Value,
    pub(crate) attempt: u64,
}

impl Told {
    pub(crate) fn of(greeting: &Value) -> Self {
        assert_eq!(greeting["status"], "ok", "{greeting}");
        let resume = &greeting["resume"];
        assert!(resume["secret"].is_string(), "{greeting}");
        Self {
            session: resume["session"].clone(),
            epoch: resume["epoch"].clone(),
            secret: resume["secret"].clone(),
            timeout: greeting["keepalive"]["deadPeerTimeout"].clone(),
            attempt: 0,
        }
    }

    pub(crate) fn request(&mut self, locks: &Value) -> Value {
        self.attempt += 1;
        json!({
            "session": self.session, "epoch": self.epoch, "secret": self.secret,
            "deadPeerTimeout": self.timeout, "attempt": self.attempt, "locks": locks,
        })
    }
}

/// A client whose session can resume.
pub(crate) fn resumable(server: &Server) -> (FrameClient, Told) {
    let mut client = server.message();
    let told = Told::of(&client.call("hello", json!({"resumable": true})));
    (client, told)
}

/// A new connection on which the session was resumed with these locks.
pub(crate) fn resumed(server: &Server, told: &mut Told, locks: &Value) -> FrameClient {
    let mut client = server.message();
    let greeting = client.call("resume", told.request(locks));
    let again = Told::of(&greeting);
    assert_eq!(again.session, told.session);
    *told = Told { attempt: told.attempt, ..again };
    client
}

/// The connection is reset, and the reset reaches the server.
pub(crate) fn reset(client: FrameClient) {
    let socket: Socket = client.into_socket();
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

pub(crate) fn exclusive(name: &str, granted: &Value) -> Value {
    json!([{"lockName": name, "mode": "exclusive", "token": granted["token"]}])
}
