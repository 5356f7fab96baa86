//! A server whose sessions can resume, under control: it ends connections when it is told to, answers
//! `resume` as the trial says, and leaves out the answers that it is told to leave out. All else it
//! answers rightly. It records every request, and how the client has ended each connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::SockRef;

use crate::driver::HANG;
use crate::fake_server::{hello, name_of, right_answer};
use crate::relay::End;
use crate::support::frame_client::frame;
use crate::transcript::Transcript;
use crate::verdict::{Failure, Verdict, ensure};

const POLL: Duration = Duration::from_millis(10);

/// What it answers to a `resume`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToResume {
    Resumed,
    Ended,
    /// As a server does that is older.
    Unknown,
    Invalid,
    Refused,
    /// It has no room for the connection.
    NoRoom,
    Garbage,
    Fin,
    Reset,
    Nothing,
}

impl ToResume {
    fn is_verdict(self) -> bool {
        matches!(self, Self::Resumed | Self::Ended | Self::Unknown | Self::Invalid)
    }
}

/// What the server knows of one connection.
#[derive(Default)]
struct Seen {
    requests: Vec<Value>,
    /// How the client has ended it, and whether it knew by then what has become of its session.
    end: Option<(End, bool)>,
    /// What its thread is to do to it.
    order: Option<End>,
    /// Requests whose answers were left out.
    unanswered: Vec<Value>,
    to_send: VecDeque<Value>,
}

impl Seen {
    fn count(&self, command: &str) -> usize {
        self.requests.iter().filter(|request| request["command"] == command).count()
    }
}

struct State {
    offers_resume: bool,
    withheld: BTreeSet<String>,
    /// The answers to the next `resume`; the last one stays.
    plan: VecDeque<ToResume>,
    epoch: u64,
    has_verdict: bool,
    connections: Vec<Seen>,
    next_token: u64,
    /// By name, as last granted.
    tokens: BTreeMap<String, u64>,
    is_over: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    transcript: Transcript,
}

