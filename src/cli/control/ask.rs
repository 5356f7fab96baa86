//! `lockd upgrade` and `lockd stand-down`: ask a server on this machine to upgrade in place, or to
//! hand over, and show how that goes.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::cli::control::asker::{Order, Reply};
use crate::cli::messages::exit_with_message;

/// How long to wait for the next line of the server: longer than any of its steps takes.
const LINE_LIMIT: Duration = Duration::from_secs(60);
/// The exit status if there is no server that can be asked.
const EXIT_NO_SERVER: u8 = 69;
/// The exit status if the server has not said how it ended.
const EXIT_NO_ANSWER: u8 = 70;

/// Which server to ask.
#[derive(Args, Debug)]
#[command(after_help = "\
The server replaces itself by the program that is now at the path by which it was started. Connections, locks and \
waits stay. Before that, it lets the new program try whether it can take over. If not, the server goes on as before.\n\n\
Exit status: 0 if the new version serves; 1 if the server has refused, and serves on as before; 2 for wrong arguments; \
69 if there is no server at the path, or it may not be asked; 70 if the server has not said how it ended: its log does.")]
pub(crate) struct UpgradeOptions {
    /// The server's control socket, as it was given with its own --control
    #[arg(long, value_name = "PATH", default_value = "/run/lockd/control")]
    control: PathBuf,
}

/// Which server to ask.
#[derive(Args, Debug)]
#[command(after_help = "\
The active server of a cluster tells its clients that it ends, and hands over: the next server need not wait for the \
leader timeout. Sessions that resume keep their locks. The server ends with status 4, so that its service manager \
starts it again, as a standby.\n\n\
Exit status: 0 if it has handed over; 1 if the server has refused, and serves on as before; 2 for wrong arguments; \
69 if there is no server at the path, or it may not be asked; 70 if the server has not said how it ended: its log does.")]
pub(crate) struct StandDownOptions {
    /// The server's control socket, as it was given with its own --control
    #[arg(long, value_name = "PATH", default_value = "/run/lockd/control")]
    control: PathBuf,
}

pub(crate) fn upgrade(options: &UpgradeOptions) -> ExitCode {
    give(Order::Upgrade, &options.control, "not upgraded")
}

pub(crate) fn stand_down(options: &StandDownOptions) -> ExitCode {
    give(Order::StandDown, &options.control, "not handed over")
}

/// `not_done` says in short that the server has refused.
fn give(order: Order, control: &Path, not_done: &str) -> ExitCode {
    let path = control.display();
    let mut stream = match UnixStream::connect(control) {
        Ok(stream) => stream,
        Err(error) => return exit_with_message(&format!("{path}: {error}"), EXIT_NO_SERVER),
    };
    match ask(&mut stream, order) {
        Ok(Some(Reply::Refused(reason))) => {
            exit_with_message(&format!("{not_done}, the server goes on as before: {reason}"), 1)
        }
        Ok(Some(_)) => ExitCode::SUCCESS,
        Ok(None) => {
            let text =
                format!("{path}: the server seems to have ended, and has not said how it went: see its log");
            exit_with_message(&text, EXIT_NO_ANSWER)
        }
        Err(error) => exit_with_message(&format!("{path}: {error}"), EXIT_NO_ANSWER),
    }
}

/// Asks, and prints what the server tells. Returns its last line; `None` if there is none.
fn ask(stream: &mut UnixStream, order: Order) -> io::Result<Option<Reply>> {
    stream.set_read_timeout(Some(LINE_LIMIT))?;
    stream.write_all(format!("{}\n", order.line()).as_bytes())?;
    for line in BufReader::new(stream).lines() {
        match Reply::parse(&line?) {
            // If standard output cannot be written to, the exit status must be enough.
            Some(Reply::Progress(text)) => _ = writeln!(io::stdout(), "{text}"),
            Some(Reply::Done(text)) => {
                let _ = writeln!(io::stdout(), "{text}");
                return Ok(Some(Reply::Done(text)));
            }
            refused @ Some(Reply::Refused(_)) => return Ok(refused),
            // A later version may say more.
            None => {}
        }
    }
    Ok(None)
}
