//! Clients of a server, prepared for any failure at any time. There is one for each protocol,
//! written by hand so that it can misbehave as no library would, and one that uses the library.
//! Each turns a step into requests and the replies into an outcome, and logs when it learns that it
//! is queued. Chooses nothing, decides nothing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use lockd::broker::{AcquireError, Attempt, ReleaseError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

use super::log::{Log, now};
use super::resuming::library::LibrarySession;
use super::resuming::riding::Rider;
use super::resuming::session::ResumableSession;
use crate::history::{Mode, Name, Nanos, Outcome};

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Protocol {
    Lockd,
    Glockd,
    Message,
    /// `message`, through [`lockd::Session`].
    Library,
    /// `message`, with a session that resumes.
    Resumable,
    /// The same through [`lockd::Session`].
    ResumableLibrary,
}

/// The address of a server: `127.0.0.1:PORT` or a path.
pub(crate) type Address = String;

/// The session has ended, or is not reliable any more.
#[derive(Debug)]
pub(crate) struct Lost;

impl From<io::Error> for Lost {
    fn from(_error: io::Error) -> Self {
        Self
    }
}

pub(crate) type Answer = Result<Outcome, Lost>;

/// How long a client waits before it considers its server dead: for a reply that waits for no lock,
/// and for a wait with a time limit. Longer than the time that the checker allows, so that the
/// checker finds the fault first.
const SERVER_DEAD_AFTER: Duration = Duration::from_secs(60);

/// Why these methods are not for a client whose session resumes.
const RIDES: &str = "a client whose session resumes makes its calls itself";

/// A connected client.
pub(crate) enum Client {
    Text(TextClient),
    Frames(FrameClient),
    Library(lockd::Session),
    /// One whose session resumes; it makes its calls itself.
    Rider(Box<dyn Rider>),
}

/// The name as it is sent over the wire.
pub(crate) fn text(name: Name) -> String {
    format!("n{name}")
}

