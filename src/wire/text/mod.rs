//! The text protocols: one codec for lines, requests and replies, and two dialects. `lockd` and
//! `glockd` hold what only one dialect prints.

pub mod glockd;
pub mod lines;
pub mod lockd;
mod reply;
mod request;

pub use reply::TextReply;
pub use request::{TextDialect, TextMode, TextRequest};
