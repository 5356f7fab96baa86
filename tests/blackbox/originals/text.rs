//! Dialogues in the two text protocols: odd white space and line ends, any number of lines in one
//! write or one line in several, and, for glockd, messages of WebSocket with any number of lines.

use std::io::{Read, Write};

use serde_json::json;
use socket2::Socket;
use tungstenite::{Message, WebSocket};

use super::Random;
use super::text_model::{Model, Original, Reply};
use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::server::{Launch, Server};

/// No name followed by a colon is the beginning of another name, so that a listing is unambiguous.
const NAMES: [&[u8]; 7] =
    [b"a", b"42", b"", b"a long name of several words", b"caf\xc3\xa9", b"x: y", b"[1]"];
const UNUSUAL: [&str; 12] =
    ["", " ", "xx", "G a", "quit", "dumpall", "lock a", "g\ta", "1 ok", "me\tx", "gg", "\t\r"];
const TURNS: usize = 250;

enum Client {
    Lines(Socket),
    Messages(Box<WebSocket<Socket>>),
}

impl Client {
    fn new(server: &Server, protocol: &str, random: &mut Random) -> Self {
        match random.below(3) {
            0 => Self::Lines(server.unix(protocol)),
            1 if protocol == "glockd" => {
                let socket = server.tcp("glockd+ws");
                let (socket, _) = tungstenite::client("ws://localhost/", socket).unwrap();
                Self::Messages(Box::new(socket))
            }
            _ => Self::Lines(server.tcp(protocol)),
        }
    }

    fn socket(&self) -> &Socket {
        match self {
            Self::Lines(socket) => socket,
            Self::Messages(socket) => socket.get_ref(),
        }
    }

    /// Sends all of it, and asserts that these are the replies, in order.
    fn ask(&mut self, random: &mut Random, lines: &[Vec<u8>], expected: &[Reply], place: &str) {
        match self {
            Self::Lines(socket) => {
                let mut bytes = Vec::new();
                for line in lines {
                    bytes.extend_from_slice(line);
                    bytes.extend_from_slice(random.one_of(&["\n", "\r\n", " \n", "\t\r\n"]).as_bytes());
                }
                while !bytes.is_empty() {
                    let count = if random.once_in(4) { 1 + random.below(bytes.len()) } else { bytes.len() };
                    socket.write_all(&bytes[..count]).unwrap();
                    bytes.drain(..count);
                }
                let mut received = vec![0; expected.iter().map(Reply::len).sum()];
                let mut socket = &*socket;
                socket.read_exact(&mut received).expect(place);
                check(&received, lines, expected, place);
            }
            Self::Messages(socket) => {
                let mut rest = lines;
                let mut counts = Vec::new();
                while !rest.is_empty() {
                    let count = if random.once_in(3) { 1 + random.below(rest.len()) } else { 1 };
                    let mut text = rest[..count].join(random.one_of(&[&b"\n"[..], b"\r\n", b" \n"]));
                    // The end of a message also ends its last line.
                    let ends = if rest[count - 1].is_empty() { &["\n"][..] } else { &["\n", "\r\n", ""] };
                    text.extend_from_slice(random.one_of(ends).as_bytes());
                    socket.send(Message::text(String::from_utf8(text).unwrap())).unwrap();
                    counts.push(count);
                    rest = &rest[count..];
                }
                let (mut lines, mut expected) = (lines, expected);
                for count in counts {
                    let received = match socket.read().expect(place) {
                        Message::Text(text) => text.as_bytes().to_vec(),
                        other => panic!("not a text: {other:?}"),
                    };
                    check(&received, &lines[..count], &expected[..count], place);
                    (lines, expected) = (&lines[count..], &expected[count..]);
                }
            }
        }
    }
}

#[track_caller]
fn check(mut received: &[u8], lines: &[Vec<u8>], expected: &[Reply], place: &str) {
    let readable = |bytes: &[u8]| bytes.escape_ascii().to_string();
    for (line, reply) in lines.iter().zip(expected) {
        let (of_it, rest) = received.split_at(reply.len().min(received.len()));
        let wanted = match reply {
            Reply::Exactly(bytes) => bytes.clone(),
            Reply::InAnyOrder { parts, .. } => parts.concat(),
        };
        assert!(
            reply.is(of_it),
            "{place}: to {:?}: {:?} rather than {:?}",
            readable(line),
            readable(received),
            readable(&wanted)
        );
        received = rest;
    }
    assert_eq!(readable(received), "", "{place}: and nothing more");
}

