//! TLS by rustls. Sessions are not resumed: a connection lasts as long as its locks, so new ones
//! are rare.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig,
    ServerConnection,
};

use crate::os::tls::explain::{TlsSide, explain, explain_certificate, explain_own_certificate};
use crate::os::tls::{ClientFiles, TlsInput};

/// Where systems keep the certificates of trusted authorities in one file.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// The variable that names another such file, as for OpenSSL.
const ROOTS_VARIABLE: &str = "SSL_CERT_FILE";

/// The certificate and key of a server, read from files and checked to belong together.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    asks_for_certificates: bool,
    /// The reason for which clients will refuse the certificate, although the server can use it.
    objection: Option<String>,
}

impl fmt::Debug for ServerTls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("asks_for_certificates", &self.asks_for_certificates).finish()
    }
}

impl ServerTls {
    /// Reads the server's certificate, which the intermediate certificates follow in the same file,
    /// and its key. With `client_ca`, clients must show a certificate signed by one of the
    /// authorities in that file.
    ///
    /// # Errors
    /// The message names the file and what is wrong with it.
    pub fn load(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, String> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(roots(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| format!("{}: {error}", path.display()))?,
                )
            }
        };
        let chain = certificates(cert)?;
        let objection =
            objection(&chain).map(|words| format!("the first certificate in {} {words}", cert.display()));
        let config = builder.with_single_cert(chain, private_key(key)?);
        let mut config = config.map_err(|error| explain_own_certificate(cert, key, &error))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), asks_for_certificates: client_ca.is_some(), objection })
    }

    /// The reason for which clients will refuse the certificate, as far as this side can tell: it
    /// has expired, is not valid yet, or is the certificate of a CA.
    #[must_use]
    pub fn objection(&self) -> Option<&str> {
        self.objection.as_deref()
    }

    /// Whether clients must show a certificate.
    #[must_use]
    pub fn asks_for_certificates(&self) -> bool {
        self.asks_for_certificates
    }

    /// The server's side of a new connection.
    pub(crate) fn session(&self) -> io::Result<TlsSession> {
        let connection = ServerConnection::new(self.config.clone()).map_err(io::Error::other)?;
        Ok(TlsSession::new(connection.into(), TlsSide::Server))
    }
}

/// What a client needs for TLS, read from its files.
#[derive(Clone)]
pub(crate) struct ClientTls {
    config: Arc<ClientConfig>,
    files: ClientFiles,
}

impl fmt::Debug for ClientTls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("files", &self.files).finish()
    }
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// The message names the file and what is wrong with it.
    pub(crate) fn load(files: &ClientFiles) -> Result<Self, String> {
        let roots = match &files.ca {
            Some(path) => roots(path)?,
            None => system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = builder.with_root_certificates(roots);
        let mut config = match &files.cert {
            None => builder.with_no_client_auth(),
            Some(cert) => {
                let key = files.key.as_ref().unwrap_or(cert);
                let config = builder.with_client_auth_cert(certificates(cert)?, private_key(key)?);
                config.map_err(|error| explain_own_certificate(cert, key, &error))?
            }
        };
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), files: files.clone() })
    }

    /// The client's side of a new connection to `host`.
    ///
    /// # Errors
    /// If no certificate could be for this host.
    pub(crate) fn session(&self, host: &str) -> Result<TlsSession, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} is no name that a certificate could have"))?;
        let connection =
            ClientConnection::new(self.config.clone(), name).map_err(|error| error.to_string())?;
        let ClientFiles { ca, cert, .. } = self.files.clone();
        Ok(TlsSession::new(connection.into(), TlsSide::Client { host: host.to_owned(), ca, cert }))
    }
}

/// The client's side of a connection to `host`, with files that are read for it.
///
/// # Errors
/// The message says what is wrong with which file, or with the host's name.
pub(crate) fn client_session(files: &ClientFiles, host: &str) -> Result<TlsSession, String> {
    ClientTls::load(files)?.session(host)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let in_context = |error| format!("{}: {error}", path.display());
    let read = CertificateDer::pem_file_iter(path).map_err(in_context)?;
    let certificates: Vec<_> = read.collect::<Result<_, _>>().map_err(in_context)?;
    if certificates.is_empty() {
        return Err(format!("{}: there is no certificate in it", path.display()));
    }
    Ok(certificates)
}

