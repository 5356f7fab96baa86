//! Addresses of servers as users write them: `tcp://HOST:PORT` or `unix:/PATH`, several separated
//! by commas. Parses addresses; resolves and connects nothing.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::rendezvous::choose;
use crate::os::tls::ClientFiles;
use crate::wire::parse_port;

/// The port of the `message` protocol, for an address without a port.
const DEFAULT_PORT: u16 = 20934;

/// The address of one server: `tcp://HOST`, `tcp://HOST:PORT`, `tls://HOST`, `tls://HOST:PORT`,
/// `unix:/PATH`, or the form in which a server logs what it listens on, `message://HOST:PORT`,
/// `message+tls://HOST:PORT` or `message+unix:/PATH`.
///
/// A port is decimal digits from 1 to 65535, without leading zeros.
///
/// After a host, a `?` may follow with the names of files, separated by `&` (certificates and keys
/// in PEM):
///
/// - `ca=FILE` (TLS): the authorities trusted to sign the server's certificate. Without it, those
///   that the system trusts: the file named by the environment variable `SSL_CERT_FILE`, or a
///   well-known one.
/// - `cert=FILE` and `key=FILE` (TLS): the client's own certificate and its key, which may be in
///   one file.
/// - `auth-token-file=FILE`: the file with the server's secret. Without it, the file named by the
///   environment variable `LOCKD_AUTH_TOKEN_FILE`, if it is set. The secret itself is never part of
///   an address, because others may see addresses.
///
/// - `resume`: the session survives the end of its connection, if the server offers that (see
///   [`Session`](crate::Session#sessions-that-resume)). Also after the path of a Unix socket, where
///   nothing else can follow it: `unix:/PATH?resume`.
///
/// File names are written without escapes, so they cannot contain `&`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    text: String,
    endpoint: Endpoint,
    tls: Option<ClientFiles>,
    auth_token_file: Option<PathBuf>,
    resumes: bool,
}

/// The environment variable that names the file with the secret, for addresses that name none.
const AUTH_TOKEN_FILE: &str = "LOCKD_AUTH_TOKEN_FILE";

/// What stands after the path of a Unix socket if the session is to be resumed.
const RESUME: &str = "?resume";

/// What a server asks for as `authToken`. Has no `Debug`, so that it cannot get into a log.
pub(super) struct Secret {
    pub(super) text: String,
    /// The file that it was read from.
    pub(super) file: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// Why a text is not the address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUrl {
    text: String,
    problem: Cow<'static, str>,
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
        match read(text) {
            Ok(url) => Ok(url),
            Err(problem) => {
                let problem = hint(text).map_or(Cow::Borrowed(problem), Cow::Owned);
                Err(BadUrl { text: text.to_owned(), problem })
            }
        }
    }
}

impl ServerUrl {
    /// Parses addresses separated by commas: at least one, and none twice. An address in a list
    /// cannot contain a comma.
    ///
    /// # Errors
    /// [`BadUrl`] for the first one that is malformed.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, BadUrl> {
        let mut servers: Vec<Self> = Vec::new();
        for part in text.split(',') {
            let server: Self = part.parse()?;
            if servers.iter().any(|other| other.endpoint == server.endpoint) {
                return Err(BadUrl { text: server.text, problem: "stands in the list twice".into() });
            }
            servers.push(server);
        }
        Ok(servers)
    }

    /// The index of the server in `servers`, a list from [`parse_list`](Self::parse_list), that the
    /// name belongs to.
    #[must_use]
    pub fn index_for(servers: &[Self], name: &[u8]) -> usize {
        choose(servers.iter().map(Self::address), name)
    }

    /// The address as it was written, without white space around it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address without a `?` and what follows it.
    pub(super) fn address(&self) -> &str {
        match self.endpoint {
            Endpoint::Tcp { .. } => self.text.split('?').next().unwrap_or_default(),
            Endpoint::Unix(_) => self.text.strip_suffix(RESUME).unwrap_or(&self.text),
        }
    }

    /// Whether the session is to survive the end of its connection.
    pub(super) fn resumes(&self) -> bool {
        self.resumes
    }

    /// The files for TLS; `None` for a connection without TLS.
    pub(super) fn tls(&self) -> Option<&ClientFiles> {
        self.tls.as_ref()
    }

    /// The secret to show to the server.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub(super) fn secret(&self) -> Result<Option<Secret>, String> {
        let variable = || std::env::var_os(AUTH_TOKEN_FILE).filter(|path| !path.is_empty());
        let Some(file) = self.auth_token_file.clone().or_else(|| variable().map(PathBuf::from)) else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(&file);
        let text =
            text.map_err(|error| format!("the secret in {} cannot be read: {error}", file.display()))?;
        Ok(Some(Secret { text: text.trim().to_owned(), file }))
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// A suggestion for an address without a scheme.
fn hint(text: &str) -> Option<String> {
    let meant = if text.starts_with('/') {
        format!("unix:{text}")
    } else if text.is_empty() || text.contains("://") || text.starts_with("unix:") {
        return None;
    } else {
        format!("tcp://{text}")
    };
    read(&meant).is_ok().then(|| format!("it has no scheme; did you mean {meant}?"))
}

