//! What the replies of the text protocols tell a client. Lines that end with `\n` alone belong to listings and
//! figures, and say nothing about what is held.

use std::collections::VecDeque;

use lockd::broker::{LockName, Mode};
use lockd::wire::text::lines::{Line, LineDecoder};
use lockd::wire::text::{TextDialect, TextRequest};

use crate::LINE_MAX;
use crate::client::Belief;

/// Shows every whole line to `each`, without its end, if it is a reply of one line; returns how many bytes
/// they had.
fn each_reply(received: &[u8], mut each: impl FnMut(&[u8])) -> usize {
    let mut done = 0;
    while let Some(end) = received[done..].iter().position(|&byte| byte == b'\n') {
        let line = &received[done..done + end];
        if let Some(reply) = line.strip_suffix(b"\r") {
            each(reply);
        }
        done += end + 1;
    }
    done
}

/// A request of `lockd` whose reply, which does not say what it is about, is to come.
#[derive(Debug)]
enum Asked {
    Acquire(LockName, Mode),
    Release(LockName, Mode),
    Inspect,
    TooLong,
}

/// Replies of `lockd`: one a request, in their order.
pub(crate) struct LockdReplies {
    decoder: LineDecoder,
    unread: Vec<u8>,
    asked: VecDeque<Asked>,
}

impl LockdReplies {
    pub(crate) fn new() -> Self {
        Self { decoder: LineDecoder::new(LINE_MAX), unread: Vec::new(), asked: VecDeque::new() }
    }

    pub(crate) fn said(&mut self, bytes: &[u8], _: &mut Belief) {
        self.unread.extend_from_slice(bytes);
        loop {
            let (taken, line) = self.decoder.decode(&self.unread);
            let asked = match line {
                Line::Incomplete => break drop(self.unread.drain(..taken)),
                Line::TooLong => Some(Asked::TooLong),
                Line::Complete(line) => match TextDialect::Lockd.parse(line) {
                    TextRequest::Acquire { mode, name } => Some(Asked::Acquire(LockName::new(&name), mode)),
                    TextRequest::Release { mode, name } => Some(Asked::Release(LockName::new(&name), mode)),
                    TextRequest::Inspect { .. } => Some(Asked::Inspect),
                    _ => None,
                },
            };
            self.asked.extend(asked);
            self.unread.drain(..taken);
        }
    }

    pub(crate) fn hear(&mut self, received: &[u8], belief: &mut Belief) -> usize {
        let asked = &mut self.asked;
        each_reply(received, |reply| {
            let asked = asked.pop_front().expect("a reply to nothing");
            believe(asked, reply, belief);
        })
    }
}

fn believe(asked: Asked, reply: &[u8], belief: &mut Belief) {
    let yes = !reply.starts_with(b"0");
    let ends = |text: &[u8]| reply.ends_with(text);
    match asked {
        Asked::Acquire(name, mode) if yes => {
            assert!(ends(b" Got Lock"), "{}", reply.escape_ascii());
            let before = belief.gain(belief.space_of(mode), name, mode);
            // Asked for again, an exclusive lock is refused, and a shared one granted.
            assert!(before.is_none() || (before, mode) == (Some(Mode::Shared), Mode::Shared), "{before:?}");
        }
        Asked::Acquire(..) => assert_eq!(reply, b"0 Cannot Get Lock"),
        Asked::Release(name, mode) => {
            let space = belief.space_of(mode);
            assert_eq!(yes, belief.holds(space, &name, mode), "{}", reply.escape_ascii());
            assert!(reply == b"1 Released Lock" || reply == b"0 Cannot Release Lock");
            if yes {
                belief.lose(space, &name);
            }
        }
        Asked::Inspect => assert!(ends(b"Locked"), "{}", reply.escape_ascii()),
        Asked::TooLong => assert_eq!(reply, b"0 Line Too Long"),
    }
}

/// Replies of `glockd`: they say themselves what they are about.
pub(crate) struct GlockdReplies;

impl GlockdReplies {
    pub(crate) fn said(&mut self, _: &[u8], _: &mut Belief) {}

    pub(crate) fn hear(&mut self, received: &[u8], belief: &mut Belief) -> usize {
        each_reply(received, |reply| {
            let digits = reply.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (number, text) = reply.split_at(digits);
            let yes = number.iter().any(|&digit| digit != b'0');
            let about = |text_of: &str| text.strip_prefix(text_of.as_bytes()).map(LockName::new);
            for (mode, shared) in [(Mode::Exclusive, " "), (Mode::Shared, " Shared ")] {
                let space = belief.space_of(mode);
                if let Some(name) = about(&format!("{shared}Lock Get Success: ")) {
                    assert!(yes, "a success of nobody: {}", reply.escape_ascii());
                    let before = belief.gain(space, name, mode);
                    assert!(before.is_none_or(|before| before == mode), "{}", reply.escape_ascii());
                } else if let Some(name) = about(&format!("{shared}Lock Release Success: ")) {
                    assert_eq!(belief.lose(space, &name), Some(mode), "{}", reply.escape_ascii());
                } else if let Some(name) = about(&format!("{shared}Lock Release Failure: ")) {
                    assert!(!belief.holds(space, &name, mode), "{}", reply.escape_ascii());
                }
            }
        })
    }
}
