//! Dialogues in the original's part of `message`: parts that are absent or of the wrong type, keys
//! that occur twice, ids and names of any kind, waits and the ways to give them up.

use serde_json::json;

use super::Random;
use super::message_model::{Malformed, Model, Request};
use crate::support::eventually;
use crate::support::frame_client::{FrameClient, frame};
use crate::support::server::Server;

/// Names as they are written, and the lock names that they mean.
const NAMES: [(&str, &str); 8] = [
    ("42", "42"),
    ("\"42\"", "42"),
    ("4.20", "4.20"),
    ("\"a\"", "a"),
    ("\"b\"", "b"),
    ("\"\"", ""),
    ("\"two  words\"", "two  words"),
    ("\"caf\u{e9}\"", "caf\u{e9}"),
];
const IDS: [&str; 9] =
    ["0", "1", "-7", "1.50", "1e2", "\"seven\"", "\"\"", "18446744073709551616", "\"a\\u00e4\\n\""];
const NO_IDS: [&str; 5] = ["null", "true", "false", "[1]", "{\"a\":1}"];
const NO_NAMES: [&str; 5] = ["null", "true", "false", "[\"a\"]", "{\"lockName\":\"a\"}"];
const TURNS: usize = 400;

/// A message and its meaning for the model.
fn request(random: &mut Random, model: &Model, who: usize) -> (String, Request) {
    let (written, name) = random.one_of(&NAMES);
    let (id_text, id) = match random.below(8) {
        0 => (String::new(), None),
        1 => (format!(",\"id\":{}", random.one_of(&NO_IDS)), None),
        // If a key occurs twice, the last one counts.
        2 => (",\"id\":77,\"id\":0".to_owned(), Some("0")),
        _ => {
            let id = random.one_of(&IDS);
            (format!(",\"id\":{id}"), Some(id))
        }
    };
    match random.below(20) {
        0 => (format!(r#"{{"command":"lock"{id_text}}}"#), lock(id, Err(Malformed::NoParameters))),
        1 => (
            format!(r#"{{"command":"lock"{id_text},"parameters":null}}"#),
            lock(id, Err(Malformed::NoParameters)),
        ),
        2 => {
            let parameters = random.one_of(&["{}", "[]", "[1]", "\"a\"", "7", "{\"lockname\":\"a\"}"]);
            let text = format!(r#"{{"command":"lock"{id_text},"parameters":{parameters}}}"#);
            (text, lock(id, Err(Malformed::NoName)))
        }
        3 => {
            let no_name = random.one_of(&NO_NAMES);
            let text = format!(r#"{{"command":"lock"{id_text},"parameters":{{"lockName":{no_name}}}}}"#);
            (text, lock(id, Err(Malformed::NoName)))
        }
        4 => (
            format!(r#"{{"command":"fly"{id_text},"parameters":{{"lockName":"a"}}}}"#),
            Request::Unknown { id },
        ),
        5 => {
            let command = random.one_of(&["null", "1", "[\"lock\"]", "{}"]);
            let text = format!(r#"{{"command":{command}{id_text},"parameters":{{"lockName":"a"}}}}"#);
            (text, Request::Nothing)
        }
        6 => (random.one_of(&["{}", "{\"id\":1}", "{\"lockName\":\"a\"}"]).to_owned(), Request::Nothing),
        7 => (
            random.one_of(&["", "7", "[]", "{\"command\":\"lock\"", "\"lock\""]).to_owned(),
            Request::NoMessage,
        ),
        8 => {
            let nothing = [
                r#"{"command":"unlock"}"#,
                r#"{"command":"unlock","lockName":null}"#,
                r#"{"command":"unlock","lockName":true}"#,
                r#"{"command":"unlock","lockName":["a"],"parameters":{"lockName":"a"},"id":1}"#,
            ];
            (random.one_of(&nothing).to_owned(), Request::UnlockOfNothing)
        }
        9..14 => {
            let more = random.one_of(&[
                "",
                "",
                ",\"id\":5",
                ",\"parameters\":{}",
                ",\"parameters\":{\"lockName\":\"b\"}",
                ",\"parameters\":[],\"id\":\"x\"",
                ",\"lockNames\":null",
            ]);
            let text = format!(r#"{{"lockName": {written} {more},"command":"unlock"}}"#);
            (text, Request::Unlock { written, name })
        }
        // It is not known what the original does with a second request for a name that the
        // connection waits for.
        _ if id.is_some() && model.waits_for(who, name) => {
            (format!(r#"{{"command":"unlock","lockName":{written}}}"#), Request::Unlock { written, name })
        }
        _ => {
            let more = random.one_of(&["", "\"lockName\":\"b\",", "\"more\":[{}],"]);
            let text =
                format!(r#"{{"command":"lock","parameters":{{{more}"lockName":{written}}}{id_text}}}"#);
            (text, lock(id, Ok(name)))
        }
    }
}

fn lock(id: Option<&'static str>, name: Result<&'static str, Malformed>) -> Request {
    Request::Lock { id, name }
}

struct Dialogue {
    server: Server,
    random: Random,
    model: Model,
    clients: Vec<(usize, FrameClient)>,
    came: usize,
    observer: FrameClient,
}

impl Dialogue {
    fn new(seed: u64) -> Self {
        let server = Server::start();
        let observer = server.message();
        Self { server, random: Random(seed), model: Model::default(), clients: Vec::new(), came: 0, observer }
    }

    fn connect(&mut self) {
        self.came += 1;
        let by_unix = self.random.once_in(3);
        let socket = if by_unix { self.server.unix("message") } else { self.server.tcp("message") };
        let mut client = FrameClient::new(socket);
        // From now on it is counted.
        assert!(client.is_served());
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
        // The order in which its locks go to others is not defined.
        for (who, client) in &mut self.clients {
            let mut due: Vec<_> = self.model.due.remove(who).unwrap_or_default().into();
            while !due.is_empty() {
                let reply = client.receive_text();
                let found = due.iter().position(|beginning| reply.starts_with(beginning));
                due.remove(found.unwrap_or_else(|| panic!("{reply} is none of {due:?}")));
            }
        }
    }

    fn turn(&mut self, place: &str) {
        if self.clients.len() < 2 || self.clients.len() < 6 && self.random.once_in(10) {
            self.connect();
        } else if self.random.once_in(25) {
            self.disconnect();
        }
        let at = self.random.below(self.clients.len());
        let (who, client) = &mut self.clients[at];
        let (mut bytes, mut asked) = (Vec::new(), Vec::new());
        for _ in 0..=self.random.below(6) {
            let (text, request) = request(&mut self.random, &self.model, *who);
            self.model.handle(*who, &request);
            bytes.extend(frame(&text));
            asked.push(text);
        }
        // The last one has a reply, so all of them have been handled when the next client sends its
        // request.
        bytes.extend(frame(r#"{"command":"the end","parameters":{},"id":"the end"}"#));
        self.model.handle(*who, &Request::Unknown { id: Some("\"the end\"") });
        while !bytes.is_empty() {
            let count = if self.random.once_in(4) { 1 + self.random.below(bytes.len()) } else { bytes.len() };
            client.send_bytes(&bytes[..count]);
            bytes.drain(..count);
        }
        for (who, client) in &mut self.clients {
            while let Some(beginning) = self.model.due.get_mut(who).and_then(|due| due.pop_front()) {
                let reply = client.receive_text();
                assert!(
                    reply.starts_with(&beginning),
                    "{place}: {asked:#?}: {reply} rather than {beginning}"
                );
            }
        }
    }

    /// Asserts that no client received more than it should have.
    fn end(mut self) {
        for (_, client) in &mut self.clients {
            client.send_text(r#"{"command":"the end","id":"the end","parameters":{}}"#);
            assert!(client.receive_text().starts_with(r#"{"id":"the end","#));
        }
    }
}

#[test]
fn message_answers_as_the_original() {
    for seed in [7, 8, 9] {
        let mut dialogue = Dialogue::new(seed);
        for turn in 0..TURNS {
            dialogue.turn(&format!("seed {seed}, turn {turn}"));
        }
        dialogue.end();
    }
}
