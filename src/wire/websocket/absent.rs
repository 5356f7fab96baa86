//! Stands in for WebSocket in a build without it: types without values, and a handshake that
//! refuses.

use crate::wire::websocket::{AssemblerSnapshot, Upgrade, Violation, WebSocketSnapshot};

const ABSENT: &str = "this lockd was built without WebSocket";

/// Has no values, because no connection speaks WebSocket in this build.
#[derive(Debug)]
pub(crate) enum WebSocket {}

/// Has no values, because no connection speaks WebSocket in this build.
#[derive(Debug)]
pub(crate) enum ReplyAssembler {}

impl WebSocket {
    pub(crate) fn new() -> Option<Self> {
        None
    }

    pub(crate) fn snapshot(&self) -> WebSocketSnapshot {
        match *self {}
    }

    pub(crate) fn restore(_: WebSocketSnapshot) -> Result<Self, &'static str> {
        Err(ABSENT)
    }

    pub(crate) fn decode(&mut self, _: &[u8], _: &mut Vec<u8>) -> Result<bool, Violation> {
        match *self {}
    }

    pub(crate) fn message_ends(&mut self) -> Vec<u64> {
        match *self {}
    }

    pub(crate) fn encode(&mut self, _: &[u8], _: &mut Vec<u8>) {
        match *self {}
    }

    pub(crate) fn end(&mut self, _: &mut Vec<u8>) {
        match *self {}
    }

    pub(crate) fn control_pending(&self) -> bool {
        match *self {}
    }
}

impl ReplyAssembler {
    pub(crate) fn new() -> Option<Self> {
        None
    }

    pub(crate) fn snapshot(&self) -> AssemblerSnapshot {
        match *self {}
    }

    pub(crate) fn restore(_: AssemblerSnapshot) -> Result<Self, &'static str> {
        Err(ABSENT)
    }

    pub(crate) fn messages_ended(
        &mut self,
        _: impl IntoIterator<Item = u64>,
        _: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        match *self {}
    }

    pub(crate) fn lines_handled(&mut self, _: usize, _: &mut Vec<u8>) {
        match *self {}
    }

    pub(crate) fn set_waiting(&mut self, _: bool, _: &mut Vec<u8>) {
        match *self {}
    }

    pub(crate) fn reply(&mut self, _: &mut Vec<u8>, _: impl FnOnce(&mut Vec<u8>)) {
        match *self {}
    }
}

pub(crate) fn upgrade(_: &[u8], _: &[String]) -> Upgrade {
    Upgrade::Refused { response: Vec::new(), reason: ABSENT.to_owned() }
}
