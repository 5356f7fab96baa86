//! Why connecting has failed, and the kind of the reason: a server that is absent now, or a mistake
//! that makes the next attempt fail too. Texts and kinds only; connects nothing.

use std::fmt;
use std::io;
use std::path::Path;

use super::url::BadUrl;

/// Why there is no session, or no [`MessageClient`](super::MessageClient).
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is malformed.
    Url(BadUrl),
    /// The host's name could not be resolved.
    Unresolved {
        /// Its address.
        server: String,
        /// The resolver's error.
        error: io::Error,
    },
    /// The server cannot be reached.
    Unreachable {
        /// Its address.
        server: String,
        /// The error of the last attempt.
        error: io::Error,
    },
    /// It was reached but is no lock server, or it refuses, or something needed to connect is
    /// missing here.
    Refused {
        /// Its address.
        server: String,
        /// Why.
        reason: String,
        /// The kind of the reason.
        kind: ConnectErrorKind,
        /// Where clients reach the active server, if this one is a standby and knows that.
        active: Option<String>,
    },
    /// A server that may be at several places is at none of them now: the error of each place, in
    /// the order in which they were tried.
    AtNoPlace {
        /// Its address.
        server: String,
        /// Why it is not there.
        errors: Vec<ConnectError>,
    },
    /// Several servers were tried, and all have failed: the error of each, in the order of their
    /// addresses.
    NoneOfSeveral(Vec<ConnectError>),
}

/// The kind of a [`ConnectError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// The address is malformed, or names a protocol that clients do not speak.
    Address,
    /// The host's name is not known.
    UnknownHost,
    /// Nothing listens there: the connection was refused, or there is no such socket.
    NotListening,
    /// There is no route to the host now, or its name cannot be resolved now.
    Unreachable,
    /// Connecting, or the server's first answer, has taken too long.
    TimedOut,
    /// The server closed the connection before the session began: it is stopping, or has too many
    /// connections.
    Closed,
    /// The server is a standby of a cluster, and another one is active, or will be.
    Standby,
    /// Only one side uses TLS, or one side does not accept the other's certificate.
    Tls,
    /// The server speaks another protocol than lockd's `message`.
    WrongProtocol,
    /// The server asks for a secret, and was shown none or a wrong one.
    Secret,
    /// The cause is in this program: a file that cannot be read, no permission, no descriptors
    /// left.
    Local,
    /// The server refuses for another reason, which the text says.
    Refused,
}

impl ConnectErrorKind {
    /// Whether the server is absent now and may be there later. Anything else is a mistake, and the
    /// next attempt will fail in the same way.
    #[must_use]
    pub fn is_absence(self) -> bool {
        matches!(self, Self::NotListening | Self::Unreachable | Self::TimedOut | Self::Closed | Self::Standby)
    }

    /// Whether the server may be at another of its places, if it fails in this way at one of them. A
    /// host may have no name while it is down.
    pub(super) fn leaves_other_places(self) -> bool {
        self.is_absence() || self == Self::UnknownHost
    }

    fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Self::NotListening,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::TimedOut,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
                Self::Unreachable
            }
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
            | ErrorKind::UnexpectedEof
            | ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Local,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::Unresolved { server, error } => {
                write!(f, "{server} cannot be reached: its host name cannot be resolved: {error}")
            }
            Self::Unreachable { server, error } => write!(f, "{server} cannot be reached: {error}"),
            Self::Refused { server, reason, .. } => write!(f, "no session on {server}: {reason}"),
            Self::AtNoPlace { server, errors } => {
                let summary = match self.kind() {
                    ConnectErrorKind::Standby => "no server of the group is active",
                    ConnectErrorKind::UnknownHost => "no place of the group is known",
                    _ => "no place of the group answers",
                };
                let reasons: Vec<String> = errors.iter().map(Self::at_place).collect();
                write!(f, "{server} cannot be reached: {summary}: {}", reasons.join("; "))
            }
            Self::NoneOfSeveral(errors) => {
                let reasons: Vec<String> = errors.iter().map(Self::to_string).collect();
                f.write_str(&reasons.join("; "))
            }
        }
    }
}

impl std::error::Error for ConnectError {}

