//! A session on one server, whether it ends with its connection or survives it: passes each call on
//! to the type that carries it out. Decides only which of the two it is.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::connect_error::ConnectError;
use super::dial::ConnectOptions;
use super::resumable::{BegunRelease, ReconnectingSession};
use super::session::{InspectError, PendingRelease, RemoteSession};
use super::session_state::SessionState;
use super::url::ServerUrl;
use super::wait_hook::WaitHook;
use crate::broker::{AcquireError, Attempt, Grant, Held, Inspection, LockName, Mode, ReleaseError, Released};
use crate::wire::message::{ListRequest, LockPage};

/// A session on one server.
pub(crate) enum ServerSession {
    /// It ends with its connection.
    Plain(Box<RemoteSession>),
    Resumable(Box<ReconnectingSession>),
}

/// A release that has been sent, and that the server has not confirmed yet.
pub(super) enum SentRelease {
    Plain(PendingRelease),
    Resumable(BegunRelease),
}

/// Declares calls that both types have, with the same arguments.
macro_rules! calls {
    ($($(#[$doc:meta])* $visibility:vis fn $call:ident(&self $(, $argument:ident: $type:ty)*) $(-> $result:ty)?;)*) => {
        $($(#[$doc])* $visibility fn $call(&self $(, $argument: $type)*) $(-> $result)? {
            match self {
                Self::Plain(session) => session.$call($($argument),*),
                Self::Resumable(session) => session.$call($($argument),*),
            }
        })*
    };
}

impl ServerSession {
    pub(super) fn connect_to(
        url: &ServerUrl,
        options: &ConnectOptions<'_>,
        hook: &mut WaitHook<'_>,
    ) -> Result<Self, ConnectError> {
        if !options.resume && !url.resumes() {
            return Ok(Self::Plain(Box::new(RemoteSession::connect_to(url, options, hook)?)));
        }
        Ok(match ReconnectingSession::connect(url, options, hook)? {
            Ok(session) => Self::Resumable(Box::new(session)),
            Err(session) => Self::Plain(Box::new(session)),
        })
    }

    calls! {
        pub(crate) fn acquire(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError>;
        pub(super) fn acquire_all(&self, wants: &[(LockName, Mode)], limit: Option<Duration>) -> Result<Grant, AcquireError>;
        pub(super) fn acquire_with_hook(&self, wants: &[(LockName, Mode)], limit: Option<Duration>, hook: &mut WaitHook<'_>) -> Result<Grant, AcquireError>;
        pub(crate) fn convert(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError>;
        pub(crate) fn enqueue(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError>;
        pub(crate) fn enqueue_convert(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError>;
        pub(crate) fn wait(&self, name: &[u8], limit: Option<Duration>) -> Result<Grant, AcquireError>;
        pub(crate) fn release(&self, name: &[u8]) -> Result<Released, ReleaseError>;
        pub(crate) fn held(&self, name: &[u8]) -> Result<Option<Held>, InspectError>;
        pub(crate) fn inspect(&self, name: &[u8]) -> Result<Inspection, InspectError>;
        pub(super) fn list(&self, request: &ListRequest) -> Result<LockPage, InspectError>;
        pub(super) fn cancel(&self);
        pub(super) fn close(&self);
        pub(super) fn abandon(&self);
        pub(super) fn holds_or_waits(&self) -> bool;
    }

    pub(super) fn begin_release(&self, names: &[LockName]) -> Result<SentRelease, ReleaseError> {
        Ok(match self {
            Self::Plain(session) => SentRelease::Plain(session.begin_release(names)?),
            Self::Resumable(session) => SentRelease::Resumable(session.begin_release(names)?),
        })
    }

    pub(super) fn finish_release_all(&self, sent: SentRelease) -> Result<(), ReleaseError> {
        match (self, sent) {
            (Self::Plain(session), SentRelease::Plain(pending)) => session.finish_release_all(pending),
            (Self::Resumable(session), SentRelease::Resumable(begun)) => session.finish_release_all(begun),
            // Each is finished by the session that has begun it.
            (Self::Plain(_), SentRelease::Resumable(_)) | (Self::Resumable(_), SentRelease::Plain(_)) => {
                debug_assert!(false, "a release of another session");
                Err(ReleaseError::NotHeld)
            }
        }
    }

    pub(super) fn state(&self) -> SessionState {
        match self {
            Self::Plain(session) => match session.check() {
                Ok(()) => SessionState::Alive,
                Err(lost) => SessionState::Lost { reason: lost.0 },
            },
            Self::Resumable(session) => session.state(),
        }
    }

    pub(super) fn wait_certain(&self, limit: Option<Duration>) -> SessionState {
        match self {
            Self::Plain(_) => self.state(),
            Self::Resumable(session) => session.wait_certain(limit),
        }
    }

    pub(super) fn is_resumable(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Resumable(session) => session.is_resumable(),
        }
    }

    pub(super) fn resumes(&self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Resumable(session) => session.resumes(),
        }
    }
}

impl AsFd for ServerSession {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(session) => session.as_fd(),
            Self::Resumable(session) => session.as_fd(),
        }
    }
}
