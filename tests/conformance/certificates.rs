//! Certificates of servers in TLS, made as they are needed.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use rcgen::{CertificateParams, KeyPair};

use crate::server::Server;
use crate::stage::Stage;

/// A new certificate for this cell's address, which is its own authority, and its key.
pub(crate) fn certificate(stage: &Stage, name: &str) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().expect("random numbers");
    let params = CertificateParams::new(vec![stage.host.clone(), "localhost".to_owned()]).expect("names");
    let signed = params.self_signed(&key).expect("a certificate");
    let path = |what: &str| stage.directory.path().join(format!("{name}.{what}.pem"));
    let (certificate, secret) = (path("certificate"), path("key"));
    std::fs::write(&certificate, signed.pem()).expect("a file");
    std::fs::write(&secret, key.serialize_pem()).expect("a file");
    (certificate, secret)
}

/// A server in TLS, and the certificate that its clients must trust.
pub(crate) fn with_certificate(stage: &Stage) -> (Rc<Server>, PathBuf) {
    let (certificate, key) = certificate(stage, "server");
    let server = stage.server_with(&["--tls-cert", text(&certificate), "--tls-key", text(&key)]);
    (server, certificate)
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the tests")
}
