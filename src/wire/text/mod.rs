//! The text protocols: lines of bytes, and the two dialects that are spoken in them.

pub mod glockd;
pub mod lines;
pub mod lockd;
