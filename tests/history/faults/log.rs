//! What a client's thread logs while it runs, one line for each action, so that the log is complete
//! when its process is killed: what has been written to a file stays. Writes and reads the lines;
//! decides nothing.
//!
//! A line that announces an action is in the file before the action. A line about its outcome may
//! wait until the next announcement; if it is lost with its process, a call has no reply, and
//! nothing worse.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::history::{Call, CallKind, MILLISECOND, Mode, NEVER, Name, Nanos, Outcome, Session};

/// The time of the clock that all processes of this machine share.
pub(crate) fn now() -> Nanos {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1000 * MILLISECOND + u64::try_from(now.tv_nsec).unwrap()
}

/// The log of one thread.
pub(crate) struct Log {
    file: File,
    lines: String,
}

/// One of the two counters of a name: guarded by the lock alone, or also by its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Counter {
    pub(crate) name: Name,
    pub(crate) fenced: bool,
}

/// A write to a counter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Increment {
    pub(crate) counter: Counter,
    pub(crate) value: u64,
    /// Whether the value has certainly been written.
    pub(crate) is_certain: bool,
}

impl Log {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, lines: String::new() })
    }

    /// Writes everything that was logged to the file.
    pub(crate) fn flush(&mut self) {
        self.file.write_all(self.lines.as_bytes()).unwrap();
        self.lines.clear();
    }

    fn note(&mut self, line: std::fmt::Arguments<'_>) {
        use std::fmt::Write;
        writeln!(self.lines, "{line}").unwrap();
    }

    /// A session was opened, at `since` or later.
    pub(crate) fn opened(&mut self, since: Nanos, label: &str) {
        self.note(format_args!("O {since} {label}"));
    }

    /// A call is about to be made.
    pub(crate) fn calling(&mut self, kind: CallKind, wants: &[(Name, Mode)]) {
        self.calling_at(now(), kind, wants);
    }

    /// A call is about to be made. `at` is before a moment at which its session certainly went on.
    pub(crate) fn calling_at(&mut self, at: Nanos, kind: CallKind, wants: &[(Name, Mode)]) {
        let limit = |limit: Option<Nanos>| limit.map_or("-".to_owned(), |limit| limit.to_string());
        let (letter, limit) = match kind {
            CallKind::Acquire { limit: within } => ('a', limit(within)),
            CallKind::Convert { limit: within } => ('c', limit(within)),
            CallKind::Release => ('r', limit(None)),
            CallKind::Inspect => ('i', limit(None)),
        };
        let wants: String =
            wants.iter().map(|(name, mode)| format!(" {}:{name}", mode_text(*mode))).collect();
        self.note(format_args!("C {at} {letter} {limit}{wants}"));
        self.flush();
    }

    pub(crate) fn queued(&mut self) {
        self.note(format_args!("Q {}", now()));
    }

    /// The client is about to cancel its request, or began to at this time.
    pub(crate) fn giving_up(&mut self, since: Nanos) {
        self.note(format_args!("G {since}"));
        self.flush();
    }

    pub(crate) fn answered(&mut self, outcome: Outcome) {
        self.answered_at(now(), outcome);
    }

    /// The call was answered before `at`.
    pub(crate) fn answered_at(&mut self, at: Nanos, outcome: Outcome) {
        let (letter, number) = match outcome {
            Outcome::Granted(token) => ('g', token.unwrap_or(0)),
            Outcome::Busy => ('b', 0),
            Outcome::TimedOut => ('t', 0),
            Outcome::GivenUp => ('u', 0),
            Outcome::Refused => ('f', 0),
            Outcome::Deadlock => ('d', 0),
            Outcome::NotHeld => ('n', 0),
            Outcome::Released => ('r', 0),
            Outcome::Seen(holders) => ('s', u64::from(holders)),
            Outcome::Unknown | Outcome::Unanswered => return,
        };
        self.note(format_args!("R {at} {letter} {number}"));
    }

    /// The client is about to end its session, which certainly went on at this time.
    pub(crate) fn ending_at(&mut self, at: Nanos) {
        self.note(format_args!("E {at}"));
        self.flush();
    }

    /// The client, which is alive at this time, is about to do something that may end its session at
    /// a time that it cannot know.
    pub(crate) fn provoking_at(&mut self, at: Nanos) {
        self.note(format_args!("P {at}"));
        self.flush();
    }

    /// The session's socket is closed.
    pub(crate) fn gone(&mut self) {
        self.note(format_args!("Z {}", now()));
    }

    /// The client has found out that its session has ended.
    pub(crate) fn lost(&mut self) {
        self.note(format_args!("L {}", now()));
    }

    /// The session can go on with other connections.
    pub(crate) fn can_resume(&mut self) {
        self.note(format_args!("J {}", now()));
    }

    /// What follows is on a connection that was made at `since` or later.
    pub(crate) fn connected(&mut self, since: Nanos) {
        self.note(format_args!("K {since}"));
    }

    /// The session is in doubt, and counts as lost if it has not resumed at this time.
    pub(crate) fn in_doubt(&mut self, limit: Nanos) {
        self.note(format_args!("D {limit}"));
        self.flush();
    }

    pub(crate) fn resumed(&mut self) {
        self.note(format_args!("B {}", now()));
    }

    /// The session is lost. Its client believed in its locks until this time.
    pub(crate) fn believed_until(&mut self, time: Nanos) {
        self.note(format_args!("U {time}"));
        self.flush();
    }

    /// The server says that the session, which claims so many locks, has ended.
    pub(crate) fn told_ended(&mut self, claims: usize) {
        self.note(format_args!("X {} {claims}", now()));
    }

    /// The machine of the client sleeps from now on: what it believes counts only up to now, unless
    /// something is answered that it sends afterwards.
    pub(crate) fn asleep(&mut self, since: Nanos) {
        self.note(format_args!("S {since}"));
        self.flush();
    }

    pub(crate) fn is_answered_again(&mut self) {
        self.note(format_args!("A {}", now()));
    }

    /// A value is about to be written to a counter, or has been.
    pub(crate) fn increment(&mut self, counter: Counter, value: u64, is_certain: bool) {
        let letter = if is_certain { 'W' } else { 'T' };
        self.note(format_args!("{letter} {} {} {value}", counter.name, u8::from(counter.fenced)));
        if !is_certain {
            self.flush();
        }
    }
}

