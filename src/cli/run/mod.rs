//! `lockd run`: runs a command while a lock is held, like flock(1), but for many hosts.
//!
//! - `acquire`: acquires and releases the lock. `spare`: when it is asked for after a restart of the
//!   server. `explain`: the message if it is not granted. `progress`: how the wait goes, and the
//!   messages about it.
//!   `ancestors`: the locks of the outer `lockd run`s that this one runs under.
//! - `command`: starts the command. `descendants`: everything that it has started, found among all
//!   processes.
//! - `supervise`: while the command runs. `lock_watch`: when it must end because of the lock.
//!   `stop`: Ctrl-Z. `linger`: after the command has ended. `watch`: waiting during both. `end`: ends
//!   the command. `outcome`: how `lockd run` itself can end.
//! - `dispositions`: which signals are ignored. `signals`, `wait`: the signals sent to this
//!   process, and waiting, which a signal ends at once. `boot_clock`: times that the server counts
//!   too.
//!
//! The command must not run without the lock. So it is ended with all its descendants when the lock
//! is lost, and the session is closed only after that, since the server may keep the lock until
//! then. A session that resumes is in doubt first: the command goes on, and is ended so early that
//! it is dead before anybody else can have the lock. If this process is killed, the lock is free at
//! once, and the kernel kills the command. The kernel does not kill what the command has started,
//! nor a command that changes its user (prctl(2), `PR_SET_PDEATHSIG`).
//!
//! Without a terminal, the command has a process group of its own. With a terminal, it stays in
//! this process's group, so that the terminal's signals (Ctrl-C, Ctrl-Z) reach it as they reach all
//! others, and pipes to a pager keep working. A signal sent to this process alone is passed on to
//! the command and all its descendants. A signal from the terminal is not passed on, since the
//! command has already received it, unless it has left the group. A signal that a program sends to
//! the whole group looks like one sent to this process alone, so in a terminal the command receives
//! it twice. That is better than never.
//!
//! While this process is stopped, nobody watches the lock. So it stops only if the whole command
//! does, and when it is continued, it looks at the lock before the command goes on. It has also
//! asked the server nothing meanwhile: while the connection stands, that does not matter, but if the
//! server has crashed, the last answer is too old for the session to be in doubt, and it is lost.

mod acquire;
mod ancestors;
mod boot_clock;
mod command;
mod descendants;
mod dispositions;
mod end;
mod explain;
mod linger;
mod lock_watch;
mod outcome;
mod progress;
mod signals;
mod spare;
mod stop;
mod supervise;
mod wait;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use lockd::broker::{Grant, HolderLimit, Mode};

use super::messages::MessageWriter;
use super::owner_name::{RunId, owner_name};
use super::processes::{line_of_same_program, place_of_ids};
use super::server_option::ServerOption;
use super::text::{printable_argument, seconds};
use acquire::AcquireRequest;
use ancestors::Ancestors;
use command::{CommandEnv, has_terminal, in_shell};
use descendants::Descendants;
use end::KILL_MARGIN;
use outcome::RunOutcome;
use progress::Talk;
use signals::SignalQueue;

/// The longest `--grace`.
const GRACE_MAX: Duration = Duration::from_secs(3590);

/// The longest `--at-least`: a day. Clocks do not differ by more; a larger number is a mistake.
const AT_LEAST_MAX: Duration = Duration::from_secs(86_400);

const ABOUT: &str = "\
COMMAND is run without a shell, unless it is the argument of -c, and its exit status is passed on. Its environment contains LOCKD_TOKEN (the fencing \
token, higher than all earlier ones of the same names), LOCKD_NAME (the first name), LOCKD_NAMES (all names, one on each line), LOCKD_ORPHANED=1 if the last exclusive \
holder vanished without releasing the lock, and LOCKD_HELD, for a lockd run in COMMAND. COMMAND does not inherit the \
connection. It ignores the signals that lockd run was started to ignore, including SIGPIPE.

