//! Certificates, made as they are needed, in files.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;

use crate::support::server::Launch;

const BOTH: [ExtendedKeyUsagePurpose; 2] =
    [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

/// A certificate authority, and a directory for its files.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // It has a name of its own, by which verifiers find the signer.
        let name = directory.path().to_str().unwrap().to_owned();
        Self::named(&name, directory)
    }

    /// Another authority with the same name and a different key.
    pub(crate) fn namesake(&self) -> Self {
        Self::named(self.directory.path().to_str().unwrap(), tempfile::tempdir().unwrap())
    }

    fn named(name: &str, directory: TempDir) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The file with this authority's own certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A file with a certificate for `name`, followed by its key.
    pub(crate) fn issue(&self, name: &str) -> PathBuf {
        self.issue_with(name, 2001, 4000, &BOTH)
    }

    /// An expired certificate.
    pub(crate) fn issue_expired(&self, name: &str) -> PathBuf {
        self.issue_with(name, 2001, 2002, &BOTH)
    }

    /// A certificate that is not valid yet.
    pub(crate) fn issue_too_early(&self, name: &str) -> PathBuf {
        self.issue_with(name, 3900, 3999, &BOTH)
    }

    /// A certificate that only servers, or only clients, may use.
    pub(crate) fn issue_for(&self, name: &str, usage: &ExtendedKeyUsagePurpose) -> PathBuf {
        self.issue_with(name, 2001, 4001, std::slice::from_ref(usage))
    }

    /// This authority's own certificate with its key, as if it were one for `localhost`.
    pub(crate) fn own_with_key(&self) -> PathBuf {
        let path = self.path("own.pem");
        std::fs::write(&path, self.issuer.pem() + &self.issuer.key().serialize_pem()).unwrap();
        path
    }

    fn issue_with(&self, name: &str, from: i32, year: i32, usages: &[ExtendedKeyUsagePurpose]) -> PathBuf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = self.path(&format!("{name} until {year}.pem"));
        std::fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
        path
    }
}

impl Launch {
    /// Options for this certificate, with the key in the same file.
    pub(crate) fn certified(self, certificate: &Path) -> Self {
        let path = certificate.to_str().unwrap();
        self.option("--tls-cert", path).option("--tls-key", path)
    }
}
