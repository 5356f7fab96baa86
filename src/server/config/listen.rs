//! Where a server listens, and in which protocol: `PROTOCOL://HOST:PORT` and its variants, read and
//! written.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::wire::parse_port;

/// A wire protocol. A listener speaks exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// PHP lockd's text protocol.
    Lockd,
    /// glockd's text protocol.
    Glockd,
    /// pkLockServer's messages, and our own clients'.
    Message,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lockd => "lockd",
            Self::Glockd => "glockd",
            Self::Message => "message",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "lockd" => Ok(Self::Lockd),
            "glockd" => Ok(Self::Glockd),
            "message" => Ok(Self::Message),
            _ => Err(format!("{text:?} is no protocol: there are lockd, glockd and message")),
        }
    }
}

/// Where to listen, and in which protocol: `PROTOCOL://HOST:PORT` or `PROTOCOL+unix:PATH`. Over
/// TCP, `+tls` after the protocol stands for TLS, and `+ws` after `glockd` for WebSocket:
/// `glockd+ws+tls://…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The protocol.
    pub protocol: Protocol,
    /// Whether it is spoken inside WebSocket.
    pub websocket: bool,
    /// Whether all of it is inside TLS. That needs [`Config::tls`](super::Config::tls).
    pub tls: bool,
    /// The address.
    pub address: ListenAddress,
}

/// What follows the protocol of a listener with WebSocket, with TLS, or both, in this order.
const WEBSOCKET: &str = "+ws";
const TLS: &str = "+tls";

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `HOST:PORT`; port 0 takes a free one.
    Tcp(String),
    /// The path of a Unix socket. A relative path is resolved against the working directory when it
    /// is bound; the address of a bound listener has the absolute path.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            ListenAddress::Tcp(address) => {
                let websocket = if self.websocket { WEBSOCKET } else { "" };
                let tls = if self.tls { TLS } else { "" };
                write!(f, "{}{websocket}{tls}://{address}", self.protocol)
            }
            ListenAddress::Unix(path) => write!(f, "{}+unix:{}", self.protocol, path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || match address_without_protocol(text) {
            Some(meant) => format!(
                "{text:?} has no protocol; did you mean message{meant}, lockd{meant} or glockd{meant}?"
            ),
            None => format!("{text:?} is neither PROTOCOL://HOST:PORT nor PROTOCOL+unix:PATH"),
        };
        let (protocol, address) = if let Some((protocol, path)) = text.split_once("+unix:") {
            if path.starts_with('@') {
                return Err(format!(
                    "{text:?}: abstract sockets, to which everyone on this machine could connect, are not served; a \
                     file of that name is ./{path}"
                ));
            }
            (protocol, ListenAddress::Unix(Some(path).filter(|p| !p.is_empty()).ok_or_else(error)?.into()))
        } else {
            let (protocol, address) = text.split_once("://").ok_or_else(error)?;
            let (host, port) = host_and_port(address);
            if host.is_empty() {
                return Err(error());
            }
            let wrong = |what| format!("{text:?}: the port {what}, as in PROTOCOL://HOST:PORT");
            let port = port.ok_or_else(|| wrong("is missing"))?;
            parse_port(port)
                .ok_or_else(|| wrong("must be a number from 0 to 65535, without leading zeros"))?;
            (protocol, ListenAddress::Tcp(address.to_owned()))
        };
        let without =
            |text, suffix| str::strip_suffix(text, suffix).map_or((text, false), |text| (text, true));
        let (protocol, tls) = without(protocol, TLS);
        let (protocol, websocket) = without(protocol, WEBSOCKET);
        if (tls || websocket) && matches!(address, ListenAddress::Unix(_)) {
            return Err(format!("{text:?}: TLS and WebSocket are for TCP"));
        }
        let protocol = protocol.parse()?;
        if websocket && protocol != Protocol::Glockd {
            return Err(format!("{text:?}: WebSocket is for glockd"));
        }
        Ok(Self { protocol, websocket, tls, address })
    }
}

/// Splits `HOST:PORT`. The port is `None` if there is none.
fn host_and_port(address: &str) -> (&str, Option<&str>) {
    let is_host_alone = address.ends_with(']');
    let parts = address.rsplit_once(':').filter(|_| !is_host_alone);
    parts.map_or((address, None), |(host, port)| (host, Some(port)))
}

/// For a text without a protocol that is otherwise an address: what would follow the protocol.
fn address_without_protocol(text: &str) -> Option<String> {
    if text.contains("://") {
        return None;
    }
    if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
        return (!path.is_empty()).then(|| format!("+unix:{path}"));
    }
    let (host, port) = host_and_port(text);
    let is_address = !host.is_empty() && parse_port(port?).is_some();
    is_address.then(|| format!("://{text}"))
}

impl Listen {
    /// Whether other machines may reach it.
    pub(super) fn is_beyond_loopback(&self) -> bool {
        let ListenAddress::Tcp(address) = &self.address else { return false };
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        address.map_or_else(|_| !host.eq_ignore_ascii_case("localhost"), |address| !address.is_loopback())
    }
}

/// A socket that listens already, such as a service manager gives to the server that it starts.
#[derive(Debug)]
pub struct Inherited {
    /// The protocol that is spoken there.
    pub protocol: Protocol,
    /// The socket, over TCP or a Unix socket with a path.
    pub socket: OwnedFd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_are_read_and_written() {
        for text in [
            "lockd://127.0.0.1:2626",
            "glockd://[::1]:0",
            "message+unix:/run/lockd.sock",
            "glockd+ws://h:1",
            "glockd+ws+tls://h:1",
            "message+tls://h:1",
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "lockd",
            "lockd://",
            "lockd://host",
            "lockd://:1",
            "lockd://h:",
            "lockd://h:+80",
            "lockd://h:080",
            "lockd://h:70000",
            "lockd+unix:",
        ] {
            assert!(text.parse::<Listen>().unwrap_err().contains("PROTOCOL://"), "{text}");
        }
        for (text, part) in [
            ("message://127.0.0.1", "the port is missing"),
            ("message://[::1]", "the port is missing"),
            ("message://127.0.0.1:80999", "from 0 to 65535"),
            (
                "127.0.0.1:2626",
                "no protocol; did you mean message://127.0.0.1:2626, lockd://127.0.0.1:2626 or glockd://127.0.0.1:2626?",
            ),
            ("[::1]:1", "did you mean message://[::1]:1,"),
            ("/run/lockd.sock", "did you mean message+unix:/run/lockd.sock,"),
            ("unix:/run/lockd.sock", "did you mean message+unix:/run/lockd.sock,"),
            ("h:80999", "is neither"),
        ] {
            let said = text.parse::<Listen>().unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        }
        for text in ["message+ws://h:1", "lockd+ws://h:1", "glockd+ws+unix:/x", "message+tls+unix:/x"] {
            assert!(text.parse::<Listen>().unwrap_err().contains(" for "), "{text}");
        }
        assert!("message+unix:@x".parse::<Listen>().unwrap_err().contains("./@x"));
        assert!("message+unix:./@x".parse::<Listen>().is_ok());
        assert!("glockd+tls+ws://h:1".parse::<Listen>().unwrap_err().contains("no protocol"));
        assert!("http://127.0.0.1:80".parse::<Listen>().unwrap_err().contains("no protocol"));
    }
}
