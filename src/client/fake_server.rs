//! A server for tests that sends exactly the bytes a test tells it to, for cases that a real server
//! produces too rarely or never. Listens on a free port of this host and accepts one connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::wire::frame::{self, Frame};

pub(super) const SOON: Duration = Duration::from_secs(20);

/// The answer of a standby.
pub(super) const STANDBY: &str = r#"{"status":"refused","reason":"this server is a standby of the cluster c; the active server is b:1","cause":"standby","active":"b:1"}"#;

/// The server's side of the connection.
pub(super) struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
}

/// A request as it arrived.
pub(super) struct Asked {
    pub(super) command: String,
    pub(super) parameters: Value,
    pub(super) id: u64,
}

/// Serves one connection with `script`. Returns the address, and the thread, which must be joined
/// to see its panics.
pub(super) fn serve(script: impl FnOnce(Peer) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        script(Peer { stream, input: Vec::new() });
    });
    (url, thread)
}

/// A server that accepts one connection, and answers its first request as a standby does.
pub(super) fn serve_standby() -> (String, JoinHandle<()>) {
    serve(|mut peer| peer.refuse_as_standby())
}

/// The same, after the handshake of a session.
pub(super) fn serve_session(script: impl FnOnce(Peer) + Send + 'static) -> (String, JoinHandle<()>) {
    serve(|mut peer| {
        peer.shake_hands();
        script(peer);
    })
}

/// A listening server whose script accepts one connection after another.
pub(super) struct Listening(TcpListener);

impl Listening {
    pub(super) fn accept(&self) -> Peer {
        let (stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Peer { stream, input: Vec::new() }
    }

    /// The next connection, if there is one.
    pub(super) fn accept_now(&self) -> Option<Peer> {
        self.0.set_nonblocking(true).unwrap();
        let (stream, _) = self.0.accept().ok()?;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Some(Peer { stream, input: Vec::new() })
    }
}

/// As [`serve`], for a script that accepts its connections itself.
pub(super) fn serve_all(script: impl FnOnce(Listening) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    (url, std::thread::spawn(move || script(Listening(listener))))
}

impl Peer {
    /// Answers the next request as a standby does, and ends the connection.
    pub(super) fn refuse_as_standby(&mut self) {
        let asked = self.next().expect("the client hung up");
        // Together with the end, since the client may reset the connection once it has the answer.
        rustix::net::sockopt::set_tcp_cork(&self.stream, true).unwrap();
        self.reply(asked.id, STANDBY);
        self.end_output();
        self.outlast();
    }

    pub(super) fn shake_hands(&mut self) {
        let hello = self.expect("hello");
        self.accept_hello(&hello);
        self.expect("identify");
    }

    pub(super) fn accept_hello(&mut self, hello: &Asked) {
        self.accept_hello_for(hello, 25);
    }

    /// The same with this dead-peer timeout, in seconds.
    pub(super) fn accept_hello_for(&mut self, hello: &Asked, dead_peer_timeout: u32) {
        self.accept_hello_with(hello, dead_peer_timeout, "[]");
    }

    /// The same with these features, a JSON array.
    pub(super) fn accept_hello_with(&mut self, hello: &Asked, dead_peer_timeout: u32, features: &str) {
        let keepalive = r#"{"idle":10,"interval":5,"probes":3,"userTimeout":25"#;
        let keepalive = format!(r#"{keepalive},"deadPeerTimeout":{dead_peer_timeout}}}"#);
        let result = format!(
            r#"{{"status":"ok","server":"lockd","version":"0","features":{features},"keepalive":{keepalive}}}"#
        );
        self.reply(hello.id, &result);
    }

    /// The next request; `None` if the client has hung up.
    pub(super) fn next(&mut self) -> Option<Asked> {
        loop {
            if let (consumed, Frame::Body(body)) = frame::decode(&self.input, 1 << 20) {
                let body: Value = serde_json::from_slice(body).unwrap();
                self.input.drain(..consumed);
                return Some(Asked {
                    command: body["command"].as_str().unwrap().to_owned(),
                    parameters: body["parameters"].clone(),
                    id: body["id"].as_u64().unwrap(),
                });
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the client sends nothing: {error}"),
            }
        }
    }

    pub(super) fn expect(&mut self, command: &str) -> Asked {
        let asked = self.next().expect("the client hung up");
        assert_eq!(asked.command, command);
        asked
    }

    /// Waits until the client hangs up, and ignores what it sends before.
    pub(super) fn outlast(&mut self) {
        while self.next().is_some() {}
    }

    pub(super) fn reply(&mut self, id: u64, result: &str) {
        self.say(&format!(r#"{{"id":{id},"result":{result}}}"#));
    }

    pub(super) fn say(&mut self, body: &str) {
        let mut out = Vec::new();
        frame::encode(&mut out, |out| out.extend_from_slice(body.as_bytes()));
        self.send(&out);
    }

    /// Replies, and ends the connection. The client gets both at once.
    pub(super) fn reply_and_hang_up(mut self, id: u64, result: &str) {
        rustix::net::sockopt::set_tcp_cork(&self.stream, true).unwrap();
        self.reply(id, result);
    }

    /// Ends the server's direction of the stream; the client can still send.
    pub(super) fn end_output(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Ends the connection by a reset.
    pub(super) fn reset(&self) {
        rustix::net::connect_unspec(&self.stream).unwrap();
    }

    /// Waits until the client ends the connection, and ignores what it sends before. Returns whether
    /// it ends with a reset.
    pub(super) fn ends_by_reset(&mut self) -> bool {
        loop {
            match self.stream.read(&mut [0; 4096]) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return true,
                Err(error) => panic!("the client does not end the connection: {error}"),
            }
        }
    }

    /// Whether the client has ended its direction of the stream, as far as this end knows.
    pub(super) fn sees_the_end(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !matches!(seen, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }
}

/// A one-shot signal between a test and its script.
pub(super) fn signal() -> (impl FnOnce() + Send + 'static, impl FnOnce() + Send + 'static) {
    let (send, receive): (_, Receiver<()>) = channel();
    let give = move || send.send(()).unwrap();
    (give, move || receive.recv_timeout(SOON).unwrap())
}
