//! What a server is told at its start: where to listen, whom to let in, how much of what. Plain values
//! with their defaults. `options` reads them from text; configuration files are the binary's.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::auth_token::AuthToken;
use crate::os::Keepalive;
use crate::os::tls::ServerTls;
use crate::wire::parse_port;
use crate::wire::websocket;

/// A wire protocol. A listener speaks exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// PHP lockd's text protocol.
    Lockd,
    /// glockd's text protocol.
    Glockd,
    /// pkLockServer's messages, and our own clients'.
    Message,
}

impl Protocol {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Lockd, "lockd"), (Self::Glockd, "glockd"), (Self::Message, "message")];
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known
            .map(|(protocol, _)| *protocol)
            .ok_or_else(|| format!("{text:?} is no protocol: there are lockd, glockd and message"))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(protocol, _)| protocol == self);
        f.write_str(named.map_or("", |(_, name)| name))
    }
}

/// Where to listen, and in which protocol: `PROTOCOL://HOST:PORT` or `PROTOCOL+unix:PATH`. Over TCP, `+ws`
/// behind `glockd` is for WebSocket, and `+tls` behind that or any protocol for TLS: `glockd+ws+tls://…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The protocol.
    pub protocol: Protocol,
    /// Whether it is spoken in WebSocket.
    pub websocket: bool,
    /// Whether all of it is in TLS, which takes [`Config::tls`].
    pub tls: bool,
    /// The address.
    pub address: ListenAddress,
}

/// What follows the protocol of a listener.
const WEBSOCKET: &str = "+ws";
const TLS: &str = "+tls";

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `HOST:PORT`; port 0 takes a free one.
    Tcp(String),
    /// The path of a Unix socket. A relative one counts from the working directory when it is bound; what is told
    /// of a bound address is absolute.
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

/// The host and what follows it, if anything does.
fn host_and_port(address: &str) -> (&str, Option<&str>) {
    let is_host_alone = address.ends_with(']');
    let parts = address.rsplit_once(':').filter(|_| !is_host_alone);
    parts.map_or((address, None), |(host, port)| (host, Some(port)))
}

/// What follows a protocol in what was probably meant by a text that has none.
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
    /// Whether others than this machine may reach it.
    fn is_beyond_loopback(&self) -> bool {
        let ListenAddress::Tcp(address) = &self.address else { return false };
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        address.map_or_else(|_| !host.eq_ignore_ascii_case("localhost"), |address| !address.is_loopback())
    }
}

/// A socket that listens already, such as a service manager hands to the server it starts.
#[derive(Debug)]
pub struct Inherited {
    /// What is spoken there.
    pub protocol: Protocol,
    /// The socket, over TCP or a Unix socket with a path.
    pub socket: OwnedFd,
}

/// How the kernel schedules the threads of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheduling {
    /// Like the thread that started the server: usually so that a thread whose client has sent something
    /// may run at once, before what its processor is at. The better choice where the slowest replies matter
    /// most, and where the processors are shared with other work.
    #[default]
    Normal,
    /// As `SCHED_BATCH`: a thread that is woken waits until what its processor is at lets go or has had its
    /// turn, and finds more done when it runs. With more busy connections than processors that is more
    /// requests for less processor time, and a shorter median; but a reply may be late by one turn, a few
    /// milliseconds, whenever all processors are busy. Takes no privilege; a kernel that refuses it anyway
    /// leaves the threads as they are. A thread that the handler of a
    /// [command](super::Service::on) starts is scheduled as the connection's thread that called the handler.
    Batch,
}

impl Scheduling {
    const ALL: [(Self, &'static str); 2] = [(Self::Normal, "normal"), (Self::Batch, "batch")];
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(scheduling, _)| scheduling == self);
        f.write_str(named.map_or("", |(_, name)| name))
    }
}

