//! What happened in one cell, in the order in which it happened: shown if the cell fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The lines of one cell. Threads that read a driver's output add to it, too.
#[derive(Clone)]
pub(crate) struct Transcript {
    start: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Transcript {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), lines: Arc::default() }
    }

    pub(crate) fn add(&self, line: impl AsRef<str>) {
        let line = format!("{:8.3}  {}", self.start.elapsed().as_secs_f64(), line.as_ref());
        // A thread that has panicked has at worst left out a line of its own.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// The last lines, at most `limit` of them.
    pub(crate) fn end(&self, limit: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines[lines.len().saturating_sub(limit)..].to_vec()
    }
}