/// A mode in the log: how many holders it allows, or a letter.
fn mode_text(mode: Mode) -> String {
    match mode {
        Mode::Exclusive => "x".to_owned(),
        Mode::Limited(limit) => limit.get().to_string(),
        Mode::Shared => "s".to_owned(),
    }
}

fn mode_of(text: &str) -> Option<Mode> {
    match text {
        "x" => Some(Mode::Exclusive),
        "s" => Some(Mode::Shared),
        limit => Mode::at_most(limit.parse().ok()?),
    }
}

/// What one thread has logged.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) sessions: Vec<Session>,
    /// Their `session` is an index into `sessions`.
    pub(crate) calls: Vec<Call>,
    pub(crate) increments: Vec<Increment>,
}

/// Reads what a thread has logged. A line that was not completely written is ignored.
pub(crate) fn read(path: &Path) -> Notes {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |last| &text[..=last]);
    let mut notes = Notes::default();
    for line in whole.lines() {
        notes.line(line).unwrap_or_else(|| panic!("{line:?} in {}", path.display()));
    }
    notes
}

impl Notes {
    fn line(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        let mut words = rest.split(' ');
        let first = words.next()?.parse::<u64>().ok()?;
        match kind {
            "O" => {
                let label = words.collect::<Vec<_>>().join(" ");
                let session = Session { label, opened: first, alive_until: NEVER, ..Session::default() };
                self.sessions.push(session);
            }
            "C" => self.call(first, words)?,
            "Q" => self.calls.last_mut()?.queued = Some(first),
            "G" => self.calls.last_mut()?.gave_up = Some(first),
            "R" => {
                let call = self.calls.last_mut()?;
                call.outcome = outcome(words.next()?, words.next()?.parse().ok()?)?;
                call.end = first;
            }
            "T" | "W" => {
                let fenced = words.next()? == "1";
                let counter = Counter { name: u32::try_from(first).ok()?, fenced };
                let value = words.next()?.parse().ok()?;
                if kind == "W" {
                    self.increments.pop();
                }
                self.increments.push(Increment { counter, value, is_certain: kind == "W" });
            }
            "E" | "P" | "Z" | "L" => self.session_ends(kind, first)?,
            _ => self.session_resumes(kind, first, words.next())?,
        }
        Some(())
    }