impl ConnectError {
    /// The kind of this error. For several servers: the kind of the first mistake, if there is one.
    /// For several places of one server: `Standby` if one has answered so; otherwise the kind of the
    /// first one that is absent now.
    #[must_use]
    pub fn kind(&self) -> ConnectErrorKind {
        match self {
            Self::Url(_) => ConnectErrorKind::Address,
            Self::Unresolved { error, .. } if is_resolver_absent(error) => ConnectErrorKind::Unreachable,
            Self::Unresolved { .. } => ConnectErrorKind::UnknownHost,
            Self::Unreachable { error, .. } => ConnectErrorKind::of_io(error),
            Self::Refused { kind, .. } => *kind,
            Self::AtNoPlace { errors, .. } => {
                let kinds = || errors.iter().map(Self::kind);
                let standby = kinds().find(|kind| *kind == ConnectErrorKind::Standby);
                let absent = || kinds().find(|kind| kind.is_absence());
                standby.or_else(absent).or_else(|| kinds().next()).unwrap_or(ConnectErrorKind::Address)
            }
            Self::NoneOfSeveral(errors) => {
                let mut kinds = errors.iter().map(Self::kind);
                let first = kinds.clone().next().unwrap_or(ConnectErrorKind::Address);
                kinds.find(|kind| !kind.is_absence()).unwrap_or(first)
            }
        }
    }

    /// The reason alone, without the address of the server if there is only one.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Unresolved { error, .. } => format!("its host name cannot be resolved: {error}"),
            Self::Unreachable { error, .. } => error.to_string(),
            Self::Refused { reason, .. } => reason.clone(),
            Self::Url(_) | Self::AtNoPlace { .. } | Self::NoneOfSeveral(_) => self.to_string(),
        }
    }

    /// The place of a group, and why the server is not there.
    fn at_place(&self) -> String {
        match self {
            Self::Refused { server, kind: ConnectErrorKind::Standby, .. } => format!("{server}: standby"),
            Self::Unresolved { server, .. }
            | Self::Unreachable { server, .. }
            | Self::Refused { server, .. } => format!("{server}: {}", self.reason()),
            Self::Url(_) | Self::AtNoPlace { .. } | Self::NoneOfSeveral(_) => self.reason(),
        }
    }

    /// One error for all servers that were tried.
    pub(super) fn of_all(mut errors: Vec<Self>) -> Self {
        if errors.len() == 1 { errors.remove(0) } else { Self::NoneOfSeveral(errors) }
    }
}

/// Whether the resolver could not be reached, as opposed to not knowing the name. The standard
/// library passes the resolver's error code on only as the C library's text (glibc, musl).
fn is_resolver_absent(error: &io::Error) -> bool {
    let words = error.to_string();
    words.ends_with("Temporary failure in name resolution") || words.ends_with("Try again")
}

impl From<BadUrl> for ConnectError {
    fn from(error: BadUrl) -> Self {
        Self::Url(error)
    }
}

/// Why a server that was reached cannot be used.
#[derive(Debug)]
pub(super) struct ConnectRefusal {
    pub(super) kind: ConnectErrorKind,
    pub(super) reason: String,
    /// Of a standby that knows the active server.
    active: Option<String>,
}

