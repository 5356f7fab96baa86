//! What is wrong with TLS, for people: whose certificate it is about, and what to do. Words only.

use std::fmt;
use std::path::PathBuf;

use rustls::{AlertDescription, CertificateError, Error, InconsistentKeys};

/// Which end of a connection this is, and what it goes by.
#[derive(Clone, Debug)]
pub(super) enum Side {
    /// The client's end.
    Client {
        /// Whom it wants to talk to.
        host: String,
        /// Whom it trusts; `None`: whom the system trusts.
        ca: Option<PathBuf>,
        /// Its own certificate, if it has one.
        cert: Option<PathBuf>,
    },
    /// The server's end.
    Server,
}

/// How to make a certificate that is none of a CA.
const NO_CA: &str = "docs/operations.md says how to make one: `openssl req -x509` needs \
                     `-addext basicConstraints=critical,CA:FALSE`";
/// How to make one of version 3.
const VERSION_3: &str = "docs/operations.md says how to make one: `openssl x509 -req` needs `-extfile`, with at least \
                         the host's name as subjectAltName in that file";

/// Why no connection in TLS has come about, or why it has ended.
pub(super) fn explain(error: &Error, side: &Side) -> String {
    match error {
        Error::InvalidMessage(_) => format!("that is no TLS: {error}"),
        Error::InvalidCertificate(problem) => format!("TLS: {}", of_peer(problem, side)),
        Error::NoCertificatesPresented => {
            "TLS: the client has shown no certificate, which tls-client-ca asks for".to_owned()
        }
        Error::AlertReceived(alert) => {
            format!("TLS: {} (alert {alert:?})", of_alert(*alert, side))
        }
        other => format!("TLS: {other}"),
    }
}

/// What is wrong with the certificate that the other end has shown.
fn of_peer(problem: &CertificateError, side: &Side) -> String {
    let what = match side {
        Side::Client { .. } => "the server's certificate",
        Side::Server => "the client's certificate",
    };
    match (problem, side) {
        (CertificateError::UnknownIssuer, Side::Client { ca: Some(ca), .. }) => {
            format!("{what} is not trusted: nobody in {} (ca=) has signed it", ca.display())
        }
        (CertificateError::BadSignature, Side::Client { ca: Some(ca), .. }) => format!(
            "{what} is not trusted: it names one of those in {} (ca=) as its signer, but was signed with another key",
            ca.display()
        ),
        (CertificateError::BadSignature, Side::Server) => format!(
            "{what} is not trusted: it names one of those in the file of tls-client-ca as its signer, but was signed \
             with another key"
        ),
        (CertificateError::UnknownIssuer, Side::Client { ca: None, .. }) => {
            format!(
                "{what} is not trusted: nobody whom this system trusts has signed it; name the file with the \
                 certificate of who has: ?ca=FILE behind the address"
            )
        }
        (CertificateError::UnknownIssuer, Side::Server) => {
            format!("{what} is not trusted: nobody in the file of tls-client-ca has signed it")
        }
        (CertificateError::NotValidForNameContext { presented, .. }, Side::Client { host, .. }) => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            let names = match names.as_slice() {
                [] => "names no host as subjectAltName (its common name does not count)".to_owned(),
                names => format!("is for {}", names.join(", ")),
            };
            format!("{what} {names}, and not for {host}, which the address has")
        }
        _ => format!("{what} {}", in_words(problem, matches!(side, Side::Client { .. }))),
    }
}

/// `localhost` of `DnsName("localhost")`, as names in certificates are shown.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// What is wrong with a certificate, behind a word for it.
pub(super) fn in_words(problem: &CertificateError, of_server: bool) -> String {
    match problem {
        CertificateError::ExpiredContext { time, not_after } => {
            let ago = Span(time.as_secs().saturating_sub(not_after.as_secs()));
            format!("has expired, {ago} ago, or the clock of this machine is wrong")
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let rest = Span(not_before.as_secs().saturating_sub(time.as_secs()));
            format!("is not valid yet, but in {rest}, or the clock of this machine is wrong")
        }
        CertificateError::InvalidPurposeContext { .. } => {
            let usage = if of_server { "serverAuth" } else { "clientAuth" };
            format!("is not made for this use: its extendedKeyUsage lacks {usage}")
        }
        CertificateError::Other(_) if is(problem, "CaUsedAsEndEntity") => {
            format!("is that of a CA (CA:TRUE), with which one signs others: {NO_CA}")
        }
        CertificateError::Other(_) if is(problem, "UnsupportedCertVersion") => {
            format!("is of version 1, and TLS here takes version 3 only: {VERSION_3}")
        }
        other => format!("is of no use: {other}"),
    }
}

/// Whether it is this error of the verifier, which has no name of its own in rustls.
fn is(problem: &CertificateError, name: &str) -> bool {
    format!("{problem:?}").contains(name)
}

/// What the other end objects to.
fn of_alert(alert: AlertDescription, side: &Side) -> String {
    let objection = match alert {
        AlertDescription::UnknownCA => "it does not trust who has signed it",
        AlertDescription::CertificateExpired => "to it, it has expired or is not valid yet",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => "it does not say more",
        AlertDescription::CertificateRequired => {
            return match side {
                Side::Client { cert: None, .. } => {
                    "the server wants this client to show a certificate: name its file, \
                     ?cert=FILE&key=FILE behind the address"
                }
                Side::Client { .. } => "the server wants another certificate of this client",
                Side::Server => "the client wants a certificate of this server",
            }
            .to_owned();
        }
        AlertDescription::ProtocolVersion => {
            return "the two sides have no version of TLS in common (here 1.2 and 1.3)".to_owned();
        }
        _ => return "the other side ends it".to_owned(),
    };
    match side {
        Side::Client { cert: Some(cert), .. } => {
            format!("the server refuses this client's certificate, {}: {objection}", cert.display())
        }
        Side::Client { cert: None, .. } => "the server refuses this client".to_owned(),
        Side::Server => format!("the client refuses this server's certificate: {objection}"),
    }
}

/// Why a certificate and a key of this side's own cannot be used; both are in files.
pub(super) fn of_pair(cert: &std::path::Path, key: &std::path::Path, error: &Error) -> String {
    let (cert, key) = (cert.display(), key.display());
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "the key in {key} does not belong to the first certificate in {cert}: that must be one's own, and \
             those between it and the root come behind it"
        ),
        Error::InvalidCertificate(problem) => {
            format!("the first certificate in {cert} {}", in_words(problem, true))
        }
        other => format!("{cert} with the key in {key}: {other}"),
    }
}

/// A time in seconds, roughly.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match self.0 {
            seconds @ ..120 => (seconds, "seconds"),
            seconds @ ..7200 => (seconds / 60, "minutes"),
            seconds @ ..172_800 => (seconds / 3600, "hours"),
            seconds => (seconds / 86_400, "days"),
        };
        write!(f, "{number} {unit}")
    }
}
