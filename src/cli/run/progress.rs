//! How a wait for the locks goes, as other threads see it: the session that waits now, or why there
//! is none; and the messages about it. The thread that waits reports here, the main thread reads
//! it, and with `--verbose` one thread more says it once a minute. Asks for no lock.

use std::ffi::OsString;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

use lockd::broker::Mode;
use lockd::{Session, WaitEvent};
use parking_lot::{Condvar, Mutex};

use super::explain::{describe_now, printable_names};
use crate::cli::messages::MessageWriter;
use crate::cli::text::age;

/// When `--verbose` speaks first, and how long it is silent between two lines.
const FIRST_LINE: Duration = Duration::from_secs(3);
const BETWEEN_LINES: Duration = Duration::from_secs(60);

/// A server that fails again and again is reported at most this often.
const BETWEEN_OUTAGES: Duration = Duration::from_secs(60);

/// What is said on standard error while `lockd run` waits, or its session is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Talk {
    Quiet,
    /// That there is no server or no connection, and that there is one again.
    Outages,
    /// Also whose the locks are, when they are granted, and each attempt to resume.
    Verbose,
}

pub(super) struct WaitProgress {
    names: Vec<OsString>,
    mode: Mode,
    /// Since when the whole wait lasts, and its time limit.
    start: Instant,
    limit: Option<Duration>,
    talk: Talk,
    messages: MessageWriter,
    state: Mutex<WaitState>,
    /// Notified when the wait is over.
    ended: Condvar,
}

#[derive(Clone, Default)]
pub(super) struct WaitState {
    /// The session that waits now, and since when.
    pub(super) session: Option<(Arc<Session>, Instant)>,
    /// The server's reason for granting nothing at all when this session first asked, if it had
    /// one.
    pub(super) not_yet: Option<String>,
    /// The name that an outer `lockd run` holds, if one does.
    pub(super) held_by_ancestor: Option<OsString>,
    /// Why there is no session.
    pub(super) no_server: Option<String>,
    /// The outage that was reported last: when it began.
    outage: Option<Instant>,
    /// It was not yet reported that it has ended.
    is_outage_open: bool,
    /// Nobody waits any more, so no further session may be used.
    is_over: bool,
}