pub(crate) struct ResumingServer {
    url: String,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResumingServer {
    pub(crate) fn start(host: &str, transcript: &Transcript) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("a free port");
        let url = format!("tcp://{}?resume", listener.local_addr().expect("it is bound"));
        transcript.add(format!("a server whose sessions can resume runs at {url}"));
        let state = State {
            offers_resume: true,
            withheld: BTreeSet::new(),
            plan: VecDeque::from([ToResume::Refused]),
            epoch: 7,
            has_verdict: false,
            connections: Vec::new(),
            next_token: 1000,
            tokens: BTreeMap::new(),
            is_over: false,
        };
        let transcript = transcript.clone();
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), transcript });
        let of_listener = shared.clone();
        let thread = thread::spawn(move || accept(&listener, &of_listener));
        Self { url, shared, listener: Some(thread) }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// It answers `hello` as a server without a state directory.
    pub(crate) fn offer_nothing(&self) {
        self.shared.state().offers_resume = false;
    }

    /// From now on the next `resume` is answered by the first of these, and so on; the last one
    /// answers all further ones.
    pub(crate) fn answer_resume(&self, plan: &[ToResume]) {
        self.shared.transcript.add(format!("        the server will answer resume by {plan:?}"));
        let mut state = self.shared.state();
        state.plan = plan.iter().copied().collect();
        state.has_verdict = false;
    }

    /// From now on these commands are not answered.
    pub(crate) fn withhold(&self, commands: &[&str]) {
        self.shared.transcript.add(format!("        the server does not answer {commands:?}"));
        self.shared.state().withheld = commands.iter().map(|&command| command.to_owned()).collect();
    }

    /// Ends the latest connection, and returns when that is done.
    pub(crate) fn end_connection(&self, end: End) -> Verdict {
        self.shared.transcript.add(format!("        the server ends the connection: {end:?}"));
        let place = self.connections() - 1;
        self.shared.state().connections[place].order = Some(end);
        self.until("the server has ended the connection", |state| state.connections[place].order.is_none())
    }

    /// Answers every `resume` by `ok` that was not answered so far, and returns when that is sent.
    pub(crate) fn answer_resume_late(&self) -> Verdict {
        self.shared.transcript.add("        the server sends the answers to resume that it left out");
        let mut state = self.shared.state();
        let State { connections, epoch, .. } = &mut *state;
        for connection in connections {
            for request in std::mem::take(&mut connection.unanswered) {
                if request["command"] == "resume" {
                    connection.to_send.push_back(resumed(&request, *epoch));
                }
            }
        }
        drop(state);
        self.until("the late answers are sent", |state| {
            let is_done = |connection: &Seen| connection.to_send.is_empty() || connection.end.is_some();
            state.connections.iter().all(is_done)
        })
    }

    /// Whether a client waits for the answer to a `resume`.
    pub(crate) fn leaves_resume_unanswered(&self) -> bool {
        let state = self.shared.state();
        state
            .connections
            .iter()
            .any(|connection| connection.end.is_none() && !connection.unanswered.is_empty())
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state().connections.len()
    }

    /// How the client has ended the connection with this number; `None`: it has not.
    pub(crate) fn end_of(&self, connection: usize) -> Option<End> {
        self.shared.state().connections[connection].end.map(|(end, _)| end)
    }

    pub(crate) fn until_ended(&self, connection: usize, by: End) -> Verdict {
        let ended =
            self.until("the client ends its connection", |state| state.connections[connection].end.is_some());
        ended.and_then(|()| {
            let end = self.end_of(connection);
            ensure(end == Some(by), || {
                format!("connection {connection} was ended by {end:?}, and must be by {by:?}")
            })
        })
    }

    /// While the client was in doubt, it has ended no connection but by a reset, and the first one,
    /// on which it has its locks, not at all.
    pub(crate) fn no_stream_was_ended_in_doubt(&self) -> Verdict {
        for (number, connection) in self.shared.state().connections.iter().enumerate() {
            let Some((end, false)) = connection.end else { continue };
            let is_allowed = number > 0 && end == End::Reset;
            ensure(is_allowed, || format!("the client has ended connection {number} in doubt, by {end:?}"))?;
        }
        Ok(())
    }

    /// The connections on which there was a `resume`, with its parameters.
    pub(crate) fn resumes(&self) -> Vec<(usize, Value)> {
        let state = self.shared.state();
        let of = |(number, connection): (usize, &Seen)| {
            let first = connection.requests.first()?;
            (first["command"] == "resume").then(|| (number, first["parameters"].clone()))
        };
        state.connections.iter().enumerate().filter_map(of).collect()
    }

    /// How often this was asked on a connection.
    pub(crate) fn count(&self, connection: usize, command: &str) -> usize {
        self.shared.state().connections[connection].count(command)
    }

    /// All requests on a connection.
    pub(crate) fn requests(&self, connection: usize) -> Vec<Value> {
        self.shared.state().connections[connection].requests.clone()
    }

    /// Waits until this was asked so often on the latest connection.
    pub(crate) fn until_asked(&self, command: &str, times: usize) -> Verdict {
        self.until(&format!("the client asks {command}"), |state| {
            state.connections.last().is_some_and(|latest| latest.count(command) == times)
        })
    }

    /// The token with which the name was granted last.
    pub(crate) fn token(&self, name: &str) -> Option<u64> {
        self.shared.state().tokens.get(name).copied()
    }

    fn until(&self, what: &str, condition: impl Fn(&State) -> bool) -> Verdict {
        let end = Instant::now() + HANG;
        let mut state = self.shared.state();
        while !condition(&state) {
            if Instant::now() > end {
                return Err(Failure::new(format!("never: {what}")));
            }
            let waited = self.shared.changed.wait_timeout(state, POLL);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}

impl Drop for ResumingServer {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    listener.set_nonblocking(true).expect("a socket");
    let mut threads = Vec::new();
    while !shared.state().is_over {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        let mut state = shared.state();
        let number = state.connections.len();
        state.connections.push(Seen::default());
        drop(state);
        let shared = shared.clone();
        threads.push(thread::spawn(move || serve(stream, number, &shared)));
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// Until the client has ended the connection, it is reset, or the server is over.
fn serve(mut stream: TcpStream, number: usize, shared: &Shared) {
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(POLL)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    let (mut input, mut piece) = (Vec::new(), [0; 4096]);
    let mut is_reset = false;
    while !shared.state().is_over && !is_reset {
        is_reset = obey(&stream, number, shared);
        let end = match stream.read(&mut piece) {
            _ if is_reset => break,
            Ok(0) => End::Fin,
            Ok(length) => {
                input.extend_from_slice(&piece[..length]);
                while let Some(request) = take_message(&mut input) {
                    is_reset |= handle(&stream, number, shared, request);
                }
                continue;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            Err(_) => End::Reset,
        };
        let mut state = shared.state();
        let has_verdict = state.has_verdict;
        state.connections[number].end = Some((end, has_verdict));
        shared.transcript.add(format!("        the client ends connection {number}: {end:?}"));
        return;
    }
    if is_reset {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket");
    }
    drop(stream);
    shared.state().connections[number].order = None;
}

/// Does what the trial has ordered; `true`: the connection is to be reset.
fn obey(stream: &TcpStream, number: usize, shared: &Shared) -> bool {
    let late = shared.state().connections[number].to_send.front().cloned();
    if let Some(message) = late {
        send(stream, number, shared, &message);
        shared.state().connections[number].to_send.pop_front();
    }
    let order = shared.state().connections[number].order;
    if order == Some(End::Fin) {
        let _ = stream.shutdown(Shutdown::Write);
        shared.state().connections[number].order = None;
    }
    order == Some(End::Reset)
}

/// Takes a whole message from what was received.
fn take_message(input: &mut Vec<u8>) -> Option<Value> {
    let header = input.first_chunk::<4>()?;
    let end = 4 + usize::try_from(u32::from_be_bytes(*header)).ok()?;
    let message = serde_json::from_slice(input.get(4..end)?).unwrap_or_default();
    input.drain(..end);
    Some(message)
}

/// Answers a request, or not; `true`: the connection is to be reset.
fn handle(stream: &TcpStream, number: usize, shared: &Shared, request: Value) -> bool {
    shared.transcript.add(format!("        server, connection {number} < {request}"));
    let mut state = shared.state();
    let command = request["command"].as_str().unwrap_or_default().to_owned();
    state.connections[number].requests.push(request.clone());
    if command == "resume" {
        return answer_resume(stream, number, shared, state, request);
    }
    if state.withheld.contains(&command) {
        return false;
    }
    state.next_token += 1;
    let token = state.next_token;
    if let (Some(name), "lock" | "convert") = (name_of(&request), command.as_str()) {
        state.tokens.insert(name, token);
    }
    let mut answer = right_answer(&request, token);
    if let (Some(answer), "hello", true) = (&mut answer, command.as_str(), state.offers_resume) {
        offer(&mut answer["result"], state.epoch);
    }
    drop(state);
    match answer {
        Some(answer) => send(stream, number, shared, &answer),
        // After a `bye`.
        None => drop(stream.shutdown(Shutdown::Write)),
    }
    false
}

fn answer_resume(
    stream: &TcpStream,
    number: usize,
    shared: &Shared,
    mut state: MutexGuard<'_, State>,
    request: Value,
) -> bool {
    let next = if state.plan.len() > 1 { state.plan.pop_front() } else { state.plan.front().copied() };
    let next = next.unwrap_or(ToResume::Nothing);
    state.has_verdict |= next.is_verdict();
    if next == ToResume::Resumed {
        state.epoch += 1;
    }
    if next == ToResume::Nothing {
        state.connections[number].unanswered.push(request.clone());
    }
    let epoch = state.epoch;
    drop(state);
    let said = |status: &str| json!({"id": request["id"], "result": {"status": status, "reason": "a trial"}});
    let answer = match next {
        ToResume::Resumed => resumed(&request, epoch),
        ToResume::Ended => said("ended"),
        ToResume::Unknown => said("unknown"),
        ToResume::Invalid => said("invalid"),
        ToResume::Refused => said("refused"),
        ToResume::NoRoom => json!({"error": "too many connections"}),
        ToResume::Garbage => {
            // What fails shows that the client has ended the connection.
            let _ = (&*stream).write_all(b"\x00\x00\x00\x05{\"id\"");
            return false;
        }
        ToResume::Fin => {
            let _ = stream.shutdown(Shutdown::Write);
            return false;
        }
        ToResume::Reset => return true,
        ToResume::Nothing => return false,
    };
    send(stream, number, shared, &answer);
    false
}

fn send(mut stream: &TcpStream, number: usize, shared: &Shared, message: &Value) {
    shared.transcript.add(format!("        server, connection {number} > {message}"));
    // What fails shows that the client has ended the connection.
    let _ = stream.write_all(&frame(message.to_string()));
}

/// The `ok` to a `resume`.
fn resumed(request: &Value, epoch: u64) -> Value {
    let mut greeting = hello();
    offer(&mut greeting, epoch);
    json!({"id": request["id"], "result": greeting})
}

/// Adds to a greeting that the session can resume.
fn offer(greeting: &mut Value, epoch: u64) {
    greeting["features"].as_array_mut().expect("a greeting has features").push(json!("resume"));
    greeting["resume"] = json!({
        "session": SESSION,
        "epoch": epoch,
        "secret": secret_of(epoch),
    });
}

/// The id of every session of this server; there is one client.
pub(crate) const SESSION: &str = "f35116adac746abcbbe511928053d7e2";

/// What it tells together with this epoch.
pub(crate) fn secret_of(epoch: u64) -> String {
    format!("{epoch:032x}")
}
