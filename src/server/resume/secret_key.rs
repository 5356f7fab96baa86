//! The key with which a server makes the secrets of sessions that can resume. Pure, but for the
//! random numbers, which come from the operating system. Knows no session and no file.
//!
//! A server that has never seen a session must be able to tell whether an earlier run of it has. So
//! the secret is a keyed hash of what the session was told, and the key is kept from run to run.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use siphasher::sip128::SipHasher24;

use crate::wire::message::{ResumeId, ResumeSecret};

/// What secrets are made with. Whoever knows it can resume any session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct SecretKey([u8; 16]);

impl SecretKey {
    /// A key for a new state directory.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub(in crate::server) fn random() -> io::Result<Self> {
        random().map(Self)
    }

    #[cfg(fuzzing)]
    pub(in crate::server) fn from_number(number: u128) -> Self {
        Self(number.to_be_bytes())
    }

    /// The secret of a session that is told this id, this epoch and this dead-peer timeout.
    pub(in crate::server) fn secret(&self, id: ResumeId, epoch: u64, timeout: Duration) -> ResumeSecret {
        let mut text = [0; 32];
        text[..16].copy_from_slice(&id.0);
        text[16..24].copy_from_slice(&epoch.to_be_bytes());
        text[24..].copy_from_slice(&timeout.as_secs().to_be_bytes());
        ResumeSecret(SipHasher24::new_with_key(&self.0).hash(&text).as_u128().to_be_bytes())
    }

    /// Whether this is the secret of such a session. Takes the same time wherever it is wrong, so
    /// that a secret cannot be guessed in parts.
    pub(in crate::server) fn is_secret(
        &self,
        secret: &ResumeSecret,
        id: ResumeId,
        epoch: u64,
        timeout: Duration,
    ) -> bool {
        let differing = |bits, (one, other): (&u8, &u8)| bits | (one ^ other);
        self.secret(id, epoch, timeout).0.iter().zip(&secret.0).fold(0, differing) == 0
    }

    /// For the state of this server, which only its own user may read.
    pub(in crate::server) fn reveal(&self) -> String {
        ResumeId(self.0).to_string()
    }
}

/// An id that no session has had, of whatever server.
///
/// # Errors
/// If the operating system gives no random numbers.
pub(in crate::server) fn random_id() -> io::Result<ResumeId> {
    random().map(ResumeId)
}

fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    match getrandom(&mut bytes, GetRandomFlags::empty())? {
        16 => Ok(bytes),
        _ => Err(io::Error::other("the operating system gave too few random bytes")),
    }
}

impl FromStr for SecretKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|ResumeId(bytes)| Self(bytes))
    }
}

// It may not come into a log.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_proves_the_id_the_epoch_and_the_timeout() {
        let key = SecretKey::random().unwrap();
        let (id, other) = (random_id().unwrap(), random_id().unwrap());
        assert_ne!(id, other);
        let timeout = Duration::from_secs(25);
        let secret = key.secret(id, 7, timeout);
        let restored: SecretKey = key.reveal().parse().unwrap();
        assert!(restored.is_secret(&secret, id, 7, timeout));
        assert!(!key.is_secret(&secret, other, 7, timeout));
        assert!(!key.is_secret(&secret, id, 8, timeout));
        assert!(!key.is_secret(&secret, id, 7, timeout * 2));
        assert!(!SecretKey::random().unwrap().is_secret(&secret, id, 7, timeout));
    }

    #[test]
    fn the_key_does_not_come_into_a_log() {
        let key: SecretKey = "00112233445566778899aabbccddeeff".parse().unwrap();
        assert!(!format!("{key:?}").contains("0011"));
    }
}