impl WaitProgress {
    pub(super) fn new(
        (names, mode): (&[OsString], Mode),
        (start, limit): (Instant, Option<Duration>),
        talk: Talk,
        messages: &MessageWriter,
    ) -> Self {
        Self {
            names: names.to_vec(),
            mode,
            start,
            limit,
            talk,
            messages: messages.clone(),
            state: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    /// What the thread that waits reports. Ends its wait if nobody waits for it any more: a lock
    /// that were granted then would be nobody's.
    pub(super) fn note(&self, event: WaitEvent<'_>) -> ControlFlow<()> {
        let mut state = self.state.lock();
        if state.is_over {
            return ControlFlow::Break(());
        }
        match event {
            WaitEvent::NoServer { reason } => {
                let was_connected = state.session.take().is_some();
                state.no_server = Some(reason.to_owned());
                self.tell_outage(&mut state, was_connected, reason);
            }
            WaitEvent::Connected(session) => {
                state.session = Some((session.clone(), Instant::now()));
                (state.no_server, state.not_yet) = (None, None);
            }
            WaitEvent::Waiting { not_yet } => state.not_yet = not_yet.map(str::to_owned),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    /// That the session is back after an outage, and asks for the locks after this pause.
    pub(super) fn note_return(&self, pause: Duration) {
        let mut state = self.state.lock();
        let mut until = String::new();
        if !pause.is_zero() {
            let pause = age(pause.as_secs_f64());
            let why = "a command that lost it with the last server may still be ending";
            until = format!(", asking for the lock in {pause}: {why}");
            state.not_yet = Some(format!("the server is new, and {why}, for up to {pause}"));
        }
        if let Some(outage) = state.outage.filter(|_| std::mem::take(&mut state.is_outage_open)) {
            let lasted = age(outage.elapsed().as_secs_f64());
            self.say(&format!("connected to the server after {lasted}{until}"));
        }
    }

    /// How much of the time limit is left; `None` without a limit.
    pub(super) fn time_left(&self) -> Option<Duration> {
        Some(self.limit?.saturating_sub(self.start.elapsed()))
    }

    /// Whether nobody waits any more.
    pub(super) fn is_over(&self) -> bool {
        self.state.lock().is_over
    }

    pub(super) fn note_ancestor(&self, name: Option<OsString>) {
        self.state.lock().held_by_ancestor = name;
    }

    /// The session that waits now.
    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.state.lock().session.as_ref().map(|(session, _)| session.clone())
    }

    /// Ends the wait, and returns how it stood.
    pub(super) fn end(&self) -> WaitState {
        let mut state = self.state.lock();
        state.is_over = true;
        self.ended.notify_all();
        state.clone()
    }

    /// Says that the locks are granted.
    pub(super) fn tell_granted(&self) {
        if self.talk == Talk::Verbose {
            self.say(&format!("acquired after {}", age(self.start.elapsed().as_secs_f64())));
        }
    }

    /// The end of a connection alone does not tell a restart of the server from a kick.
    fn tell_outage(&self, state: &mut WaitState, was_connected: bool, reason: &str) {
        let is_new =
            !state.is_outage_open && state.outage.is_none_or(|last| last.elapsed() > BETWEEN_OUTAGES);
        if self.talk == Talk::Quiet || !is_new {
            return;
        }
        (state.outage, state.is_outage_open) = (Some(Instant::now()), true);
        let until = match self.time_left() {
            Some(left) => format!("for {} more", age(left.as_secs_f64())),
            None => "for as long as it takes".to_owned(),
        };
        let what =
            if was_connected { "the connection has ended (a restart, or lockd kick?)" } else { "no server" };
        self.say(&format!("{what}, trying again {until}: {reason}"));
    }

    fn say(&self, text: &str) {
        self.messages.write(&format!("{}: {text}", printable_names(&self.names)));
    }

    /// Starts the thread that says with `--verbose` what is waited for.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn narrate(self: &Arc<Self>) -> io::Result<()> {
        if self.talk != Talk::Verbose {
            return Ok(());
        }
        let progress = self.clone();
        // It is not waited for: it may ask a server that hangs.
        Builder::new().name("lockd-verbose".to_owned()).spawn(move || progress.narrate_until_end())?;
        Ok(())
    }

    fn narrate_until_end(&self) {
        let mut pause = FIRST_LINE;
        while let Some(state) = self.state_after(pause) {
            let text = match (&state.session, &state.no_server) {
                (Some((session, since)), _) => {
                    // The reason says for how long, from when it was given.
                    let ago = age(since.elapsed().as_secs_f64());
                    let not_yet = state.not_yet.as_ref().map(|reason| format!("{ago} ago: {reason}"));
                    describe_now(session, &self.names, self.mode, not_yet)
                }
                (None, Some(reason)) => format!("no server: {reason}"),
                (None, None) => "connecting".to_owned(),
            };
            // The server's answer may have taken long.
            let guard = self.state.lock();
            if !guard.is_over {
                self.say(&format!("waiting for {}: {text}", age(self.start.elapsed().as_secs_f64())));
            }
            drop(guard);
            pause = BETWEEN_LINES;
        }
    }

    /// How the wait stands after a pause; `None` if it is over.
    fn state_after(&self, pause: Duration) -> Option<WaitState> {
        let deadline = Instant::now() + pause;
        let mut state = self.state.lock();
        while !state.is_over {
            if self.ended.wait_until(&mut state, deadline).timed_out() {
                return (!state.is_over).then(|| state.clone());
            }
        }
        None
    }
}