Who waits holds nothing. So while lockd run waits for the lock, it also waits through a restart or crash of the server, \
a failure of the network, and a server that is not up yet. It says so once, tries again after random pauses of up to 4 \
seconds, and then waits at the end of the queue, all of it within --wait. When it is back, it asks for the lock only if \
the server has been up for --grace and a second: see below. With --nonblock it waits for nothing. A mistake \
that no waiting cures ends it at once with status 125.

If the connection is lost while COMMAND runs, because the server crashes or is restarted or the network fails, COMMAND \
goes on. The lock is in doubt: it may still be held, and nobody else can have it for some time. lockd run connects again \
and resumes its session; the lock and its token stay. One line says that the connection is lost, and one that the \
session has resumed. If it does not resume in time, COMMAND is ended as below, so early that it is dead before anybody \
else can have the lock: --grace and a second before 16.5 s have passed since the last request that the server has \
answered (with its default dead-peer timeout of 25 s; lockd run asks every few seconds). With the default grace the \
server must be back within about 6 s. With a --grace of more than 11 s there may be no time left, and with 15 s or more there \
is practically none: then COMMAND is ended at once. The server must have a state directory or be a member of a \
cluster; otherwise, and with --no-resume, a lost connection is a lost lock.

A cluster is several servers of which one is active. Name all of them, as one server: --server tcp://a,b,c. If the \
active server dies, another one takes over and COMMAND goes on in the same way; lockd run looks for the active one.

Use --no-resume behind a proxy that ends TCP connections (a load balancer in TCP mode, ssh -L, kubectl port-forward). \
If it dies, the server takes the end of the stream for the word of lockd run and frees the lock at once, while lockd run \
would believe that the lock is in doubt, and let COMMAND go on.

If COMMAND itself starts a lockd run for the same NAME, that would wait for ever. It fails at once if the server shows \
that the lock is still held with the token in LOCKD_HELD. Where the server has --no-dump, or COMMAND clears its \
environment as sudo does, it cannot know, and waits. Sharing a lock that is held shared is allowed, unless another \
session waits for it exclusively. With --at-most the inner one needs a slot of its own.

The lock is free as soon as COMMAND has ended (or when --at-least has passed), even if processes that it has started \
go on. This differs from flock(1), where a daemon or any other child that inherits the lock's descriptor keeps the lock, unless -o \
closes it: here no process inherits the connection, as if -o were always given. Other descriptors are inherited as \
usual. So to keep the lock for as long as a daemon runs, start the daemon in the foreground.

With --at-least, lockd run keeps the lock for some time after a COMMAND that has ended earlier, also if COMMAND has \
failed or was killed. With -n, for the same job on several hosts: SECONDS must be more than the hosts' clocks \
differ plus the delay with which cron starts a job, and less than the period minus both. lockd run returns when the \
lock is free; cron sends its mail then. HUP, INT, QUIT or TERM to lockd run ends this at once, also if it \
arrived while COMMAND ran, and so does the loss of the lock, about which there is one line: COMMAND has done its work \
under the lock, but another host may start it early. In each case the exit status is that of COMMAND. If COMMAND \
cannot be started (126, 127), the lock is free at once, so that another host can run it. But a shell, env or timeout \
that does not find its program has been started itself.

To limit the time of a job, use timeout(1) inside: lockd run NAME -- timeout 600 JOB. Then only the time of JOB \
counts. Outside, timeout would also count the time for which lockd run waits for the lock and keeps it, and its \
SIGKILL (-k) would end lockd run and free the lock while processes of JOB go on. If JOB takes too long, the status is \
124 (137 if timeout -k has killed it); with -w, use -E to tell 124 from a lock that was not granted in time.

Signals sent to lockd run (HUP, INT, QUIT, TERM, USR1, USR2, ALRM, TSTP and CONT) are passed on \
to COMMAND and to all processes that it has started. Before COMMAND is started, and after it has ended, they end lockd \
run, which then releases the lock. In a terminal, COMMAND is in the process group of lockd run. So it receives a signal of the terminal (Ctrl-C) once, \
but a signal that a program sends to that group (kill %1) twice.

