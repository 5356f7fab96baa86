//! Sessions that resume.
pub(in crate::server) mod identity;
