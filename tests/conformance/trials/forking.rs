//! Forked children: they have a copy of the session, and none of its locks.

use super::{Pace, Trial};
use crate::calls::{EXCLUSIVE, acquiring};
use crate::driver::{NOW, millis};
use crate::outcome::Word;
use crate::stage::Stage;
use crate::verdict::{Failure, Verdict};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "fork",
        "A forked child can do nothing with the session, and its end changes nothing.",
        &["fork"],
        fork,
    ),
    Trial::new(
        "fork-outlives",
        "A forked child that lives on does not keep the locks of its parent.",
        &["fork"],
        outlives,
    )
    .pace(Pace::Waits),
];

/// A class that is not of lockd may have no word of its own for it.
const REFUSED: &[Word] = &[Word::Forked, Word::Lost];

fn fork(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    driver.hold("a", EXCLUSIVE)?;
    for command in [acquiring("b", EXCLUSIVE, NOW), acquiring("a", EXCLUSIVE, NOW)] {
        driver.ask(&format!("fork {command}"), NOW)?.must_be_one_of(REFUSED)?;
        witness.until("b", 0, 0)?;
    }
    driver.ask("fork release a", NOW)?.must_be_one_of(REFUSED)?;
    if stage.can("inspect") {
        driver.ask("fork inspect a", NOW)?.must_be_one_of(REFUSED)?;
    }
    if stage.can("check") {
        // The child does not hold it.
        driver.ask("fork check a", NOW)?.must_be_one_of(&[Word::Forked, Word::NotHeld, Word::Lost])?;
    }
    // A child may let go of its copy.
    driver.ask("fork close", NOW)?.must_be_one_of(&[Word::Forked, Word::Ok])?;
    witness.cannot_acquire("a", EXCLUSIVE)?;
    if stage.can("check") {
        driver.check("a")?.must_be(Word::Held)?;
    }
    driver.release("a")?.must_be(Word::Ok)?;
    driver.hold("b", EXCLUSIVE)?;
    driver.end()
}

fn outlives(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    driver.hold("a", EXCLUSIVE)?;
    let child = driver.ask("fork-sleep 120000", millis(0))?.must_be(Word::Ok)?;
    driver.kill_without_children();
    witness.acquire("a", EXCLUSIVE)?;
    // The trial shows nothing if the child has gone, too. Its group, and it, are killed in the end.
    let is_alive = std::fs::read_to_string(format!("/proc/{}/stat", child.text))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])));
    if is_alive {
        Ok(())
    } else {
        Err(Failure::new("the forked child does not live on, so nothing was shown"))
    }
}