fn connect_socket(address: &str) -> io::Result<Socket> {
    let (domain, address) = match address.parse::<std::net::SocketAddr>() {
        Ok(address) => (Domain::for_address(address), SockAddr::from(address)),
        Err(_) => (Domain::UNIX, SockAddr::unix(address)?),
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.connect(&address)?;
    if domain != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    socket.set_read_timeout(Some(SERVER_DEAD_AFTER))?;
    socket.set_write_timeout(Some(SERVER_DEAD_AFTER))?;
    Ok(socket)
}

impl Client {
    /// Connects. With the library the session is named `owner`, and can be kicked by that name.
    pub(crate) fn connect(protocol: Protocol, address: &str, owner: &str) -> Result<Self, Lost> {
        if protocol == Protocol::Library {
            let scheme = if address.starts_with('/') { "unix:" } else { "tcp://" };
            let url = format!("{scheme}{address}");
            let session = lockd::Session::connect(&url, Some(owner), Duration::from_secs(10));
            return session.map(Self::Library).map_err(|_| Lost);
        }
        if protocol == Protocol::Resumable {
            return Ok(Self::Rider(Box::new(ResumableSession::new(address, owner, now()))));
        }
        if protocol == Protocol::ResumableLibrary {
            let session = LibrarySession::connect(&format!("tcp://{address}?resume"), owner)?;
            return Ok(Self::Rider(Box::new(session)));
        }
        let reader = BufReader::new(connect_socket(address)?);
        Ok(match protocol {
            Protocol::Message => Self::Frames(FrameClient { reader, next_id: 0 }),
            _ => Self::Text(TextClient { reader, has_tokens: protocol == Protocol::Glockd }),
        })
    }

    /// Finds out whether the server gives locks to this client: it may be the standby of another one.
    pub(crate) fn finds_active(&mut self) -> Result<(), Lost> {
        match self {
            // A standby ends the connection without a word. There is no such lock.
            Self::Text(client) => {
                client.send(b"r nothing\n")?;
                client.number().map(drop)
            }
            Self::Frames(client) => {
                let answer = client.call("ping", &json!({}))?;
                if answer["cause"] == "standby" { Err(Lost) } else { Ok(()) }
            }
            // These look for the active server themselves.
            Self::Library(_) | Self::Rider(_) => Ok(()),
        }
    }

    pub(crate) fn acquire(
        &mut self,
        wants: &[(Name, Mode)],
        limit: Option<Nanos>,
        acked: bool,
        log: &mut Log,
    ) -> Answer {
        match self {
            Self::Text(client) => client.acquire(wants[0], limit),
            Self::Frames(client) => {
                let names: Vec<Value> = wants.iter().map(|(name, mode)| want(*name, *mode)).collect();
                let mut parameters = match names.as_slice() {
                    [one] => one.clone(),
                    _ => json!({"lockNames": names}),
                };
                parameters["timeLimit"] = seconds(limit);
                client.lock("lock", &parameters, limit, acked, log)
            }
            Self::Library(session) => acquire_by_library(session, wants, limit, acked, log),
            Self::Rider(_) => panic!("{RIDES}"),
        }
    }

    pub(crate) fn convert(&mut self, name: Name, mode: Mode, limit: Option<Nanos>, log: &mut Log) -> Answer {
        match self {
            Self::Text(_) => Ok(Outcome::Refused),
            Self::Frames(client) => {
                let mut parameters = want(name, mode);
                parameters["timeLimit"] = seconds(limit);
                client.lock("convert", &parameters, limit, true, log)
            }
            Self::Library(session) => {
                let grant = session.convert(text(name).as_bytes(), mode, limit.map(Duration::from_nanos));
                library_outcome(grant, limit)
            }
            Self::Rider(_) => panic!("{RIDES}"),
        }
    }

    pub(crate) fn release(&mut self, held: &[(Name, Mode)]) -> Answer {
        match self {
            Self::Text(client) => client.release(held),
            Self::Frames(client) => {
                let parameters = match held {
                    [(name, _)] => json!({"lockName": text(*name)}),
                    _ => json!({"lockNames": held.iter().map(|(name, _)| text(*name)).collect::<Vec<_>>()}),
                };
                match client.call("unlock", &parameters)?["status"].as_str() {
                    Some("ok") => Ok(Outcome::Released),
                    Some("notFound") => Ok(Outcome::NotHeld),
                    other => panic!("an unlock was answered {other:?}"),
                }
            }
            Self::Library(session) => {
                let names: Vec<String> = held.iter().map(|(name, _)| text(*name)).collect();
                let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
                let released = match names.as_slice() {
                    [name] => session.release(name).map(drop),
                    names => session.release_all(names),
                };
                match released {
                    Ok(()) => Ok(Outcome::Released),
                    Err(ReleaseError::NotHeld) => Ok(Outcome::NotHeld),
                    // Only sessions that resume are in doubt.
                    Err(ReleaseError::Doubt(_) | ReleaseError::Lost(_)) => Err(Lost),
                }
            }
            Self::Rider(_) => panic!("{RIDES}"),
        }
    }

    pub(crate) fn inspect(&mut self, name: Name) -> Answer {
        let holders = match self {
            Self::Text(_) => return Ok(Outcome::Refused),
            Self::Frames(client) => {
                let seen = client.call("inspect", &json!({"lockName": text(name)}))?;
                seen["holders"].as_u64().expect("a number of holders")
            }
            Self::Library(session) => {
                session.inspect(text(name).as_bytes()).map_err(|_| Lost)?.holders as u64
            }
            Self::Rider(_) => panic!("{RIDES}"),
        };
        Ok(Outcome::Seen(u32::try_from(holders).unwrap()))
    }

    /// Whether the connection has not ended, of a client of the tests' own.
    pub(crate) fn stands(&self) -> bool {
        let socket = match self {
            Self::Text(client) => client.reader.get_ref(),
            Self::Frames(client) => client.reader.get_ref(),
            Self::Library(_) | Self::Rider(_) => panic!("its connection is its own"),
        };
        let mut ends = [PollFd::new(socket, PollFlags::IN)];
        // What has come is the end: no answer is awaited.
        poll(&mut ends, Some(&Timespec::default())).is_ok_and(|ready| ready == 0)
    }

    /// The client, if it makes its calls itself.
    pub(crate) fn as_rider(&mut self) -> Option<&mut dyn Rider> {
        match self {
            Self::Rider(rider) => Some(rider.as_mut()),
            _ => None,
        }
    }

    /// Ends the session.
    pub(crate) fn close(self) {
        match self {
            Self::Rider(rider) => rider.close(),
            Self::Library(session) => session.close(),
            Self::Text(_) | Self::Frames(_) => {}
        }
    }

    /// The socket, for misuse.
    pub(crate) fn into_socket(self) -> Option<Socket> {
        match self {
            Self::Text(client) => Some(client.reader.into_inner()),
            Self::Frames(client) => Some(client.reader.into_inner()),
            Self::Library(session) => {
                session.close();
                None
            }
            Self::Rider(rider) => rider.into_socket(),
        }
    }

    /// A request that changes nothing, as bytes.
    pub(crate) fn harmless_bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(_) => b"i n0\n".to_vec(),
            _ => frame(&json!({"command": "ping", "parameters": {"and": "nothing else"}, "id": 0})),
        }
    }

    /// A request for a lock as bytes, to be sent whole or in part.
    pub(crate) fn request_bytes(&self, (name, mode): (Name, Mode)) -> Vec<u8> {
        match self {
            Self::Text(TextClient { has_tokens: true, .. }) => format!("gw - {}\n", text(name)).into_bytes(),
            Self::Text(_) => format!("g {}\n", text(name)).into_bytes(),
            _ => {
                let request = json!({"command": "lock", "parameters": want(name, mode), "id": "last"});
                frame(&request)
            }
        }
    }
}

