//! `lockd watch`: the locks, again and again in a terminal; once if the output is not a terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use lockd::Session;
use rustix::termios::tcgetwinsize;

use crate::cli::server_option::ServerOption;
use crate::cli::show::list::{HEADS, Selection, rows};
use crate::cli::show::{ShowError, Unreachable, connect, finish, pages};
use crate::cli::text::{printable, seconds};
use crate::cli::text_table::TextTable;

/// Used if the terminal does not say how many lines it has.
const LINES: usize = 24;

/// How to watch.
#[derive(Args, Debug)]
#[command(after_help = "\
Ends with Ctrl-C. If the server goes away, watch waits for it to come back. If the output is not a terminal, the table \
is written once.")]
pub(crate) struct WatchOptions {
    /// How often to look
    #[arg(short = 'i', long, value_name = "SECONDS", default_value = "2", value_parser = interval, allow_negative_numbers = true)]
    interval: Duration,

    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    at: ServerOption,
}

/// An interval of 0.1 s or more: a shorter one would only load the server.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = seconds(text)?;
    if interval < Duration::from_millis(100) { Err("less than 0.1 s".to_owned()) } else { Ok(interval) }
}

pub(crate) fn watch(options: &WatchOptions) -> ExitCode {
    finish(if io::stdout().is_terminal() { follow(options) } else { once(options) })
}

fn once(options: &WatchOptions) -> Result<(), ShowError> {
    let (session, unreachable) = connect(&options.at)?;
    let lines = lines(&session, options, usize::MAX)?;
    let mut out = io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    unreachable.into_result()
}

fn follow(options: &WatchOptions) -> Result<(), ShowError> {
    let mut session = None;
    let mut out = io::stdout();
    loop {
        let (height, width) = size();
        let lines = match look(&mut session, options, height) {
            Ok(lines) => lines,
            Err(ShowError::NoReader) => return Ok(()),
            Err(ShowError::Failed(why)) => {
                session = None;
                vec![printable(why.as_bytes())]
            }
        };
        out.write_all(screen(&lines, height, width).as_bytes())?;
        out.flush()?;
        std::thread::sleep(options.interval);
    }
}

/// Connects if need be, and gets the lines to show.
fn look(
    reached: &mut Option<(Session, Unreachable)>,
    options: &WatchOptions,
    height: usize,
) -> Result<Vec<String>, ShowError> {
    let (session, unreachable) = match reached {
        Some(reached) => reached,
        None => reached.insert(connect(&options.at)?),
    };
    let mut shown: Vec<String> = unreachable.0.iter().map(|why| printable(why.as_bytes())).collect();
    let are_all_reached = shown.is_empty();
    shown.extend(lines(session, options, height.saturating_sub(shown.len()))?);
    if !are_all_reached {
        // Tries all servers again next time.
        *reached = None;
    }
    Ok(shown)
}

/// The lines of the table, `height` at most.
fn lines(session: &Session, options: &WatchOptions, height: usize) -> Result<Vec<String>, ShowError> {
    let mut table = TextTable::with_heads(&HEADS);
    let mut lines_left = height.saturating_sub(1);
    pages(session, options.selection.prefix(), |locks| {
        let chosen = locks.iter().filter(|lock| options.selection.has(lock));
        for row in chosen.flat_map(rows).take(lines_left) {
            table.add(row);
            lines_left -= 1;
        }
        Ok(lines_left > 0)
    })?;
    Ok(table.take_lines())
}

/// Lines and columns of the terminal.
fn size() -> (usize, usize) {
    let size = tcgetwinsize(io::stdout()).ok();
    let given = |size: u16| (size > 0).then_some(usize::from(size));
    let height = size.and_then(|size| given(size.ws_row)).unwrap_or(LINES);
    (height, size.and_then(|size| given(size.ws_col)).unwrap_or(usize::MAX))
}

/// The output that replaces the terminal's content with these lines. Each line is written over the
/// old one, which does not flicker as clearing the screen would, and is cut to the width, so that
/// it takes one line.
fn screen(lines: &[String], height: usize, width: usize) -> String {
    let mut screen = "\x1b[H".to_owned();
    for (number, line) in lines.iter().take(height).enumerate() {
        let line: String = line.chars().take(width).collect();
        let end = if number + 1 == height { "" } else { "\r\n" };
        // Writing to a string does not fail.
        let _ = write!(screen, "{line}\x1b[K{end}");
    }
    if lines.len() < height {
        screen.push_str("\x1b[J");
    }
    screen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_replaces_the_one_before_and_never_scrolls() {
        let lines: Vec<String> = ["one", "two", "three"].map(str::to_owned).to_vec();
        assert_eq!(screen(&lines, 9, 4), "\x1b[Hone\x1b[K\r\ntwo\x1b[K\r\nthre\x1b[K\r\n\x1b[J");
        assert_eq!(screen(&lines, 2, 9), "\x1b[Hone\x1b[K\r\ntwo\x1b[K");
    }

    #[test]
    fn an_interval_is_a_tenth_of_a_second_at_least() {
        assert!(interval("0.05").is_err() && interval("x").is_err());
        assert_eq!(interval("0.1"), Ok(Duration::from_millis(100)));
    }
}
