//! `lockd watch`: the locks as they are now, again and again, in a terminal; anywhere else once.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use lockd::Session;
use rustix::termios::tcgetwinsize;

use crate::cli::server_option::ServerOption as At;
use crate::cli::show::list::{HEADS, Selection, rows};
use crate::cli::show::table::Table;
use crate::cli::show::{Reached, Trouble, connect, finish};
use crate::cli::text::{printable, seconds};

/// The lines of a terminal that does not say how many it has.
const LINES: usize = 24;

/// What to watch.
#[derive(Args, Debug)]
#[command(after_help = "\
Ends with Ctrl-C. A server that goes away is waited for. Where the output is no terminal, the table is written once.")]
pub(in crate::cli) struct WatchOptions {
    /// How often to look
    #[arg(short = 'i', long, value_name = "SECONDS", default_value = "2", value_parser = interval, allow_negative_numbers = true)]
    interval: Duration,

    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    at: At,
}

/// Oftener would be load for no eye.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = seconds(text)?;
    if interval < Duration::from_millis(100) { Err("less than 0.1 s".to_owned()) } else { Ok(interval) }
}

pub(in crate::cli) fn watch(options: &WatchOptions) -> ExitCode {
    finish(if io::stdout().is_terminal() { follow(options) } else { once(options) })
}

fn once(options: &WatchOptions) -> Result<(), Trouble> {
    let Reached { session, gone } = connect(&options.at)?;
    let lines = lines(&session, options, usize::MAX)?;
    let mut out = io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    gone.tell()
}

fn follow(options: &WatchOptions) -> Result<(), Trouble> {
    let mut session = None;
    let mut out = io::stdout();
    loop {
        let (height, width) = size();
        let lines = match look(&mut session, options, height) {
            Ok(lines) => lines,
            Err(Trouble::NoReader) => return Ok(()),
            Err(Trouble::Words(words)) => {
                session = None;
                vec![printable(words.as_bytes())]
            }
        };
        out.write_all(screen(&lines, height, width).as_bytes())?;
        out.flush()?;
        std::thread::sleep(options.interval);
    }
}

fn look(
    reached: &mut Option<Reached>,
    options: &WatchOptions,
    height: usize,
) -> Result<Vec<String>, Trouble> {
    let Reached { session, gone } = match reached {
        Some(reached) => reached,
        None => reached.insert(connect(&options.at)?),
    };
    let mut shown: Vec<String> = gone.0.iter().map(|words| printable(words.as_bytes())).collect();
    let is_whole = shown.is_empty();
    shown.extend(lines(session, options, height.saturating_sub(shown.len()))?);
    if !is_whole {
        // Next time all are tried again.
        *reached = None;
    }
    Ok(shown)
}

/// The table, as far as there is room for it.
fn lines(session: &Session, options: &WatchOptions, height: usize) -> Result<Vec<String>, Trouble> {
    let mut table = Table::with_heads(&HEADS);
    let mut room = height.saturating_sub(1);
    crate::cli::show::pages(session, options.selection.prefix(), |locks| {
        let chosen = locks.iter().filter(|lock| options.selection.has(lock));
        for row in chosen.flat_map(rows).take(room) {
            table.add(row);
            room -= 1;
        }
        Ok(room > 0)
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

/// What puts these lines in place of what is on the screen. Each line over the old one, so that nothing
/// flickers; none so long that it takes two.
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
    fn an_interval_is_not_too_short() {
        assert!(interval("0.05").is_err() && interval("x").is_err());
        assert_eq!(interval("0.1"), Ok(Duration::from_millis(100)));
    }
}