With Ctrl-Z (TSTP) all of COMMAND stops, and then lockd run. The lock stays held. If a process does not stop within 2 \
seconds, because it ignores TSTP or has a session of its own, all go on, and one line says so. When lockd run is continued, \
it looks at the lock first. If the lock was lost meanwhile, the time since then counts for the grace: usually that is over, \
and COMMAND is killed at once, so that it does not work beside the next holder. (Processes that the shell itself \
continues may run for some milliseconds.) A server that has crashed or was restarted meanwhile is a lost lock, unless that \
was only seconds ago. Do not stop lockd run alone with SIGSTOP: COMMAND goes on, and nobody \
watches its lock until lockd run is continued.

If the lock is lost, COMMAND and all processes that it has started, including daemons and processes in sessions of \
their own, get SIGTERM at once, and SIGKILL after the grace. Processes that cannot be ended are named: for example those \
of another user, or those that wait for a dead file server. lockd run does not know what COMMAND has asked another \
service to run (at, systemd-run, docker). If lockd run itself is killed with SIGKILL, the lock is free at once, and \
COMMAND is killed a moment later; but the processes that it has started are not, nor is a COMMAND that changes its user.

After lockd kick (which ends COMMAND, as above), the next session is granted the lock when COMMAND has ended, or when --grace and a second have \
passed; a second lockd kick does not wait for that. \
After a failure of the network in which the session has not resumed, the next session is granted the lock when the server's dead-peer timeout (25 s by default) and then the \
grace and a second have passed. After a restart or a crash of the server, a lockd run that has lost the server, or has \
found none, asks for the lock only when the server has been up for its own --grace and a second, so that a COMMAND has \
ended whose session does not resume (with a shorter --wait it cannot get the lock). A lockd run that finds the new server at once, or another client, may be \
granted the lock while such a COMMAND is still being ended, unless the server has \
crashed and has a state directory, or is a member of a cluster: then nothing is granted for its dead-peer timeout (25 s by default), which is \
enough for a grace of up to 7 s.

With several servers, each NAME belongs to one of them, and the lock is lost only if that server is lost. All NAMEs must belong to the same one.";

const USAGE: &str = "\
lockd run [OPTIONS] NAME... -- COMMAND [ARGUMENT]...
       lockd run [OPTIONS] NAME... -c 'COMMAND'";

#[derive(Args, Debug)]
#[command(override_usage = USAGE, after_help = outcome::HELP, after_long_help = format!("{ABOUT}\n\n{}", outcome::HELP))]
pub(super) struct RunOptions {
    /// Acquire a shared lock, which other sessions can hold shared at the same time
    #[arg(short, long)]
    shared: bool,

    /// Acquire a lock that at most N sessions hold at the same time: N jobs run, the others wait. If
    /// other sessions name another number, the lowest of N and those of the holders counts. 1 is
    /// exclusive
    #[arg(long, value_name = "N", value_parser = at_most, conflicts_with = "shared")]
    at_most: Option<Mode>,

    /// Do not wait for the lock, nor for a server that is not there; connecting may still take as
    /// long as --connect-timeout
    #[arg(short, long, conflicts_with = "wait")]
    nonblock: bool,

    /// Wait for at most this long, for the lock and for the server; 0.5 is allowed, and 0 is the
    /// same as --nonblock [default: no limit]
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    wait: Option<Duration>,

