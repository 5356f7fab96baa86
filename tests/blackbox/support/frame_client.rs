//! A client of the `message` protocol.

use std::io::{BufReader, Read, Write};

use serde_json::{Value, json};
use socket2::Socket;

use super::socket::read_to_end;

/// Sends requests with ids that count up from 0, as the original client does.
pub(crate) struct FrameClient {
    reader: BufReader<Socket>,
    next_id: u64,
    /// Replies that came before the one that was awaited.
    early: Vec<Value>,
}

/// `body` preceded by its length.
pub(crate) fn frame(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

impl FrameClient {
    pub(crate) fn new(socket: Socket) -> Self {
        FrameClient { reader: BufReader::new(socket), next_id: 0, early: Vec::new() }
    }

    pub(crate) fn socket(&self) -> &Socket {
        self.reader.get_ref()
    }

    pub(crate) fn into_socket(self) -> Socket {
        self.reader.into_inner()
    }

    /// This end's address, by which the server names the connection.
    pub(crate) fn address(&self) -> String {
        self.socket().local_addr().unwrap().as_socket().expect("a TCP connection").to_string()
    }

    /// Sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a text that need not be JSON as one frame.
    pub(crate) fn send_text(&mut self, body: impl AsRef<[u8]>) {
        self.send_bytes(frame(body));
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.send_text(message.to_string());
    }

    /// The next message, in the order of arrival.
    pub(crate) fn receive(&mut self) -> Value {
        if self.early.is_empty() { self.receive_now() } else { self.early.remove(0) }
    }

    fn receive_now(&mut self) -> Value {
        serde_json::from_str(&self.receive_text()).expect("JSON")
    }

    /// The next message on the wire as a text, for messages that a JSON parser may refuse.
    pub(crate) fn receive_text(&mut self) -> String {
        let mut header = [0; 4];
        self.reader.read_exact(&mut header).expect("the length of a message");
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(header)).unwrap()];
        self.reader.read_exact(&mut body).expect("a whole message");
        String::from_utf8(body).expect("UTF-8")
    }

    fn receive_where(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.early.iter().position(&wanted) {
            return self.early.remove(place);
        }
        loop {
            let message = self.receive_now();
            if wanted(&message) {
                return message;
            }
            self.early.push(message);
        }
    }

    /// Sends a request and returns its id, without waiting for the reply.
    pub(crate) fn request(&mut self, command: &str, parameters: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({"command": command, "parameters": parameters, "id": id}));
        id
    }

    /// The result in the reply to the request `id`; other replies are kept for later.
    pub(crate) fn result(&mut self, id: u64) -> Value {
        let mut reply = self.receive_where(|message| message.get("id") == Some(&json!(id)));
        reply["result"].take()
    }

    /// Sends a request and waits for its result.
    pub(crate) fn call(&mut self, command: &str, parameters: Value) -> Value {
        let id = self.request(command, parameters);
        self.result(id)
    }

    /// Waits for an exclusive lock, with the original's request.
    pub(crate) fn lock(&mut self, name: &str) -> Value {
        self.call("lock", json!({"lockName": name}))
    }

    /// Tries for an exclusive lock.
    pub(crate) fn try_lock(&mut self, name: &str) -> Value {
        self.call("lock", json!({"lockName": name, "timeLimit": 0}))
    }

    /// Sends an exclusive lock request that is expected to wait.
    pub(crate) fn request_lock(&mut self, name: &str) -> u64 {
        self.request("lock", json!({"lockName": name}))
    }

    /// Unlocks with the original's request, without an id, and returns the whole reply.
    pub(crate) fn unlock(&mut self, name: &str) -> Value {
        self.send(&json!({"command": "unlock", "lockName": name}));
        self.receive_where(|message| message.get("attempted").is_some())
    }

    /// Asserts that no reply is outstanding: the next message is the reply to this ping.
    pub(crate) fn hears_nothing(&mut self) {
        let id = self.request("ping", json!({}));
        let reply = self.receive();
        assert_eq!(reply["id"], json!(id), "an unexpected message: {reply}");
    }

    /// Asserts that the connection is still served.
    pub(crate) fn is_served(&mut self) -> bool {
        self.call("ping", json!({}))["status"] == "ok"
    }

    /// Everything the server sends until it ends the connection.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        read_to_end(&mut self.reader)
    }
}
