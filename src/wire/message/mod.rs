//! The `message` protocol: requests and replies in JSON, matched by their `id`. Reads and writes
//! bodies; [`frame`](super::frame) puts them into frames. Knows the parameters and results of the
//! lock commands, and leaves those of other commands to their handlers.
//!
//! A body is read in two steps, because a server must look up the command before it knows what
//! parameters to expect: [`parse`] finds the parts of the envelope and leaves them as raw JSON,
//! then a function like [`parse_lock`] reads `parameters`. Neither recurses as deep as the input is
//! nested. If an object has a key twice, the last one counts, as in PHP.

mod envelope;
mod listing;
mod object;
mod replies;
mod requests;
mod resume_grant;
mod scanner;
mod values;

pub use crate::os::Keepalive;
pub use envelope::{BadMessage, ReplyEnvelope, RequestEnvelope, encode_request, parse, parse_reply};
pub use listing::{InspectResult, ListResult, ListedHolder, ListedLock, ListedWaiter, LockPage};
pub use replies::{
    Cause, ClusterMembership, ClusterRole, HelloResult, LockResult, OldUnlockReply, Status, encode_error,
    encode_granted, encode_pong, encode_result, encode_status, encode_unknown,
};
pub use requests::{
    CancelRequest, Claim, ConvertRequest, HelloRequest, IdentifyRequest, InspectRequest, KickRequest,
    ListRequest, LockNames, LockRequest, Malformed, OldUnlockRequest, ResumeRequest, UnlockRequest,
    WIND_DOWN_MAX, parse_cancel, parse_convert, parse_hello, parse_identify, parse_inspect, parse_kick,
    parse_list, parse_lock, parse_old_unlock, parse_resume, parse_unlock,
};
pub use resume_grant::{ResumeGrant, ResumeId, ResumeSecret};