    /// Let each attempt to connect take at most this long, and no longer than --wait
    #[arg(
        long, value_name = "SECONDS", default_value = "10", value_parser = connect_timeout, allow_negative_numbers = true
    )]
    connect_timeout: Duration,

    /// Exit status if the lock is busy, or not granted in time [default: 75 if busy, 124 if not in
    /// time]
    #[arg(short = 'E', long, value_name = "CODE")]
    conflict_exit_code: Option<u8>,

    /// If the lock is lost, wait this long between SIGTERM and SIGKILL to COMMAND; 3590 at most
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = grace, allow_negative_numbers = true)]
    grace: Duration,

    /// Keep the lock until this long after its grant, even if COMMAND ends earlier; 86400 at most
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = at_least, allow_negative_numbers = true)]
    at_least: Duration,

    /// If the connection is lost, end COMMAND at once, instead of resuming the session on another one.
    /// For servers behind a proxy that ends TCP connections. Has no effect if the address of the
    /// server has ?resume
    #[arg(long)]
    no_resume: bool,

    /// Print no message if the lock is busy or not granted in time, if a signal ends the wait, while
    /// it waits for a server, or when the session resumes
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// While it waits, print after 3 seconds and then every minute who holds the lock and for how
    /// long; when the lock is granted; and each attempt to resume the session
    #[arg(long)]
    verbose: bool,

    #[command(flatten)]
    server: ServerOption,

    /// Name of the lock; if there are several, all are acquired together, or none
    #[arg(value_name = "NAME", required = true, value_parser = OsStringValueParser::new().try_map(name))]
    names: Vec<OsString>,

    /// Run this with $SHELL -c, or with /bin/sh -c if SHELL is not set; one argument, and the last
    /// one, as in: lockd run NAME -c 'cd /srv && ./job | tail'
    #[arg(short = 'c', long = "command", value_name = "COMMAND", conflicts_with = "command")]
    shell_line: Option<OsString>,

    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "shell_line")]
    command: Vec<OsString>,
}

pub(super) fn run(options: &RunOptions) -> ExitCode {
    // Started before any signal is blocked, so that a signal can still end this process while the
    // thread is started.
    let messages = match MessageWriter::start() {
        Ok(messages) => messages,
        Err(error) => {
            // If standard error cannot be written to, the exit status must be enough.
            let _ = writeln!(io::stderr(), "lockd: {error}");
            return ExitCode::from(RunOutcome::Failed(String::new()).code(None));
        }
    };
    let outcome = hold_and_run(options, &messages);
    if let Some((text, can_be_suppressed)) = outcome.message()
        && !(options.quiet && can_be_suppressed)
    {
        messages.write(text);
    }
    messages.finish();
    if outcome.is_by_sigint() {
        dispositions::die_of_sigint();
    }
    ExitCode::from(outcome.code(options.conflict_exit_code))
}

fn hold_and_run(options: &RunOptions, messages: &MessageWriter) -> RunOutcome {
    // Before signals are blocked: to look up a user's name can take long, and a signal must be able
    // to end that.
    let command = options.command();
    let request = options.acquire_request(command.first());
    let has_terminal = has_terminal();
    let signals = match SignalQueue::take(has_terminal) {
        Ok(signals) => signals,
        Err(error) => return RunOutcome::Failed(format!("signals: {error}")),
    };
    let locks = match acquire::acquire(&request, &signals, messages) {
        Ok(locks) => locks,
        Err(outcome) => return outcome,
    };
    // Not earlier than the server has granted the lock, so the lock is not kept for too short.
    let kept_until = Instant::now() + options.at_least;
    let descendants = match Descendants::adopt() {
        Ok(descendants) => descendants,
        Err(error) => {
            let _ = locks.release(&signals, false);
            return RunOutcome::Failed(format!("the command cannot be watched: {error}"));
        }
    };
    // The last step before the command is started: a signal that arrives later is passed on to the
    // command.
    let locks = match locks.unless_interrupted(&signals) {
        Ok(locks) => locks,
        Err(outcome) => return outcome,
    };
    // Before the command is started, or a stop of this process just then would be overlooked.
    let (locks, last_seen) = match locks.unless_lost(&signals) {
        Ok(held) => held,
        Err(outcome) => return outcome,
    };
    let held = request.ancestors.with(locks.grant.token, &options.names);
    let Grant { token, orphaned, .. } = locks.grant;
    let environment = CommandEnv { names: &options.names, token, orphaned, held };
    match command::start(&command, &environment, signals.mask_before(), has_terminal, descendants) {
        Ok(command) => {
            let (grace, talk) = (options.grace, request.talk);
            let terms = supervise::HoldTerms { grace, kept_until, last_seen, talk };
            supervise::supervise(locks, command, &signals, messages, &terms, has_terminal)
        }
        Err(outcome) => {
            // Nothing was done under the lock. So it does not matter whether the lock was lost in
            // the meantime, and it is not kept: another host may have the program that is missing
            // on this one.
            let _ = locks.release(&signals, false);
            outcome
        }
    }
}