fn line(original: Original, random: &mut Random) -> Vec<u8> {
    if random.once_in(12) {
        return random.one_of(&UNUSUAL).into();
    }
    let name = random.one_of(&NAMES);
    let (command, name): (&str, &[u8]) = match random.below(16) {
        0 if original == Original::Glockd => ("me", b""),
        1 if original == Original::Glockd => ("iam", name),
        2 if original == Original::Glockd => ("who", random.one_of(&[b"", name])),
        3 if original == Original::Glockd => ("d", random.one_of(&[b"", name])),
        4 if original == Original::Glockd => ("sd", random.one_of(&[b"", name])),
        5 if original == Original::Glockd => {
            ("dump", random.one_of(&[b"", b"shared", b"anything", b"shared too"]))
        }
        6 => ("q", random.one_of(&[&b""[..], b"fuller"])),
        _ => (random.one_of(&["g", "g", "r", "i", "sg", "sg", "sr", "si"]), name),
    };
    let blank =
        |random: &mut Random| if random.once_in(4) { random.one_of(&["  ", " \t ", "\t "]) } else { "" };
    let mut line = [blank(random).as_bytes(), command.as_bytes()].concat();
    for word in name.split(|&byte| byte == b' ') {
        line.push(b' ');
        line.extend_from_slice(blank(random).as_bytes());
        line.extend_from_slice(word);
    }
    line.extend_from_slice(blank(random).as_bytes());
    line
}

struct Dialogue {
    server: Server,
    original: Original,
    random: Random,
    model: Model,
    clients: Vec<(usize, Client)>,
    came: usize,
    came_by_unix: usize,
    observer: FrameClient,
}

impl Dialogue {
    fn new(original: Original, seed: u64) -> Self {
        let server = Launch::everywhere().listen("glockd+ws://127.0.0.1:0").start();
        let (observer, random) = (server.message(), Random(seed));
        let model = Model::new(original, server.pid(), 1);
        Self { server, original, random, model, clients: Vec::new(), came: 0, came_by_unix: 0, observer }
    }

    fn connect(&mut self) {
        let protocol = if self.original == Original::Lockd { "lockd" } else { "glockd" };
        let client = Client::new(&self.server, protocol, &mut self.random);
        self.came += 1;
        // The next one connects after this one has been accepted.
        let expected = self.clients.len() + 2;
        eventually("it is connected", || {
            self.observer.call("stats", json!({}))["sessions"] == json!(expected)
        });
        let address = match client.socket().local_addr().unwrap().as_socket() {
            Some(address) => address.to_string(),
            None => {
                self.came_by_unix += 1;
                format!("unix:{}", self.came_by_unix)
            }
        };
        self.model.connect(self.came, address);
        self.clients.push((self.came, client));
    }

    fn disconnect(&mut self) {
        let at = self.random.below(self.clients.len());
        let (who, client) = self.clients.swap_remove(at);
        drop(client);
        self.model.disconnect(who);
        let expected = self.clients.len() + 1;
        eventually("it has gone", || {
            self.observer.call("stats", json!({}))["connections"] == json!(expected)
        });
    }

    fn turn(&mut self, place: &str) {
        if self.clients.len() < 2 || self.clients.len() < 5 && self.random.once_in(10) {
            self.connect();
        } else if self.random.once_in(25) {
            self.disconnect();
        }
        let at = self.random.below(self.clients.len());
        let (who, client) = &mut self.clients[at];
        let mut lines: Vec<_> =
            (0..=self.random.below(10)).map(|_| line(self.original, &mut self.random)).collect();
        // The last one has a reply, so all of them have been handled when the next client sends its
        // request.
        lines.push(b"i 42".to_vec());
        let expected: Vec<_> = lines.iter().map(|line| self.model.answer(*who, line)).collect();
        client.ask(&mut self.random, &lines, &expected, place);
    }
}

fn converse(original: Original, seeds: [u64; 3]) {
    for seed in seeds {
        let mut dialogue = Dialogue::new(original, seed);
        for turn in 0..TURNS {
            dialogue.turn(&format!("seed {seed}, turn {turn}"));
        }
    }
}

#[test]
fn lockd_answers_as_the_original() {
    converse(Original::Lockd, [1, 2, 3]);
}

#[test]
fn glockd_answers_as_the_original() {
    converse(Original::Glockd, [4, 5, 6]);
}
