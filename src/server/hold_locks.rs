//! The wait between the end of a connection and the end of its session, in which its locks are
//! kept. How long it lasts is decided in `client_knows`.

use std::time::Instant;

use super::client_knows::{ClientState, NextStep, TELL_LIMIT};
use super::parking::ParkedState;
use super::send_queue::SendQueue;
use super::server_state::ServerState;
use crate::broker::ObservedSession;
use crate::os::socket::wait_for;

/// Returns once the client cannot believe any more that it holds a lock, and its work has ended or
/// had its time. Ends its waits at once, since no grant can reach it any more. Returns early if the
/// server is stopping and its broker grants nothing any more. (A server that stops
/// first shuts its broker and then counts the holders, so until it is stopping the locks are kept.)
/// `tell_deadline` is of a connection that had ended in an earlier image of the program.
pub(super) fn hold_locks_until_client_knows(
    id: u64,
    send_queue: &SendQueue,
    session: &ObservedSession,
    server: &ServerState,
    tell_deadline: Option<Instant>,
) {
    if !send_queue.with_end(|end| end.has_said_hello()) || send_queue.client_state() == ClientState::HasLeft {
        return;
    }
    send_queue.hang_up();
    session.end_waits();
    if session.info().locks_held() == 0 {
        return;
    }
    let tell_deadline = tell_deadline.unwrap_or_else(|| Instant::now() + TELL_LIMIT);
    loop {
        server.parking.park_if_requested(|| Some((id, ParkedState::Ending { tell_deadline })));
        // The client's own end may follow requests that are not handled any more.
        send_queue.discard_input();
        let step = send_queue.next_step(tell_deadline);
        if server.is_stopped() {
            return;
        }
        match step {
            NextStep::CheckAgain(interval) | NextStep::KeepLocks(interval) => {
                // Interrupted or not, everything is checked again.
                let _ = wait_for(&mut [], Some(interval));
            }
            NextStep::Reset => send_queue.reset(),
            NextStep::Release => return,
        }
    }
}
