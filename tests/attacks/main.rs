//! Attacks on the server's resources, against the real binary: connections, memory, threads, and
//! the time that other clients have to wait. Each runs in a short form here, and at its full size
//! in tests that take minutes and in `benches/attacks`. An attacker may suffer, but well-behaved
//! clients are answered, the attacker is told why it is refused, and when it has gone, the server
//! gets back what it used.
//!
//! An attack with names that all have the same hash is impossible: names are hashed with a random
//! key that each process chooses and never reveals.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod calm;
mod circles;
mod deaf;
mod floods;
mod hoards;
mod refusals;
mod siege;
#[path = "../blackbox/support/mod.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod support;
mod unread;
mod unread_log;
mod vitals;
mod words;

/// Defines each attack as a short test and as a deep test.
macro_rules! attacks {
    ($($name:ident: $attack:expr;)*) => {
        $(mod $name {
            #[test]
            fn at_reduced_size() {
                crate::siege::withstand(&$attack, $attack.short);
            }

            #[test]
            #[ignore = "takes minutes: make check-deep"]
            fn at_full_size() {
                crate::siege::withstand(&$attack, $attack.full);
            }
        })*
    };
}

attacks! {
    many_locks: crate::hoards::LOCKS;
    many_locks_in_sets: crate::hoards::SETS;
    many_waits_apart: crate::hoards::WAITS_APART;
    many_waits_granted: crate::hoards::HOLDER_VANISHES;
    many_waits_together: crate::hoards::WAITS_TOGETHER;
    many_time_outs: crate::hoards::TIME_OUTS;
    many_waits_for_one_name: crate::hoards::ONE_NAME;
    cancels_in_vain: crate::hoards::CANCELS_IN_VAIN;
    a_long_chain: crate::circles::CHAIN;
    a_wide_graph: crate::circles::WIDE;
    refused_searches: crate::circles::REFUSED_SEARCHES;
    sets_in_vain: crate::circles::SETS_IN_VAIN;
    many_granted_by_one_release: crate::circles::SHARED_SETS;
    connections_over_the_limit: crate::floods::OVER_THE_LIMIT;
    connections_without_descriptors: crate::floods::OUT_OF_DESCRIPTORS;
    connections_reset: crate::floods::RESETS;
    connections_that_are_silent: crate::floods::SILENT;
    endless_lines: crate::words::ENDLESS_LINES;
    announced_messages: crate::words::ANNOUNCED;
    half_sent_messages: crate::words::HALF_SENT;
    dripped_requests: crate::words::DRIPPED;
    hard_messages: crate::words::BOMBS;
    listings_read: crate::deaf::LISTINGS_READ;
    listings_unread: crate::deaf::LISTINGS_UNREAD;
    grants_unread: crate::deaf::GRANTS_UNREAD;
}
