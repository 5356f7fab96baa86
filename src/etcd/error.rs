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
    /// The end points and what became of the request there: at least one.
    pub(super) fn new(attempts: &[(String, FailedRequest)]) -> Self {
        let texts: Vec<String> =
            attempts.iter().map(|(end_point, failure)| format!("{end_point}: {}", failure.text)).collect();
        // An end point that cannot be reached says nothing about the others, but one that has
        // answered shows that asking again can help.
        let is_permanent = attempts.iter().any(|(_, failure)| failure.is_permanent)
            && attempts.iter().all(|(_, failure)| failure.is_permanent || !failure.was_sent);
        let may_have_happened = attempts.iter().any(|(_, failure)| failure.may_have_happened);
        Self { text: format!("etcd: {}", texts.join("; ")), may_have_happened, is_permanent }
    }

    /// Something is wrong before anything was asked.
    pub(super) fn of_set_up(text: impl fmt::Display) -> Self {
        Self { text: format!("etcd: {text}"), may_have_happened: false, is_permanent: true }
    }

    /// Whether the request may have been sent: what it writes may have been written, or may be
    /// written later. Never for a call that only reads.
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

/// What has become of one request at one end point.
#[derive(Clone, Debug)]
pub(super) struct FailedRequest {
    pub(super) text: String,
    /// Whether some of the request may have been sent.
    pub(super) was_sent: bool,
    /// Whether etcd may carry it out, or may have done so.
    pub(super) may_have_happened: bool,
    /// Whether the same request will always fail there.
    pub(super) is_permanent: bool,
    /// Whether etcd wants a token, or another one than it was shown. It has not carried out the
    /// request.
    pub(super) wants_token: bool,
}

impl FailedRequest {
    /// Nothing was sent.
    pub(super) fn unsent(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            was_sent: false,
            may_have_happened: false,
            is_permanent: false,
            wants_token: false,
        }
    }

    /// The request was sent, perhaps not whole, and there is no answer to it that says more.
    pub(super) fn in_doubt(text: impl Into<String>) -> Self {
        Self { was_sent: true, may_have_happened: true, ..Self::unsent(text) }
    }

    /// etcd has answered that it does not carry out the request.
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self { was_sent: true, ..Self::unsent(text) }
    }

    /// This is what became of the request to authenticate, so the request that was to follow it was
    /// not sent.
    pub(super) fn of_authentication(self) -> Self {
        let text = format!("no log-in as a user: {}", self.text);
        // A refusal for good is one for the request that was to follow.
        Self { text, may_have_happened: false, was_sent: self.is_permanent, ..self }
    }

    pub(super) fn permanently(self) -> Self {
        Self { is_permanent: true, ..self }
    }
}
