//! An input of this target, read as the steps of several clients: a byte of options, a byte of
//! protocols, then for each step a byte that chooses the client and the action, and the arguments
//! of the action.
//!
//! Clients send few bytes at a time, and none while many bytes are still unhandled. The target has
//! a single thread, which reads the replies only between two steps, so the server must never wait
//! for a reader.

use lockd::server::Protocol;

use crate::client::Client;
use crate::phrases::{phrase, whole};

/// The most bytes of the input that are sent at once.
const PIECE_BYTES_MAX: u8 = 32;
/// The longest message that is made of bytes from the input.
const MESSAGE_BYTES_MAX: u8 = 255;
/// The part of an input that is read. It is short, so that lists fit into the buffer of a socket.
const INPUT_BYTES_MAX: usize = 1500;
/// The most steps of one input.
const STEPS_MAX: usize = 64;

/// What happens next.
pub(crate) enum Step {
    /// A client sends bytes.
    Send { client: usize, bytes: Vec<u8> },
    /// The thread of a connection wakes up and ends waits whose time is over.
    Expire { client: usize },
    /// A client disconnects, and another one with this protocol connects.
    Disconnect { client: usize, next: Protocol },
}

/// The part of an input that has not been used.
pub(crate) struct Script<'a> {
    options: u8,
    protocols: u8,
    rest: &'a [u8],
    steps: usize,
    ids: u32,
    /// The second part of a request that is sent in two parts, and its client.
    later: Option<(usize, Vec<u8>)>,
}

impl<'a> Script<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Option<Self> {
        let [options, protocols, rest @ ..] = data else { return None };
        let rest = rest.get(..INPUT_BYTES_MAX).unwrap_or(rest);
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
        if let Some((client, bytes)) = self.later.take() {
            return Some(Step::Send { client, bytes });
        }
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return None;
        }
        let action = self.byte()?;
        let client = usize::from(action & 3) % clients.len();
        let protocol_of_client = clients[client].protocol();
        let bytes = match action >> 2 & 7 {
            0 => self.bytes(PIECE_BYTES_MAX)?.to_vec(),
            1 => {
                let most =
                    if protocol_of_client == Protocol::Message { MESSAGE_BYTES_MAX } else { PIECE_BYTES_MAX };
                let (text, cut) = (self.bytes(most)?, usize::from(action >> 5));
                let bytes = whole(protocol_of_client, text);
                self.first_part(client, bytes, cut * 8)
            }
            2..=5 => {
                let [which, name] = [self.byte()?, self.byte()?];
                self.ids += 1;
                let bytes = phrase(protocol_of_client, which, name, self.ids);
                self.first_part(client, bytes, usize::from(action >> 5))
            }
            6 => return Some(Step::Expire { client }),
            _ => return Some(Step::Disconnect { client, next: protocol(action >> 5) }),
        };
        if clients[client].unhandled() > usize::from(PIECE_BYTES_MAX)
            && protocol_of_client != Protocol::Message
        {
            self.later = None;
            return Some(Step::Expire { client });
        }
        Some(Step::Send { client, bytes })
    }

    /// Keeps the bytes after the cut for the next step, and returns those before it. A cut at 0
    /// cuts nothing.
    fn first_part(&mut self, client: usize, mut bytes: Vec<u8>, cut: usize) -> Vec<u8> {
        if (1..bytes.len()).contains(&cut) {
            self.later = Some((client, bytes.split_off(cut)));
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
