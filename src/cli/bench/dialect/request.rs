//! A lock to be acquired and released, the requests for that in any protocol, and what their
//! replies must be.

/// A lock to be acquired and released.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockSpec {
    /// The name is made from this number.
    pub(crate) number: u64,
    /// Tells connections apart where the protocol does not.
    pub(crate) owner: u64,
    /// Whether to wait in the queue of the lock, instead of being refused.
    pub(crate) wait: bool,
}

impl LockSpec {
    pub(super) fn name(&self) -> String {
        format!("lock:{}", self.number)
    }

    /// The name, for a protocol without queues.
    ///
    /// # Errors
    /// If the lock is to be waited for.
    pub(super) fn name_without_waiting(&self) -> Result<String, &'static str> {
        if self.wait { Err("with this protocol one cannot wait for a lock") } else { Ok(self.name()) }
    }
}

/// The two requests for a lock.
pub(crate) struct LockRequests {
    pub(crate) acquire: CheckedRequest,
    pub(crate) release: CheckedRequest,
}

/// A request, and how the [outcome](ParsedReply::outcome) of its reply must begin.
pub(crate) struct CheckedRequest {
    pub(crate) bytes: Box<[u8]>,
    granted: Box<[u8]>,
    refused: Option<Box<[u8]>>,
}

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyKind {
    Granted,
    Refused,
    /// It is no possible reply to the request.
    Wrong,
}

impl CheckedRequest {
    pub(super) fn new(bytes: impl Into<Vec<u8>>, granted: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into().into(), granted: granted.into().into(), refused: None }
    }

    pub(super) fn or_refused(mut self, refused: impl Into<Vec<u8>>) -> Self {
        self.refused = Some(refused.into().into());
        self
    }

    pub(crate) fn check(&self, outcome: &[u8]) -> ReplyKind {
        if outcome.starts_with(&self.granted) {
            ReplyKind::Granted
        } else if self.refused.as_ref().is_some_and(|refused| outcome.starts_with(refused)) {
            ReplyKind::Refused
        } else {
            ReplyKind::Wrong
        }
    }
}

/// The first reply in some input.
pub(crate) struct ParsedReply<'a> {
    /// How many bytes the reply takes.
    pub(crate) len: usize,
    /// The part of it that says what became of the request.
    pub(crate) outcome: &'a [u8],
}
