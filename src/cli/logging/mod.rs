//! The log of the server's process: whoever logs leaves a line in a bounded queue, and a thread of its own
//! writes it to the standard error. Nobody but that thread ever waits for whoever reads it: no lock may depend
//! on a terminal that somebody has stopped, or on a pipe that is full.
//!
//! - `line`: what a record looks like, pure; `queue`: what is to be written, and what was lost;
//! - `output`: the standard error.

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

pub(super) use line::Style;
use output::Output;
use queue::Queue;

/// How much is kept for a reader that is slow.
const LINES_MAX: usize = 8192;
const BYTES_MAX: usize = 1 << 20;
/// How long [`finish`] waits for a reader that takes nothing.
const UNREAD_LIMIT: Duration = Duration::from_millis(200);
/// How long it waits in all.
const FINISH_LIMIT: Duration = Duration::from_millis(600);

struct Logger {
    queue: Queue,
    output: Arc<Output>,
    style: Style,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

impl Log for Logger {
    /// Everything is let through: the level is kept by `log`, where a reload can change it.
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.queue.push(line::of(self.style, Timestamp::now(), record.level(), *record.args()));
    }

    /// Waits until all is written that has been logged before; not for long if nobody reads it.
    fn flush(&self) {
        let Some(written) = self.queue.when_written(UNREAD_LIMIT) else { return };
        let end = Instant::now() + FINISH_LIMIT;
        while !written.within(UNREAD_LIMIT) {
            // On a busy machine it may be the writer that is slow, and not the reader.
            if !self.output.takes_more() || Instant::now() >= end {
                return;
            }
        }
    }
}

/// From now on what is logged up to `level` goes to the standard error, and so does what a panic says. To be
/// called once.
///
/// # Errors
/// If no descriptor or no thread is left.
pub(super) fn start(level: LevelFilter, style: Style) -> io::Result<()> {
    let output = Arc::new(Output::take_stderr()?);
    let (queue, lines) = queue::bounded(LINES_MAX, BYTES_MAX);
    let to = output.clone();
    let write = move || {
        let notice = |lost: u64| {
            let text = format_args!("{lost} lines of the log were lost: nobody read them");
            line::of(style, Timestamp::now(), Level::Warn, text)
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

/// Waits until what has been logged is written: before the process ends. For less than a second, and a fraction of
/// it if nobody reads.
pub(super) fn finish() {
    log::logger().flush();
}

/// Says what the default hook does. It is written before this returns, unless nobody reads: the process may be
/// about to abort.
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
