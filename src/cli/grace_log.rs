//! What the log says of a grace, for a server that starts and for one that becomes active.

use std::time::Duration;

use lockd::server::keeper::GraceCause;

/// Where a server keeps what the next run must know.
#[derive(Clone, Copy)]
pub(super) enum StoreKind {
    Directory,
    Etcd,
}

/// Logs why nothing is granted for this long.
pub(super) fn log_grace(cause: GraceCause, grace: Duration, store: StoreKind) {
    let seconds = grace.as_secs_f64().ceil();
    match cause {
        GraceCause::Unclean => {
            log::warn!("the last run did not stop cleanly: nothing is granted for {seconds} s");
        }
        GraceCause::Held(sessions) => {
            log::info!(
                "the last run has stopped while sessions that can resume held locks: nothing is granted until \
                 they are back ({sessions}), for {seconds} s at most"
            );
        }
        GraceCause::NewStore => {
            log::warn!(
                "{}: nothing is granted for {seconds} s (with --first-start, locks are granted at once)",
                match store {
                    StoreKind::Directory => "the state directory is new, and may replace one that is lost",
                    StoreKind::Etcd => "there is no record of an earlier run, and one may be lost",
                }
            );
        }
    }
}