impl FromStr for Scheduling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known
            .map(|(scheduling, _)| *scheduling)
            .ok_or_else(|| format!("{text:?} is no scheduling: there are normal and batch"))
    }
}

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// Who may connect over TCP. Whatever address is bound, everybody else is closed at accept.
    pub allow: Vec<IpNet>,
    /// The file mode of Unix sockets, which says who may connect to them.
    pub unix_mode: u32,
    /// After what time without a sign of life a peer's host counts as gone, and its locks are freed. See
    /// [`Keepalive`].
    pub dead_peer_timeout: Duration,
    /// Connections open at once.
    pub connections_max: usize,
    /// The longest line of the text protocols, in bytes.
    pub line_bytes_max: usize,
    /// The longest message, in bytes.
    pub message_bytes_max: usize,
    /// What may wait to be sent to a client that does not read, in bytes, before it is cut off.
    pub outbox_bytes_max: usize,
    /// Whether clients may list who holds what (`d`, `sd`, `dump`).
    pub dump: bool,
    /// Whether clients may register names (`iam`, `who`).
    pub registry: bool,
    /// Whether clients may end others' connections (`kick`).
    pub kick: bool,
    /// Whether the shared locks of the text protocols and exclusive ones exclude each other.
    pub shared_excludes: bool,
    /// How the threads of connections are scheduled. Each sets it for itself: no other thread of the
    /// process is concerned.
    pub scheduling: Scheduling,
    /// The certificate of listeners in TLS. Taking it away from a server that has some closes them to
    /// newcomers.
    pub tls: Option<ServerTls>,
    /// The secret that clients of `message` must show over TCP. A Unix socket has its file mode.
    pub auth_token: Option<AuthToken>,
    /// The origins whose pages may connect to WebSockets, beside pages of this host: `SCHEME://HOST[:PORT]`.
    pub ws_origins: Vec<String>,
}

impl Default for Config {
    /// The three protocols on their usual ports of the loopback interface, for this machine only.
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

impl Config {
    /// The access list that lets nobody in but this machine.
    #[must_use]
    pub fn loopback() -> Vec<IpNet> {
        let v4 = ipnet::Ipv4Net::new(Ipv4Addr::LOCALHOST, 8).map(|net| IpNet::V4(net.trunc()));
        let v6 = ipnet::Ipv6Net::new(Ipv6Addr::LOCALHOST, 128).map(IpNet::V6);
        v4.into_iter().chain(v6).collect()
    }

    /// Whether everything that is to be listened on can be served as it is wanted.
    ///
    /// # Errors
    /// If a listener in TLS has no certificate, or in WebSocket is none of this build; if the secret can be gone
    /// around, by a text protocol, in which it cannot be shown, for others than this machine; if an origin is
    /// none.
    pub fn check(&self) -> Result<(), String> {
        self.listen.iter().try_for_each(|listen| self.check_listener(listen))?;
        let mut origins = self.ws_origins.iter();
        origins.try_for_each(|origin| {
            parse_origin(origin).map(drop).map_err(|error| format!("ws-origin: {error}"))
        })
    }

    /// Whether this listener can be had as it is wanted.
    ///
    /// # Errors
    /// What is in the way.
    pub(super) fn check_listener(&self, listen: &Listen) -> Result<(), String> {
        if listen.tls && self.tls.is_none() {
            return Err(format!("{listen}: TLS takes a certificate and its key (tls-cert, tls-key)"));
        }
        if listen.websocket && !websocket::IS_PRESENT {
            return Err(format!("{listen}: this lockd was built without WebSocket"));
        }
        let certified = self.tls.as_ref().is_some_and(ServerTls::asks_for_certificates);
        let shows_no_secret = listen.protocol != Protocol::Message && !(listen.tls && certified);
        if self.auth_token.is_some() && shows_no_secret && listen.is_beyond_loopback() {
            return Err(format!(
                "{listen}: there is a secret (auth-token-file), and a text protocol cannot show that it knows it: \
                 listen on the loopback interface or a Unix socket, or in TLS with client certificates \
                 (tls-client-ca)"
            ));
        }
        Ok(())
    }

    /// What the log will warn of when these listeners are served so, for a start that is only tried.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let exposures = self.listen.iter().filter_map(|listen| self.exposure(listen));
        let warnings = exposures.filter(|(level, _)| *level == log::Level::Warn).map(|(_, words)| words);
        warnings.chain(self.objection(&self.listen)).collect()
    }

    /// Says what it means that others than this machine can reach a listener.
    pub(super) fn log_exposure(&self, listen: &Listen) {
        if let Some((level, words)) = self.exposure(listen) {
            log::log!(level, "{words}");
        }
    }

