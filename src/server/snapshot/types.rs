//! The state of a server as data, all of it but the broker's: plain values, which come from a file
//! that another version may have written. What they must be like is checked where they are used.
//! Moments are numbers of the kernel's monotonic clock, and times are in nanoseconds. A descriptor
//! is its number.

use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

use crate::broker::BrokerSnapshot;
use crate::broker::snapshot::as_data::{hex, value_or_null};
use crate::server::auth_token::AuthToken;
use crate::server::config::{Protocol, Scheduling};
use crate::wire::message::ResumeId;
use crate::wire::websocket::{AssemblerSnapshot, WebSocketSnapshot};

/// The state of a server whose threads are parked, for the image that replaces it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSnapshot {
    /// The version of the lockd that wrote it, for the log.
    pub(in crate::server) version: String,
    pub(in crate::server) broker: BrokerSnapshot,
    pub(in crate::server) listeners: Vec<ListenerSnapshot>,
    /// How many connections there have been over Unix sockets.
    pub(in crate::server) unix_peers: u64,
    /// Whether the shared locks of the text protocols and exclusive ones exclude each other.
    pub(in crate::server) shared_excludes: bool,
    /// When the server was started.
    pub(in crate::server) started_nanos: u64,
    pub(in crate::server) counters: CountersSnapshot,
    /// The configurations that the connections have begun with.
    pub(in crate::server) configs: Vec<ConfigSnapshot>,
    /// In the order of their numbers.
    pub(in crate::server) connections: Vec<ConnectionSnapshot>,
}

/// What a connection uses of the configuration that it has begun with, and keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct ConfigSnapshot {
    pub(in crate::server) dead_peer_timeout_nanos: u64,
    pub(in crate::server) line_bytes_max: usize,
    pub(in crate::server) message_bytes_max: usize,
    pub(in crate::server) outbox_bytes_max: usize,
    pub(in crate::server) dump: bool,
    pub(in crate::server) registry: bool,
    pub(in crate::server) kick: bool,
    pub(in crate::server) scheduling: Scheduling,
    /// What the client of a handshake is still to show.
    #[serde(deserialize_with = "value_or_null")]
    pub(in crate::server) auth_token: Option<AuthToken>,
}

/// What a server has counted since its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct CountersSnapshot {
    /// The number of the next connection.
    pub(in crate::server) next_id: u64,
    pub(in crate::server) refused: u64,
    pub(in crate::server) messages: u64,
    pub(in crate::server) lockd_commands: Vec<u64>,
    pub(in crate::server) glockd_commands: Vec<u64>,
}

/// A bound address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct ListenerSnapshot {
    pub(in crate::server) fd: RawFd,
    pub(in crate::server) protocol: Protocol,
    pub(in crate::server) websocket: bool,
    pub(in crate::server) tls: bool,
    pub(in crate::server) address: AddressSnapshot,
    /// The file of a Unix socket that was bound here.
    pub(in crate::server) file: Option<SocketFileSnapshot>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::server) enum AddressSnapshot {
    Tcp(String),
    /// A path.
    Unix(#[serde(with = "hex")] Vec<u8>),
}

/// The file of a Unix socket, whose path is the listener's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct SocketFileSnapshot {
    /// The file itself, whatever is at its path.
    pub(in crate::server) fd: RawFd,
    /// The locked lock file.
    pub(in crate::server) lock_fd: RawFd,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct ConnectionSnapshot {
    pub(in crate::server) id: u64,
    pub(in crate::server) fd: RawFd,
    /// Which of the configurations.
    pub(in crate::server) config: usize,
    pub(in crate::server) is_tcp: bool,
    pub(in crate::server) protocol: Protocol,
    pub(in crate::server) address: String,
    /// The id of its session; none before that has begun.
    pub(in crate::server) session: Option<u64>,
    /// None if the session cannot continue on another connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::server) resumable: Option<ResumableSnapshot>,
    pub(in crate::server) send_queue: SendQueueSnapshot,
    pub(in crate::server) state: StateSnapshot,
}

/// A session that can continue on another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct ResumableSnapshot {
    pub(in crate::server) id: ResumeId,
    /// The number of its client's last attempt.
    pub(in crate::server) attempt: u64,
    pub(in crate::server) is_over: bool,
}

