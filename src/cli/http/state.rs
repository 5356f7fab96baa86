//! What all connections share: the server that is shown, the configuration, and the limits.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use lockd::broker::Broker;
use lockd::server::cluster::ClusterReader;
use lockd::server::{Config, StatsReader};
use parking_lot::{Mutex, RwLock};

use crate::cli::http::connections::HttpConnections;
use crate::cli::http::history::History;
use crate::cli::http::semaphore::Semaphore;

/// Connections at once. Each has a thread and a descriptor, and the server's own connections need
/// those, too.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// How many requests may list locks or wait for that. It is well below [`CONNECTIONS_MAX`], so that
/// there are connections left for other requests.
pub(super) const LISTINGS_MAX: usize = 16;

/// The part of the configuration that these pages use.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The access list, and whether locks may be listed.
    pub(super) config: Config,
    /// The host names that are this server's, in addition to its addresses and localhost.
    pub(super) hosts: Vec<String>,
}

impl Rules {
    pub(crate) fn new(config: &Config, hosts: &[String]) -> Self {
        Self { config: config.clone(), hosts: hosts.to_vec() }
    }
}

/// The server that is shown.
pub(crate) struct Shown {
    pub(crate) broker: Broker,
    pub(crate) stats: StatsReader,
    /// Of a member of a cluster.
    pub(crate) cluster: Option<ClusterReader>,
}

/// What all connections share.
pub(super) struct HttpState {
    pub(super) broker: Broker,
    pub(super) stats: StatsReader,
    /// Of a member of a cluster.
    pub(super) cluster: Option<ClusterReader>,
    rules: RwLock<Arc<Rules>>,
    pub(super) history: History,
    pub(super) started: SystemTime,
    pub(super) connections: Arc<HttpConnections>,
    /// Connections turned away since the start.
    pub(super) refused: AtomicU64,
    /// Held while locks are listed, which costs a look at every name. So the load on the broker is
    /// that of one client, however many ask at the same time.
    pub(super) listing: Mutex<()>,
    /// A permit for each request that holds `listing` or waits for it.
    pub(super) listings: Semaphore,
}

impl HttpState {
    pub(super) fn new(served: Shown, rules: Rules, started: SystemTime) -> Self {
        let Shown { broker, stats, cluster } = served;
        Self {
            broker,
            stats,
            cluster,
            rules: RwLock::new(Arc::new(rules)),
            history: History::default(),
            started,
            connections: HttpConnections::with_limit(CONNECTIONS_MAX),
            refused: AtomicU64::new(0),
            listing: Mutex::new(()),
            listings: Semaphore::new(LISTINGS_MAX),
        }
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.read().clone()
    }

    pub(super) fn set_rules(&self, rules: Rules) {
        *self.rules.write() = Arc::new(rules);
    }
}
