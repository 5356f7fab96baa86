//! Several servers of which one is active, chosen through etcd. etcd holds what changes seldom: who
//! is active, the times of the cluster, and what one run leaves to the next. Locks are only in the
//! active server's memory. Knows etcd, the keeper and the server; nothing of what a connection says.
//!
//! The active server rewrites its key in etcd again and again, and may speak for a part of the leader
//! timeout after it has sent the last write that succeeded. The kernel ends its process then, even if
//! it is stopped. Another server takes over once it has seen the key unchanged for more than the
//! leader timeout. So two never speak at the same time, as long as their clocks go almost equally
//! fast; no clock is compared with another.
//!
//! - `times`: all times, from two. `keys`: the names and values in etcd. Both are pure, and so is
//!   `observation`: how long the key has been unchanged.
//! - `leadership`: saying that this server is active, and until when that counts. `activation`: what
//!   a new run begins with. `cluster_store`: the store of its keeper. `consensus`: what is asked of
//!   etcd.
//! - `member`: the thread that does all this. `status`: what is shown of it.

mod activation;
mod cluster_store;
mod consensus;
mod keys;
mod leadership;
mod member;
mod observation;
mod status;
#[cfg(test)]
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod tests;
mod times;

use std::io;
use std::time::Instant;

use member::{KernelLimiter, MemberTask, Surroundings};
pub use member::{Member, MemberEvent};
pub use status::{ClusterReader, ClusterView};
pub use times::ClusterTimes;

use crate::broker::Broker;
use crate::etcd::{Etcd, EtcdUrl};
use crate::os::process_limit;
use crate::os::sync::Arc;
use crate::server::Server;
use crate::server::keeper::Resumption;
use crate::server::server_state::{ClusterPart, ClusterRun, ServerState, Standby};

/// How a server becomes a member of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where etcd is, and the name of the cluster.
    pub etcd: EtcdUrl,
    /// The times, which must be the same on all servers of the cluster.
    pub times: ClusterTimes,
    /// Where clients find this server: `HOST:PORT`.
    pub address: Option<String>,
    /// Whether the first server of a new cluster may grant locks at once. Without this, nothing is
    /// granted until the dead-peer timeout has passed.
    pub is_first_start: bool,
}

impl ClusterConfig {
    /// Makes a server a member of the cluster. It must have been [started as a
    /// standby](crate::server::Bound::serve_as_standby), with the [broker of a
    /// standby](Broker::standby). `report` is called in a thread of its own.
    ///
    /// From the moment at which the server becomes active, the kernel ends this *process* as soon as
    /// etcd has not confirmed for most of the leader timeout that it still is. So this is for
    /// programs that do nothing else.
    ///
    /// # Errors
    /// If a file that the address names is of no use, or no thread can be started; or if the kernel
    /// cannot end this process, because it is process 1 of a container.
    pub fn join(
        self,
        broker: &Broker,
        server: &Server,
        report: impl Fn(MemberEvent) + Send + 'static,
    ) -> io::Result<Member> {
        Self::check_process().map_err(io::Error::other)?;
        let etcd = Etcd::new(&self.etcd).map_err(|error| io::Error::other(error.to_string()))?;
        Member::start(MemberTask {
            cluster: self.etcd.name().to_owned(),
            consensus: Arc::new(etcd),
            times: self.times,
            address: self.address,
            is_first_start: self.is_first_start,
            broker: broker.clone(),
            surroundings: Box::new(ServedStandby(server.state.clone())),
            limiter: Arc::new(KernelLimiter::default()),
            report: Box::new(report),
        })
    }

    /// Checks that this process can be that of a member of a cluster.
    ///
    /// # Errors
    /// Why not.
    pub fn check_process() -> Result<(), &'static str> {
        match process_limit::can_be_ended() {
            true => Ok(()),
            false => Err(
                "this is process 1 of a container, which the kernel cannot end when its time as the active server is \
                 over: let another program be process 1 (docker run --init, or shareProcessNamespace in Kubernetes)",
            ),
        }
    }
}

/// The server around a member.
struct ServedStandby(Arc<ServerState>);

impl Surroundings for ServedStandby {
    fn set_active_elsewhere(&self, address: Option<&str>) {
        if let Some(ClusterPart::Standby(standby)) = &mut *self.0.cluster.lock() {
            standby.active = address.map(str::to_owned);
        }
    }

    fn hang_up(&self) {
        self.0.hang_up_all();
    }

    fn begin(&self, resumption: Resumption) {
        let epoch = resumption.epoch();
        self.0.resumable.set_resumption(Some(resumption));
        let mut part = self.0.cluster.lock();
        // Last: from then on, clients get sessions.
        if let Some(ClusterPart::Standby(Standby { cluster, .. })) = &*part {
            *part = Some(ClusterPart::Active(ClusterRun {
                cluster: cluster.clone(),
                epoch,
                since: Instant::now(),
            }));
        }
    }
}
