//! A server that follows a script: after each request it does what the next bytes of the script
//! say, and notes the grants that it sends. It answers every request or closes the connection, so
//! that no call waits in vain.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::grant_in;

/// A grant that was sent for the request with this id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) id: u64,
    pub(crate) token: u64,
}

/// The requests and grants on the connection of one input.
#[derive(Default)]
struct Record {
    /// The command and the names of each request, by its id.
    asked: BTreeMap<u64, (String, Vec<Vec<u8>>)>,
    granted: Vec<Granted>,
}

pub(crate) struct Server {
    url: String,
    record: Arc<Mutex<Record>>,
    scripts: Sender<Vec<u8>>,
    finished: Mutex<Receiver<()>>,
}

impl Server {
    /// Starts a thread that serves one connection for each script.
    pub(crate) fn start() -> Self {
        let path = std::env::temp_dir().join(format!("lockd-fuzz-answers-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket in the temporary directory");
        let record: Arc<Mutex<Record>> = Arc::default();
        let ((scripts, to_play), (tell, finished)) = (channel::<Vec<u8>>(), channel());
        let noted = record.clone();
        std::thread::spawn(move || {
            for script in to_play {
                let (stream, _) = listener.accept().expect("a client");
                Play { stream, script: &script, record: &noted, received: Vec::new(), sent: Vec::new() }
                    .run();
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        let path: PathBuf = path;
        Self { url: format!("unix:{}", path.display()), record, scripts, finished: Mutex::new(finished) }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn begin(&self, script: &[u8]) {
        *self.record.lock().expect("no panic") = Record::default();
        self.scripts.send(script.to_vec()).expect("the server runs");
    }

    /// Waits until the server's side of the connection has ended.
    pub(crate) fn finish(&self) {
        self.finished.lock().expect("no panic").recv().expect("the server runs");
    }

    /// Whether a grant of `name` with this token was sent for a request of this kind. A script may
    /// answer a request before the server has read it, or even before the client has made it. Then
    /// only its id is known, and any kind and name is accepted.
    pub(crate) fn has_sent_grant(&self, command: &str, name: &[u8], token: u64) -> bool {
        let record = self.record.lock().expect("no panic");
        record.granted.iter().filter(|granted| granted.token == token).any(|granted| {
            let asked = record.asked.get(&granted.id);
            asked.is_none_or(|(asked, names)| asked == command && names.iter().any(|other| other == name))
        })
    }
}

/// One connection.
struct Play<'a> {
    stream: UnixStream,
    script: &'a [u8],
    record: &'a Mutex<Record>,
    received: Vec<u8>,
    sent: Vec<u8>,
}

impl Play<'_> {
    fn run(mut self) {
        while let Some(request) = self.request() {
            let id = request["id"].as_u64().unwrap_or_default();
            let command = request["command"].as_str().unwrap_or_default().to_owned();
            let names = names_of(&request["parameters"]);
            self.record.lock().expect("no panic").asked.insert(id, (command.clone(), names));
            if !self.answer(id, &command) {
                break;
            }
        }
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.script.split_first() else { return 0 };
        self.script = rest;
        *first
    }

    /// Answers a request as the script says. False if the connection must be closed.
    fn answer(&mut self, id: u64, command: &str) -> bool {
        let token = u64::from(self.byte());
        let right = match command {
            "hello" => json!({"id": id, "result": hello()}),
            "lock" | "convert" => json!({"id": id, "result": {"status": "ok", "token": token + 1}}),
            _ => json!({"id": id, "result": {"status": "ok", "result": "ok", "locks": [], "holders": 0}}),
        };
        let other = json!({"id": u64::from(self.byte()), "result": {"status": "ok", "token": token + 1}});
        match self.byte() % 16 {
            // A reply with another id, then the correct one.
            1 => self.say(&other) && self.say(&right),
            2 => self.say(&right) && self.say(&right),
            // A refusal.
            3 => {
                let statuses =
                    ["timeout", "deadlock", "refused", "cancelled", "invalid", "notfound", "queued", "?"];
                let status = statuses[usize::from(self.byte()) % statuses.len()];
                self.say(
                    &json!({"id": id, "result": {"status": status, "reason": "x", "circle": ["a", "b"]}}),
                )
            }
            4 => self.say(&json!({"id": id, "error": "no"})),
            5 => self.say(&json!({"error": "what?"})) && self.say(&right),
            // The correct reply with a part replaced by bytes of the script, then the end: the
            // result may not be a reply.
            6 | 7 => {
                let mut body = right.to_string().into_bytes();
                let at = usize::from(self.byte()) % body.len();
                let count = usize::from(self.byte() % 9).min(self.script.len());
                let (put, rest) = self.script.split_at(count);
                body.splice(at..(at + count).min(body.len()), put.iter().copied());
                self.script = rest;
                let _ = self.send(&framed(&body));
                false
            }
            // The rest of the script as a message.
            8 => {
                let body = std::mem::take(&mut self.script);
                let _ = self.send(&framed(body));
                false
            }
            // The rest of the script as it is.
            9 => {
                let bytes = std::mem::take(&mut self.script);
                let _ = self.send(bytes);
                false
            }
            // The correct reply, then the end.
            10 => {
                let _ = self.say(&right);
                false
            }
            11 => false,
            // Granted without a token (12), or as a lock that was held before (13).
            12 => self.say(&json!({"id": id, "result": {"status": "ok"}})),
            13 => {
                self.say(&json!({"id": id, "result": {"status": "ok", "token": token + 1, "already": true}}))
            }
            14 => {
                let bytes = framed(right.to_string().as_bytes());
                bytes.chunks(3).all(|piece| self.send(piece))
            }
            _ => self.say(&right),
        }
    }

    fn say(&mut self, body: &Value) -> bool {
        self.send(&framed(body.to_string().as_bytes()))
    }

    /// Sends bytes, after noting the grants in them.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.sent.extend_from_slice(bytes);
        while let Some(body) = take_frame(&mut self.sent) {
            if let Some(granted) = serde_json::from_slice(&body).ok().as_ref().and_then(grant_in) {
                self.record.lock().expect("no panic").granted.push(granted);
            }
        }
        self.stream.write_all(bytes).is_ok()
    }

    /// The next request; `None` if the client has disconnected.
    fn request(&mut self) -> Option<Value> {
        loop {
            if let Some(body) = take_frame(&mut self.received) {
                return Some(serde_json::from_slice(&body).expect("the client sends JSON"));
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.received.extend_from_slice(&chunk[..read]),
            }
        }
    }
}

fn hello() -> Value {
    let keepalive = json!({"idle": 10, "interval": 5, "probes": 3, "userTimeout": 25, "deadPeerTimeout": 25});
    json!({"status": "ok", "server": "lockd", "version": "0", "features": ["limit"], "keepalive": keepalive})
}

fn names_of(parameters: &Value) -> Vec<Vec<u8>> {
    let one = parameters.get("lockName").into_iter();
    let several = parameters.get("lockNames").and_then(Value::as_array).into_iter().flatten();
    one.chain(several).filter_map(Value::as_str).map(|name| name.as_bytes().to_vec()).collect()
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a short body");
    [&length.to_be_bytes()[..], body].concat()
}

fn take_frame(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (header, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*header)).ok()?;
    let body = rest.get(..length)?.to_vec();
    bytes.drain(..4 + length);
    Some(body)
}
