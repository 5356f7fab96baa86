//! Why there is no session on a server, and of which kind the reason is: a server that is not there, or a mistake
//! that no second attempt mends. Words and kinds; connects nothing.

use std::fmt;
use std::io;
use std::path::Path;

use super::url::BadUrl;

/// Why there is no session, or no client.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is none.
    Url(BadUrl),
    /// The host's name could not be resolved.
    Unresolved {
        /// Its address.
        server: String,
        /// What the resolver says.
        error: io::Error,
    },
    /// The server cannot be reached.
    Unreachable {
        /// Its address.
        server: String,
        /// What the last attempt failed with.
        error: io::Error,
    },
    /// It was reached, but is no lock server, or refuses, or what is needed for it cannot be had here.
    Refused {
        /// Its address.
        server: String,
        /// Why.
        reason: String,
        /// Of which kind that is.
        kind: ConnectErrorKind,
    },
    /// Several servers were tried, and there is a session on none: why, for each, in the order of their
    /// addresses.
    NoneOfSeveral(Vec<ConnectError>),
}

/// What a [`ConnectError`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// The address is none, or names a protocol that clients do not speak.
    Address,
    /// The host's name is not known.
    UnknownHost,
    /// Nobody listens there: the connection was refused, or there is no such socket.
    NotListening,
    /// No way leads to the host now, or its name cannot be looked up now.
    Unreachable,
    /// Connecting, or the server's first answer, has taken too long.
    TimedOut,
    /// The server closed the connection before the session began: it is stopping, or has too many.
    Closed,
    /// TLS on one side only, or a certificate that one of the two does not accept.
    Tls,
    /// What is there speaks something else than the `message` protocol of lockd.
    WrongProtocol,
    /// The server asks for a secret, and was shown none, or another one.
    Secret,
    /// Something of this program's own: a file that cannot be read, no permission, no descriptors left.
    Local,
    /// The server refuses for another reason, which it says.
    Refused,
}

impl ConnectErrorKind {
    /// Whether the server is not there now and may be later; anything else is a mistake in how it was asked
    /// for, which the next attempt meets again.
    #[must_use]
    pub fn is_absence(self) -> bool {
        matches!(self, Self::NotListening | Self::Unreachable | Self::TimedOut | Self::Closed)
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
            Self::NoneOfSeveral(errors) => {
                let reasons: Vec<String> = errors.iter().map(Self::to_string).collect();
                f.write_str(&reasons.join("; "))
            }
        }
    }
}

impl std::error::Error for ConnectError {}

impl ConnectError {
    /// What it comes from. Of several errors: of the first that is a mistake, if there is one.
    #[must_use]
    pub fn kind(&self) -> ConnectErrorKind {
        match self {
            Self::Url(_) => ConnectErrorKind::Address,
            Self::Unresolved { error, .. } if is_resolver_absent(error) => ConnectErrorKind::Unreachable,
            Self::Unresolved { .. } => ConnectErrorKind::UnknownHost,
            Self::Unreachable { error, .. } => ConnectErrorKind::of_io(error),
            Self::Refused { kind, .. } => *kind,
            Self::NoneOfSeveral(errors) => {
                let mut kinds = errors.iter().map(Self::kind);
                let first = kinds.clone().next().unwrap_or(ConnectErrorKind::Address);
                kinds.find(|kind| !kind.is_absence()).unwrap_or(first)
            }
        }
    }

    /// The one error that tells of all of these, one for each server that was tried.
    pub(super) fn of_all(mut errors: Vec<Self>) -> Self {
        if errors.len() == 1 { errors.remove(0) } else { Self::NoneOfSeveral(errors) }
    }
}

/// Whether the resolver could not be asked, and not: whether it does not know the name. The standard library has
/// the resolver's code in words only, as the C library puts it (glibc, musl).
fn is_resolver_absent(error: &io::Error) -> bool {
    let words = error.to_string();
    words.ends_with("Temporary failure in name resolution") || words.ends_with("Try again")
}

impl From<BadUrl> for ConnectError {
    fn from(error: BadUrl) -> Self {
        Self::Url(error)
    }
}

/// Why a server that was reached is of no use.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: ConnectErrorKind,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn new(kind: ConnectErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    /// No word of the server's first answer.
    pub(super) fn unanswered() -> Self {
        let reason = "it has not answered in time: it hangs, or speaks another protocol there than `message`, \
                      which clients need (port 20934 unless the server says otherwise; not that of lockd, 2626, \
                      or of glockd, 9999)";
        Self::new(ConnectErrorKind::TimedOut, reason)
    }

    /// A server of the same protocol, but with other commands.
    pub(super) fn no_hello() -> Self {
        let reason = "it speaks `message`, but does not know the command hello: it is no lockd";
        Self::new(ConnectErrorKind::WrongProtocol, reason)
    }

    /// The server has refused for the secret's sake, and says so in `words`. `shown` is the file with the secret that
    /// it was shown.
    pub(super) fn secret(shown: Option<&Path>, words: &str) -> Self {
        let words = match shown {
            Some(file) if words.contains("authToken") => {
                format!("the secret in {} is not this server's", file.display())
            }
            Some(file) => format!("{words} (it was shown the secret in {})", file.display()),
            None => format!(
                "{words} (name the file with it: ?auth-token-file=FILE behind the address, or LOCKD_AUTH_TOKEN_FILE)"
            ),
        };
        Self::new(ConnectErrorKind::Secret, words)
    }

    /// Of the server with this address.
    pub(super) fn of(self, server: &impl fmt::Display) -> ConnectError {
        let Self { kind, reason } = self;
        ConnectError::Refused { server: server.to_string(), reason, kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable(kind: io::ErrorKind) -> ConnectError {
        ConnectError::Unreachable { server: "tcp://a".to_owned(), error: kind.into() }
    }

    #[test]
    fn a_server_that_is_not_there_is_told_from_a_mistake() {
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
    fn of_several_servers_one_mistake_is_not_taken_for_absence() {
        let secret = || Refusal::new(ConnectErrorKind::Secret, "no").of(&"tcp://b");
        let refused = || unreachable(io::ErrorKind::ConnectionRefused);
        assert_eq!(ConnectError::of_all(vec![refused(), secret()]).kind(), ConnectErrorKind::Secret);
        assert_eq!(ConnectError::of_all(vec![refused(), refused()]).kind(), ConnectErrorKind::NotListening);
    }
}