pub(crate) fn want(name: Name, mode: Mode) -> Value {
    match mode {
        Mode::Exclusive => json!({"lockName": text(name), "mode": "exclusive"}),
        Mode::Limited(limit) => json!({"lockName": text(name), "limit": limit.get()}),
        Mode::Shared => json!({"lockName": text(name), "mode": "shared"}),
    }
}

pub(crate) fn seconds(limit: Option<Nanos>) -> Value {
    limit.map_or(json!(false), |limit| json!(Duration::from_nanos(limit).as_secs_f64()))
}

fn acquire_by_library(
    session: &lockd::Session,
    wants: &[(Name, Mode)],
    limit: Option<Nanos>,
    acked: bool,
    log: &mut Log,
) -> Answer {
    let within = limit.map(Duration::from_nanos);
    let names: Vec<String> = wants.iter().map(|(name, _)| text(*name)).collect();
    let ([name], [(_, mode)]) = (names.as_slice(), wants) else {
        let wants: Vec<(&[u8], Mode)> =
            names.iter().zip(wants).map(|(name, (_, mode))| (name.as_bytes(), *mode)).collect();
        let start = now();
        return timed(session.acquire_all(&wants, within), start, limit, log);
    };
    let name = name.as_bytes();
    if !acked {
        let start = now();
        return timed(session.acquire(name, *mode, within), start, limit, log);
    }
    match session.enqueue(name, *mode) {
        Ok(Attempt::Granted(grant)) => return Ok(Outcome::Granted(Some(grant.token))),
        Ok(_) => log.queued(),
        Err(error) => return library_outcome(Err(error), limit),
    }
    match session.wait(name, within) {
        Err(AcquireError::TimedOut) => {
            log.giving_up(now());
            match session.release(name) {
                Ok(_) | Err(ReleaseError::NotHeld) => Ok(Outcome::GivenUp),
                Err(ReleaseError::Doubt(_) | ReleaseError::Lost(_)) => Err(Lost),
            }
        }
        other => library_outcome(other, limit),
    }
}

/// A library that finds its time limit over cancels the request, even if it may have been granted
/// already: for example after a long pause.
fn timed(
    grant: Result<lockd::broker::Grant, AcquireError>,
    start: Nanos,
    limit: Option<Nanos>,
    log: &mut Log,
) -> Answer {
    let outcome = library_outcome(grant, limit)?;
    if outcome != Outcome::TimedOut {
        return Ok(outcome);
    }
    log.giving_up(start + limit.unwrap_or(0));
    Ok(Outcome::GivenUp)
}

fn library_outcome(grant: Result<lockd::broker::Grant, AcquireError>, limit: Option<Nanos>) -> Answer {
    Ok(match grant {
        Ok(grant) => Outcome::Granted(Some(grant.token)),
        Err(AcquireError::TimedOut) if limit == Some(0) => Outcome::Busy,
        Err(AcquireError::TimedOut) => Outcome::TimedOut,
        Err(AcquireError::Deadlock(_)) => Outcome::Deadlock,
        Err(AcquireError::NotHeld) => Outcome::NotHeld,
        Err(AcquireError::Refused(_) | AcquireError::NotYet(_) | AcquireError::Stopping(_)) => {
            Outcome::Refused
        }
        Err(AcquireError::Lost(_)) => return Err(Lost),
        Err(error) => panic!("a correct call failed: {error}"),
    })
}

/// A client of the text protocols.
pub(crate) struct TextClient {
    reader: BufReader<Socket>,
    /// True for `glockd`, which also has tokens and waits.
    has_tokens: bool,
}

impl TextClient {
    fn send(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        Ok(self.reader.get_mut().write_all(bytes)?)
    }

