//! The secret that clients of the `message` protocol must show if the server has one. Knows nothing
//! of connections.

use std::fmt;
use std::fs;
use std::hint::black_box;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The shortest secret, so that none can be found by trying.
const BYTES_MIN: usize = 16;
/// The longest: much shorter than a message may be.
const BYTES_MAX: usize = 4096;

/// A secret. It is never printed, and the time that a comparison takes depends on nothing of it but
/// its length.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct AuthToken(String);

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthToken(…)")
    }
}

impl TryFrom<String> for AuthToken {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::new(&text)
    }
}

impl AuthToken {
    /// Takes the secret from this text, without the white space around it.
    ///
    /// # Errors
    /// If it is shorter than 16 bytes, or longer than 4096.
    pub fn new(text: &str) -> Result<Self, String> {
        let token = text.trim();
        match token.len() {
            BYTES_MIN..=BYTES_MAX => Ok(Self(token.to_owned())),
            length => Err(format!("a secret has {BYTES_MIN} to {BYTES_MAX} bytes, and this has {length}")),
        }
    }

    /// Takes the secret from this file, without the white space around it.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`new`](Self::new); the message names the file.
    pub fn load(path: &Path) -> Result<Self, String> {
        let in_context = |error: String| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| in_context(error.to_string()))?;
        Self::new(&text).map_err(in_context)
    }

    /// Whether `other` is this secret.
    pub(super) fn is(&self, other: &str) -> bool {
        let pairs = self.0.bytes().zip(other.bytes());
        // Without the hint, the compiler might stop at the first difference, which the time would
        // then tell.
        let differences = pairs.fold(0, |found, (own, other)| black_box(found | (own ^ other)));
        differences == 0 && self.0.len() == other.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_accepted() {
        let token = AuthToken::new(" 0123456789abcdef\n").unwrap();
        assert!(token.is("0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdefg", "0123456789abcdeg", "1123456789abcdef"] {
            assert!(!token.is(other), "{other}");
        }
        assert!(!format!("{token:?}").contains('0'));
    }

    #[test]
    fn a_short_or_unreadable_secret_is_refused() {
        for text in ["", "\n", "0123456789abcde"] {
            assert!(AuthToken::new(text).is_err());
        }
        assert!(
            AuthToken::load(Path::new("/nonexistent/secret")).unwrap_err().contains("/nonexistent/secret")
        );
    }
}
