//! What connections keep of the configuration that they have begun with, as at a reload: a message
//! that is half on its way may be longer than the present configuration allows. As data, and back.

use std::time::Duration;

use super::types::ConfigSnapshot;
use crate::os::monotonic::nanos_in;
use crate::server::config::Config;

impl ConfigSnapshot {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            dead_peer_timeout_nanos: nanos_in(config.dead_peer_timeout),
            line_bytes_max: config.line_bytes_max,
            message_bytes_max: config.message_bytes_max,
            outbox_bytes_max: config.outbox_bytes_max,
            dump: config.dump,
            registry: config.registry,
            kick: config.kick,
            scheduling: config.scheduling,
            auth_token: config.auth_token.clone(),
        }
    }

    /// A configuration for the connections that have begun with this one. All that they do not use
    /// is that of `present`.
    pub(super) fn with(self, present: &Config) -> Config {
        Config {
            dead_peer_timeout: Duration::from_nanos(self.dead_peer_timeout_nanos),
            line_bytes_max: self.line_bytes_max,
            message_bytes_max: self.message_bytes_max,
            outbox_bytes_max: self.outbox_bytes_max,
            dump: self.dump,
            registry: self.registry,
            kick: self.kick,
            scheduling: self.scheduling,
            auth_token: self.auth_token,
            ..present.clone()
        }
    }
}
