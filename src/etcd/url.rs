//! Where an etcd cluster is, as users write it. Parses the text; resolves and connects nothing, and
//! reads no files.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::os::tls::ClientFiles;

/// The port of etcd's clients, for an end point without a port.
const DEFAULT_PORT: u16 = 2379;
/// The most characters of a name.
const NAME_CHARS_MAX: usize = 64;

/// Where an etcd cluster is, and how to talk to it: `etcd://HOST:2379,HOST/NAME?…`.
///
/// `etcd+tls://` asks for TLS. A port is decimal digits from 1 to 65535; without one it is 2379. An
/// IPv6 address is written in `[ ]`. The name says under which keys a group of servers has its
/// state: 1 to 64 of the characters `a-z A-Z 0-9 . _ -`.
///
/// After the name, a `?` may follow with these, separated by `&`:
///
/// - `ca=FILE` (TLS): the authorities trusted to sign the certificates of etcd. Without it, those
///   that the system trusts.
/// - `cert=FILE` and `key=FILE` (TLS): this client's own certificate and its key, which may be in
///   one file.
/// - `user=NAME` and `password-file=FILE`: a user of etcd. The password itself is never part of an
///   address, because others may see addresses.
///
/// File names are written without escapes, so they cannot contain `&`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdUrl {
    text: String,
    end_points: Vec<EtcdEndPoint>,
    name: String,
    tls: Option<ClientFiles>,
    user: Option<EtcdUser>,
}

/// One server of an etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EtcdEndPoint {
    /// A name or an address, without `[ ]`.
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for EtcdEndPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// A user of etcd, and the file with its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EtcdUser {
    pub(super) name: String,
    pub(super) password_file: PathBuf,
}

/// Why a text is not the address of an etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEtcdUrl {
    /// The text, without what may be a password.
    text: String,
    problem: &'static str,
}

impl fmt::Display for BadEtcdUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not the address of an etcd cluster: {:?}: {}", self.text, self.problem)
    }
}

impl std::error::Error for BadEtcdUrl {}

impl fmt::Display for EtcdUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for EtcdUrl {
    type Err = BadEtcdUrl;

    fn from_str(text: &str) -> Result<Self, BadEtcdUrl> {
        let text = text.trim();
        read(text).map_err(|problem| BadEtcdUrl { text: without_password(text), problem })
    }
}

impl EtcdUrl {
    /// The part after the `/`: the name under which the keys of one group of servers are kept.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// At least one.
    pub(super) fn end_points(&self) -> &[EtcdEndPoint] {
        &self.end_points
    }

    /// The files for TLS; `None` for connections without TLS.
    pub(super) fn tls(&self) -> Option<&ClientFiles> {
        self.tls.as_ref()
    }

    pub(super) fn user(&self) -> Option<&EtcdUser> {
        self.user.as_ref()
    }
}

fn read(text: &str) -> Result<EtcdUrl, &'static str> {
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let tls = match scheme {
        "etcd" => None,
        "etcd+tls" => Some(ClientFiles::default()),
        "http" | "https" => {
            return Err("write etcd:// instead of http://, or etcd+tls:// instead of https://");
        }
        "etcds" | "etcd+https" => return Err("TLS is written etcd+tls://HOST:PORT/NAME"),
        _ => return Err("it must begin with etcd:// or etcd+tls://"),
    };
    let (place, options) = rest.split_once('?').map_or((rest, None), |(place, rest)| (place, Some(rest)));
    let (hosts, name) = place.split_once('/').ok_or("after the hosts there must be /NAME")?;
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_path = [".", ".."].contains(&name);
    if name.is_empty() || name.len() > NAME_CHARS_MAX || is_path || !name.chars().all(is_of_name) {
        return Err("the name after the / must be 1 to 64 of the characters a-z A-Z 0-9 . _ -");
    }
    let mut end_points = Vec::new();
    for host in hosts.split(',') {
        let end_point = read_end_point(host.trim())?;
        if end_points.contains(&end_point) {
            return Err("a host stands in it twice");
        }
        end_points.push(end_point);
    }
    let mut url = EtcdUrl { text: text.to_owned(), end_points, name: name.to_owned(), tls, user: None };
    read_options(&mut url, options)?;
    Ok(url)
}