    fn exposure(&self, listen: &Listen) -> Option<(log::Level, String)> {
        if !listen.is_beyond_loopback() {
            return None;
        }
        let own = Self::loopback();
        if self.allow.iter().all(|net| own.iter().any(|own| own.contains(net))) {
            let words = format!("{listen}: only this machine may connect, until --allow lets others in");
            return Some((log::Level::Info, words));
        }
        let certified = listen.tls && self.tls.as_ref().is_some_and(ServerTls::asks_for_certificates);
        let known = certified || listen.protocol == Protocol::Message && self.auth_token.is_some();
        let may = "whoever has an address on the access list";
        let words = match (listen.tls, known) {
            (true, true) => return None,
            (true, false) => format!(
                "{listen}: {may} may take any lock: there is neither a secret nor are there client certificates"
            ),
            (false, true) => format!("{listen}: the secret crosses the network as it is: there is no TLS"),
            (false, false) => format!(
                "{listen}: {may} may take any lock, and who is between can read all: there is neither TLS nor a secret"
            ),
        };
        Some((log::Level::Warn, words))
    }

    /// Warns of a certificate that clients will not accept, where one is shown to them.
    pub(super) fn log_objection(&self, listeners: &[Listen]) {
        if let Some(words) = self.objection(listeners) {
            log::warn!("{words}");
        }
    }

    fn objection(&self, listeners: &[Listen]) -> Option<String> {
        let objection = self.tls.as_ref()?.objection()?;
        let is_shown = listeners.iter().any(|listen| listen.tls);
        is_shown.then(|| format!("clients will refuse this server's certificate: {objection}"))
    }

    /// Whether a peer at this address may connect.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        // An IPv4 peer of an IPv6 listener comes as `::ffff:a.b.c.d`.
        let address = address.to_canonical();
        self.allow.iter().any(|net| net.contains(&address))
    }
}

/// Reads the origin of pages: `SCHEME://HOST[:PORT]`.
///
/// # Errors
/// If it is none.
pub fn parse_origin(text: &str) -> Result<String, String> {
    let host = text.split_once("://").map(|(_, host)| host);
    let is_origin = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
    is_origin
        .then(|| text.to_owned())
        .ok_or_else(|| format!("{text:?} is no origin like https://example.org"))
}

/// Reads an entry of the access list: `IP` or `IP/BITS`.
///
/// # Errors
/// If it is neither.
pub fn parse_allow(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| format!("{text:?} is neither an IP address nor a network like 10.0.0.0/8"))
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

    #[test]
    fn schedulings_are_read_and_written() {
        for (scheduling, name) in Scheduling::ALL {
            assert_eq!(name.parse(), Ok(scheduling));
            assert_eq!(scheduling.to_string(), name);
        }
        for text in ["", "Batch", "idle"] {
            assert!(text.parse::<Scheduling>().unwrap_err().contains("normal and batch"));
        }
    }

    #[test]
    fn what_cannot_be_served_as_it_is_wanted_is_not_served() {
        let secret = || Some(AuthToken::new("0123456789abcdef").unwrap());
        let check = |listen: &str, auth_token| {
            let listen = vec![listen.parse().unwrap()];
            Config { listen, auth_token, ..Config::default() }.check()
        };
        assert!(check("message+tls://127.0.0.1:0", None).unwrap_err().contains("tls-cert"));
        for listen in ["glockd://0.0.0.0:0", "lockd://[::]:0", "glockd://example.org:1"] {
            assert!(check(listen, secret()).unwrap_err().contains("auth-token-file"), "{listen}");
            assert_eq!(check(listen, None), Ok(()));
        }
        for listen in [
            "message://0.0.0.0:0",
            "glockd://127.0.0.9:0",
            "lockd://[::1]:0",
            "lockd://localhost:0",
            "glockd+unix:/x",
        ] {
            assert_eq!(check(listen, secret()), Ok(()), "{listen}");
        }
        for (origin, is_one) in
            [("https://a.b:1", true), ("a.b", false), ("http://", false), ("http://a/", false)]
        {
            let config = Config { ws_origins: vec![origin.to_owned()], ..Config::default() };
            assert_eq!(config.check().is_ok(), is_one, "{origin}");
        }
    }

    #[test]
    fn nobody_but_this_machine_is_let_in_by_default() {
        let config = Config::default();
        for (address, allowed) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("::2", false),
        ] {
            assert_eq!(config.allows(address.parse().unwrap()), allowed, "{address}");
        }
        let config = Config { allow: vec![parse_allow("10.0.0.0/8").unwrap()], ..config };
        assert!(config.allows("10.1.2.3".parse().unwrap()) && !config.allows("127.0.0.1".parse().unwrap()));
        assert!(parse_allow("10.0.0.0/33").is_err());
    }
}