/// What every client finds wrong with the first of these certificates, whichever authorities it
/// trusts.
fn objection(chain: &[CertificateDer<'_>]) -> Option<String> {
    let [first, between @ ..] = chain else { return None };
    let algorithms = provider().signature_verification_algorithms.all;
    // No authority is trusted here. The verifier reports all other problems before that one.
    let verified = ParsedCertificate::try_from(first).and_then(|first| {
        let no_authority = RootCertStore::empty();
        verify_server_cert_signed_by_trust_anchor(&first, &no_authority, between, UnixTime::now(), algorithms)
    });
    match verified {
        Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) | Ok(()) => None,
        Err(rustls::Error::InvalidCertificate(problem)) => Some(explain_certificate(&problem, true)),
        // A certificate that cannot be parsed is refused elsewhere.
        Err(_) => None,
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let is_encrypted = std::fs::read(path).is_ok_and(|pem| {
            [&b"ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"]
                .iter()
                .any(|mark| pem.windows(mark.len()).any(|part| part == *mark))
        });
        match error {
            _ if is_encrypted => format!(
                "{}: the key has a passphrase, which nobody can type here: `openssl pkey` writes the key without one",
                path.display()
            ),
            pem::Error::NoItemsFound => format!("{}: there is no private key in it", path.display()),
            error => format!("{}: {error}", path.display()),
        }
    })
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| match &error {
            rustls::Error::InvalidCertificate(problem) => {
                format!("{}: a certificate in it {}", path.display(), explain_certificate(problem, false))
            }
            error => format!("{}: {error}", path.display()),
        })?;
    }
    Ok(store)
}

/// The authorities that the system trusts. Old certificates that rustls cannot read are left out.
fn system_roots() -> Result<RootCertStore, String> {
    let named = std::env::var_os(ROOTS_VARIABLE).map(PathBuf::from);
    let known = SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists());
    let path = named.or(known).ok_or("this system has no file of trusted authorities: name one, ?ca=FILE")?;
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates(&path)?);
    Ok(store)
}

/// One side of a TLS connection. Messages of TLS itself (the handshake, answers to the peer,
/// alerts) are kept until [`encode`](Self::encode) appends them.
pub(crate) struct TlsSession {
    connection: Box<Connection>,
    side: TlsSide,
}

impl TlsSession {
    fn new(mut connection: Connection, side: TlsSide) -> Self {
        // No limit here: the send queue has one, and everything that is written is taken out at
        // once.
        connection.set_buffer_limit(None);
        Self { connection: Box::new(connection), side }
    }

    /// Decrypts bytes from the wire and appends the plain bytes to `plain`.
    ///
    /// # Errors
    /// If the bytes are not TLS, or one side refuses the certificate of the other. Nothing more can
    /// be decoded then.
    pub(crate) fn decode(&mut self, mut wire: &[u8], plain: &mut Vec<u8>) -> io::Result<TlsInput> {
        loop {
            let taken = self.connection.read_tls(&mut wire)?;
            let state = self
                .connection
                .process_new_packets()
                .map_err(|error| io::Error::other(explain(&error, &self.side)))?;
            let (start, more) = (plain.len(), state.plaintext_bytes_to_read());
            plain.resize(start + more, 0);
            self.connection.reader().read_exact(plain.get_mut(start..).unwrap_or_default())?;
            if state.peer_has_closed() {
                return Ok(TlsInput::End);
            }
            if wire.is_empty() || taken == 0 {
                return Ok(TlsInput::More);
            }
        }
    }

    /// Appends to `wire` the pending messages of TLS itself, and then `plain` encrypted.
    pub(crate) fn encode(&mut self, plain: &[u8], wire: &mut Vec<u8>) {
        // It writes to memory without a limit, and cannot fail.
        let _ = self.connection.writer().write_all(plain);
        while self.connection.wants_write() && self.connection.write_tls(wire).is_ok() {}
    }

    /// Appends the message that this side sends no more.
    pub(crate) fn end(&mut self, wire: &mut Vec<u8>) {
        self.connection.send_close_notify();
        self.encode(&[], wire);
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether messages of TLS itself are waiting to be encoded.
    pub(crate) fn control_pending(&self) -> bool {
        self.connection.wants_write()
    }
}