fn read_end_point(text: &str) -> Result<EtcdEndPoint, &'static str> {
    if text.contains('@') {
        return Err("a user is written ?user=NAME&password-file=FILE");
    }
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').ok_or("a [ without its ]")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err("in [ ] there must be an IPv6 address");
        }
        match rest.strip_prefix(':') {
            None if !rest.is_empty() => return Err("after ] there can be only :PORT"),
            port => (host, port),
        }
    } else {
        let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        if port.is_some_and(|port| port.contains(':')) {
            return Err("an IPv6 address must stand in [ ]");
        }
        let is_of_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if host.is_empty() || !host.chars().all(is_of_host) {
            return Err("etcd:// must be followed by HOST or HOST:PORT, several of them separated by commas");
        }
        (host, port)
    };
    let port = port.map_or(Some(DEFAULT_PORT), read_port);
    let port = port.ok_or("a port must be a number from 1 to 65535, without leading zeros")?;
    Ok(EtcdEndPoint { host: host.to_owned(), port })
}

fn read_port(digits: &str) -> Option<u16> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    if is_number { digits.parse().ok() } else { None }
}

/// Reads what follows the `?`.
fn read_options(url: &mut EtcdUrl, options: Option<&str>) -> Result<(), &'static str> {
    let (mut user, mut password_file) = (None, None);
    for option in options.into_iter().flat_map(|options| options.split('&')) {
        let (key, value) = option.split_once('=').filter(|(_, value)| !value.is_empty()).unwrap_or_default();
        let is_twice = match (key, &mut url.tls) {
            ("user", _) => user.replace(value.to_owned()).is_some(),
            ("password-file", _) => password_file.replace(PathBuf::from(value)).is_some(),
            ("ca", Some(tls)) => tls.ca.replace(value.into()).is_some(),
            ("cert", Some(tls)) => tls.cert.replace(value.into()).is_some(),
            ("key", Some(tls)) => tls.key.replace(value.into()).is_some(),
            ("ca" | "cert" | "key", None) => return Err("ca=, cert= and key= are for etcd+tls://"),
            ("password", _) => return Err("a password is given in a file: password-file=FILE"),
            _ => {
                return Err(
                    "after ? only ca=FILE, cert=FILE, key=FILE, user=NAME and password-file=FILE are known",
                );
            }
        };
        if is_twice {
            return Err("something stands after ? twice");
        }
    }
    if url.tls.as_ref().is_some_and(|tls| tls.key.is_some() && tls.cert.is_none()) {
        return Err("key= is of no use without cert=");
    }
    url.user = match (user, password_file) {
        (Some(name), Some(password_file)) => Some(EtcdUser { name, password_file }),
        (None, None) => None,
        _ => return Err("user= and password-file= are of no use without each other"),
    };
    Ok(())
}

