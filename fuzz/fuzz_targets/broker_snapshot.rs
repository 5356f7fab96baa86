//! The state of a broker as JSON: any bytes are refused, or make a broker that works.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use lockd::broker::{Broker, BrokerSnapshot, Limits, ObservedSession, Observer, Outcome, Ticket};

/// Is told nothing that counts.
struct Deaf;

impl Observer for Deaf {
    fn decided(&self, _: Ticket, _: Outcome) {}

    fn deliver(&self) {}
}

/// A broker that has given its last token fails at the next grant. One that has this many left does
/// not, whatever waits; one with fewer is shut before its sessions end, so that it grants nothing.
const TOKENS_LEFT: u64 = 10_000;

fn restored(snapshot: &BrokerSnapshot) -> Option<(Broker, Vec<ObservedSession>)> {
    // Debug assertions check the invariants of the table and of the lanes.
    Broker::restore(snapshot, Limits::default(), u64::MAX, |_| Arc::new(Deaf)).ok()
}

fuzz_target!(|data: &[u8]| {
    let Ok(snapshot) = serde_json::from_slice::<BrokerSnapshot>(data) else { return };
    let Some((broker, sessions)) = restored(&snapshot) else { return };
    assert_eq!(sessions.len(), snapshot.sessions.len());
    let again = broker.snapshot().expect("no thread uses the broker");
    for lock in &again.locks {
        assert!(lock.holders.iter().all(|holder| holder.mode.allows(lock.holders.len())));
    }
    let (other, others) = restored(&again).expect("it is the state of a broker");
    assert_eq!((other.stats(), others.len()), (broker.stats(), sessions.len()));
    for (broker, sessions) in [(broker, sessions), (other, others)] {
        if snapshot.next_token > (1 << 53) - TOKENS_LEFT {
            broker.shut();
        }
        drop(sessions);
        let stats = broker.stats();
        assert_eq!((stats.sessions, stats.locks, stats.shared_locks, stats.waiting), (0, 0, 0, 0));
        assert!(!broker.has_failed());
    }
});
