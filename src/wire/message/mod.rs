//! The `message` protocol: JSON with an `id`, requests and replies both ways. Reads and writes
//! bodies, whose frames are [`frame`](super::frame)'s; knows the lock commands' parameters and
//! results, and leaves any other command's to whoever handles it.
//!
//! A body is read in two steps, since a server looks up the command before it knows what the
//! parameters should be: [`parse`] finds the envelope's parts and leaves them as raw JSON, then
//! [`parse_lock`] and its like read `parameters`. Neither recurses with the depth of the input.
//! Of a key that stands twice in an object the last one counts, as in PHP.

mod envelope;
mod listing;
mod object;
mod replies;
mod requests;
mod values;

pub use crate::os::Keepalive;
pub use envelope::{BadMessage, Envelope, Reply, encode_request, parse, parse_reply};
pub use listing::{InspectResult, ListResult, ListedHolder, ListedLock, ListedWaiter, LockPage};
pub use replies::{
    Cause, HelloResult, LockResult, OldUnlockReply, Status, encode_error, encode_granted, encode_pong,
    encode_result, encode_unknown,
};
pub use requests::{
    CancelRequest, ConvertRequest, HelloRequest, IdentifyRequest, InspectRequest, KickRequest, ListRequest,
    LockRequest, Malformed, OldUnlockRequest, UnlockRequest, WIND_DOWN_MAX, parse_cancel, parse_convert,
    parse_hello, parse_identify, parse_inspect, parse_kick, parse_list, parse_lock, parse_old_unlock,
    parse_unlock,
};
