//! What a client of the text protocols learns from the replies. Lines that end with `\n` alone
//! belong to lists and statistics, and are ignored.

use std::collections::VecDeque;

use lockd::broker::{LockName, Mode};
use lockd::wire::text::lines::{Line, LineDecoder};
use lockd::wire::text::{TextDialect, TextRequest};

use crate::LINE_MAX;
use crate::client::Belief;

/// Passes each complete line that is a reply, without its end, to `each`. Returns the number of
/// bytes of all complete lines.
fn for_each_reply(received: &[u8], mut each: impl FnMut(&[u8])) -> usize {
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

/// A request of `lockd` without a reply yet. The reply will not name the lock.
#[derive(Debug)]
enum PendingRequest {
    Acquire(LockName, Mode),
    Release(LockName, Mode),
    Inspect,
    TooLong,
}

/// Reads the replies of `lockd`: one for each request, in order.
pub(crate) struct LockdReplies {
    decoder: LineDecoder,
    unread: Vec<u8>,
    pending: VecDeque<PendingRequest>,
}

impl LockdReplies {
    pub(crate) fn new() -> Self {
        Self { decoder: LineDecoder::new(LINE_MAX), unread: Vec::new(), pending: VecDeque::new() }
    }

    pub(crate) fn sent(&mut self, bytes: &[u8], _: &mut Belief) {
        self.unread.extend_from_slice(bytes);
        loop {
            let (taken, line) = self.decoder.decode(&self.unread);
            let pending = match line {
                Line::Incomplete => break drop(self.unread.drain(..taken)),
                Line::TooLong => Some(PendingRequest::TooLong),
                Line::Complete(line) => match TextDialect::Lockd.parse(line) {
                    TextRequest::Acquire { mode, name } => {
                        Some(PendingRequest::Acquire(LockName::new(&name), mode.into()))
                    }
                    TextRequest::Release { mode, name } => {
                        Some(PendingRequest::Release(LockName::new(&name), mode.into()))
                    }
                    TextRequest::Inspect { .. } => Some(PendingRequest::Inspect),
                    _ => None,
                },
            };
            self.pending.extend(pending);
            self.unread.drain(..taken);
        }
    }

    pub(crate) fn received(&mut self, received: &[u8], belief: &mut Belief) -> usize {
        let pending = &mut self.pending;
        for_each_reply(received, |reply| {
            let pending = pending.pop_front().expect("a reply without a request");
            believe(pending, reply, belief);
        })
    }
}

fn believe(pending: PendingRequest, reply: &[u8], belief: &mut Belief) {
    let yes = !reply.starts_with(b"0");
    let ends = |text: &[u8]| reply.ends_with(text);
    match pending {
        PendingRequest::Acquire(name, mode) if yes => {
            assert!(ends(b" Got Lock"), "{}", reply.escape_ascii());
            let before = belief.gain(belief.space_of(mode), name, mode);
            // An exclusive lock that is asked for again is refused, a shared one is granted.
            assert!(before.is_none() || (before, mode) == (Some(Mode::Shared), Mode::Shared), "{before:?}");
        }
        PendingRequest::Acquire(..) => assert_eq!(reply, b"0 Cannot Get Lock"),
        PendingRequest::Release(name, mode) => {
            let space = belief.space_of(mode);
            assert_eq!(yes, belief.holds(space, &name, mode), "{}", reply.escape_ascii());
            assert!(reply == b"1 Released Lock" || reply == b"0 Cannot Release Lock");
            if yes {
                belief.lose(space, &name);
            }
        }
        PendingRequest::Inspect => assert!(ends(b"Locked"), "{}", reply.escape_ascii()),
        PendingRequest::TooLong => assert_eq!(reply, b"0 Line Too Long"),
    }
}

/// Reads the replies of `glockd`, which name the lock.
pub(crate) struct GlockdReplies;

impl GlockdReplies {
    pub(crate) fn sent(&mut self, _: &[u8], _: &mut Belief) {}

    pub(crate) fn received(&mut self, received: &[u8], belief: &mut Belief) -> usize {
        for_each_reply(received, |reply| {
            let digits = reply.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (number, text) = reply.split_at(digits);
            let yes = number.iter().any(|&digit| digit != b'0');
            let about = |text_of: &str| text.strip_prefix(text_of.as_bytes()).map(LockName::new);
            for (mode, shared) in [(Mode::Exclusive, " "), (Mode::Shared, " Shared ")] {
                let space = belief.space_of(mode);
                if let Some(name) = about(&format!("{shared}Lock Get Success: ")) {
                    assert!(yes, "a success with zero holders: {}", reply.escape_ascii());
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
