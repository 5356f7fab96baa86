//! How a server is set up: plain values with their defaults. `options` reads them from text;
//! configuration files are for the program `lockd`. Knows no socket and no connection.

mod listen;
mod listener_checks;

pub use listen::{Inherited, Listen, ListenAddress, Protocol};

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::auth_token::AuthToken;
use crate::os::Keepalive;
use crate::os::tls::ServerTls;

/// How the kernel schedules the threads of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheduling {
    /// Like the thread that started the server. Usually this means that a thread runs as soon as
    /// its client sends something, and displaces the thread that was running. Better where the
    /// slowest replies matter most, and where the processors are shared with other programs.
    #[default]
    Normal,
    /// As `SCHED_BATCH`: a thread that is woken waits until the running thread sleeps or has used
    /// up its turn, and finds more to do when it runs. With more busy connections than processors,
    /// the server then handles more requests with less processor time and a shorter median; but a
    /// reply may be late by one turn, a few milliseconds, while all processors are busy. Needs no
    /// privilege. If a kernel refuses it anyway, the threads stay as they are. A thread that the
    /// handler of a [command](super::Service::on) starts is scheduled like the connection's thread
    /// that called the handler.
    Batch,
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::Batch => "batch",
        })
    }
}

impl FromStr for Scheduling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "normal" => Ok(Self::Normal),
            "batch" => Ok(Self::Batch),
            _ => Err(format!("{text:?} is no scheduling: there are normal and batch")),
        }
    }
}

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// The addresses that may connect over TCP, to any listener. Other connections are closed at
    /// once.
    pub allow: Vec<IpNet>,
    /// The file mode of Unix sockets, which decides which users may connect to them.
    pub unix_mode: u32,
    /// After this time without a sign of life, a peer's host counts as dead and its locks are
    /// freed. See [`Keepalive`].
    pub dead_peer_timeout: Duration,
    /// The most connections open at the same time.
    pub connections_max: usize,
    /// The longest line of the text protocols, in bytes.
    pub line_bytes_max: usize,
    /// The longest message, in bytes.
    pub message_bytes_max: usize,
    /// The most bytes kept for a client that does not read. A client with more is disconnected.
    pub outbox_bytes_max: usize,
    /// Whether clients may list locks and their holders (`d`, `sd`, `dump`, `who`, `q full`,
    /// `list`).
    pub dump: bool,
    /// Whether clients may register names (`iam`, `who`, `identify`).
    pub registry: bool,
    /// Whether clients may end the connections of others (`kick`).
    pub kick: bool,
    /// Whether the shared locks of the text protocols and exclusive ones exclude each other.
    pub shared_excludes: bool,
    /// How the threads of connections are scheduled. Each sets it for itself; other threads of the
    /// process are not affected.
    pub scheduling: Scheduling,
    /// The certificate of listeners with TLS. If it is removed from a running server, its listeners
    /// with TLS accept no new connections.
    pub tls: Option<ServerTls>,
    /// The secret that clients of `message` must know over TCP. Unix sockets are protected by their
    /// file mode.
    pub auth_token: Option<AuthToken>,
    /// The origins whose pages may connect to WebSockets, in addition to pages of this host:
    /// `SCHEME://HOST[:PORT]`.
    pub ws_origins: Vec<String>,
}

impl Default for Config {
    /// The three protocols at their usual ports of the loopback interface, for this machine only.
    fn default() -> Self {
        let tcp = |protocol, address: &str| {
            let address = ListenAddress::Tcp(address.to_owned());
            Listen { protocol, websocket: false, tls: false, address }
        };
        Self {
            listen: vec![
                tcp(Protocol::Lockd, "127.0.0.1:2626"),
                tcp(Protocol::Glockd, "127.0.0.1:9999"),
                tcp(Protocol::Message, "127.0.0.1:20934"),
            ],
            allow: Self::loopback(),
            unix_mode: 0o600,
            dead_peer_timeout: Keepalive::DEAD_PEER_TIMEOUT,
            connections_max: 10_000,
            line_bytes_max: 4096,
            message_bytes_max: 1 << 20,
            outbox_bytes_max: 1 << 20,
            dump: true,
            registry: true,
            kick: false,
            shared_excludes: false,
            scheduling: Scheduling::Normal,
            tls: None,
            auth_token: None,
            ws_origins: Vec::new(),
        }
    }
}

/// Reads the origin of web pages: `SCHEME://HOST[:PORT]`.
///
/// # Errors
/// If `text` is not an origin.
pub fn parse_origin(text: &str) -> Result<String, String> {
    let host = text.split_once("://").map(|(_, host)| host);
    let is_origin = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
    is_origin
        .then(|| text.to_owned())
        .ok_or_else(|| format!("{text:?} is no origin like https://example.org"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedulings_are_read_and_written() {
        for (scheduling, name) in [(Scheduling::Normal, "normal"), (Scheduling::Batch, "batch")] {
            assert_eq!(name.parse(), Ok(scheduling));
            assert_eq!(scheduling.to_string(), name);
        }
        for text in ["", "Batch", "idle"] {
            assert!(text.parse::<Scheduling>().unwrap_err().contains("normal and batch"));
        }
    }
}
