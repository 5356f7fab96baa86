//! The two codecs of the text protocols, with one type for requests and one for replies.

use std::borrow::Cow;
use std::time::Duration;

use crate::broker::Mode::{self, Exclusive, Shared};
use crate::wire::text::{glockd, lockd};

/// One of the two text protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextDialect {
    Lockd,
    Glockd,
}

/// A request: one line.
pub(super) enum TextRequest<'a> {
    Acquire { mode: Mode, name: Cow<'a, [u8]> },
    Release { mode: Mode, name: Cow<'a, [u8]> },
    Inspect { mode: Mode, name: Cow<'a, [u8]> },
    Statistics { full: bool },
    AcquireWaiting { mode: Mode, name: Cow<'a, [u8]>, limit: Option<Duration> },
    InvalidWait(Cow<'a, [u8]>),
    Token(Cow<'a, [u8]>),
    Me,
    Iam(Option<Cow<'a, [u8]>>),
    Who(Option<Cow<'a, [u8]>>),
    List { mode: Mode, name: Option<Cow<'a, [u8]>> },
    Dump { mode: Mode },
    Help,
    Invalid,
}

impl TextDialect {
    pub(super) fn parse(self, line: &[u8]) -> TextRequest<'_> {
        match self {
            Self::Lockd => match lockd::parse(line) {
                lockd::Request::Acquire(name) => TextRequest::Acquire { mode: Exclusive, name },
                lockd::Request::Release(name) => TextRequest::Release { mode: Exclusive, name },
                lockd::Request::Inspect(name) => TextRequest::Inspect { mode: Exclusive, name },
                lockd::Request::AcquireShared(name) => TextRequest::Acquire { mode: Shared, name },
                lockd::Request::ReleaseShared(name) => TextRequest::Release { mode: Shared, name },
                lockd::Request::InspectShared(name) => TextRequest::Inspect { mode: Shared, name },
                lockd::Request::Statistics { full } => TextRequest::Statistics { full },
                lockd::Request::Invalid => TextRequest::Invalid,
            },
            Self::Glockd => match glockd::parse(line) {
                glockd::Request::Acquire(name) => TextRequest::Acquire { mode: Exclusive, name },
                glockd::Request::Release(name) => TextRequest::Release { mode: Exclusive, name },
                glockd::Request::Inspect(name) => TextRequest::Inspect { mode: Exclusive, name },
                glockd::Request::AcquireShared(name) => TextRequest::Acquire { mode: Shared, name },
                glockd::Request::ReleaseShared(name) => TextRequest::Release { mode: Shared, name },
                glockd::Request::InspectShared(name) => TextRequest::Inspect { mode: Shared, name },
                glockd::Request::AcquireWaiting { name, limit, shared } => {
                    TextRequest::AcquireWaiting { mode: mode(shared), name, limit }
                }
                glockd::Request::InvalidWait(rest) => TextRequest::InvalidWait(rest),
                glockd::Request::Token(name) => TextRequest::Token(name),
                glockd::Request::Me => TextRequest::Me,
                glockd::Request::Iam(name) => TextRequest::Iam(name),
                glockd::Request::Who(name) => TextRequest::Who(name),
                glockd::Request::List { name, shared } => TextRequest::List { mode: mode(shared), name },
                glockd::Request::Dump { shared } => TextRequest::Dump { mode: mode(shared) },
                glockd::Request::Statistics => TextRequest::Statistics { full: false },
                glockd::Request::Help => TextRequest::Help,
                glockd::Request::Invalid => TextRequest::Invalid,
            },
        }
    }
}

fn mode(shared: bool) -> Mode {
    if shared { Shared } else { Exclusive }
}

/// A reply of one line.
#[derive(Clone, Copy)]
pub(super) enum TextReply<'a> {
    Acquire { mode: Mode, name: &'a [u8], holders: Option<usize> },
    Release { mode: Mode, name: &'a [u8], released: bool },
    Inspect { mode: Mode, name: &'a [u8], holders: usize },
    LineTooLong,
    Token(Option<u64>),
    Me { address: &'a [u8], name: &'a [u8] },
    Ok,
    NameTooLong,
    Disabled,
    InvalidWait(&'a [u8]),
}

impl TextReply<'_> {
    pub(super) fn encode(&self, dialect: TextDialect, out: &mut Vec<u8>) {
        use {glockd::Reply as G, lockd::Reply as L};
        let holders_of = |holders: Option<usize>| holders.unwrap_or_default();
        let reply = match (*self, dialect) {
            (Self::Acquire { mode: Exclusive, holders, .. }, TextDialect::Lockd) => {
                return L::Acquire(holders.is_some()).encode(out);
            }
            (Self::Acquire { mode: Shared, holders, .. }, TextDialect::Lockd) => {
                let granted = holders.is_some();
                return L::AcquireShared { granted, holders: holders_of(holders) }.encode(out);
            }
            (Self::Release { released, .. }, TextDialect::Lockd) => return L::Release(released).encode(out),
            (Self::Inspect { mode: Exclusive, holders, .. }, TextDialect::Lockd) => {
                return L::Inspect(holders > 0).encode(out);
            }
            (Self::Inspect { mode: Shared, holders, .. }, TextDialect::Lockd) => {
                return L::InspectShared(holders).encode(out);
            }
            (Self::Acquire { mode: Exclusive, name, holders }, TextDialect::Glockd) => {
                G::Acquire { granted: holders.is_some(), name }
            }
            (Self::Acquire { mode: Shared, name, holders }, TextDialect::Glockd) => {
                G::AcquireShared { granted: holders.is_some(), holders: holders_of(holders), name }
            }
            (Self::Release { mode: Exclusive, name, released }, TextDialect::Glockd) => {
                G::Release { released, name }
            }
            (Self::Release { mode: Shared, name, released }, TextDialect::Glockd) => {
                G::ReleaseShared { released, name }
            }
            (Self::Inspect { mode: Exclusive, name, holders }, TextDialect::Glockd) => {
                G::Inspect { locked: holders > 0, name }
            }
            (Self::Inspect { mode: Shared, name, holders }, TextDialect::Glockd) => {
                G::InspectShared { holders, name }
            }
            (Self::LineTooLong, _) => G::LineTooLong,
            (Self::Token(token), _) => G::Token(token),
            (Self::Me { address, name }, _) => G::Me { address, name },
            (Self::Ok, _) => G::Ok,
            (Self::NameTooLong, _) => G::NameTooLong,
            (Self::Disabled, _) => G::Disabled,
            (Self::InvalidWait(rest), _) => G::InvalidWait { rest },
        };
        reply.encode(out);
    }
}
