//! An input of this target, read as what clients do one after the other. A first byte of options, one of
//! protocols, then steps: a byte that says who does what, and what that takes.
//!
//! Clients say little at a time, and no more while much of what they said is still to be handled: replies are
//! read between two steps only, and the one thread there is must never wait for them to be.

use lockd::server::Protocol;

use crate::client::Client;
use crate::phrases::{phrase, whole};

/// How many bytes are said at once.
const PIECE: u8 = 32;
/// The longest message that is made of bytes of the input.
const MESSAGE: u8 = 255;
/// How much of an input is read: so that listings stay short enough for a socket to take.
const INPUT: usize = 1500;
/// How many steps there are at most.
const STEPS: usize = 64;

/// What happens next.
pub(crate) enum Step {
    /// A client says something.
    Say { who: usize, bytes: Vec<u8> },
    /// The thread of a connection wakes up and looks at its time limits.
    Expire { who: usize },
    /// A client hangs up, and another one comes.
    HangUp { who: usize, then: Protocol },
}

/// What is left of an input.
pub(crate) struct Script<'a> {
    options: u8,
    protocols: u8,
    rest: &'a [u8],
    steps: usize,
    ids: u32,
    /// What is left of a request that is said in two pieces, and by whom.
    later: Option<(usize, Vec<u8>)>,
}

impl<'a> Script<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Option<Self> {
        let [options, protocols, rest @ ..] = data else { return None };
        let rest = rest.get(..INPUT).unwrap_or(rest);
        Some(Self { options: *options, protocols: *protocols, rest, steps: 0, ids: 0, later: None })
    }

    pub(crate) fn options(&self) -> [bool; 3] {
        [1, 2, 4].map(|bit| self.options & bit != 0)
    }

    /// The protocols of two to four clients.
    pub(crate) fn protocols(&self) -> Vec<Protocol> {
        let count = 2 + usize::from(self.options >> 3) % 3;
        (0..count).map(|at| protocol(self.protocols >> (2 * at))).collect()
    }

    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn bytes(&mut self, most: u8) -> Option<&'a [u8]> {
        let count = usize::from(self.byte()? % (most.saturating_add(1)).max(1)).min(self.rest.len());
        let (bytes, rest) = self.rest.split_at(count);
        self.rest = rest;
        Some(bytes)
    }

    pub(crate) fn next(&mut self, clients: &[Client]) -> Option<Step> {
        if let Some((who, bytes)) = self.later.take() {
            return Some(Step::Say { who, bytes });
        }
        self.steps += 1;
        if self.steps > STEPS {
            return None;
        }
        let action = self.byte()?;
        let who = usize::from(action & 3) % clients.len();
        let speaks = clients[who].protocol();
        let bytes = match action >> 2 & 7 {
            0 => self.bytes(PIECE)?.to_vec(),
            1 => {
                let most = if speaks == Protocol::Message { MESSAGE } else { PIECE };
                let (text, cut) = (self.bytes(most)?, usize::from(action >> 5));
                let bytes = whole(speaks, text);
                self.in_two(who, bytes, cut * 8)
            }
            2..=5 => {
                let [which, name] = [self.byte()?, self.byte()?];
                self.ids += 1;
                let bytes = phrase(speaks, which, name, self.ids);
                self.in_two(who, bytes, usize::from(action >> 5))
            }
            6 => return Some(Step::Expire { who }),
            _ => return Some(Step::HangUp { who, then: protocol(action >> 5) }),
        };
        if clients[who].unhandled() > usize::from(PIECE) && speaks != Protocol::Message {
            self.later = None;
            return Some(Step::Expire { who });
        }
        Some(Step::Say { who, bytes })
    }

    /// Keeps what stands behind the cut for the next step; nothing if the cut is at 0.
    fn in_two(&mut self, who: usize, mut bytes: Vec<u8>, cut: usize) -> Vec<u8> {
        if (1..bytes.len()).contains(&cut) {
            self.later = Some((who, bytes.split_off(cut)));
        }
        bytes
    }
}

fn protocol(number: u8) -> Protocol {
    match number & 3 {
        0 => Protocol::Lockd,
        1 => Protocol::Glockd,
        _ => Protocol::Message,
    }
}
