//! Explains errors of TLS to people: whose certificate is meant, and what to do. Only makes texts.

use std::path::PathBuf;

use rustls::{AlertDescription, CertificateError, Error, InconsistentKeys};

/// The side of a connection that this is, and what it checks the other one against.
#[derive(Clone, Debug)]
pub(super) enum TlsSide {
    /// The client.
    Client {
        /// The host that it connects to.
        host: String,
        /// The authorities that it trusts; `None`: those that the system trusts.
        ca: Option<PathBuf>,
        /// Its own certificate, if it has one.
        cert: Option<PathBuf>,
    },
    /// The server.
    Server,
}

/// How to make a certificate that is not of a CA.
const MAKE_WITHOUT_CA: &str = "docs/operations.md says how to make one: `openssl req -x509` needs \
                     `-addext basicConstraints=critical,CA:FALSE`";
/// How to make a certificate of version 3.
const MAKE_VERSION_3: &str = "docs/operations.md says how to make one: `openssl x509 -req` needs `-extfile`, with at least \
                         the host's name as subjectAltName in that file";

/// Why a TLS connection could not be made, or why it has ended.
pub(super) fn explain(error: &Error, side: &TlsSide) -> String {
    match error {
        Error::InvalidMessage(_) => format!("that is no TLS: {error}"),
        Error::InvalidCertificate(problem) => format!("TLS: {}", explain_peer_certificate(problem, side)),
        Error::NoCertificatesPresented => {
            "TLS: the client has shown no certificate, which tls-client-ca asks for".to_owned()
        }
        Error::AlertReceived(alert) => {
            format!("TLS: {} (alert {alert:?})", explain_alert(*alert, side))
        }
        other => format!("TLS: {other}"),
    }
}

/// What is wrong with the certificate of the other side.
fn explain_peer_certificate(problem: &CertificateError, side: &TlsSide) -> String {
    let what = match side {
        TlsSide::Client { .. } => "the server's certificate",
        TlsSide::Server => "the client's certificate",
    };
    match (problem, side) {
        (CertificateError::UnknownIssuer, TlsSide::Client { ca: Some(ca), .. }) => {
            format!("{what} is not trusted: no authority in {} (ca=) has signed it", ca.display())
        }
        (CertificateError::BadSignature, TlsSide::Client { ca: Some(ca), .. }) => format!(
            "{what} is not trusted: it names an authority in {} (ca=) as its signer, but was signed with another key",
            ca.display()
        ),
        (CertificateError::BadSignature, TlsSide::Server) => format!(
            "{what} is not trusted: it names an authority in the file of tls-client-ca as its signer, but was signed \
             with another key"
        ),
        (CertificateError::UnknownIssuer, TlsSide::Client { ca: None, .. }) => {
            format!(
                "{what} is not trusted: no authority that this system trusts has signed it; name the file \
                 with the signer's certificate: ?ca=FILE after the address"
            )
        }
        (CertificateError::UnknownIssuer, TlsSide::Server) => {
            format!("{what} is not trusted: no authority in the file of tls-client-ca has signed it")
        }
        (CertificateError::NotValidForNameContext { presented, .. }, TlsSide::Client { host, .. }) => {
            let names: Vec<&str> = presented.iter().map(|name| inner_name(name)).collect();
            let names = match names.as_slice() {
                [] => "names no host as subjectAltName (its common name does not count)".to_owned(),
                names => format!("is for {}", names.join(", ")),
            };
            format!("{what} {names}, and not for {host}, which the address has")
        }
        _ => format!("{what} {}", explain_certificate(problem, matches!(side, TlsSide::Client { .. }))),
    }
}

/// The `localhost` in `DnsName("localhost")`, which is how rustls formats names in certificates.
fn inner_name(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// What is wrong with a certificate, to be put after a word for the certificate.
pub(super) fn explain_certificate(problem: &CertificateError, of_server: bool) -> String {
    match problem {
        CertificateError::ExpiredContext { time, not_after } => {
            let ago = rough_time(time.as_secs().saturating_sub(not_after.as_secs()));
            format!("has expired, {ago} ago, or the clock of this machine is wrong")
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let rest = rough_time(not_before.as_secs().saturating_sub(time.as_secs()));
            format!("is not valid yet, but in {rest}, or the clock of this machine is wrong")
        }
        CertificateError::InvalidPurposeContext { .. } => {
            let usage = if of_server { "serverAuth" } else { "clientAuth" };
            format!("is not made for this use: its extendedKeyUsage lacks {usage}")
        }
        CertificateError::Other(_) if is_error_named(problem, "CaUsedAsEndEntity") => {
            format!("is that of a CA (CA:TRUE), with which one signs others: {MAKE_WITHOUT_CA}")
        }
        CertificateError::Other(_) if is_error_named(problem, "UnsupportedCertVersion") => {
            format!("is of version 1, and TLS here takes version 3 only: {MAKE_VERSION_3}")
        }
        other => format!("is of no use: {other}"),
    }
}

/// Whether it is the verifier's error of this name. rustls has no variant for it.
fn is_error_named(problem: &CertificateError, name: &str) -> bool {
    format!("{problem:?}").contains(name)
}

/// What an alert from the other side means.
fn explain_alert(alert: AlertDescription, side: &TlsSide) -> String {
    let objection = match alert {
        AlertDescription::UnknownCA => "it does not trust the signer",
        AlertDescription::CertificateExpired => "to it, it has expired or is not valid yet",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => "it does not say more",
        AlertDescription::CertificateRequired => {
            return match side {
                TlsSide::Client { cert: None, .. } => {
                    "the server wants this client to show a certificate: name its file, \
                     ?cert=FILE&key=FILE after the address"
                }
                TlsSide::Client { .. } => "the server wants another certificate of this client",
                TlsSide::Server => "the client wants a certificate of this server",
            }
            .to_owned();
        }
        AlertDescription::ProtocolVersion => {
            return "the two sides have no version of TLS in common (here 1.2 and 1.3)".to_owned();
        }
        _ => return "the other side ends it".to_owned(),
    };
    match side {
        TlsSide::Client { cert: Some(cert), .. } => {
            format!("the server refuses this client's certificate, {}: {objection}", cert.display())
        }
        TlsSide::Client { cert: None, .. } => "the server refuses this client".to_owned(),
        TlsSide::Server => format!("the client refuses this server's certificate: {objection}"),
    }
}

/// Why this side's own certificate and key cannot be used.
pub(super) fn explain_own_certificate(
    cert: &std::path::Path,
    key: &std::path::Path,
    error: &Error,
) -> String {
    let (cert, key) = (cert.display(), key.display());
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "the key in {key} does not belong to the first certificate in {cert}: that must be this side's own, \
             followed by the intermediate certificates"
        ),
        Error::InvalidCertificate(problem) => {
            format!("the first certificate in {cert} {}", explain_certificate(problem, true))
        }
        other => format!("{cert} with the key in {key}: {other}"),
    }
}

/// A time in a suitable unit.
fn rough_time(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..120 => (seconds, "seconds"),
        120..7200 => (seconds / 60, "minutes"),
        7200..172_800 => (seconds / 3600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{number} {unit}")
}