impl RunOptions {
    /// Whether the command is the argument of `-c`.
    pub(super) fn is_for_shell(&self) -> bool {
        self.shell_line.is_some()
    }

    /// The command to start, and its arguments.
    fn command(&self) -> Vec<OsString> {
        self.shell_line.as_deref().map_or_else(|| self.command.clone(), in_shell)
    }

    fn talk(&self) -> Talk {
        match (self.quiet, self.verbose) {
            (true, _) => Talk::Quiet,
            (false, false) => Talk::Outages,
            (false, true) => Talk::Verbose,
        }
    }

    fn acquire_request(&self, program: Option<&OsString>) -> AcquireRequest {
        AcquireRequest {
            start: Instant::now(),
            urls: self.server.urls.clone(),
            owner: owner(program),
            wind_down: self.grace + KILL_MARGIN,
            resume: !self.no_resume,
            names: self.names.clone(),
            mode: if self.shared { Mode::Shared } else { self.at_most.unwrap_or(Mode::Exclusive) },
            limit: if self.nonblock { Some(Duration::ZERO) } else { self.wait },
            connect_timeout: self.connect_timeout,
            talk: self.talk(),
            ancestors: Ancestors::of_environment(),
        }
    }
}

/// The owner that others see as the holder of the lock. Without the command's arguments: they may
/// be secrets.
fn owner(program: Option<&OsString>) -> String {
    let program = program.and_then(|program| Path::new(program).file_name()).unwrap_or_default();
    let uid = nix::unistd::Uid::effective();
    let user =
        nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let place = place_of_ids();
    let line: Vec<RunId> = line_of_same_program().iter().map(|run| RunId::of(run, &place)).collect();
    owner_name(&printable_argument(program), &user, host.trim(), std::process::id(), &line)
}

/// Checks a name. The empty name is one, too, and programs may use it. On a command line it is a
/// variable that is not set, and then jobs that have nothing to do with each other would share a
/// lock.
fn name(name: OsString) -> Result<OsString, &'static str> {
    if name.is_empty() { Err("it is empty: is a variable not set?") } else { Ok(name) }
}

/// Parses how many holders there may be.
fn at_most(text: &str) -> Result<Mode, String> {
    let holders = text.parse().ok().and_then(Mode::at_most);
    holders.ok_or_else(|| format!("not a whole number from 1 to {}", HolderLimit::MAX))
}

/// Parses the grace, in seconds. The server must keep the lock for the grace and [`KILL_MARGIN`],
/// so the grace must be less than the longest time that a server can be asked for.
fn grace(text: &str) -> Result<Duration, String> {
    seconds_up_to(GRACE_MAX, text)
}

fn at_least(text: &str) -> Result<Duration, String> {
    seconds_up_to(AT_LEAST_MAX, text)
}

fn seconds_up_to(max: Duration, text: &str) -> Result<Duration, String> {
    let given = seconds(text)?;
    (given <= max).then_some(given).ok_or_else(|| format!("more than {} seconds", max.as_secs()))
}

/// Parses the time of one attempt to connect. None at all would be no attempt.
fn connect_timeout(text: &str) -> Result<Duration, String> {
    let timeout = seconds(text)?;
    if timeout.is_zero() { Err("no time to connect".to_owned()) } else { Ok(timeout) }
}

#[cfg(test)]
mod tests {
    use lockd::wire::message::WIND_DOWN_MAX;

    use super::*;

    #[test]
    fn a_server_can_be_asked_for_the_longest_grace() {
        assert_eq!(grace("3590"), Ok(GRACE_MAX));
        assert!(grace("3590.1").is_err() && grace("-1").is_err());
        assert!(GRACE_MAX + KILL_MARGIN < WIND_DOWN_MAX);
    }
}
