//! Codecs.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]
