//! What a client's thread writes down while it runs, a line for each thing it does, so that all of
//! it is there when its process is killed: what has been written to a file stays. Writes and reads
//! the lines; judges nothing.
//!
//! A line that says what is about to be done is in the file before it is done. One that says what
//! has come of it may wait for the next of those: lost with its process, it makes a call one
//! without an answer, no more.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::history::{Ask, Call, MILLISECOND, Mode, NEVER, Name, Nanos, Outcome, Session};

/// The time that all processes of this machine share.
pub(crate) fn now() -> Nanos {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1000 * MILLISECOND + u64::try_from(now.tv_nsec).unwrap()
}

/// The notes of one thread.
pub(crate) struct Log {
    file: File,
    lines: String,
}

/// Which counter: of this name, guarded by the lock alone or also by its token.
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
    /// Whether it is known to have been written.
    pub(crate) is_certain: bool,
}

impl Log {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, lines: String::new() })
    }

    /// What was noted is in the file.
    pub(crate) fn flush(&mut self) {
        self.file.write_all(self.lines.as_bytes()).unwrap();
        self.lines.clear();
    }

    fn note(&mut self, line: std::fmt::Arguments<'_>) {
        use std::fmt::Write;
        writeln!(self.lines, "{line}").unwrap();
    }

    /// A session was opened; `since` was before that.
    pub(crate) fn opened(&mut self, since: Nanos, label: &str) {
        self.note(format_args!("O {since} {label}"));
    }

    /// A call is about to be made.
    pub(crate) fn calling(&mut self, ask: Ask, wants: &[(Name, Mode)]) {
        let limit = |limit: Option<Nanos>| limit.map_or("-".to_owned(), |limit| limit.to_string());
        let (letter, limit) = match ask {
            Ask::Acquire { limit: within } => ('a', limit(within)),
            Ask::Convert { limit: within } => ('c', limit(within)),
            Ask::Release => ('r', limit(None)),
            Ask::Inspect => ('i', limit(None)),
        };
        let wants: String = wants.iter().map(|(name, mode)| format!(" {}{name}", letter_of(*mode))).collect();
        self.note(format_args!("C {} {letter} {limit}{wants}", now()));
        self.flush();
    }

    pub(crate) fn queued(&mut self) {
        self.note(format_args!("Q {}", now()));
    }

    /// The client is about to take its request back, or began to at this time.
    pub(crate) fn giving_up(&mut self, since: Nanos) {
        self.note(format_args!("G {since}"));
        self.flush();
    }

    pub(crate) fn answered(&mut self, outcome: Outcome) {
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
        self.note(format_args!("R {} {letter} {number}", now()));
    }

    /// The client is about to end its session.
    pub(crate) fn ending(&mut self) {
        self.note(format_args!("E {}", now()));
        self.flush();
    }

    /// The client is about to do what may end its session at a time it cannot know.
    pub(crate) fn provoking(&mut self) {
        self.note(format_args!("P {}", now()));
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

    /// A value is about to be written to a counter, or has been.
    pub(crate) fn increment(&mut self, counter: Counter, value: u64, is_certain: bool) {
        let letter = if is_certain { 'W' } else { 'T' };
        self.note(format_args!("{letter} {} {} {value}", counter.name, u8::from(counter.fenced)));
        if !is_certain {
            self.flush();
        }
    }
}

fn letter_of(mode: Mode) -> char {
    match mode {
        Mode::Exclusive => 'x',
        Mode::Shared => 's',
    }
}

/// What one thread has noted.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) sessions: Vec<Session>,
    /// Their sessions by their place in `sessions`.
    pub(crate) calls: Vec<Call>,
    pub(crate) increments: Vec<Increment>,
}

/// Reads what a thread has noted; a line that was not wholly written is none.
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
                let session = Session { label, opened: first, stood_until: NEVER, ..Session::default() };
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
            _ => self.session_ends(kind, first)?,
        }
        Some(())
    }

    fn call(&mut self, start: Nanos, mut words: std::str::Split<'_, char>) -> Option<()> {
        let letter = words.next()?;
        let limit = words.next()?.parse().ok();
        let ask = match letter {
            "a" => Ask::Acquire { limit },
            "c" => Ask::Convert { limit },
            "r" => Ask::Release,
            "i" => Ask::Inspect,
            _ => return None,
        };
        let wants = words.map(|want| {
            let mode = if want.starts_with('x') { Mode::Exclusive } else { Mode::Shared };
            Some((want.get(1..)?.parse().ok()?, mode))
        });
        self.calls.push(Call {
            session: self.sessions.len().checked_sub(1)?,
            ask,
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
            "E" => session.stood_until = session.stood_until.min(at),
            "P" => {
                session.stood_until = session.stood_until.min(at);
                session.provoked = true;
            }
            "Z" => session.gone_at = Some(session.gone_at.map_or(at, |gone| gone.min(at))),
            "L" => {
                session.stood_until = session.stood_until.min(at);
                session.lost_at = Some(at);
                session.gone_at = Some(session.gone_at.map_or(at, |gone| gone.min(at)));
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
