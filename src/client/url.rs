//! Where a server is, as people write it: `tcp://HOST:PORT` or `unix:/PATH`, several separated by commas.
//! Reads addresses; resolves and connects nothing.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The port of the `message` protocol, for an address that names none.
const DEFAULT_PORT: u16 = 20934;

/// The address of one server: `tcp://HOST`, `tcp://HOST:PORT`, `unix:/PATH`, or the form in which a
/// server logs what it listens on, `message://HOST:PORT` or `message+unix:/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    text: String,
    endpoint: Endpoint,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// Why a text is no address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUrl {
    text: String,
    problem: &'static str,
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not the address of a server: {:?}: {}", self.text, self.problem)
    }
}

impl std::error::Error for BadUrl {}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ServerUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let text = text.trim();
        match read_endpoint(text) {
            Ok(endpoint) => Ok(Self { text: text.to_owned(), endpoint }),
            Err(problem) => Err(BadUrl { text: text.to_owned(), problem }),
        }
    }
}

impl ServerUrl {
    /// Reads addresses separated by commas; at least one, and none twice. An address in a list can have
    /// no comma in it.
    ///
    /// # Errors
    /// [`BadUrl`] for the first that is none.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, BadUrl> {
        let mut servers: Vec<Self> = Vec::new();
        for part in text.split(',') {
            let server: Self = part.parse()?;
            if servers.iter().any(|other| other.endpoint == server.endpoint) {
                return Err(BadUrl { text: server.text, problem: "stands in the list twice" });
            }
            servers.push(server);
        }
        Ok(servers)
    }

    /// The address as it was written, without white space around it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

fn read_endpoint(text: &str) -> Result<Endpoint, &'static str> {
    if let Some(path) = text.strip_prefix("unix:").or_else(|| text.strip_prefix("message+unix:")) {
        // `unix:///path` is how others write it; a relative path would mean another socket elsewhere.
        let path = path.strip_prefix("//").unwrap_or(path);
        let is_absolute = path.starts_with('/') && !path.contains('\0');
        return if is_absolute { Ok(Endpoint::Unix(path.into())) } else { Err("the path must begin with /") };
    }
    let Some(rest) = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("message://")) else {
        return Err("it must begin with tcp:// or unix:/");
    };
    let (host, port) = split_port(rest)?;
    if host.is_empty() || host.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) {
        return Err("tcp:// must be followed by HOST or HOST:PORT");
    }
    let port = port.map_or(Ok(DEFAULT_PORT), str::parse).ok().filter(|&port| port != 0);
    let port = port.ok_or("the port must be a number from 1 to 65535")?;
    Ok(Endpoint::Tcp { host: host.to_owned(), port })
}

/// Host and port of `HOST`, `HOST:PORT`, `[IPV6]` and `[IPV6]:PORT`.
fn split_port(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    let Some(bracketed) = text.strip_prefix('[') else {
        let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        let is_bare_ipv6 = port.is_some_and(|port| port.contains(':'));
        return if is_bare_ipv6 { Err("an IPv6 address must stand in [ ]") } else { Ok((host, port)) };
    };
    let (host, rest) = bracketed.split_once(']').ok_or("a [ without its ]")?;
    match rest.strip_prefix(':') {
        None if !rest.is_empty() => Err("after ] there can be only :PORT"),
        port => Ok((host, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<ServerUrl>().unwrap().endpoint
    }

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn every_form_of_an_address_is_read() {
        assert_eq!(endpoint("tcp://localhost:1"), tcp("localhost", 1));
        assert_eq!(endpoint(" tcp://example.org\n"), tcp("example.org", 20934));
        assert_eq!(endpoint("message://127.0.0.1:65535"), tcp("127.0.0.1", 65535));
        assert_eq!(endpoint("tcp://[::1]:7"), tcp("::1", 7));
        assert_eq!(endpoint("tcp://[::1]"), tcp("::1", 20934));
        for text in ["unix:/run/lockd.sock", "unix:///run/lockd.sock", "message+unix:/run/lockd.sock"] {
            assert_eq!(endpoint(text), Endpoint::Unix("/run/lockd.sock".into()), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        let problem = |text: &str| ServerUrl::parse_list(text).unwrap_err().to_string();
        for (text, part) in [
            ("", "tcp://"),
            ("localhost:1", "tcp://"),
            ("glockd://localhost:1", "tcp://"),
            ("tcp://", "HOST"),
            ("tcp://:1", "HOST"),
            ("tcp://a/b", "HOST"),
            ("tcp://a:", "port"),
            ("tcp://a:0", "port"),
            ("tcp://a:65536", "port"),
            ("tcp://a:1/", "port"),
            ("tcp://::1", "[ ]"),
            ("tcp://[::1", "]"),
            ("tcp://[::1]1", ":PORT"),
            ("unix:lockd.sock", "begin with /"),
            ("tcp://a,", "tcp://"),
            ("tcp://a, tcp://a:20934", "twice"),
        ] {
            assert!(problem(text).contains(part), "{text}: {}", problem(text));
        }
    }

    #[test]
    fn a_list_keeps_the_addresses_as_written() {
        let servers = ServerUrl::parse_list("tcp://a , unix:/b").unwrap();
        assert_eq!(servers.iter().map(ServerUrl::as_str).collect::<Vec<_>>(), ["tcp://a", "unix:/b"]);
    }
}