/// The text, with what stands where others write a password replaced.
fn without_password(text: &str) -> String {
    let (start, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let separator = if start.is_empty() { "" } else { "://" };
    let rest = rest.rsplit_once('@').map_or(rest.to_owned(), |(_, rest)| format!("…@{rest}"));
    let rest = match rest.split_once("password=") {
        Some((before, password)) => {
            let after = password.split_once('&').map_or(String::new(), |(_, after)| format!("&{after}"));
            format!("{before}password=…{after}")
        }
        None => rest,
    };
    format!("{start}{separator}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_point(host: &str, port: u16) -> EtcdEndPoint {
        EtcdEndPoint { host: host.to_owned(), port }
    }

    #[test]
    fn every_form_of_address_is_parsed() {
        let url: EtcdUrl = " etcd://a:1,b.example, 127.0.0.1:65535,[::1],[::1]:7/x.Y_z-9\n".parse().unwrap();
        assert_eq!(url.name(), "x.Y_z-9");
        let expected = [
            end_point("a", 1),
            end_point("b.example", 2379),
            end_point("127.0.0.1", 65535),
            end_point("::1", 2379),
            end_point("::1", 7),
        ];
        assert_eq!(url.end_points(), expected);
        let shown: Vec<String> = url.end_points().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a:1", "b.example:2379", "127.0.0.1:65535", "[::1]:2379", "[::1]:7"]);
        assert_eq!((url.tls(), url.user()), (None, None));
        assert_eq!(url.to_string(), "etcd://a:1,b.example, 127.0.0.1:65535,[::1],[::1]:7/x.Y_z-9");
    }

    #[test]
    fn files_and_a_user_follow_the_name() {
        let text = "etcd+tls://a/n?ca=/b=c&cert=d&key=e?&user=f/g@h&password-file=/i";
        let url: EtcdUrl = text.parse().unwrap();
        let [ca, cert, key] = ["/b=c", "d", "e?"].map(|path| Some(PathBuf::from(path)));
        assert_eq!(url.tls(), Some(&ClientFiles { ca, cert, key }));
        let user = EtcdUser { name: "f/g@h".to_owned(), password_file: "/i".into() };
        assert_eq!(url.user(), Some(&user));
        let url: EtcdUrl = "etcd+tls://a/n".parse().unwrap();
        assert_eq!(url.tls(), Some(&ClientFiles::default()));
    }

    #[test]
    fn a_malformed_address_says_why() {
        let problem = |text: &str| text.parse::<EtcdUrl>().unwrap_err().to_string();
        let long = format!("etcd://a/{}", "n".repeat(65));
        for (text, part) in [
            ("", "begin with etcd://"),
            ("a/n", "begin with etcd://"),
            ("tcp://a/n", "begin with etcd://"),
            ("http://a/n", "etcd+tls:// instead of https://"),
            ("etcds://a/n", "etcd+tls://"),
            ("etcd://", "/NAME"),
            ("etcd://a", "/NAME"),
            ("etcd://a/..", "1 to 64"),
            ("etcd://a?user=x", "/NAME"),
            ("etcd://a/", "1 to 64"),
            ("etcd://a/n/m", "1 to 64"),
            ("etcd://a/ä", "1 to 64"),
            (&long, "1 to 64"),
            ("etcd:///n", "HOST"),
            ("etcd://a,/n", "HOST"),
            ("etcd://a b/n", "HOST"),
            ("etcd://:1/n", "HOST"),
            ("etcd://a:/n", "port"),
            ("etcd://a:0/n", "port"),
            ("etcd://a:080/n", "port"),
            ("etcd://a:+80/n", "port"),
            ("etcd://a:65536/n", "port"),
            ("etcd://::1/n", "[ ]"),
            ("etcd://[::1/n", "]"),
            ("etcd://[a]/n", "IPv6"),
            ("etcd://[::1]1/n", ":PORT"),
            ("etcd://a,a:2379/n", "twice"),
            ("etcd://a/n?", "after ?"),
            ("etcd://a/n?user", "after ?"),
            ("etcd://a/n?user=", "after ?"),
            ("etcd://a/n?ca=/x", "for etcd+tls://"),
            ("etcd+tls://a/n?ca=/x&ca=/y", "twice"),
            ("etcd+tls://a/n?key=/x", "cert="),
            ("etcd://a/n?user=x", "without each other"),
            ("etcd://a/n?password-file=x", "without each other"),
        ] {
            assert!(problem(text).contains(part), "{text}: {}", problem(text));
        }
    }

    #[test]
    fn a_password_where_it_must_not_stand_is_not_repeated() {
        let long = "etcd://me:se/c?ret@a/n?user=x&password=se/c?ret&password-file=y";
        for text in [long, "etcd://me:secret@a/n", "etcd://a/n?user=x&password=secret", "me:secret@a"] {
            let problem = text.parse::<EtcdUrl>().unwrap_err().to_string();
            assert!(!problem.contains("ret"), "{problem}");
        }
    }
}
