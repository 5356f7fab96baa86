//! What comes and goes at a server, in numbers, for those who show it beside what the broker counts.

use std::sync::atomic::Ordering::Relaxed;

use super::hub::Hub;
use crate::broker::sync::Arc;

/// The numbers of one server, which can be asked for as long as this is kept, also after its end.
#[derive(Clone)]
pub struct Traffic {
    hub: Arc<Hub>,
}

impl Traffic {
    pub(super) fn of(hub: &Arc<Hub>) -> Self {
        Self { hub: hub.clone() }
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.hub.connections()
    }

    /// How many connections have been turned away since the start: not on the access list, too many, out of
    /// resources.
    #[must_use]
    pub fn connections_refused(&self) -> u64 {
        self.hub.refused.load(Relaxed)
    }

    /// How many messages have come since the start.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.hub.messages.load(Relaxed)
    }
}
