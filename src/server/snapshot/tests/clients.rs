//! Clients that speak the protocols by hand.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use super::LIMIT;
use crate::server::ListenAddress;

pub(super) struct Client(BufReader<Socket>);

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(into),
            Self::Unix(socket) => socket.read(into),
        }
    }
}

impl Client {
    pub(super) fn connect(address: &ListenAddress) -> Self {
        match address {
            ListenAddress::Tcp(address) => {
                let socket = TcpStream::connect(address).unwrap();
                socket.set_read_timeout(Some(LIMIT)).unwrap();
                Self(BufReader::new(Socket::Tcp(socket)))
            }
            ListenAddress::Unix(path) => {
                let socket = UnixStream::connect(path).unwrap();
                socket.set_read_timeout(Some(LIMIT)).unwrap();
                Self(BufReader::new(Socket::Unix(socket)))
            }
        }
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        match self.0.get_mut() {
            Socket::Tcp(socket) => socket.write_all(bytes.as_ref()).unwrap(),
            Socket::Unix(socket) => socket.write_all(bytes.as_ref()).unwrap(),
        }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub(super) fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    pub(super) fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.line()
    }

    /// A request of `message` as it is sent.
    pub(super) fn framed(body: &str) -> Vec<u8> {
        [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body.as_bytes()].concat()
    }

    pub(super) fn request(&mut self, body: &str) {
        self.send(Self::framed(body));
    }

    pub(super) fn reply(&mut self) -> String {
        let length = u32::from_be_bytes(self.bytes(4).try_into().unwrap());
        String::from_utf8(self.bytes(length as usize)).unwrap()
    }

    pub(super) fn call(&mut self, body: &str) -> String {
        self.request(body);
        self.reply()
    }

    /// Ends this side. What the server sends can still be read.
    pub(super) fn end(&self) {
        match self.0.get_ref() {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write).unwrap(),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Write).unwrap(),
        }
    }

    /// Waits for the end of the connection, and returns what came before.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => rest,
        }
    }

    /// Performs the handshake of WebSocket.
    #[cfg(feature = "websocket")]
    pub(super) fn begin_websocket(&mut self) {
        self.send(
            "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        let mut response = String::new();
        while !response.ends_with("\r\n\r\n") {
            response.push_str(&self.line());
        }
        assert!(response.starts_with("HTTP/1.1 101"), "{response}");
    }
}

/// A frame of WebSocket with a short text, as a client sends it: masked by zeros.
#[cfg(feature = "websocket")]
pub(super) fn text_frame(text: &str) -> Vec<u8> {
    [&[0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0][..], text.as_bytes()].concat()
}
