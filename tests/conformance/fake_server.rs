//! A server that lies: it speaks `message`, and answers rightly, except to requests for names that
//! begin with `lie`. Those it answers as the trial says.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::SockRef;

use crate::driver::HANG;
use crate::support::frame_client::frame;
use crate::transcript::Transcript;
use crate::verdict::{Verdict, ensure};

const POLL: Duration = Duration::from_millis(20);

/// What it does instead of a right answer, step by step.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends a message. A value of `"ID"` is replaced by the id of the request.
    Message(Value),
    /// Sends bytes as one frame.
    Frame(Vec<u8>),
    /// Sends bytes as they are.
    Bytes(Vec<u8>),
    /// Sends the beginning of a right answer.
    Half,
    /// Ends the stream. What was sent before may come in the same packet.
    Fin,
    Reset,
    /// Answers nothing any more, to no request.
    FallSilent,
    /// Keeps the next message back until the next request has been answered.
    After(Value),
}

pub(crate) type Lie = Vec<Step>;

pub(crate) struct FakeServer {
    url: String,
    /// How many lies were told.
    told: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

/// What the threads of a server share.
struct Rules {
    lies: Mutex<VecDeque<Lie>>,
    told: Arc<AtomicU64>,
    token: AtomicU64,
    is_over: Arc<AtomicBool>,
    transcript: Transcript,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl FakeServer {
    /// It tells the same lie again and again.
    pub(crate) fn start(host: &str, lie: Lie, transcript: &Transcript) -> Self {
        Self::with_lies(host, vec![lie], transcript)
    }

    /// Each of these lies is told once, and the last one again and again.
    pub(crate) fn with_lies(host: &str, lies: Vec<Lie>, transcript: &Transcript) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("a free port");
        let url = format!("tcp://{}", listener.local_addr().expect("it is bound"));
        transcript.add(format!("a server that lies runs at {url}: {lies:?}"));
        let told = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let rules = Arc::new(Rules {
            lies: Mutex::new(lies.into()),
            told: told.clone(),
            token: AtomicU64::new(1000),
            is_over: is_over.clone(),
            transcript: transcript.clone(),
            threads: Mutex::default(),
        });
        let thread = thread::spawn(move || accept(&listener, &rules));
        Self { url, told, is_over, listener: Some(thread) }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits until a lie was asked for.
    pub(crate) fn until_asked(&self) -> Verdict {
        let end = Instant::now() + HANG;
        while self.told.load(Ordering::Relaxed) == 0 {
            ensure(Instant::now() < end, || "the client does not ask for the lock".to_owned())?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Rules {
    fn next_lie(&self) -> Lie {
        let mut lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
        let next = if lies.len() > 1 { lies.pop_front() } else { lies.front().cloned() };
        next.unwrap_or_default()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn accept(listener: &TcpListener, rules: &Arc<Rules>) {
    listener.set_nonblocking(true).expect("a socket");
    while !rules.is_over.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        let of_connection = rules.clone();
        let thread = thread::spawn(move || {
            // It fails when the client ends the connection.
            let _ = Connection { stream, is_silent: false, kept_back: None, rules: of_connection }.serve();
        });
        rules.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }
    let threads = std::mem::take(&mut *rules.threads.lock().unwrap_or_else(PoisonError::into_inner));
    for thread in threads {
        let _ = thread.join();
    }
}

struct Connection {
    stream: TcpStream,
    is_silent: bool,
    kept_back: Option<Value>,
    rules: Arc<Rules>,
}

impl Connection {
    fn serve(&mut self) -> std::io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_nodelay(true)?;
        self.stream.set_read_timeout(Some(POLL))?;
        loop {
            let mut header = [0; 4];
            self.read(&mut header)?;
            let mut body = vec![0; usize::try_from(u32::from_be_bytes(header)).unwrap_or_default()];
            self.read(&mut body)?;
            let text = String::from_utf8_lossy(&body).into_owned();
            self.rules.transcript.add(format!("        fake server < {text}"));
            let request: Value = serde_json::from_slice(&body).unwrap_or_default();
            if !self.is_silent {
                self.answer(&request)?;
            }
        }
    }

    /// Fills the buffer, unless the server is over.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => filled += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.rules.is_over.load(Ordering::Relaxed) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn answer(&mut self, request: &Value) -> std::io::Result<()> {
        if name_of(request).is_some_and(|name| name.starts_with("lie")) {
            return self.lie(request);
        }
        match self.right_answer(request) {
            Some(answer) => self.send(&answer)?,
            None => return self.stream.shutdown(Shutdown::Both),
        }
        match self.kept_back.take() {
            Some(answer) => self.send(&answer),
            None => Ok(()),
        }
    }

    fn lie(&mut self, request: &Value) -> std::io::Result<()> {
        let lie = self.rules.next_lie();
        self.rules.told.fetch_add(1, Ordering::Relaxed);
        // So that an end of the stream comes together with what was sent before.
        let ends = lie.iter().any(|step| matches!(step, Step::Fin));
        SockRef::from(&self.stream).set_tcp_cork(ends)?;
        for step in lie {
            match step {
                Step::Message(message) => self.send(&with_id(&message, &request["id"]))?,
                Step::Frame(bytes) => self.stream.write_all(&frame(bytes))?,
                Step::Bytes(bytes) => self.stream.write_all(&bytes)?,
                Step::Half => {
                    let answer = self.right_answer(request).unwrap_or_default();
                    let bytes = frame(answer.to_string());
                    self.stream.write_all(&bytes[..bytes.len() / 2])?;
                }
                Step::Fin => self.stream.shutdown(Shutdown::Write)?,
                Step::Reset => {
                    SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
                    return Err(ErrorKind::ConnectionReset.into());
                }
                Step::FallSilent => self.is_silent = true,
                Step::After(message) => self.kept_back = Some(with_id(&message, &request["id"])),
            }
        }
        Ok(())
    }

    fn send(&mut self, message: &Value) -> std::io::Result<()> {
        self.rules.transcript.add(format!("        fake server > {message}"));
        self.stream.write_all(&frame(message.to_string()))
    }

    fn right_answer(&self, request: &Value) -> Option<Value> {
        right_answer(request, self.rules.token.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a server answers to a client for which everything is free, with this token; `None` after a
/// `bye`.
pub(crate) fn right_answer(request: &Value, token: u64) -> Option<Value> {
    let result = match request["command"].as_str().unwrap_or_default() {
        "lock" | "convert" => json!({"status": "ok", "token": token}),
        "unlock" if request.get("id").is_none() || request.get("lockName").is_some() => {
            return Some(json!({"attempted": "unlock", "result": "ok", "lockName": request["lockName"]}));
        }
        "inspect" => json!({"status": "ok", "mode": null, "holders": 0, "waiters": 0}),
        "hello" => hello(),
        "cancel" => json!({"status": "notFound"}),
        "bye" => return None,
        _ => json!({"status": "ok"}),
    };
    Some(json!({"id": request["id"], "result": result}))
}

/// What a server of this version says of itself.
pub(crate) fn hello() -> Value {
    let features = [
        "bye",
        "cancel",
        "convert",
        "deadlock",
        "limit",
        "list",
        "lockNames",
        "mode",
        "orphaned",
        "session",
        "timeLimit",
        "token",
        "waiting",
        "windDown",
    ];
    let keepalive = json!({"idle": 2, "interval": 1, "probes": 2, "userTimeout": 4, "deadPeerTimeout": 12});
    json!({"status": "ok", "server": "lockd", "version": "0.1.0", "features": features, "keepalive": keepalive})
}

/// The name, or the first of the names, in a request.
pub(crate) fn name_of(request: &Value) -> Option<String> {
    let of = |value: &Value| {
        let digits = value["lockNameHex"].as_str();
        let bytes = digits.map(|digits| {
            let byte = |place| u8::from_str_radix(digits.get(place..place + 2).unwrap_or_default(), 16);
            (0..digits.len()).step_by(2).filter_map(|place| byte(place).ok()).collect::<Vec<_>>()
        });
        let name = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        name.or_else(|| value["lockName"].as_str().map(str::to_owned))
    };
    let parameters = &request["parameters"];
    let first = &parameters["lockNames"][0];
    of(parameters).or_else(|| of(request)).or_else(|| of(first)).or_else(|| first.as_str().map(str::to_owned))
}

/// The message, with the id of the request where it says `"ID"`.
fn with_id(message: &Value, id: &Value) -> Value {
    let mut message = message.clone();
    if message["id"] == "ID" {
        message["id"] = id.clone();
    }
    message
}
