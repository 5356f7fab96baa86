//! What identifies a session that may resume: its id, and the secret by which it proves that a
//! server has told it this id, with which epoch and which dead-peer timeout. Pure, but for the
//! random numbers, which come from the operating system. Knows no session and no file.
//!
//! A server that has never seen a session must be able to tell whether an earlier run of it has. So
//! the secret is a keyed hash, and the key is kept from run to run.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use siphasher::sip128::SipHasher24;

const BYTES: usize = 16;

/// Sixteen bytes that are written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Hex([u8; BYTES]);

impl Hex {
    fn random() -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        let filled = getrandom(&mut bytes, GetRandomFlags::empty())?;
        if filled < BYTES {
            return Err(io::Error::other("the operating system gave too few random bytes"));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Hex {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = "not 32 lower-case hexadecimal digits";
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 2 * BYTES || !text.as_bytes().iter().all(is_digit) {
            return Err(error);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| error)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// Which session it is. No other session ever has the same id, of whatever server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::server) struct SessionId(Hex);

/// Shows that a server has told a session its id, an epoch and a dead-peer timeout.
#[derive(Clone, Copy)]
pub(in crate::server) struct SessionSecret(Hex);

/// What secrets are made with. Whoever knows it can resume any session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct SecretKey(Hex);

impl SessionId {
    /// An id that no session has had.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub(in crate::server) fn random() -> io::Result<Self> {
        Hex::random().map(Self)
    }

    #[cfg(fuzzing)]
    pub(in crate::server) fn from_number(number: u128) -> Self {
        Self(Hex(number.to_be_bytes()))
    }
}

impl SessionSecret {
    /// Takes the same time wherever the two differ, so that a secret cannot be guessed in parts.
    fn is(&self, other: &Self) -> bool {
        let differing = |bits, (one, other): (&u8, &u8)| bits | (one ^ other);
        self.0.0.iter().zip(&other.0.0).fold(0, differing) == 0
    }
}

impl SecretKey {
    /// A key for a new state directory.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub(in crate::server) fn random() -> io::Result<Self> {
        Hex::random().map(Self)
    }

    /// The secret of a session that is told this id, this epoch and this dead-peer timeout.
    pub(in crate::server) fn secret(&self, id: SessionId, epoch: u64, timeout: Duration) -> SessionSecret {
        let mut text = Vec::with_capacity(BYTES + 16);
        text.extend_from_slice(&id.0.0);
        text.extend_from_slice(&epoch.to_be_bytes());
        text.extend_from_slice(&timeout.as_secs().to_be_bytes());
        let hash = SipHasher24::new_with_key(&self.0.0).hash(&text);
        SessionSecret(Hex(hash.as_u128().to_be_bytes()))
    }

    /// Whether this is the secret of such a session.
    pub(in crate::server) fn is_secret(
        &self,
        secret: &SessionSecret,
        id: SessionId,
        epoch: u64,
        timeout: Duration,
    ) -> bool {
        self.secret(id, epoch, timeout).is(secret)
    }
}

macro_rules! written_as_hex {
    ($($type:ident),*) => {$(
        impl FromStr for $type {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )*};
}

written_as_hex!(SessionId, SessionSecret, SecretKey);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl SessionSecret {
    /// For the client, and for nobody else.
    pub(in crate::server) fn reveal(&self) -> String {
        self.0.to_string()
    }
}

impl SecretKey {
    #[cfg(fuzzing)]
    pub(in crate::server) fn from_number(number: u128) -> Self {
        Self(Hex(number.to_be_bytes()))
    }

    /// For the state of this server, which only its own user may read.
    pub(in crate::server) fn reveal(&self) -> String {
        self.0.to_string()
    }
}

// Neither may come into a log.
impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret")
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is() {
        let id: SessionId = "00112233445566778899aabbccddeeff".parse().unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in
            ["", "0", "00112233445566778899AABBCCDDEEFF", "+0112233445566778899aabbccddeeff", &"0".repeat(33)]
        {
            assert!(wrong.parse::<SessionId>().is_err(), "{wrong}");
        }
        assert_ne!(SessionId::random().unwrap(), SessionId::random().unwrap());
    }

    #[test]
    fn a_secret_proves_the_id_the_epoch_and_the_timeout() {
        let key = SecretKey::random().unwrap();
        let (id, other) = (SessionId::random().unwrap(), SessionId::random().unwrap());
        let timeout = Duration::from_secs(25);
        let secret = key.secret(id, 7, timeout);
        let read = secret.reveal().parse().unwrap();
        assert!(key.is_secret(&read, id, 7, timeout));
        assert!(!key.is_secret(&read, other, 7, timeout));
        assert!(!key.is_secret(&read, id, 8, timeout));
        assert!(!key.is_secret(&read, id, 7, timeout * 2));
        assert!(!SecretKey::random().unwrap().is_secret(&read, id, 7, timeout));
    }

    #[test]
    fn a_secret_does_not_come_into_a_log() {
        let key: SecretKey = "00112233445566778899aabbccddeeff".parse().unwrap();
        let secret = key.secret(SessionId::random().unwrap(), 1, Duration::ZERO);
        assert!(!format!("{key:?}").contains("0011"));
        assert!(!format!("{secret:?}").contains(&secret.reveal()[..4]));
    }
}