    /// The number at the beginning of the next line.
    fn number(&mut self) -> Result<u64, Lost> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(Lost);
        }
        let number = line.split_whitespace().next().and_then(|word| word.parse().ok());
        Ok(number.unwrap_or_else(|| panic!("no number at the beginning of {line:?}")))
    }

    fn acquire(&mut self, (name, mode): (Name, Mode), limit: Option<Nanos>) -> Answer {
        let shared = if mode == Mode::Shared { "s" } else { "" };
        let name = text(name);
        let mut request = match limit {
            Some(0) => format!("{shared}g {name}\n"),
            Some(limit) => format!("{shared}gw {} {name}\n", Duration::from_nanos(limit).as_secs_f64()),
            None => format!("{shared}gw - {name}\n"),
        };
        let asks_token = self.has_tokens && mode == Mode::Exclusive;
        if asks_token {
            request.push_str(&format!("t {name}\n"));
        }
        self.send(request.as_bytes())?;
        let granted = self.number()? > 0;
        let token = if asks_token { Some(self.number()?) } else { None };
        match (granted, limit) {
            (true, _) if token == Some(0) => panic!("{name} was granted, but there was no token for it"),
            (true, _) => Ok(Outcome::Granted(token)),
            (false, None) => Ok(Outcome::Refused),
            (false, Some(_)) => Ok(Outcome::Busy),
        }
    }

    fn release(&mut self, held: &[(Name, Mode)]) -> Answer {
        let mut released = true;
        for &(name, mode) in held {
            let shared = if mode == Mode::Shared { "s" } else { "" };
            self.send(format!("{shared}r {}\n", text(name)).as_bytes())?;
            released &= self.number()? > 0;
        }
        Ok(if released { Outcome::Released } else { Outcome::NotHeld })
    }
}

/// A client of the `message` protocol.
pub(crate) struct FrameClient {
    reader: BufReader<Socket>,
    next_id: u64,
}

fn frame(message: &Value) -> Vec<u8> {
    let body = message.to_string().into_bytes();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&length[..], &body].concat()
}

impl FrameClient {
    fn request(&mut self, command: &str, parameters: &Value, out: &mut Vec<u8>) -> u64 {
        self.next_id += 1;
        let message = json!({"command": command, "parameters": parameters, "id": self.next_id});
        out.extend(frame(&message));
        self.next_id
    }

    fn receive(&mut self) -> Result<(u64, Value), Lost> {
        let mut header = [0; 4];
        self.reader.read_exact(&mut header)?;
        let mut body = vec![0; u32::from_be_bytes(header) as usize];
        self.reader.read_exact(&mut body)?;
        let mut message: Value = serde_json::from_slice(&body).expect("a server sends JSON");
        let id = message["id"].as_u64().unwrap_or_else(|| panic!("no id in {message}"));
        Ok((id, message["result"].take()))
    }

    fn call(&mut self, command: &str, parameters: &Value) -> Result<Value, Lost> {
        let mut request = Vec::new();
        let id = self.request(command, parameters, &mut request);
        self.reader.get_mut().write_all(&request)?;
        let (answered, result) = self.receive()?;
        assert_eq!(answered, id, "a reply to a different request: {result}");
        Ok(result)
    }

    /// Sends a request that may have to wait. With `acked` it sends a ping after it: if the ping's
    /// reply comes first, the request is queued.
    fn lock(
        &mut self,
        command: &str,
        parameters: &Value,
        limit: Option<Nanos>,
        acked: bool,
        log: &mut Log,
    ) -> Answer {
        let mut request = Vec::new();
        let id = self.request(command, parameters, &mut request);
        let ping = acked.then(|| self.request("ping", &json!({}), &mut request));
        self.reader.get_mut().write_all(&request)?;
        let (mut answer, mut is_acked) = (None, !acked);
        while answer.is_none() || !is_acked {
            let (answered, result) = self.receive()?;
            if Some(answered) == ping {
                is_acked = true;
                if answer.is_none() {
                    log.queued();
                }
            } else {
                assert_eq!(answered, id, "a reply to a different request: {result}");
                answer = Some(result);
            }
        }
        let result = answer.unwrap_or_default();
        Ok(match result["status"].as_str() {
            Some("ok") if result["already"] == true => {
                panic!("a client was told that it already holds the lock: {result}")
            }
            Some("ok") => Outcome::Granted(Some(result["token"].as_u64().expect("a token"))),
            Some("timeout") if limit == Some(0) => Outcome::Busy,
            Some("timeout") => Outcome::TimedOut,
            Some("deadlock") => Outcome::Deadlock,
            Some("refused") => Outcome::Refused,
            Some("notFound") => Outcome::NotHeld,
            _ => panic!("a request was answered {result}"),
        })
    }
}
