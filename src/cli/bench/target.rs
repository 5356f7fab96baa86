//! What is measured: a server that is there already, or one of our own, started for the occasion.

use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::net::ToSocketAddrs;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::dialect::{Dialect, Echo, Glockd, Lockd, Memcached, Message, Postgres, Redis};

/// A protocol that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Lockd,
    Glockd,
    Message,
    Echo,
    Redis,
    Memcached,
    Postgres,
}

impl Protocol {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Lockd, "lockd"),
        (Self::Glockd, "glockd"),
        (Self::Message, "message"),
        (Self::Echo, "echo"),
        (Self::Redis, "redis"),
        (Self::Memcached, "memcached"),
        (Self::Postgres, "postgres"),
    ];

    pub(super) fn dialect(self) -> &'static dyn Dialect {
        match self {
            Self::Lockd => &Lockd,
            Self::Glockd => &Glockd,
            Self::Message => &Message,
            Self::Echo => &Echo,
            Self::Redis => &Redis,
            Self::Memcached => &Memcached,
            Self::Postgres => &Postgres,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(protocol, _)| protocol == self);
        f.write_str(named.map_or("", |(_, name)| name))
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        let names = || Self::ALL.map(|(_, name)| name).join(", ");
        known.map(|(protocol, _)| *protocol).ok_or_else(|| format!("{text:?} is none of {}", names()))
    }
}

/// Where a server is and what it speaks: `PROTOCOL://HOST:PORT` or `PROTOCOL+unix:PATH`.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) protocol: Protocol,
    /// As it was given.
    text: String,
    domain: Domain,
    address: SockAddr,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((protocol, path)) = text.split_once("+unix:") {
            let address = SockAddr::unix(path).map_err(|error| format!("{path:?}: {error}"))?;
            let (protocol, text) = (protocol.parse()?, text.to_owned());
            return Ok(Self { protocol, text, domain: Domain::UNIX, address });
        }
        let wrong = || format!("{text:?} is neither PROTOCOL://HOST:PORT nor PROTOCOL+unix:PATH");
        let (protocol, host) = text.split_once("://").ok_or_else(wrong)?;
        let protocol = protocol.parse()?;
        let mut addresses = host.to_socket_addrs().map_err(|error| format!("{host:?}: {error}"))?;
        let address = addresses.next().ok_or_else(|| format!("{host:?} has no address"))?;
        let (text, domain) = (text.to_owned(), Domain::for_address(address));
        Ok(Self { protocol, text, domain, address: address.into() })
    }
}

impl Address {
    /// A new connection. It blocks, sends at once, and leaves no trace in the kernel when it is closed, so
    /// that ports do not run out.
    pub(super) fn connect(&self) -> io::Result<Socket> {
        let socket = Socket::new(self.domain, Type::STREAM, None)?;
        socket.connect(&self.address)?;
        if self.domain != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
            socket.set_linger(Some(Duration::ZERO))?;
        }
        Ok(socket)
    }
}

/// A server to be measured.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) address: Address,
    /// Its process, if that is known.
    pub(super) pid: Option<u32>,
    /// Ends the process, if it is ours.
    _own: Option<OwnServer>,
}

/// A process of ours.
struct OwnServer {
    child: Child,
    /// Kept open: the server says more there when it ends.
    _log: BufReader<ChildStderr>,
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // If it has ended already, all the better.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Target {
    /// That it cannot be measured, for those who run the measurement.
    pub(super) fn failed(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.address.text)
    }

    /// A server that is there already.
    pub(super) fn at(address: Address, pid: Option<u32>) -> Self {
        Self { name: address.protocol.to_string(), address, pid, _own: None }
    }

    /// A lockd of our own that speaks `protocol` on a free port of this machine.
    pub(super) fn own_lockd(protocol: Protocol, options: &[String]) -> io::Result<Self> {
        let listen = format!("{protocol}://127.0.0.1:0");
        // What is measured must not be a limit.
        let mut arguments = vec!["bench-serve", "--listen", &listen, "--connections-max=1000000"];
        arguments.extend(["--locks-max=1000000000", "--locks-per-connection-max=1000000000"]);
        arguments.extend(options.iter().map(String::as_str));
        Self::start("lockd", &arguments)
    }

    /// A server of the same shape that does nothing but repeat lines: see [`super::echo`].
    pub(super) fn own_echo() -> io::Result<Self> {
        Self::start("echo", &["bench-echo"])
    }

    /// Starts this program with these arguments, and waits until it says where it listens.
    fn start(name: &str, arguments: &[&str]) -> io::Result<Self> {
        // Nothing that lockd is told by its surroundings may decide what is measured.
        let mut child = Command::new(std::env::current_exe()?)
            .env_clear()
            .env(super::PARENT, std::process::id().to_string())
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = BufReader::new(child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let pid = Some(child.id());
        let mut said = String::new();
        let mut line = String::new();
        while log.read_line(&mut line)? > 0 {
            if let Some((_, address)) = line.trim_end().split_once("listening on ") {
                let address = address.parse().map_err(io::Error::other)?;
                let own = Some(OwnServer { child, _log: log });
                return Ok(Self { name: name.to_owned(), address, pid, _own: own });
            }
            said.push_str(&std::mem::take(&mut line));
        }
        child.wait()?;
        Err(io::Error::other(format!("{name} did not start: {}", said.trim_end())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let address: Address = "glockd://127.0.0.1:9999".parse().unwrap();
        assert_eq!((address.protocol, address.domain), (Protocol::Glockd, Domain::IPV4));
        let address: Address = "message+unix:/run/lockd.sock".parse().unwrap();
        assert_eq!((address.protocol, address.domain), (Protocol::Message, Domain::UNIX));
        for text in ["", "127.0.0.1:1", "glockd:127.0.0.1:1", "http://127.0.0.1:80", "glockd://127.0.0.1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
