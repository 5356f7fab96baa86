//! What a trial says in the end: nothing, or what was wrong.

/// What a client did wrong, or what the kit could not do.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

pub(crate) type Verdict<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// The same, with what was being done.
    pub(crate) fn during(self, what: &str) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

/// Fails with `what` unless `condition` holds.
pub(crate) fn ensure(condition: bool, what: impl FnOnce() -> String) -> Verdict {
    if condition { Ok(()) } else { Err(Failure(what())) }
}
