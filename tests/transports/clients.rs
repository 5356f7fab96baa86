//! Clients over TLS and WebSocket, and assertions about messages of client and server.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use lockd::client::RemoteSession;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::Socket;
use tungstenite::{Message, WebSocket};

use crate::support::server::Server;
use crate::support::socket::Endpoint;
use crate::support::{DEADLINE, eventually};

/// The name that certificates of servers are for.
pub(crate) const HOST: &str = "localhost";
pub(crate) const GOT: &str = "1 Lock Get Success: x\r\n";
pub(crate) const RELEASED: &str = "1 Lock Release Success: x\r\n";

pub(crate) type TlsSocket = StreamOwned<ClientConnection, Socket>;

/// The address at which `protocol`, with this suffix, is served.
pub(crate) fn address(server: &Server, protocol: &str) -> SocketAddr {
    match server.tcp_endpoint(protocol) {
        Endpoint::Tcp(address) => address,
        Endpoint::Unix(_) => unreachable!("it was asked for TCP"),
    }
}

/// The server's address for sessions: over TLS, trusting `ca`, followed by `more`.
pub(crate) fn tls_url(server: &Server, ca: &Path, more: &str) -> String {
    let port = address(server, "message+tls").port();
    format!("tls://{HOST}:{port}?ca={}{more}", ca.display())
}

pub(crate) fn session(url: &str) -> RemoteSession {
    RemoteSession::connect(url, None, DEADLINE).unwrap()
}

/// The error of a connect that must fail.
#[track_caller]
pub(crate) fn refusal(url: &str) -> String {
    match RemoteSession::connect(url, None, DEADLINE) {
        Ok(_) => panic!("there is a session on {url}"),
        Err(error) => error.to_string(),
    }
}

/// A TLS connection; the handshake happens when something is first sent or read.
pub(crate) fn tls_socket(server: &Server, protocol: &str, ca: &Path) -> TlsSocket {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(HOST).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, server.tcp(protocol))
}

/// A client of a text protocol in TLS.
pub(crate) struct TlsLines(pub(crate) BufReader<TlsSocket>);

impl TlsLines {
    pub(crate) fn new(server: &Server, protocol: &str, ca: &Path) -> Self {
        Self(BufReader::new(tls_socket(server, protocol, ca)))
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The next line, with its ending.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    pub(crate) fn ask(&mut self, request: &str) -> String {
        self.send(&format!("{request}\n"));
        self.line()
    }
}

/// A client that speaks glockd in WebSocket.
pub(crate) struct WsLines<S>(pub(crate) WebSocket<S>);

impl WsLines<Socket> {
    pub(crate) fn new(server: &Server) -> Self {
        let address = address(server, "glockd+ws");
        let socket = server.tcp("glockd+ws");
        Self(tungstenite::client(format!("ws://{address}/"), socket).unwrap().0)
    }
}

impl WsLines<TlsSocket> {
    pub(crate) fn new_in_tls(server: &Server, ca: &Path) -> Self {
        let socket = tls_socket(server, "glockd+ws+tls", ca);
        let port = address(server, "glockd+ws+tls").port();
        Self(tungstenite::client(format!("wss://{HOST}:{port}/"), socket).unwrap().0)
    }
}

impl<S: io::Read + io::Write> WsLines<S> {
    /// Sends a frame with exactly this first byte, and a mask of zeros.
    pub(crate) fn send_frame(&mut self, first: u8, payload: &[u8]) {
        let length = 0x80 | u8::try_from(payload.len()).unwrap();
        self.0.get_mut().write_all(&[&[first, length, 0, 0, 0, 0][..], payload].concat()).unwrap();
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    /// The next text message.
    pub(crate) fn line(&mut self) -> String {
        match self.0.read().unwrap() {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("not a text: {other:?}"),
        }
    }

    pub(crate) fn ask(&mut self, request: &str) -> String {
        self.send(request);
        self.line()
    }
}

/// Asserts that the message contains all of these parts.
#[track_caller]
pub(crate) fn assert_has(text: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| text.contains(part)), "{text:?} lacks one of {parts:?}");
}

/// Waits until one line of the server's log contains all of these parts.
#[track_caller]
pub(crate) fn assert_logged(server: &Server, parts: &[&str]) {
    eventually(&format!("a line of the log has {parts:?}"), || {
        server.log().iter().any(|line| parts.iter().all(|part| line.contains(part)))
    });
}