    fn session_resumes(&mut self, kind: &str, at: Nanos, claims: Option<&str>) -> Option<()> {
        let session = self.sessions.last_mut()?;
        let resumption = session.resumption.get_or_insert_default();
        match kind {
            "J" => {}
            "K" => resumption.connected.push(at),
            "D" => (resumption.doubts, resumption.limit) = (resumption.doubts + 1, Some(at)),
            "B" => (resumption.resumed, resumption.limit) = (resumption.resumed + 1, None),
            "U" => session.alive_until = session.alive_until.min(at),
            "X" => resumption.told_ended = Some((at, claims?.parse().ok()?)),
            "S" => resumption.asleep = Some(resumption.asleep.map_or(at, |asleep| asleep.min(at))),
            "A" => resumption.asleep = None,
            _ => return None,
        }
        Some(())
    }

    fn call(&mut self, start: Nanos, mut words: std::str::Split<'_, char>) -> Option<()> {
        let letter = words.next()?;
        let limit = words.next()?.parse().ok();
        let kind = match letter {
            "a" => CallKind::Acquire { limit },
            "c" => CallKind::Convert { limit },
            "r" => CallKind::Release,
            "i" => CallKind::Inspect,
            _ => return None,
        };
        let wants = words.map(|want| {
            let (mode, name) = want.split_once(':')?;
            Some((name.parse().ok()?, mode_of(mode)?))
        });
        self.calls.push(Call {
            session: self.sessions.len().checked_sub(1)?,
            kind,
            wants: wants.collect::<Option<_>>()?,
            start,
            end: NEVER,
            queued: None,
            gave_up: None,
            outcome: Outcome::Unknown,
        });
        Some(())
    }

    fn session_ends(&mut self, kind: &str, at: Nanos) -> Option<()> {
        let session = self.sessions.last_mut()?;
        match kind {
            "E" => session.alive_until = session.alive_until.min(at),
            "P" => {
                session.alive_until = session.alive_until.min(at);
                session.provoked = true;
            }
            "Z" => session.gone_at = Some(session.gone_at.map_or(at, |gone| gone.min(at))),
            "L" => {
                session.alive_until = session.alive_until.min(at);
                session.lost_at = Some(at);
                // One that can resume keeps its connections until its client has ended.
                if session.resumption.is_none() {
                    session.gone_at = Some(session.gone_at.map_or(at, |gone| gone.min(at)));
                }
            }
            _ => return None,
        }
        Some(())
    }
}

fn outcome(letter: &str, number: u64) -> Option<Outcome> {
    Some(match letter {
        "g" => Outcome::Granted((number > 0).then_some(number)),
        "b" => Outcome::Busy,
        "t" => Outcome::TimedOut,
        "u" => Outcome::GivenUp,
        "f" => Outcome::Refused,
        "d" => Outcome::Deadlock,
        "n" => Outcome::NotHeld,
        "r" => Outcome::Released,
        "s" => Outcome::Seen(u32::try_from(number).ok()?),
        _ => return None,
    })
}
