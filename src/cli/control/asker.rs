//! The lines of the control socket: the order, and what its client is answered with.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use crate::cli::text::harmless;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// To become the next version of the program.
    Upgrade,
    /// To hand over to another server of the cluster.
    StandDown,
}

impl Order {
    const ALL: [Self; 2] = [Self::Upgrade, Self::StandDown];

    /// The line that asks for it, without its end.
    pub(crate) const fn line(self) -> &'static str {
        match self {
            Self::Upgrade => "upgrade",
            Self::StandDown => "stand-down",
        }
    }

    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.line().as_bytes() == line)
    }
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// How far it is.
    Progress(String),
    /// The last line: it is done.
    Done(String),
    /// The last line: it is not done, for this reason.
    Refused(String),
}

impl Reply {
    /// The line as it is sent, with its end.
    pub(crate) fn line(&self) -> String {
        let (word, text) = match self {
            Self::Progress(text) => ("progress", text),
            Self::Done(text) => ("ok", text),
            Self::Refused(text) => ("error", text),
        };
        format!("{word} {}\n", harmless(text).replace('\n', r"\n"))
    }

    /// Reads a line without its end.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, text) = line.split_once(' ')?;
        let text = text.to_owned();
        match word {
            "progress" => Some(Self::Progress(text)),
            "ok" => Some(Self::Done(text)),
            "error" => Some(Self::Refused(text)),
            _ => None,
        }
    }
}

/// A client that waits for an answer. Telling it something never waits for it to read.
#[derive(Debug)]
pub(crate) struct Asker(UnixStream);

impl Asker {
    pub(crate) fn new(stream: UnixStream) -> Self {
        // If that fails, which it does not, the client only delays its own upgrade.
        let _ = stream.set_nonblocking(true);
        Self(stream)
    }

    /// The asker of an earlier image of this process.
    pub(crate) fn handed_over(descriptor: OwnedFd) -> Self {
        Self::new(UnixStream::from(descriptor))
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Tells the client. If it has gone, or does not read, it is not told.
    pub(crate) fn tell(&self, reply: &Reply) {
        let told: io::Result<()> = (&self.0).write_all(reply.line().as_bytes());
        if let Err(error) = told {
            log::debug!("control: {error}");
        }
    }
}
