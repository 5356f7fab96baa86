//! Answers about a lock that the client holds: that it was converted at once, or that the server is
//! still there. Such an answer is no more believed than a grant, if the connection has ended before
//! it was read and another client has the lock.

use std::thread;
use std::time::{Duration, Instant};

use super::Trial;
use super::ends::{Loss, Scene};
use crate::calls::{EXCLUSIVE, SHARED, converting};
use crate::driver::{HANG, NOW};
use crate::relay::{Direction, Flow};
use crate::stage::Stage;
use crate::verdict::{Verdict, ensure};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "stale-converted",
        "That a lock was converted at once is not believed if the connection has ended since.",
        &["convert", "shared"],
        |stage| asked(stage, &converting("a", SHARED, NOW)),
    ),
    Trial::new(
        "stale-checked",
        "An answer to a client that asks the server whether it still holds is not believed, either.",
        &["check"],
        |stage| asked(stage, "check a"),
    )
    .unless(&["session-per-lock"]),
];

fn asked(stage: &Stage, command: &str) -> Verdict {
    for loss in [Loss::Fin, Loss::Reset] {
        let scene = Scene::new(stage, loss)?;
        let (driver, mut witness) = (&scene.driver, scene.server.witness()?);
        let Some(relay) = scene.relay() else { continue };
        driver.hold("a", EXCLUSIVE)?;
        relay.set(Direction::Replies, Flow::Hold);
        let before = relay.passed(Direction::Requests);
        driver.say(command, NOW)?;
        let end = Instant::now() + HANG;
        while relay.passed(Direction::Requests) == before && driver.has_no_outcome().is_ok() {
            ensure(Instant::now() < end, || format!("{command}: no request, and no outcome"))?;
            thread::sleep(Duration::from_millis(1));
        }
        if driver.has_no_outcome().is_err() {
            // It knows without a request, and has answered when it still held the lock.
            driver.hear()?;
            relay.set(Direction::Replies, Flow::Pass);
            continue;
        }
        driver.stop()?;
        let before = relay.passed(Direction::Replies);
        relay.set(Direction::Replies, Flow::Pass);
        relay.until_passed(Direction::Replies, before)?;
        witness = scene.lose("a", vec![witness])?.remove(0);
        witness.acquire("a", EXCLUSIVE)?;
        driver.resume();
        driver.hear()?.must_be_lost().map_err(|failure| failure.during(&format!("{loss:?}")))?;
    }
    Ok(())
}
