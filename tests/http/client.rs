//! An HTTP client that sends any bytes, and a server with the page.

use std::io::{Read, Write};

use serde_json::Value;
use socket2::Socket;

use crate::support::server::{Launch, Server};

/// A server with all protocols and the page.
pub(crate) fn launch() -> Launch {
    let launch = Launch::new().listen("message://127.0.0.1:0").listen("glockd://127.0.0.1:0");
    launch.option("--http", "127.0.0.1:0").expecting(1)
}

pub(crate) fn start() -> Server {
    launch().start()
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!((self.status, self.header("content-type")), (200, Some("application/json")), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Reads one response; `None` if the connection ends instead.
pub(crate) fn receive(socket: &mut Socket, has_body: bool) -> Option<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match socket.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ if head.is_empty() => return None,
            other => panic!("half a head: {other:?}, {:?}", String::from_utf8_lossy(&head)),
        }
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").expect("a status line")[..3].parse().unwrap();
    let mut answer = Answer { status, head, body: String::new() };
    let length = answer.header("content-length").expect("a length").parse().unwrap();
    let mut body = vec![0; if has_body { length } else { 0 }];
    socket.read_exact(&mut body).unwrap();
    answer.body = String::from_utf8(body).unwrap();
    Some(answer)
}

pub(crate) fn send(socket: &mut Socket, text: impl AsRef<[u8]>) {
    socket.write_all(text.as_ref()).unwrap();
}

/// Sends these bytes on a new connection, and reads the response.
pub(crate) fn tell(server: &Server, text: impl AsRef<[u8]>) -> Answer {
    let mut socket = server.tcp("http");
    send(&mut socket, text);
    receive(&mut socket, true).expect("an answer")
}

/// Requests a path with these header lines, each ended by a line feed.
pub(crate) fn ask(server: &Server, path: &str, headers: &str) -> Answer {
    let headers = headers.replace('\n', "\r\n");
    tell(server, format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"))
}

pub(crate) fn get(server: &Server, path: &str) -> Answer {
    ask(server, path, "Host: localhost\n")
}
