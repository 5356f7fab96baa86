//! How the lock commands of the text protocols use the session. The counted shared locks of these
//! protocols have a space of their own, unless the server was told that shared and exclusive locks
//! exclude each other.

use std::time::Duration;

use super::super::connection::{Connection, Flow};
use super::TextHandler;
use crate::broker::{AcquireError, Grant, Key, LockName, Mode, Space};
use crate::wire::text::{TextDialect, TextMode, TextReply};

impl TextHandler {
    /// `g` and `sg`, with a limit of zero; `gw` and `sgw`.
    pub(super) fn acquire(
        &self,
        connection: &mut Connection,
        mode: TextMode,
        name: &[u8],
        limit: Option<Duration>,
    ) -> Flow {
        let space = connection.space_of(mode);
        let answer = connection.try_first(space, name, mode.into(), limit).or_else(|| {
            let name = LockName::new(name);
            let wants = [(Key { space, name: name.clone() }, mode.into())];
            connection.ask_or_queue(
                limit,
                |_| self.wait.note(mode, name),
                |session, wait| session.acquire(&wants, wait),
                |_| self.wait.forget(),
            )
        });
        let Some(answer) = answer else { return Flow::Wait };
        let holders = self.holders_after(connection, mode, name, answer);
        self.reply(connection, TextReply::Acquire { mode, name, holders })
    }

    /// The number of holders if the request was granted, else `None`. A request for a lock that the
    /// session holds in this mode counts as granted; only `lockd` refuses it for an exclusive lock.
    fn holders_after(
        &self,
        connection: &Connection,
        mode: TextMode,
        name: &[u8],
        answer: Result<Grant, AcquireError>,
    ) -> Option<usize> {
        match connection.with_limits_logged(answer) {
            Ok(grant) => Some(grant.holders),
            Err(AcquireError::AlreadyHeld(held)) if held.mode == mode.into() => match mode {
                TextMode::Exclusive => (self.dialect == TextDialect::Glockd).then_some(1),
                TextMode::Shared => Some(connection.session.inspect(connection.space_of(mode), name).holders),
            },
            Err(_) => None,
        }
    }
}

impl Connection {
    /// Where the locks of that mode are.
    pub(super) fn space_of(&self, mode: TextMode) -> Space {
        match mode {
            TextMode::Shared if !self.config.shared_excludes => Space::Counted,
            _ => Space::Main,
        }
    }

    /// `i` and `si`: the number of sessions that hold the lock in this mode.
    pub(super) fn holders_in(&self, mode: TextMode, name: &[u8]) -> usize {
        let seen = self.session.inspect(self.space_of(mode), name);
        if seen.mode.map(TextMode::from) == Some(mode) { seen.holders } else { 0 }
    }

    /// `r` and `sr`: releases the lock if the session holds it in this mode; says whether it did.
    pub(super) fn release_held(&self, mode: TextMode, name: &[u8]) -> bool {
        let space = self.space_of(mode);
        // Where both modes share a space, `r` must not release what `sg` acquired, nor the other
        // way round. Only this thread acts for the session, so nothing changes between the look and
        // the release.
        let held_mode = || self.session.inspect(space, name).held.map(|held| held.mode);
        if self.config.shared_excludes && held_mode() != Some(Mode::from(mode)) {
            return false;
        }
        self.session.release(space, name).is_ok()
    }
}
