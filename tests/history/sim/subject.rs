//! What a broker in this process looks like to the simulator: calls that never block, and the ends
//! of waits, which it asks for.

use crate::history::{Mode, Name, Nanos};

/// What a request comes to at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With this token.
    Granted(u64),
    Busy,
    /// Its end will be among those of [`Subject::decided`].
    Queued,
    Deadlock,
    NotHeld,
    Refused,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Granted(u64),
    /// It was cancelled, as the simulator does when its limit has come.
    Cancelled,
    /// With its session.
    Lost,
}

/// A broker that is put to the test.
pub(crate) trait Subject {
    /// A session of this number, which none had before.
    fn open(&mut self, session: usize);
    /// Without a ticket it does not wait.
    fn acquire(&mut self, session: usize, wants: &[(Name, Mode)], ticket: Option<u64>) -> Answer;
    fn convert(&mut self, session: usize, name: Name, mode: Mode, ticket: Option<u64>) -> Answer;
    fn release(&mut self, session: usize, name: Name) -> bool;
    fn cancel(&mut self, session: usize, ticket: u64);
    /// The number of holders.
    fn holders(&mut self, session: usize, name: Name) -> u32;
    /// The server hangs up on the session's client, which does not know yet: it can be told of no
    /// grant any more, but takes itself for the holder of what it holds.
    fn hang_up(&mut self, session: usize);
    /// The server's own kernel has not got that across, and resets its side of the connection. That
    /// is no word of the client's.
    fn own_reset(&mut self, session: usize);
    /// The session's client is gone, or has acknowledged that it knows.
    fn end(&mut self, session: usize);
    /// It is that late now.
    fn pass_time(&mut self, now: Nanos);
    /// The waits that have ended since this was last asked, by session and ticket.
    fn decided(&mut self) -> Vec<(usize, u64, End)>;
}
