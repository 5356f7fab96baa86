//! `lockd run`: a command that runs while a lock is held, as flock(1) does it, for many hosts.
//!
//! - `acquire`: getting the lock and giving it back; `explain`: why it could not be had; `ancestors`: what the `lockd run`s
//!   hold that this one runs under. `separator`: what is said if `--` is missing.
//! - `command`: starting the command; `descendants`: all that it has started, found among the `processes`.
//! - `supervise`: while the command runs; `end`: ending it. `ending`: how `lockd run` itself ends.
//! - `dispositions`: which signals are ignored. `signals`, `wait`, `speaker`: signals, waiting and messages, none of which can hold up the others.
//!
//! The command must not run without the lock. So it is ended when the lock is lost, with all that it has started;
//! the session, which the server may keep the lock for, is closed after that. Should this process be killed, the
//! lock is free at once, and the kernel kills the command. That reaches the command alone, not what it has started,
//! and not a command that changes its user (prctl(2), `PR_SET_PDEATHSIG`).
//!
//! Without a terminal the command is in a process group of its own. With one it stays in this process's group,
//! so that what the terminal sends, a Ctrl-C or a Ctrl-Z, reaches it as it reaches all others, and pipes to a
//! pager go on working. What is sent to this process alone is sent on to the command and all its descendants.
//! What the terminal sends is not, since the command has it already. What a program sends to the whole group
//! cannot be told from what it sends to this process alone, so in a terminal that reaches the command twice:
//! better than never.

mod acquire;
mod ancestors;
mod command;
mod descendants;
mod dispositions;
mod end;
mod ending;
mod explain;
mod processes;
mod separator;
mod signals;
mod speaker;
mod supervise;
mod wait;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use lockd::broker::{Grant, Mode};

use super::at::At;
use super::text::{printable_argument, seconds};
use acquire::Demand;
use ancestors::Ancestors;
use command::{Told, has_terminal};
use descendants::Descendants;
use ending::Ending;
pub(super) use separator::explain_missing;
use signals::Signals;
use speaker::Speaker;

/// The longest grace that may be given.
const GRACE_MAX: Duration = Duration::from_secs(3590);

/// How much longer than the grace it may take until all have ended that are killed then.
const TO_KILL: Duration = Duration::from_secs(1);

/// What the rest of the help says.
const ABOUT: &str = "\
COMMAND is run as it is given, without a shell, and its exit status is passed on. It finds in its environment \
LOCKD_TOKEN (the fencing token), LOCKD_NAME (the first name), LOCKD_NAMES (all of them, each on a line), \
LOCKD_ORPHANED=1 if the last exclusive holder vanished without releasing, and LOCKD_HELD, for a lockd run in COMMAND. \
It does not inherit the connection. It ignores the signals that lockd run was started to ignore, SIGPIPE too.

A lockd run in COMMAND that wants the same NAME would wait for ever. It fails at once, if the server shows that the lock \
is still held with the token in LOCKD_HELD: not with --no-dump, nor where COMMAND clears its environment, as sudo does. \
To share a lock that is held shared is no mistake, unless another one waits to have it exclusively.

The lock is free as soon as COMMAND has ended, even if processes that it has started go on.

Signals sent to lockd run (HUP, INT, QUIT, TERM, USR1, USR2, ALRM, and without a terminal TSTP and CONT) are sent \
on to COMMAND and to all that it has started. Before COMMAND is started, and after it has ended, they end lockd run. \
In a terminal COMMAND is in the process group of lockd run. So what the terminal sends (Ctrl-C) reaches it once, but what a \
program sends to that group (kill %1) twice.

If the lock is lost, COMMAND and all that it has started, daemons and processes in sessions of their own too, get \
SIGTERM at once, and SIGKILL after the grace. What cannot be ended is named: a program of another user, say, or one \
that waits for a dead file server. What COMMAND has asked another service to run (at, systemd-run, docker) is not \
known to lockd run. If lockd run is itself killed with SIGKILL, the lock is free at once, and COMMAND is killed a moment later; \
but not what it has started, nor a COMMAND that changes its user.

After lockd kick, the lock goes to the next one when COMMAND has ended, or when the grace and a second are over; \
a second lockd kick does not wait for that. \
After a failure of the network it does so when the server's dead-peer timeout (25 s by default) and then the grace \
and a second are over. After a clean restart of the server, also of one with a state directory, the next \
command may start while this one is still being ended. After a crash of the server it may do so too, unless the \
server has a state directory: then nothing is granted for its dead-peer timeout (25 s by default), which is enough \
for a grace of up to 7 s.

With several servers, each NAME belongs to one of them, and only to lose that one is to lose the lock.";

/// What to run, and under which lock.
#[derive(Args, Debug)]
#[command(after_help = ending::HELP, after_long_help = format!("{ABOUT}\n\n{}", ending::HELP))]
pub(super) struct RunOptions {
    /// Share the lock with others that share it
    #[arg(short, long)]
    shared: bool,

