//! The server to be measured: one that already runs, or a child process that is started for the
//! measurement.

use std::io::{self, BufRead, BufReader};
use std::net::ToSocketAddrs;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use socket2::{Domain, SockAddr, Socket, Type};

use super::dialect::BenchProtocol;

/// The variable by which a server learns the process id of the `lockd bench` that started it, and
/// with which it is to end.
const PARENT: &str = "LOCKD_BENCH_PARENT";

/// Makes the kernel end this process when the process that started it ends, in whatever way.
pub(crate) fn end_with_parent() {
    // If the kernel refuses, a server may go on running after a crash: no reason not to measure.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // The parent may have ended before that.
    let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if std::env::var(PARENT).ok().is_some_and(|expected| Some(expected) != parent) {
        std::process::exit(1);
    }
}

/// A server's address and protocol: `PROTOCOL://HOST:PORT` or `PROTOCOL+unix:PATH`.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) protocol: BenchProtocol,
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
    /// A new, blocking connection without Nagle's algorithm. It is reset when it is closed:
    /// connections in TIME_WAIT would use up the ports.
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
pub(super) struct BenchTarget {
    pub(super) name: String,
    pub(super) address: Address,
    /// Its process id, if it is known.
    pub(super) pid: Option<u32>,
    /// Ends the process when it is dropped, if we started it.
    _child: Option<ChildServer>,
}

/// A server that this process has started.
struct ChildServer {
    child: Child,
    /// Kept open, since the server writes to it again when it ends.
    _log: BufReader<ChildStderr>,
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl BenchTarget {
    /// The message for an error in measuring this server.
    pub(super) fn error_text(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.address.text)
    }

    /// A server that already runs.
    pub(super) fn at(address: Address, pid: Option<u32>) -> Self {
        Self { name: address.protocol.to_string(), address, pid, _child: None }
    }

    /// Starts a lockd that speaks `protocol` on a free port of this machine.
    pub(super) fn start_lockd(protocol: BenchProtocol, options: &[String]) -> io::Result<Self> {
        let listen = format!("{protocol}://127.0.0.1:0");
        // The measurement must not run into a limit.
        let mut arguments = vec!["bench-serve", "--listen", &listen, "--connections-max=1000000"];
        arguments.extend(["--locks-max=1000000000", "--locks-per-connection-max=1000000000"]);
        arguments.extend(options.iter().map(String::as_str));
        Self::start("lockd", &arguments)
    }

    /// Starts the echo server, see [`super::echo`].
    pub(super) fn start_echo() -> io::Result<Self> {
        Self::start("echo", &["bench-echo"])
    }

    /// Starts the baton server, see [`super::baton`].
    pub(super) fn start_baton() -> io::Result<Self> {
        Self::start("baton", &["bench-baton"])
    }

    /// Starts this program with `arguments`, and waits until it logs its address.
    fn start(name: &str, arguments: &[&str]) -> io::Result<Self> {
        // No variable may change how the server is configured.
        let mut child = Command::new(std::env::current_exe()?)
            .env_clear()
            .env(PARENT, std::process::id().to_string())
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = BufReader::new(child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let pid = Some(child.id());
        let mut output = String::new();
        let mut line = String::new();
        while log.read_line(&mut line)? > 0 {
            if let Some((_, address)) = line.trim_end().split_once("listening on ") {
                let address = address.parse().map_err(io::Error::other)?;
                let child = Some(ChildServer { child, _log: log });
                return Ok(Self { name: name.to_owned(), address, pid, _child: child });
            }
            output.push_str(&std::mem::take(&mut line));
        }
        child.wait()?;
        Err(io::Error::other(format!("{name} did not start: {}", output.trim_end())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        let address: Address = "glockd://127.0.0.1:9999".parse().unwrap();
        assert_eq!((address.protocol, address.domain), (BenchProtocol::Glockd, Domain::IPV4));
        let address: Address = "message+unix:/run/lockd.sock".parse().unwrap();
        assert_eq!((address.protocol, address.domain), (BenchProtocol::Message, Domain::UNIX));
        for text in ["", "127.0.0.1:1", "glockd:127.0.0.1:1", "http://127.0.0.1:80", "glockd://127.0.0.1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
