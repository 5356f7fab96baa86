//! Why a call to etcd has failed, and what its caller may conclude from that.

use std::fmt;

/// Why a call to etcd has failed.
#[derive(Clone, Debug)]
pub struct EtcdError {
    text: String,
    may_have_happened: bool,
    is_permanent: bool,
}

impl EtcdError {
    pub(super) fn new(text: String) -> Self {
        Self { text, may_have_happened: false, is_permanent: false }
    }

    /// Whether the request may have been sent: what it writes may have been written, or may be
    /// written later.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        self.may_have_happened
    }

    /// Whether asking again will not help: a wrong password, a certificate that is refused,
    /// something that is not etcd, another etcd cluster.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.is_permanent
    }
}

impl fmt::Display for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for EtcdError {}
