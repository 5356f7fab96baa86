//! The whole broker, lanes and table and shell.

mod sequences;
mod threads;
