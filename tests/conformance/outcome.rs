//! The line with which a driver answers a command, and what a trial expects of it.

use std::fmt;
use std::time::Duration;

use crate::verdict::{Failure, Verdict};

/// The first word of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Ok,
    Granted,
    Timeout,
    Already,
    Deadlock,
    Refused,
    Cancelled,
    Lost,
    Invalid,
    NotHeld,
    Held,
    Free,
    Exclusive,
    Shared,
    Alive,
    Doubt,
    Forked,
    Failed,
    Error,
}

/// Each word as drivers write it.
const WORDS: [(&str, Word); 19] = [
    ("ok", Word::Ok),
    ("granted", Word::Granted),
    ("timeout", Word::Timeout),
    ("already", Word::Already),
    ("deadlock", Word::Deadlock),
    ("refused", Word::Refused),
    ("cancelled", Word::Cancelled),
    ("lost", Word::Lost),
    ("invalid", Word::Invalid),
    ("not-held", Word::NotHeld),
    ("held", Word::Held),
    ("free", Word::Free),
    ("exclusive", Word::Exclusive),
    ("shared", Word::Shared),
    ("alive", Word::Alive),
    ("doubt", Word::Doubt),
    ("forked", Word::Forked),
    ("failed", Word::Failed),
    ("error", Word::Error),
];

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, _) = WORDS.iter().find(|(_, word)| word == self).expect("every word is in the table");
        f.write_str(text)
    }
}

/// A driver's answer to one command.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The driver and the command, for messages.
    asked: String,
    line: String,
    pub(crate) word: Word,
    /// All that follows the word.
    pub(crate) text: String,
    /// How long it took, from the moment when the runner began to wait for it.
    pub(crate) took: Duration,
}

impl Answer {
    pub(crate) fn parse(asked: &str, line: &str, took: Duration) -> Verdict<Self> {
        let (first, text) = line.split_once(' ').unwrap_or((line, ""));
        let found = WORDS.iter().find(|(text, _)| *text == first);
        let Some(&(_, word)) = found else {
            return Err(Failure::new(format!("{asked}: {line:?} is no outcome")));
        };
        let answer =
            Self { asked: asked.to_owned(), line: line.to_owned(), word, text: text.to_owned(), took };
        if word == Word::Error {
            Err(answer.failure("an error that the contract does not know"))
        } else {
            Ok(answer)
        }
    }

    /// The failure that this answer is, because of `why`.
    pub(crate) fn failure(&self, why: &str) -> Failure {
        Failure::new(format!("{}: {why}, got \"{}\"", self.asked, self.line))
    }

    pub(crate) fn must_be(self, word: Word) -> Verdict<Self> {
        self.must_be_one_of(&[word])
    }

    pub(crate) fn must_be_one_of(self, words: &[Word]) -> Verdict<Self> {
        if words.contains(&self.word) {
            return Ok(self);
        }
        let expected: Vec<_> = words.iter().map(Word::to_string).collect();
        Err(self.failure(&format!("expected {}", expected.join(" or "))))
    }

    /// It must say no, in any way, to a question whose yes would be a lie.
    pub(crate) fn must_not_be_a_yes(self) -> Verdict<Self> {
        let is_yes = matches!(self.word, Word::Granted | Word::Held | Word::Already);
        if is_yes { Err(self.failure("A FALSE YES: it does not hold the lock")) } else { Ok(self) }
    }

    /// It must say that the session is lost, or at least that it does not hold the lock.
    pub(crate) fn must_be_lost(self) -> Verdict<Self> {
        self.must_not_be_a_yes()?.must_be_one_of(&[Word::Lost, Word::NotHeld, Word::Refused])
    }

    /// The token of a grant, if the driver gives one.
    pub(crate) fn token(&self) -> Option<u64> {
        self.text.split(' ').find_map(|word| word.strip_prefix("token="))?.parse().ok()
    }

    pub(crate) fn is_orphaned(&self) -> bool {
        self.text.split(' ').any(|word| word == "orphaned")
    }
}
