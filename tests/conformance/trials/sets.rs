//! Several names at once: all or none.

use super::Trial;
use crate::calls::{EXCLUSIVE, SHARED, acquiring_set};
use crate::driver::{FOREVER, NOW, millis};
use crate::outcome::Word;
use crate::stage::Stage;
use crate::verdict::Verdict;

pub(super) const TRIALS: &[Trial] = &[
    Trial::new("set", "Several names are acquired together or not at all.", &["set"], set),
    Trial::new(
        "set-waiting",
        "A set that waits holds nothing, and gets all at once.",
        &["set", "wait"],
        set_waiting,
    ),
];

fn set(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    let names = ["a", "b", "c"];
    driver.acquire_set(&names, EXCLUSIVE, NOW)?.must_be(Word::Granted)?;
    for name in names {
        witness.cannot_acquire(name, EXCLUSIVE)?;
        driver.release(name)?.must_be(Word::Ok)?;
    }
    witness.acquire("b", SHARED)?;
    driver.acquire_set(&names, EXCLUSIVE, NOW)?.must_be(Word::Timeout)?;
    if stage.can("limit-wait") {
        driver.acquire_set(&names, EXCLUSIVE, millis(100))?.must_be(Word::Timeout)?;
    }
    for name in ["a", "c"] {
        witness.until(name, 0, 0)?;
        if stage.can("check") {
            driver.check(name)?.must_be(Word::NotHeld)?;
        }
    }
    if stage.can("shared") {
        driver.acquire_set(&names, SHARED, NOW)?.must_be(Word::Granted)?;
        witness.until("b", 2, 0)?;
    }
    driver.end()
}

fn set_waiting(stage: &Stage) -> Verdict {
    let (server, driver, mut witness) = stage.set()?;
    witness.acquire("b", EXCLUSIVE)?;
    driver.say(&acquiring_set(&["a", "b"], EXCLUSIVE, FOREVER), FOREVER)?;
    witness.until("b", 1, 1)?;
    witness.until("a", 0, 1)?;
    driver.has_no_outcome()?;
    witness.release("b")?;
    driver.hear()?.must_be(Word::Granted)?;
    let mut other = server.witness()?;
    for name in ["a", "b"] {
        other.cannot_acquire(name, EXCLUSIVE)?;
    }
    driver.end()
}
