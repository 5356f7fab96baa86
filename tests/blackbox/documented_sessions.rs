//! Plays the example sessions of the two text protocols in docs/protocol.md line by line against
//! the server: a client receives what the document says. Addresses, tokens and process ids may
//! differ.

use crate::support::eventually;
use crate::support::line_client::LineClient;
use crate::support::server::Server;

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// The lines of the block under "A session" in the section that begins with this heading.
fn session(heading: &str) -> impl Iterator<Item = &'static str> {
    let (_, section) = DOCUMENT.split_once(heading).unwrap();
    let (_, block) = section.split_once("### A session\n\n```\n").unwrap();
    block.split("\n```").next().unwrap().lines()
}

/// The bytes that a line of the document means: up to the `\n` that is written out, without a
/// remark after it.
fn bytes(text: &str) -> String {
    let end = text.find("\\n").expect(text) + 2;
    text[..end].replace("\\t", "\t").replace("\\r", "\r").replace("\\n", "\n")
}

/// The text with a `#` in place of each number that may differ: a port, a token, a process id.
fn comparable(text: &str) -> String {
    let shortest = if text.contains("[pid]") { 1 } else { 4 };
    let mut compared = String::new();
    let mut digits = String::new();
    for character in text.chars() {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        compared.push_str(if digits.len() >= shortest { "#" } else { &digits });
        digits.clear();
        compared.push(character);
    }
    compared
}

/// Plays a session of the clients A and B, which connect by `connect`; `is_free` tells whether
/// `report` is free.
fn play(heading: &str, connect: impl Fn() -> LineClient, is_free: impl Fn(&mut LineClient) -> bool) {
    let (mut a, mut b) = (Some(connect()), connect());
    let mut lines = session(heading).peekable();
    while let Some(line) = lines.next() {
        if line == "   (A closes its connection)" {
            drop(a.take());
            let mut other = connect();
            eventually("the locks of A are free", || is_free(&mut other));
            continue;
        }
        let (start, text) = line.split_at(3);
        let client = if start.starts_with('A') { a.as_mut().unwrap() } else { &mut b };
        if start.ends_with("> ") {
            client.send(bytes(text));
            continue;
        }
        let mut expected = vec![comparable(&bytes(text))];
        while let Some(next) = lines.next_if(|next| next.starts_with(start)) {
            expected.push(comparable(&bytes(&next[3..])));
        }
        let mut received: Vec<String> = expected.iter().map(|_| comparable(&client.line())).collect();
        if expected[0] == "Array\n" {
            // The locks in it come in any order.
            expected.sort();
            received.sort();
        }
        assert_eq!(received, expected, "at {line}");
    }
}

#[test]
fn the_session_of_lockd_is_as_documented() {
    let server = Server::start();
    play("## 2. `lockd`", || server.lockd(), |client| client.ask("i report") == "0 Not Locked\r\n");
}

#[test]
fn the_session_of_glockd_is_as_documented() {
    let server = Server::start();
    play("## 3. `glockd`", || server.glockd(), |client| client.ask("i report").starts_with("0 "));
}
