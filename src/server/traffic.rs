//! What comes and goes at a server, in numbers, for those who show it beside what the broker counts.

use std::sync::atomic::Ordering::Relaxed;

use super::server_state::ServerState;
use crate::os::sync::Arc;

/// The numbers of one server, which can be asked for as long as this is kept, also after its end.
#[derive(Clone)]
pub struct Traffic {
    server: Arc<ServerState>,
}

impl Traffic {
    pub(super) fn of(server: &Arc<ServerState>) -> Self {
        Self { server: server.clone() }
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// How many connections have been turned away since the start: not on the access list, too many, out of
    /// resources.
    #[must_use]
    pub fn connections_refused(&self) -> u64 {
        self.server.refused.load(Relaxed)
    }

    /// How many messages have come since the start.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.server.messages.load(Relaxed)
    }
}