fn read(text: &str) -> Result<ServerUrl, &'static str> {
    let mut url = ServerUrl {
        text: text.to_owned(),
        endpoint: Endpoint::Unix(PathBuf::new()),
        tls: None,
        auth_token_file: None,
        resumes: false,
    };
    if let Some(path) = text.strip_prefix("unix:").or_else(|| text.strip_prefix("message+unix:")) {
        // Only this, since any other ? may be part of the path.
        let (path, resumes) = path.strip_suffix(RESUME).map_or((path, false), |path| (path, true));
        url.resumes = resumes;
        // Some programs write `unix:///path`. Relative paths are refused: they would depend on the
        // current directory.
        let path = path.strip_prefix("//").unwrap_or(path);
        let is_absolute = path.starts_with('/') && !path.contains('\0');
        url.endpoint = Endpoint::Unix(path.into());
        return if is_absolute { Ok(url) } else { Err("the path must begin with /") };
    }
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    url.tls = match scheme {
        "tcp" | "message" => None,
        "tls" | "message+tls" => Some(ClientFiles::default()),
        _ => return Err(problem_with_scheme(text)),
    };
    let (rest, files) = rest.split_once('?').map_or((rest, None), |(rest, files)| (rest, Some(files)));
    let (host, port) = split_port(rest)?;
    if host.is_empty() || host.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) {
        return Err("tcp:// and tls:// must be followed by HOST or HOST:PORT");
    }
    let port = port.map_or(Some(DEFAULT_PORT), parse_port).filter(|&port| port != 0);
    let port = port.ok_or("the port must be a number from 1 to 65535, without leading zeros")?;
    url.endpoint = Endpoint::Tcp { host: host.to_owned(), port };
    for file in files.into_iter().flat_map(|files| files.split('&')) {
        read_file(&mut url, file)?;
    }
    if url.tls.as_ref().is_some_and(|tls| tls.key.is_some() && tls.cert.is_none()) {
        return Err("key= is of no use without cert=");
    }
    Ok(url)
}

/// The problem with an address that begins with another scheme.
fn problem_with_scheme(text: &str) -> &'static str {
    match text.split(':').next().unwrap_or_default() {
        "lockd" | "glockd" => {
            "clients speak `message`, not the protocols lockd and glockd, which have other ports: write \
             tcp://HOST:PORT with the port of a `message` listener (20934 unless the server is told another)"
        }
        "lockd+tls" | "glockd+tls" => {
            "clients speak `message`, not the protocols lockd and glockd, which have other ports: write \
             tls://HOST:PORT with the port of a `message+tls` listener"
        }
        "lockd+unix" | "glockd+unix" => {
            "clients speak `message`, not the protocols lockd and glockd: write unix:/PATH with the path of a \
             `message+unix` listener"
        }
        "http" | "https" | "ws" | "wss" | "glockd+ws" | "glockd+ws+tls" | "message+ws" | "message+ws+tls" => {
            "clients speak `message`, neither HTTP nor WebSocket: write tcp://HOST:PORT (or tls://HOST:PORT) with \
             the port of a `message` listener (20934 unless the server is told another)"
        }
        "ssl" | "tcps" | "tcp+tls" => "TLS is written tls://HOST:PORT",
        _ => "it must begin with tcp://, tls:// or unix:/",
    }
}

