//! What a client of `message` learns from the replies. It matches them by their ids. If an id is
//! used again before its reply has arrived, the client is no longer certain of anything.

use std::collections::{HashMap, VecDeque};

use lockd::broker::{LockName, Mode, Space};
use lockd::wire::frame::{self, Frame};
use lockd::wire::message::{
    LockResult, RequestEnvelope, Status, parse, parse_convert, parse_lock, parse_old_unlock, parse_reply,
    parse_unlock,
};

use serde_json::value::RawValue;

use crate::MESSAGE_MAX;
use crate::client::Belief;

/// A request without a reply yet.
#[derive(Debug)]
enum PendingRequest {
    Lock(Vec<(LockName, Mode)>),
    Convert(LockName, Mode),
    Unlock(Vec<LockName>),
    Other,
}

/// Reads the replies of `message`.
#[derive(Default)]
pub(crate) struct MessageReplies {
    unread: Vec<u8>,
    pending: HashMap<String, PendingRequest>,
    /// The names of each old `unlock` without a reply yet. Its replies have no id and arrive in
    /// order.
    old_unlocks: VecDeque<Vec<LockName>>,
}

impl MessageReplies {
    pub(crate) fn sent(&mut self, bytes: &[u8], belief: &mut Belief) {
        self.unread.extend_from_slice(bytes);
        loop {
            let unread = std::mem::take(&mut self.unread);
            let (taken, found) = frame::decode(&unread, MESSAGE_MAX);
            let is_more = if let Frame::Body(body) = found {
                if let Ok(envelope) = parse(body) {
                    self.note_request(&envelope, belief);
                }
                true
            } else {
                false
            };
            self.unread = unread[taken..].to_vec();
            if !is_more {
                break;
            }
        }
    }

    fn note_request(&mut self, envelope: &RequestEnvelope<'_>, belief: &mut Belief) {
        let (command, parameters) = (envelope.command.as_deref(), envelope.parameters);
        let new_unlock =
            || parse_unlock(parameters.unwrap_or(RawValue::NULL)).map(|request| request.names.into_vec());
        if command == Some("unlock") {
            let old = match parse_old_unlock(envelope.body) {
                Ok(old) => old.map(|request| request.unlock.names.into_vec()),
                Err(_) => Some(Vec::new()),
            };
            let without_id = || envelope.id.is_none().then(|| new_unlock().unwrap_or_default());
            if let Some(names) = old.or_else(without_id) {
                return self.old_unlocks.push_back(names);
            }
        }
        let Some(id) = envelope.id else { return };
        let pending = match (command, parameters) {
            (Some("lock"), Some(parameters)) => {
                parse_lock(parameters).ok().map(|lock| PendingRequest::Lock(lock.names.into_vec()))
            }
            (Some("convert"), Some(parameters)) => parse_convert(parameters)
                .ok()
                .map(|convert| PendingRequest::Convert(convert.name, convert.mode)),
            (Some("unlock"), _) => new_unlock().ok().map(PendingRequest::Unlock),
            _ => None,
        };
        let before = self.pending.insert(id.get().to_owned(), pending.unwrap_or(PendingRequest::Other));
        belief.is_uncertain |= before.is_some();
    }

    pub(crate) fn received(&mut self, received: &[u8], belief: &mut Belief) -> usize {
        let mut done = 0;
        while let (taken, Frame::Body(body)) = frame::decode(&received[done..], 16 << 20) {
            self.received_one(body, belief);
            done += taken;
        }
        done
    }

    fn received_one(&mut self, body: &[u8], belief: &mut Belief) {
        let reply = parse_reply(body).expect("a server's message can be read");
        let Some(result) = reply.result else {
            return assert!(reply.id.is_none() && reply.error.is_some(), "{}", body.escape_ascii());
        };
        let Some(id) = reply.id else {
            let names = self.old_unlocks.pop_front().expect("a reply without an old unlock");
            return lose_all(&names, result.get() == "\"ok\"", belief);
        };
        let pending = self.pending.remove(id.get());
        belief.assert(pending.is_some(), "a reply without a request");
        let result: LockResult = serde_json::from_str(result.get()).expect("there is a status");
        match pending {
            Some(PendingRequest::Lock(names)) if result.status == Status::Ok => {
                assert!(result.token.is_some(), "a grant without a token");
                for (name, mode) in names {
                    let before = belief.gain(Space::Main, name, mode);
                    let expected = result.already.then_some(mode);
                    belief
                        .assert(before == expected, "a grant says wrongly whether the lock was held before");
                }
            }
            Some(PendingRequest::Convert(name, mode)) if result.status == Status::Ok => {
                let before = belief.gain(Space::Main, name, mode);
                belief.assert(before.is_some(), "a lock was converted that was not held");
            }
            Some(PendingRequest::Unlock(names)) => match result.status {
                Status::Ok | Status::NotFound => lose_all(&names, result.status == Status::Ok, belief),
                other => panic!("an unlock ended in {other:?}"),
            },
            _ => {}
        }
    }
}

fn lose_all(names: &[LockName], found: bool, belief: &mut Belief) {
    let held: Vec<bool> = names.iter().map(|name| belief.lose(Space::Main, name).is_some()).collect();
    // A name that is not held may have been waited for.
    let all_held = !held.is_empty() && held.iter().all(|&held| held);
    belief.assert(found || !all_held, "locks that were held were not found");
}
