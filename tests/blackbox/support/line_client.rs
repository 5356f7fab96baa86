//! A client of the two text protocols.

use std::io::{BufRead, BufReader, ErrorKind, Write};

use socket2::Socket;

use super::socket::read_to_end;

/// Sends lines and reads lines. Replies include their line ending, because that is part of
/// the protocol.
pub(crate) struct LineClient {
    reader: BufReader<Socket>,
}

/// A request that both text protocols answer with one known line, while no client locks that
/// name. Everything received before that line belongs to earlier requests.
const END: &str = "i the end";
const ENDS: [&str; 2] = ["0 Not Locked\r\n", "0 Lock Not Locked: the end\r\n"];

impl LineClient {
    pub(crate) fn new(socket: Socket) -> Self {
        LineClient { reader: BufReader::new(socket) }
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
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// The next line, with its ending.
    pub(crate) fn line_bytes(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => line,
            Ok(_) => panic!("the server ended the connection, after {:?}", line.escape_ascii().to_string()),
            Err(error) => panic!("no line: {error}, after {:?}", line.escape_ascii().to_string()),
        }
    }

    /// The next line, with its ending.
    pub(crate) fn line(&mut self) -> String {
        String::from_utf8(self.line_bytes()).unwrap()
    }

    /// The next line, or nothing if the server ends the connection.
    pub(crate) fn read_line_or_end(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("neither a line nor an end: {error}"),
        }
    }

    /// Sends one line and reads one.
    pub(crate) fn ask(&mut self, request: &str) -> String {
        self.send(format!("{request}\n"));
        self.line()
    }

    /// Sends one line and reads all lines of its reply; there may be none.
    pub(crate) fn ask_all(&mut self, request: &str) -> Vec<String> {
        self.send(format!("{request}\n{END}\n"));
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            if ENDS.contains(&line.as_str()) {
                return lines;
            }
            lines.push(line);
        }
    }

    /// The same, sorted, for replies that come in no particular order.
    pub(crate) fn ask_all_sorted(&mut self, request: &str) -> Vec<String> {
        let mut lines = self.ask_all(request);
        lines.sort();
        lines
    }

    /// Everything the server sends until it ends the connection.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        read_to_end(&mut self.reader)
    }
}
