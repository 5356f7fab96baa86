//! The replacement for TLS in a build without it: the same interface, in which every attempt fails.

use std::io;
use std::path::Path;

use crate::os::tls::{ClientFiles, TlsInput};

const ABSENT: &str = "this lockd was built without TLS";

/// Certificates of a server.
#[derive(Clone, Debug)]
pub enum ServerTls {}

impl ServerTls {
    /// Fails: this build has no TLS.
    ///
    /// # Errors
    /// Always.
    pub fn load(_: &Path, _: &Path, _: Option<&Path>) -> Result<Self, String> {
        Err(ABSENT.to_owned())
    }

    /// Whether clients must show a certificate.
    #[must_use]
    pub fn asks_for_certificates(&self) -> bool {
        match *self {}
    }

    /// The reason for which clients will refuse the certificate.
    #[must_use]
    pub fn objection(&self) -> Option<&str> {
        match *self {}
    }

    pub(crate) fn session(&self) -> io::Result<TlsSession> {
        match *self {}
    }
}

#[derive(Debug)]
pub(crate) enum TlsSession {}

/// What a client needs for TLS.
#[cfg(feature = "cluster")]
#[derive(Clone, Debug)]
pub(crate) enum ClientTls {}

#[cfg(feature = "cluster")]
impl ClientTls {
    pub(crate) fn load(_: &ClientFiles) -> Result<Self, String> {
        Err(ABSENT.to_owned())
    }

    pub(crate) fn session(&self, _: &str) -> Result<TlsSession, String> {
        match *self {}
    }
}

pub(crate) fn client_session(_: &ClientFiles, _: &str) -> Result<TlsSession, String> {
    Err(ABSENT.to_owned())
}

impl TlsSession {
    pub(crate) fn decode(&mut self, _: &[u8], _: &mut Vec<u8>) -> io::Result<TlsInput> {
        match *self {}
    }

    pub(crate) fn encode(&mut self, _: &[u8], _: &mut Vec<u8>) {
        match *self {}
    }

    pub(crate) fn end(&mut self, _: &mut Vec<u8>) {
        match *self {}
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub(crate) fn control_pending(&self) -> bool {
        match *self {}
    }
}
