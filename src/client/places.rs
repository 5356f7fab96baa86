//! The places of a server, one after the other, until a session begins at one of them. Decides which
//! failures leave the other places to be tried, and for how long each one is; what is done at a place
//! is the caller's.

use std::time::{Duration, Instant};

use super::connect_error::ConnectError;
use super::dial::deadline;
use super::url::{ServerPlace, ServerUrl};
use super::wait_hook::WaitHook;

/// How long one place is tried at most while others are left.
const PLACE_TIME: Duration = Duration::from_secs(2);

/// Tries the places in turn, within `timeout`: `attempt` is given a place, and for how long to try
/// it. Returns the first success, and the index of its place.
///
/// # Errors
/// If the server is at none of the places; or at once, if one reports a mistake, or if the hook ends
/// the wait.
pub(super) fn try_places<T>(
    url: &ServerUrl,
    timeout: Duration,
    hook: &mut WaitHook<'_>,
    mut attempt: impl FnMut(&ServerPlace, Duration, &mut WaitHook<'_>) -> Result<T, ConnectError>,
) -> Result<(T, usize), ConnectError> {
    let places = url.places();
    if let [only] = places {
        return Ok((attempt(only, timeout, hook)?, 0));
    }
    let deadline = deadline(Some(timeout));
    let mut errors = Vec::new();
    for (tried, place) in places.iter().enumerate() {
        let left = places.len() - tried;
        let share = share_of_time(timeout, places.len(), deadline, left);
        let limit = if left > 1 { share.min(PLACE_TIME) } else { share };
        match attempt(place, limit, hook) {
            Ok(done) => return Ok((done, tried)),
            Err(error) if hook.has_ended() || !error.kind().leaves_other_places() => return Err(error),
            Err(error) => errors.push(error),
        }
    }
    Err(ConnectError::AtNoPlace { server: url.to_string(), errors })
}

/// How long the next attempt may take, if `left` of `all` have not been made yet: its share of the
/// time left until the deadline. But at least its share of `timeout`: resolving names does not count,
/// and may have used up all the time left.
pub(super) fn share_of_time(
    timeout: Duration,
    all: usize,
    deadline: Option<Instant>,
    left: usize,
) -> Duration {
    let part = |time: Duration, of: usize| time / u32::try_from(of).unwrap_or(u32::MAX);
    let Some(deadline) = deadline else { return timeout };
    part(deadline.saturating_duration_since(Instant::now()), left).max(part(timeout, all))
}
