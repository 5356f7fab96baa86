//! A client that is stopped, while its connection goes on: its locks stay, however long it takes,
//! and what it says afterwards is so.

use std::thread;
use std::time::{Duration, Instant};

use super::{Pace, Trial};
use crate::calls::{EXCLUSIVE, acquiring};
use crate::driver::{Driver, FOREVER};
use crate::outcome::Word;
use crate::stage::Stage;
use crate::verdict::Verdict;
use crate::witness::Witness;

pub(super) const TRIALS: &[Trial] = &[
    Trial::new("stopped-holder", "No timer takes a lock from a client that is stopped.", &["check"], holder)
        .pace(Pace::Waits),
    Trial::new(
        "stopped-waiter",
        "A grant that came long ago is one if its connection is open.",
        &["wait"],
        waiter,
    )
    .pace(Pace::Waits),
    Trial::new(
        "stopped-over-limit",
        "If a client is stopped while its time limit passes, client and broker agree.",
        &["limit-wait"],
        over_limit,
    ),
];

/// Longer than the dead-peer timeout of the servers, and than clients trust a silent connection.
const LONG: Duration = Duration::from_secs(14);

/// The witness must not get the lock while the driver is stopped.
fn stays_locked(driver: &Driver, witness: &mut Witness) -> Verdict {
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        witness.cannot_acquire("a", EXCLUSIVE)?;
        thread::sleep(Duration::from_millis(500));
    }
    driver.resume();
    Ok(())
}

fn holder(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    driver.hold("a", EXCLUSIVE)?;
    driver.stop()?;
    stays_locked(&driver, &mut witness)?;
    driver.check("a")?.must_be(Word::Held)?;
    witness.cannot_acquire("a", EXCLUSIVE)?;
    driver.release("a")?.must_be(Word::Ok)?;
    driver.end()
}

fn waiter(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.begin_acquire("a", EXCLUSIVE)?;
    witness.until("a", 1, 1)?;
    driver.stop()?;
    witness.release("a")?;
    witness.until("a", 1, 0)?;
    stays_locked(&driver, &mut witness)?;
    driver.hear()?.must_be(Word::Granted)?;
    witness.cannot_acquire("a", EXCLUSIVE)?;
    // It is an ordinary grant.
    driver.release("a")?.must_be(Word::Ok)?;
    driver.acquire("a", EXCLUSIVE, FOREVER)?.must_be(Word::Granted)?;
    driver.end()
}

fn over_limit(stage: &Stage) -> Verdict {
    let limit = Duration::from_millis(300);
    let (_server, driver, mut witness) = stage.set()?;
    for is_released in [true, false] {
        witness.acquire("a", EXCLUSIVE)?;
        let begun = Instant::now();
        driver.say(&acquiring("a", EXCLUSIVE, Some(limit)), Some(limit))?;
        witness.until("a", 1, 1)?;
        driver.stop()?;
        if is_released {
            witness.release("a")?;
        }
        thread::sleep((2 * limit).saturating_sub(begun.elapsed()));
        driver.resume();
        let answer = driver.hear()?.must_be_one_of(&[Word::Granted, Word::Timeout])?;
        if answer.word == Word::Granted {
            witness.cannot_acquire("a", EXCLUSIVE)?;
            driver.release("a")?.must_be(Word::Ok)?;
        }
        witness.until("a", u64::from(!is_released), 0)?;
        if !is_released {
            answer.must_be(Word::Timeout)?;
            witness.release("a")?;
        }
    }
    driver.end()
}