/// Parses one of the files after the `?`, or another part of what follows it.
fn read_file(url: &mut ServerUrl, file: &str) -> Result<(), &'static str> {
    if file == "resume" {
        return if std::mem::replace(&mut url.resumes, true) {
            Err("resume stands after ? twice")
        } else {
            Ok(())
        };
    }
    let (key, path) = file.split_once('=').filter(|(_, path)| !path.is_empty()).unwrap_or_default();
    let slot = match (key, &mut url.tls) {
        ("auth-token-file", _) => &mut url.auth_token_file,
        ("ca", Some(tls)) => &mut tls.ca,
        ("cert", Some(tls)) => &mut tls.cert,
        ("key", Some(tls)) => &mut tls.key,
        ("ca" | "cert" | "key", None) => return Err("ca=, cert= and key= are for tls://"),
        _ => {
            return Err(
                "after ? only ca=FILE, cert=FILE, key=FILE, auth-token-file=FILE and resume are known",
            );
        }
    };
    if slot.replace(path.into()).is_some() {
        return Err("the same file is given twice after ?");
    }
    Ok(())
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
    fn every_form_of_address_is_parsed() {
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
    fn files_follow_the_host_and_are_not_part_of_the_address() {
        let url: ServerUrl = "tls://a:1?ca=/b=c&cert=d&key=e?&auth-token-file=/f".parse().unwrap();
        let [ca, cert, key] = ["/b=c", "d", "e?"].map(|path| Some(PathBuf::from(path)));
        assert_eq!((url.tls(), url.address()), (Some(&ClientFiles { ca, cert, key }), "tls://a:1"));
        assert_eq!((&url.endpoint, &url.auth_token_file), (&tcp("a", 1), &Some("/f".into())));
        for text in ["tls://a", "message+tls://a:20934"] {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!((url.tls(), url.address()), (Some(&ClientFiles::default()), text));
        }
        let url: ServerUrl = "tcp://a?auth-token-file=/nonexistent/secret".parse().unwrap();
        assert!(url.tls().is_none() && url.secret().err().unwrap().contains("/nonexistent/secret"));
        assert!(!url.resumes());
        for text in ["tcp://a:1?resume", "tls://a:1?ca=/x&resume", "tcp://a:1?resume&auth-token-file=/f"] {
            let url: ServerUrl = text.parse().unwrap();
            assert!(url.resumes() && url.address().ends_with("://a:1"), "{text}");
        }
        let url: ServerUrl = "unix:/a?resume".parse().unwrap();
        assert_eq!(
            (url.resumes(), url.address(), &url.endpoint),
            (true, "unix:/a", &Endpoint::Unix("/a".into()))
        );
        let url: ServerUrl = "unix:/a?b".parse().unwrap();
        assert_eq!((url.address(), &url.endpoint), ("unix:/a?b", &Endpoint::Unix("/a?b".into())));
    }

    #[test]
    fn a_malformed_address_says_why() {
        let problem = |text: &str| ServerUrl::parse_list(text).unwrap_err().to_string();
        for (text, part) in [
            ("", "tcp://"),
            ("glockd://localhost:1", "clients speak `message`"),
            ("lockd://localhost:2626", "tcp://HOST:PORT"),
            ("glockd+tls://localhost:2626", "tls://HOST:PORT"),
            ("lockd+unix:/run/lockd.sock", "unix:/PATH"),
            ("http://localhost:8080/", "neither HTTP nor WebSocket"),
            ("wss://localhost:1", "tcp://HOST:PORT"),
            ("ssl://localhost:1", "tls://HOST:PORT"),
            ("localhost:1", "did you mean tcp://localhost:1?"),
            ("127.0.0.1", "did you mean tcp://127.0.0.1?"),
            ("[::1]:7", "did you mean tcp://[::1]:7?"),
            ("/run/lockd.sock", "did you mean unix:/run/lockd.sock?"),
            ("localhost:+1", "must begin with tcp://"),
            ("a b", "must begin with tcp://"),
            ("tcp://", "HOST"),
            ("tcp://:1", "HOST"),
            ("tcp://a/b", "HOST"),
            ("tcp://a:", "port"),
            ("tcp://a:0", "port"),
            ("tcp://a:+80", "port"),
            ("tcp://a:-1", "port"),
            ("tcp://a:080", "port"),
            ("tcp://a:00080", "port"),
            ("tcp://a:0x50", "port"),
            ("tcp://a:65536", "port"),
            ("tcp://a:100000", "port"),
            ("tcp://a:1/", "port"),
            ("tcp://::1", "[ ]"),
            ("tcp://[::1", "]"),
            ("tcp://[::1]1", ":PORT"),
            ("unix:lockd.sock", "begin with /"),
            ("tcp://a,", "tcp://"),
            ("tcp://a, tcp://a:20934", "twice"),
            ("tcp://a?ca=/x", "for tls://"),
            ("tls://a?", "after ?"),
            ("tls://a?ca", "after ?"),
            ("tls://a?ca=", "after ?"),
            ("tls://a?token=x", "after ?"),
            ("tls://a?ca=/x&ca=/y", "twice"),
            ("tcp://a?resume&resume", "twice"),
            ("tcp://a?resume=1", "after ?"),
            ("unix:/a, unix:/a?resume", "twice"),
            ("tls://a?key=/x", "cert="),
            ("message+ws://a", "tls://"),
        ] {
            assert!(problem(text).contains(part), "{text}: {}", problem(text));
        }
    }

    #[test]
    fn a_list_keeps_the_addresses_as_they_are_written() {
        let servers = ServerUrl::parse_list("tcp://a , unix:/b").unwrap();
        assert_eq!(servers.iter().map(ServerUrl::as_str).collect::<Vec<_>>(), ["tcp://a", "unix:/b"]);
    }
}