/// How far a connection is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::server) enum StateSnapshot {
    /// Its client is still to show the secret.
    Handshake {
        #[serde(with = "hex")]
        early: Vec<u8>,
        deadline_nanos: u64,
    },
    Conversation {
        #[serde(with = "hex")]
        input: Vec<u8>,
        /// Nothing has been handled yet.
        is_new: bool,
        /// How many waits there have been.
        tickets: u64,
        handler: HandlerSnapshot,
        waits: WaitsSnapshot,
    },
    /// It has ended. Its locks are kept until its client knows.
    Ending {
        /// Until when the client was to acknowledge the end.
        tell_deadline_nanos: u64,
    },
    /// It cannot go on in another image, and is ended there.
    Lost { reason: LossReason },
}

/// Why a connection cannot go on in another image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::server) enum LossReason {
    /// It is in TLS, whose state cannot be taken out.
    Tls,
    /// It is amid the handshake of TLS or WebSocket.
    Handshake,
}

/// What only a connection's protocol handler knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::server) enum HandlerSnapshot {
    Text {
        /// The next bytes belong to a line that was too long.
        is_skipping: bool,
    },
    Message {},
}

/// What a connection's client waits for, and the replies that it is owed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::server) enum WaitsSnapshot {
    /// Of a text protocol: at most one.
    Line {
        wanted: Option<WantedSnapshot>,
    },
    Messages {
        pending: Vec<PendingSnapshot>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct WantedSnapshot {
    pub(in crate::server) is_shared: bool,
    #[serde(with = "hex")]
    pub(in crate::server) name: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct PendingSnapshot {
    pub(in crate::server) ticket: u64,
    /// The id of the request, as JSON.
    pub(in crate::server) id: String,
    /// How many holders the mode of the one lock allows, 0 for any number; none for several locks.
    pub(in crate::server) holders_max: Option<u32>,
    pub(in crate::server) tell_cancelled: bool,
}

/// What is still to be sent on a connection, and what is known of its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct SendQueueSnapshot {
    pub(in crate::server) buffer: SendBufferSnapshot,
    pub(in crate::server) framing: Option<FramingSnapshot>,
    pub(in crate::server) has_overflowed: bool,
    pub(in crate::server) is_closed: bool,
    pub(in crate::server) is_closing: bool,
    pub(in crate::server) end: EndSnapshot,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct SendBufferSnapshot {
    /// Not encoded yet.
    #[serde(with = "hex")]
    pub(in crate::server) bytes: Vec<u8>,
    /// The rest of an encoded batch.
    #[serde(with = "hex")]
    pub(in crate::server) wire: Vec<u8>,
    /// Of a connection in WebSocket.
    pub(in crate::server) exchange: Option<AssemblerSnapshot>,
    pub(in crate::server) has_control_frames: bool,
    pub(in crate::server) position: u64,
    /// Where the unsent bytes begin and end that other threads have appended.
    pub(in crate::server) pushed: Vec<(u64, u64)>,
}

/// The encoding of a connection in WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct FramingSnapshot {
    pub(in crate::server) websocket: WebSocketSnapshot,
    pub(in crate::server) peer_has_ended: bool,
    pub(in crate::server) has_ended: bool,
}

/// The facts about the end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct EndSnapshot {
    pub(in crate::server) is_local: bool,
    pub(in crate::server) peer_ended: bool,
    pub(in crate::server) peer_reset: bool,
    pub(in crate::server) server_ended: bool,
    pub(in crate::server) end_acknowledged: bool,
    pub(in crate::server) peer_timed_out: bool,
    pub(in crate::server) input_ended: bool,
    pub(in crate::server) reset_at_nanos: Option<u64>,
    pub(in crate::server) known_since_nanos: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::server) silent_since_nanos: Option<u64>,
    pub(in crate::server) is_kicked: bool,
    pub(in crate::server) terms: Option<TermsSnapshot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct TermsSnapshot {
    pub(in crate::server) release_delay_nanos: u64,
    pub(in crate::server) wind_down_nanos: u64,
    pub(in crate::server) has_work: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::server) can_resume: bool,
}
