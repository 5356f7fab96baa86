//! Addresses of servers as users write them: `tcp://HOST:PORT` or `unix:/PATH`, several separated
//! by commas; and the places of one server that may be at several. Parses addresses; resolves and
//! connects nothing.

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
/// After a host, more places may follow where the same server may be, separated by commas:
/// `tcp://a:20934,b:20934,c`. They are a group: the members of a cluster, of which one is active at a
/// time, and clients look for that one. What follows a `?` stands after the last place, and is for
/// all of them.
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
    /// By which names are spread over servers.
    address: String,
    /// Where the server may be, at least one place.
    places: Vec<ServerPlace>,
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

/// One place where a server may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerPlace {
    /// How errors name it: the server's whole address if it has only this place, otherwise the place
    /// as it is written.
    label: String,
    pub(super) endpoint: Endpoint,
}

impl fmt::Display for ServerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
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
    /// Parses addresses separated by commas: at least one. A part without a scheme is another place
    /// of the server before it. No place may stand in the list twice. Paths and file names in a list
    /// cannot contain a comma.
    ///
    /// # Errors
    /// [`BadUrl`] for the first one that is malformed.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, BadUrl> {
        let mut servers: Vec<Self> = Vec::new();
        for address in split_list(text)? {
            let server: Self = address.parse()?;
            let mut known = servers.iter().flat_map(|other| &other.places);
            if known.any(|known| server.is_at(&known.endpoint)) {
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

    /// By which names are spread over servers: the address without a `?` and what follows it. The
    /// places of a group are sorted by their bytes in it, so that it does not matter which one a
    /// client is told first.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Where the server may be: at least one place, in the order in which they are written.
    pub(super) fn places(&self) -> &[ServerPlace] {
        &self.places
    }

    /// Whether the server may be at several places.
    pub(super) fn is_group(&self) -> bool {
        self.places.len() > 1
    }

    /// Each place where the server may be, as it is written, and the address of a server at this place
    /// alone.
    #[must_use]
    pub fn each_place(&self) -> Vec<(String, String)> {
        let (scheme, rest) = match self.text.split_once("://") {
            Some(parts) if unix_path(&self.text).is_none() => parts,
            _ => return vec![(self.address.clone(), self.text.clone())],
        };
        let (places, files) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        let alone = |place: &str| (place.to_owned(), format!("{scheme}://{place}{files}"));
        places.split(',').map(str::trim).map(alone).collect()
    }

    fn is_at(&self, endpoint: &Endpoint) -> bool {
        self.places.iter().any(|place| place.endpoint == *endpoint)
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
}

/// Splits a list of addresses: each part that does not begin an address is another place of the
/// server before it.
fn split_list(text: &str) -> Result<Vec<String>, BadUrl> {
    let mut addresses: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim) {
        match addresses.last_mut() {
            Some(last) if has_places(last) && !begins_address(part) => {
                let has_ended = last.contains('?');
                last.push(',');
                last.push_str(part);
                if has_ended {
                    let problem = "what follows the ? stands after the last place".into();
                    return Err(BadUrl { text: last.clone(), problem });
                }
            }
            _ => addresses.push(part.to_owned()),
        }
    }
    Ok(addresses)
}

/// Whether this part of a list begins the address of a server, as opposed to another place.
fn begins_address(part: &str) -> bool {
    part.contains("://") || part.starts_with('/') || part.starts_with("unix:") || part.contains("+unix:")
}

/// Whether more places may follow this address.
fn has_places(address: &str) -> bool {
    address.contains("://") && unix_path(address).is_none()
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

fn unix_path(text: &str) -> Option<&str> {
    text.strip_prefix("unix:").or_else(|| text.strip_prefix("message+unix:"))
}

fn read(text: &str) -> Result<ServerUrl, &'static str> {
    let mut url = ServerUrl {
        text: text.to_owned(),
        address: text.to_owned(),
        places: Vec::new(),
        tls: None,
        auth_token_file: None,
        resumes: false,
    };
    if let Some(path) = unix_path(text) {
        // Only this, since any other ? may be part of the path.
        let (path, resumes) = path.strip_suffix(RESUME).map_or((path, false), |path| (path, true));
        url.resumes = resumes;
        url.address.truncate(text.len() - if resumes { RESUME.len() } else { 0 });
        // Some programs write `unix:///path`. Relative paths are refused: they would depend on the
        // current directory.
        let path = path.strip_prefix("//").unwrap_or(path);
        let is_absolute = path.starts_with('/') && !path.contains('\0');
        url.places.push(ServerPlace { label: text.to_owned(), endpoint: Endpoint::Unix(path.into()) });
        return if is_absolute { Ok(url) } else { Err("the path must begin with /") };
    }
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    url.tls = match scheme {
        "tcp" | "message" => None,
        "tls" | "message+tls" => Some(ClientFiles::default()),
        _ => return Err(problem_with_scheme(text)),
    };
    let (rest, files) = rest.split_once('?').map_or((rest, None), |(rest, files)| (rest, Some(files)));
    read_places(&mut url, scheme, rest)?;
    for file in files.into_iter().flat_map(|files| files.split('&')) {
        read_file(&mut url, file)?;
    }
    if url.tls.as_ref().is_some_and(|tls| tls.key.is_some() && tls.cert.is_none()) {
        return Err("key= is of no use without cert=");
    }
    Ok(url)
}

/// Parses the places, and makes the address of them by which names are spread.
fn read_places(url: &mut ServerUrl, scheme: &str, text: &str) -> Result<(), &'static str> {
    let mut written: Vec<&str> = text.split(',').collect();
    let is_group = written.len() > 1;
    if is_group {
        written.iter_mut().for_each(|place| *place = place.trim());
    }
    for place in &written {
        let endpoint = read_place(place)?;
        if url.is_at(&endpoint) {
            return Err("the same place stands in it twice");
        }
        let label = if is_group { (*place).to_owned() } else { url.text.clone() };
        url.places.push(ServerPlace { label, endpoint });
    }
    written.sort_unstable();
    url.address = format!("{scheme}://{}", written.join(","));
    Ok(())
}

fn read_place(text: &str) -> Result<Endpoint, &'static str> {
    if text.contains("://") {
        return Err("this is a list of servers, but one is asked for");
    }
    let (host, port) = split_port(text)?;
    if host.is_empty() || host.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) {
        return Err("tcp:// and tls:// must be followed by HOST or HOST:PORT, or by several of these, \
                    separated by commas");
    }
    let port = port.map_or(Some(DEFAULT_PORT), parse_port).filter(|&port| port != 0);
    let port = port.ok_or("the port must be a number from 1 to 65535, without leading zeros")?;
    Ok(Endpoint::Tcp { host: host.to_owned(), port })
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
mod tests;