    /// Do not wait for the lock. Connecting may still take 10 seconds
    #[arg(short, long, conflicts_with = "wait")]
    nonblock: bool,

    /// Wait for no longer than this, connecting included; fractions allowed, and 0 is the same as --nonblock
    /// [default: without limit, of which 10 seconds for connecting]
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    wait: Option<Duration>,

    /// Exit status if the lock is busy or not had in time [default: 75 and 124]
    #[arg(short = 'E', long, value_name = "CODE")]
    conflict_exit_code: Option<u8>,

    /// If the lock is lost, how long after SIGTERM to send SIGKILL; 3590 at most
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = grace, allow_negative_numbers = true)]
    grace: Duration,

    /// Do not say why if the lock is busy or not had in time, or a signal comes before that
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    at: At,

    /// The lock; with several names all are acquired at once, or none
    #[arg(value_name = "NAME", required = true)]
    names: Vec<OsString>,

    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", required = true)]
    command: Vec<OsString>,
}

pub(super) fn run(options: &RunOptions) -> ExitCode {
    // Before any signal is blocked, so that its thread can never keep this process from being ended.
    let speaker = match Speaker::start() {
        Ok(speaker) => speaker,
        Err(error) => {
            // If this cannot be written, the exit status has to say it.
            let _ = writeln!(io::stderr(), "lockd: {error}");
            return ExitCode::from(Ending::Failed(String::new()).code(None));
        }
    };
    let ending = hold_and_run(options, &speaker);
    if let Some((words, is_wanted_unless_quiet)) = ending.words()
        && !(options.quiet && is_wanted_unless_quiet)
    {
        speaker.say(words);
    }
    speaker.finish();
    if ending.is_by_sigint() {
        dispositions::die_of_sigint();
    }
    ExitCode::from(ending.code(options.conflict_exit_code))
}

fn hold_and_run(options: &RunOptions, speaker: &Speaker) -> Ending {
    // Looking up a user's name can take long; as long as no signal is blocked, all of them end that.
    let demand = options.demand();
    let has_terminal = has_terminal();
    let signals = match Signals::take(has_terminal) {
        Ok(signals) => signals,
        Err(error) => return Ending::Failed(format!("signals: {error}")),
    };
    let hold = match acquire::acquire(&demand, &signals) {
        Ok(hold) => hold,
        Err(ending) => return ending,
    };
    let descendants = match Descendants::adopt() {
        Ok(descendants) => descendants,
        Err(error) => {
            let _ = hold.release(&signals, false);
            return Ending::Failed(format!("the command cannot be watched: {error}"));
        }
    };
    // The last thing before the command is started: a signal that comes later is the command's.
    let hold = match hold.unless_interrupted(&signals) {
        Ok(hold) => hold,
        Err(ending) => return ending,
    };
    let held = demand.ancestors.with(hold.grant.token, &options.names);
    let Grant { token, orphaned, .. } = hold.grant;
    let told = Told { names: &options.names, token, orphaned, held };
    match command::start(&options.command, &told, signals.mask_before(), has_terminal, descendants) {
        Ok(started) => supervise::supervise(hold, started, &signals, speaker, options.grace, has_terminal),
        Err(ending) => {
            // Nothing was done under the lock: whether it was lost meanwhile is no matter.
            let _ = hold.release(&signals, false);
            ending
        }
    }
}

impl RunOptions {
    fn demand(&self) -> Demand {
        Demand {
            start: Instant::now(),
            urls: self.at.urls.clone(),
            owner: owner(self.command.first()),
            wind_down: self.grace + TO_KILL,
            names: self.names.clone(),
            mode: if self.shared { Mode::Shared } else { Mode::Exclusive },
            limit: if self.nonblock { Some(Duration::ZERO) } else { self.wait },
            ancestors: Ancestors::of_environment(),
        }
    }
}

/// What others see of the holder. Not the arguments: these may be secrets.
fn owner(program: Option<&OsString>) -> String {
    let program = program.and_then(|program| Path::new(program).file_name()).unwrap_or_default();
    let uid = nix::unistd::Uid::effective();
    let user =
        nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let (program, host, pid) = (printable_argument(program), host.trim(), std::process::id());
    format!("run: {program} ({user}@{host}, pid {pid})")
}

/// How long a command may be given, in seconds. As the server has to keep the lock for a little longer, it must
/// be less than the most that a server can be asked for.
fn grace(text: &str) -> Result<Duration, String> {
    let grace = seconds(text)?;
    let fits = grace <= GRACE_MAX;
    fits.then_some(grace).ok_or_else(|| format!("more than {} seconds", GRACE_MAX.as_secs()))
}

#[cfg(test)]
mod tests {
    use lockd::wire::message::WIND_DOWN_MAX;

    use super::*;

    #[test]
    fn a_server_can_be_asked_for_every_grace_that_may_be_given() {
        assert_eq!(grace("3590"), Ok(GRACE_MAX));
        assert!(grace("3590.1").is_err() && grace("-1").is_err());
        assert!(GRACE_MAX + TO_KILL < WIND_DOWN_MAX);
    }
}
