//! The interface through which the simulator uses a broker in this process: calls that never block,
//! and the ends of waits, which the simulator collects.

use crate::history::{Mode, Name, Nanos};

/// The immediate result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Granted, with this token.
    Granted(u64),
    Busy,
    /// The request waits. [`BrokerUnderTest::decided`] will report its end.
    Queued,
    Deadlock,
    NotHeld,
    Refused,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Granted(u64),
    /// It was cancelled, which the simulator does when the time limit has passed.
    Cancelled,
    /// Its session ended.
    Lost,
}

/// A broker under test.
pub(crate) trait BrokerUnderTest {
    /// Opens a session with this number, which no session had before.
    fn open(&mut self, session: usize);
    /// Acquires all names at once. Without a ticket it does not wait.
    fn acquire(&mut self, session: usize, wants: &[(Name, Mode)], ticket: Option<u64>) -> Answer;
    fn convert(&mut self, session: usize, name: Name, mode: Mode, ticket: Option<u64>) -> Answer;
    fn release(&mut self, session: usize, name: Name) -> bool;
    fn cancel(&mut self, session: usize, ticket: u64);
    /// The number of holders.
    fn holders(&mut self, session: usize, name: Name) -> u32;
    /// The server hangs up on the session's client. The client does not know yet: it can be told of
    /// no further grant, but it still believes to hold what it holds.
    fn hang_up(&mut self, session: usize);
    /// The server's own kernel could not tell the client, and resets its side of the connection.
    /// That says nothing about what the client knows.
    fn own_reset(&mut self, session: usize);
    /// The session's client has ended, or has acknowledged that it knows of the end.
    fn end(&mut self, session: usize);
    /// The time is now `now`.
    fn pass_time(&mut self, now: Nanos);
    /// The waits that have ended since the last call, by session and ticket.
    fn decided(&mut self) -> Vec<(usize, u64, End)>;
}
