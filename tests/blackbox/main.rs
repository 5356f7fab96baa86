//! The server as its clients see it: the real binary, over real sockets, in all three protocols.
//! One program, so that it is built once; its modules say what each is about.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod across_protocols;
mod bad_input;
mod bench;
mod churn;
mod configuration;
mod crowd;
mod documented_sessions;
mod glockd_listings;
mod glockd_protocol;
mod glockd_waiting;
mod limited_locks;
mod limits;
mod lockd_protocol;
mod lockd_statistics;
mod log_lines;
mod message_listings;
mod message_locks;
mod message_protocol;
mod message_queue;
mod message_sets;
mod originals;
mod php;
mod planted_links;
mod restart;
mod resuming;
mod server_process;
mod slow_readers;
mod support;
mod vanished_clients;
mod winding_down;