impl ConnectRefusal {
    pub(super) fn new(kind: ConnectErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), active: None }
    }

    /// The server is a standby, and says where the active one is if it knows that.
    pub(super) fn standby(reason: String, active: Option<String>) -> Self {
        Self { active, ..Self::new(ConnectErrorKind::Standby, reason) }
    }

    /// The connection was lost before the server's first answer. A server that says nothing before
    /// it closes the connection has most often not found this host in its access list.
    pub(super) fn lost(kind: ConnectErrorKind, words: String) -> Self {
        let is_silent = kind == ConnectErrorKind::Closed && !words.contains("reported an error: ");
        // Before the words: bindings tell by the end of the text that the server is absent.
        let hint = "perhaps its --allow does not name this host: ";
        Self::new(kind, if is_silent { hint.to_owned() + &words } else { words })
    }

    /// The server has not answered the first request.
    pub(super) fn unanswered() -> Self {
        let reason = "it has not answered in time: it hangs, or speaks another protocol there than `message`, \
                      which clients need (port 20934 unless the server says otherwise; not that of lockd, 2626, \
                      or of glockd, 9999)";
        Self::new(ConnectErrorKind::TimedOut, reason)
    }

    /// The server speaks the same protocol, but is not lockd.
    pub(super) fn no_hello() -> Self {
        let reason = "it speaks `message`, but does not know the command hello: it is no lockd";
        Self::new(ConnectErrorKind::WrongProtocol, reason)
    }

    /// The server has refused because of the secret; `words` is its text. `shown` is the file with
    /// the secret that it was shown.
    pub(super) fn secret(shown: Option<&Path>, words: &str) -> Self {
        let words = match shown {
            Some(file) if words.contains("authToken") => {
                format!("the secret in {} is not this server's", file.display())
            }
            Some(file) => format!("{words} (it was shown the secret in {})", file.display()),
            None => format!(
                "{words} (name the file with it: ?auth-token-file=FILE after the address, or LOCKD_AUTH_TOKEN_FILE)"
            ),
        };
        Self::new(ConnectErrorKind::Secret, words)
    }

    /// As the error of the server with this address.
    pub(super) fn of(self, server: &impl fmt::Display) -> ConnectError {
        let Self { kind, reason, active } = self;
        ConnectError::Refused { server: server.to_string(), reason, kind, active }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable(kind: io::ErrorKind) -> ConnectError {
        ConnectError::Unreachable { server: "tcp://a".to_owned(), error: kind.into() }
    }

    fn unknown() -> ConnectError {
        let error = io::Error::other("failed to lookup address information: Name or service not known");
        ConnectError::Unresolved { server: "c".to_owned(), error }
    }

    #[test]
    fn an_absent_server_is_distinguished_from_a_mistake() {
        for (error, kind) in [
            (io::ErrorKind::ConnectionRefused, ConnectErrorKind::NotListening),
            (io::ErrorKind::NotFound, ConnectErrorKind::NotListening),
            (io::ErrorKind::TimedOut, ConnectErrorKind::TimedOut),
            (io::ErrorKind::HostUnreachable, ConnectErrorKind::Unreachable),
            (io::ErrorKind::NetworkUnreachable, ConnectErrorKind::Unreachable),
            (io::ErrorKind::ConnectionReset, ConnectErrorKind::Closed),
        ] {
            assert_eq!(unreachable(error).kind(), kind);
            assert!(kind.is_absence());
        }
        assert!(!unreachable(io::ErrorKind::PermissionDenied).kind().is_absence());
        let resolver = |words: &str| {
            let error = io::Error::other(format!("failed to lookup address information: {words}"));
            ConnectError::Unresolved { server: "tcp://a".to_owned(), error }.kind()
        };
        assert_eq!(resolver("Name or service not known"), ConnectErrorKind::UnknownHost);
        assert_eq!(resolver("Temporary failure in name resolution"), ConnectErrorKind::Unreachable);
    }

    #[test]
    fn one_mistake_among_several_servers_is_not_reported_as_absence() {
        let secret = || ConnectRefusal::new(ConnectErrorKind::Secret, "no").of(&"tcp://b");
        let refused = || unreachable(io::ErrorKind::ConnectionRefused);
        assert_eq!(ConnectError::of_all(vec![refused(), secret()]).kind(), ConnectErrorKind::Secret);
        assert_eq!(ConnectError::of_all(vec![refused(), refused()]).kind(), ConnectErrorKind::NotListening);
    }

    #[test]
    fn a_group_is_absent_if_a_place_is_and_the_text_names_each_place() {
        let refused = || {
            let error = io::Error::from_raw_os_error(111);
            ConnectError::Unreachable { server: "a:1".to_owned(), error }
        };
        let standby = || ConnectRefusal::new(ConnectErrorKind::Standby, "a long text").of(&"b:2");
        for (errors, kind, text) in [
            (
                vec![refused(), standby()],
                ConnectErrorKind::Standby,
                "no server of the group is active: a:1: Connection refused (os error 111); b:2: standby",
            ),
            (
                vec![unknown(), refused()],
                ConnectErrorKind::NotListening,
                "no place of the group answers: c: its host name cannot be resolved: failed to lookup address \
                 information: Name or service not known; a:1: Connection refused (os error 111)",
            ),
            (
                vec![unknown()],
                ConnectErrorKind::UnknownHost,
                "no place of the group is known: c: its host name cannot be resolved: failed to lookup address \
                 information: Name or service not known",
            ),
        ] {
            let error = ConnectError::AtNoPlace { server: "tcp://x".to_owned(), errors };
            assert_eq!(error.kind(), kind);
            assert_eq!(error.to_string(), format!("tcp://x cannot be reached: {text}"));
        }
        assert!(ConnectErrorKind::Standby.is_absence());
        assert!(!ConnectErrorKind::UnknownHost.is_absence());
    }
}
