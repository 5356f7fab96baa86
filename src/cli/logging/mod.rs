//! The log of the server's process. A thread that logs puts a line into a bounded queue; the log's
//! own thread writes the lines to standard error. Only that thread ever waits for the reader: no
//! lock may depend on a terminal that has been stopped, or on a pipe that is full.
//!
//! - `line`: the text of a record, pure. `queue`: the lines to be written, and the number of lost
//!   ones. `output`: standard error.

mod line;
mod output;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::{Level, LevelFilter, Log, Metadata, Record};

pub(super) use line::LogStyle;
use line::format_record;
use output::LogOutput;
use queue::LogQueue;

/// How many lines, and how many bytes in all, are kept for a slow reader.
const LINES_MAX: usize = 8192;
const BYTES_MAX: usize = 1 << 20;
/// How long [`finish`] waits for a reader that reads nothing.
const UNREAD_LIMIT: Duration = Duration::from_millis(200);
/// How long it waits in all.
const FINISH_LIMIT: Duration = Duration::from_millis(600);

struct Logger {
    queue: LogQueue,
    output: Arc<LogOutput>,
    style: LogStyle,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// What the HTTP client reports of each request is for its authors. A cluster makes many requests a
/// second.
fn is_of_http_client(metadata: &Metadata<'_>) -> bool {
    metadata.level() > Level::Warn && metadata.target().starts_with("ureq")
}

impl Log for Logger {
    /// The crate `log` compares the level, where a reload can change it.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !is_of_http_client(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if is_of_http_client(record.metadata()) {
            return;
        }
        self.queue.push(format_record(self.style, Timestamp::now(), record.level(), *record.args()));
    }

    /// Waits until everything logged before is written; [`UNREAD_LIMIT`] at most if the log is not
    /// read.
    fn flush(&self) {
        let Some(written) = self.queue.when_written(UNREAD_LIMIT) else { return };
        let end = Instant::now() + FINISH_LIMIT;
        while written.recv_timeout(UNREAD_LIMIT).is_err() {
            // On a busy machine the log's thread may be slow, and not the reader. Then there is
            // still room to write.
            if !self.output.takes_more() || Instant::now() >= end {
                return;
            }
        }
    }
}

/// Starts to write records up to `level`, and the messages of panics, to standard error. Must be
/// called once.
///
/// # Errors
/// If no descriptor or no thread is left.
pub(super) fn start(level: LevelFilter, style: LogStyle) -> io::Result<()> {
    let output = Arc::new(LogOutput::take_stderr()?);
    let (queue, lines) = queue::bounded(LINES_MAX, BYTES_MAX);
    let to = output.clone();
    let write = move || {
        let notice = |lost: u64| {
            let text = format_args!("{lost} lines of the log were lost: nobody read them");
            format_record(style, Timestamp::now(), Level::Warn, text)
        };
        lines.write_all(|line| to.write(line.as_bytes()).is_ok(), notice);
    };
    std::thread::Builder::new().name("lockd-log".to_owned()).spawn(write)?;
    let logger = LOGGER.get_or_init(|| Logger { queue, output, style });
    log::set_logger(logger).map_err(|error| io::Error::other(error.to_string()))?;
    log::set_max_level(level);
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Waits until everything logged is written, at the end of the process: less than a second, and
/// only a fraction of it if the log is not read.
pub(super) fn finish() {
    log::logger().flush();
}

/// Waits up to `limit` until everything logged is written, before the next version of the program
/// takes over. Returns how many lines are lost then.
pub(super) fn finish_within(limit: Duration) -> u64 {
    let Some(logger) = LOGGER.get() else { return 0 };
    let deadline = Instant::now() + limit;
    if let Some(written) = logger.queue.when_written(limit) {
        // If they are not written in time, they are counted.
        let _ = written.recv_deadline(deadline);
    }
    logger.queue.unwritten()
}

/// Counts the lines that the version before this one could not write.
pub(super) fn add_lost(lines: u64) {
    if let Some(logger) = LOGGER.get() {
        logger.queue.add_lost(lines);
    }
}

/// Logs what the default panic hook would print. Returns when it is written, or not read: the
/// process may be about to abort.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("<unnamed>");
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => log::error!("thread '{thread}' {panic}\n{backtrace}"),
        _ => log::error!("thread '{thread}' {panic}"),
    }
    finish();
}

#[cfg(test)]
mod tests;
