//! When a waiter that was away may ask for the lock again. Requests no lock itself, and decides
//! nothing about the wait in a queue.
//!
//! A server that ends frees all locks at once, but a command that has lost its lock gets as long to
//! end as its `--grace` says. Meanwhile the next server may grant the lock. It knows nothing of the
//! command, and neither does a waiter: it may have been away while another server came and went,
//! which granted the lock. What a waiter can know is how long the server has been up: every command
//! that has lost a lock to a restart lost it before this server started. So it asks only when the
//! server has been up for longer than a command has to end. It assumes that the `--grace` of the
//! others is not longer than its own. (If the server's machine has failed, its clients learn of it
//! later; for that the next server has its own grace, if it has a state directory.)
//!
//! A command whose session resumes needs none of this: it is dead, or its session is back, before
//! the server grants anything. But a waiter cannot see whether all others are of that kind. Another
//! `lockd run` may have `--no-resume`, be an older one, or have a grace that is too long for it; and
//! of a server without a state directory, no session resumes. So a waiter whose own session can
//! resume waits, too. After a crash that costs nothing, since the server's grace is longer.
//!
//! Only waiters that have lost a server, or found none, do that. They have seen that something has
//! happened. A `lockd run` that connects at once asks at once: a server that was started for the
//! first time looks like one that was restarted, and nobody should have to wait for that.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::client::{MessageClient, ServerUrl};
use serde::Deserialize;

use super::progress::WaitProgress;
use super::wait::{readable, wait_for};

/// How long the server may take to accept a connection, and then to say how long it has been up.
const LIMIT: Duration = Duration::from_secs(2);
/// How often to check whether anybody still waits.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Waits, with a new session on the server of the lock `name`, until every command that has lost its
/// lock to a restart has had its time to end, which is `wind_down`; or until that session is lost,
/// too.
///
/// # Errors
/// `Break` if the wait for the lock is over before that.
pub(super) fn spare_last_holder(
    (urls, name): (&str, &OsStr),
    wind_down: Duration,
    session: &Session,
    progress: &WaitProgress,
) -> ControlFlow<()> {
    // If the server does not say how long it has been up, it may have been started just now.
    let up = uptime(urls, name).unwrap_or_default();
    let pause = wind_down.saturating_sub(up);
    progress.note_return(pause);
    let end = Instant::now() + pause;
    loop {
        let now = Instant::now();
        if now >= end || !session.is_alive() {
            return ControlFlow::Continue(());
        }
        let left = progress.time_left();
        if left == Some(Duration::ZERO) || progress.is_over() {
            return ControlFlow::Break(());
        }
        let next = end.min(now + left.map_or(CHECK_INTERVAL, |left| left.min(CHECK_INTERVAL)));
        let lost = session.lost_fd();
        let mut fds: Vec<_> = lost.as_ref().map(readable).into_iter().collect();
        if wait_for(&mut fds, Some(next)).is_err() {
            std::thread::sleep(next.saturating_duration_since(now));
        }
    }
}

/// How long the server of this lock has been up at least, if it answers. It may be a later server
/// than the one of a session that is open already; then that session is lost.
pub(super) fn uptime(urls: &str, name: &OsStr) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Uptime {
        /// In whole seconds, rounded down.
        uptime: u64,
    }
    let client = MessageClient::connect(server_of(urls, name)?.as_str(), LIMIT).ok()?;
    let told = client.rpc("stats", &serde_json::json!({}), Some(LIMIT)).ok()?;
    let Uptime { uptime } = serde_json::from_str(told.get()).ok()?;
    Some(Duration::from_secs(uptime))
}

/// The server of the lock `name`.
pub(super) fn server_of(urls: &str, name: &OsStr) -> Option<ServerUrl> {
    let mut servers = ServerUrl::parse_list(urls).ok()?;
    let index = ServerUrl::index_for(&servers, name.as_bytes());
    (index < servers.len()).then(|| servers.swap_remove(index))
}
