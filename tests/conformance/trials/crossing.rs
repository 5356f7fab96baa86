//! Grants that cross a cancel or the end of a time limit on their way: what the client says must be
//! so at the broker.

use std::thread;
use std::time::Duration;

use super::{Pace, Trial};
use crate::calls::{EXCLUSIVE, acquiring};
use crate::driver::{Driver, FOREVER, HANG, NOW};
use crate::outcome::{Answer, Word};
use crate::relay::{Direction, End, Flow};
use crate::stage::Stage;
use crate::verdict::Verdict;
use crate::witness::Witness;

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "crossing-limit",
        "If a grant meets the end of the time limit, client and broker agree.",
        &["limit-wait"],
        limit,
    ),
    Trial::new(
        "crossing-cancel",
        "If a grant meets a cancel on the way, client and broker agree.",
        &["background", "cancel", "wait"],
        cancel,
    ),
    Trial::new(
        "crossing-cancel-race",
        "If a grant and a cancel come at the same time, client and broker agree.",
        &["background", "cancel", "wait"],
        cancel_race,
    ),
    Trial::new(
        "late-grant",
        "A grant that comes long after the time limit leaves nothing locked.",
        &["bounded", "limit-wait"],
        late_grant,
    )
    .pace(Pace::Waits),
    Trial::new(
        "late-answer",
        "An answer that comes long after a call without waiting leaves nothing locked.",
        &["bounded"],
        late_answer,
    )
    .pace(Pace::Waits),
    Trial::new(
        "grant-in-pieces",
        "A grant that comes in pieces is one when it is complete.",
        &["wait"],
        pieces,
    ),
    Trial::new("grant-cut", "A grant of which only the beginning comes is none.", &["wait"], cut),
];

/// The witness has released the lock, and the driver has said how its wait ended: the broker must
/// agree. The lock is free afterwards.
fn broker_agrees(driver: &Driver, witness: &mut Witness, answer: Answer) -> Verdict {
    if answer.word == Word::Granted {
        witness.cannot_acquire("a", EXCLUSIVE)?;
        if driver.can("check") {
            driver.check("a")?.must_be(Word::Held)?;
        }
        driver.release("a")?.must_be(Word::Ok)?;
    } else if driver.can("check") {
        driver.check("a")?.must_not_be_a_yes()?;
    }
    let free = witness.until("a", 0, 0);
    free.map_err(|failure| failure.during(&format!("the client has said {}", answer.word)))
}

fn limit(stage: &Stage) -> Verdict {
    const LIMIT: u64 = 40;
    let (relay, driver, mut witness) = stage.set_behind_relay()?;
    relay.set(Direction::Replies, Flow::Delay(Duration::from_millis(3)));
    for round in 0..stage.rounds {
        witness.acquire("a", EXCLUSIVE)?;
        let limit = Some(Duration::from_millis(LIMIT));
        driver.say(&acquiring("a", EXCLUSIVE, limit), limit)?;
        // From 10 ms before the limit to 10 ms after it.
        thread::sleep(Duration::from_millis(LIMIT - 10 + round as u64 % 21));
        witness.release("a")?;
        let answer = driver.hear()?.must_be_one_of(&[Word::Granted, Word::Timeout])?;
        broker_agrees(&driver, &mut witness, answer)?;
    }
    driver.end()
}

fn cancel(stage: &Stage) -> Verdict {
    let (relay, driver, mut witness) = stage.set_behind_relay()?;
    for held_back in [Direction::Replies, Direction::Requests] {
        witness.acquire("a", EXCLUSIVE)?;
        driver.in_background(&acquiring("a", EXCLUSIVE, FOREVER))?;
        witness.until("a", 1, 1)?;
        relay.set(held_back, Flow::Hold);
        match held_back {
            // The grant is on its way when the client cancels.
            Direction::Replies => {
                witness.release("a")?;
                witness.until("a", 1, 0)?;
                driver.cancel()?;
            }
            // The cancel is on its way when the lock is granted.
            Direction::Requests => {
                driver.cancel()?;
                witness.release("a")?;
                witness.until("a", 1, 0)?;
            }
        }
        relay.set(held_back, Flow::Pass);
        let answer = driver.hear_background(HANG)?;
        let answer = answer.must_be_one_of(&[Word::Granted, Word::Cancelled])?;
        broker_agrees(&driver, &mut witness, answer)?;
    }
    driver.end()
}

fn cancel_race(stage: &Stage) -> Verdict {
    let (relay, driver, mut witness) = stage.set_behind_relay()?;
    for round in 0..stage.rounds {
        witness.acquire("a", EXCLUSIVE)?;
        driver.in_background(&acquiring("a", EXCLUSIVE, FOREVER))?;
        witness.until("a", 1, 1)?;
        relay.set(Direction::Replies, Flow::Delay(Duration::from_millis(round as u64 % 4)));
        driver.say("cancel", NOW)?;
        witness.release("a")?;
        driver.hear()?.must_be(Word::Ok)?;
        let answer = driver.hear_background(HANG)?.must_be_one_of(&[Word::Granted, Word::Cancelled])?;
        broker_agrees(&driver, &mut witness, answer)?;
    }
    driver.end()
}

fn late_grant(stage: &Stage) -> Verdict {
    let (relay, driver, mut witness) = stage.set_behind_relay()?;
    witness.acquire("a", EXCLUSIVE)?;
    let limit = Some(Duration::from_millis(300));
    driver.say(&acquiring("a", EXCLUSIVE, limit), limit)?;
    witness.until("a", 1, 1)?;
    relay.set(Direction::Replies, Flow::Hold);
    witness.release("a")?;
    witness.until("a", 1, 0)?;
    let answer = driver.hear()?.must_be_one_of(&[Word::Timeout, Word::Lost])?;
    relay.set(Direction::Replies, Flow::Pass);
    broker_agrees(&driver, &mut witness, answer)?;
    driver.end()
}

fn late_answer(stage: &Stage) -> Verdict {
    let (relay, driver, mut witness) = stage.set_behind_relay()?;
    relay.set(Direction::Replies, Flow::Hold);
    let answer = driver.acquire("a", EXCLUSIVE, NOW)?.must_be_one_of(&[Word::Timeout, Word::Lost])?;
    relay.set(Direction::Replies, Flow::Pass);
    broker_agrees(&driver, &mut witness, answer)?;
    driver.end()
}

/// The driver waits behind a relay, and the next reply of which only so many bytes pass is the
/// grant.
fn pieces(stage: &Stage) -> Verdict {
    let (relay, driver, mut witness) = stage.set_behind_relay()?;
    for first in [1, 4, 5, 20] {
        witness.acquire("a", EXCLUSIVE)?;
        driver.begin_acquire("a", EXCLUSIVE)?;
        witness.until("a", 1, 1)?;
        let before = relay.passed(Direction::Replies);
        relay.set(Direction::Replies, Flow::First(first));
        witness.release("a")?;
        relay.until_passed(Direction::Replies, before)?;
        driver.has_no_outcome()?;
        relay.set(Direction::Replies, Flow::Pass);
        let answer = driver.hear()?.must_be(Word::Granted)?;
        broker_agrees(&driver, &mut witness, answer)?;
    }
    driver.end()
}

fn cut(stage: &Stage) -> Verdict {
    for (first, end) in [(1, End::Fin), (4, End::Fin), (20, End::Fin), (1, End::Reset), (20, End::Reset)] {
        let (relay, driver, mut witness) = stage.set_behind_relay()?;
        witness.acquire("a", EXCLUSIVE)?;
        driver.begin_acquire("a", EXCLUSIVE)?;
        witness.until("a", 1, 1)?;
        let before = relay.passed(Direction::Replies);
        relay.set(Direction::Replies, Flow::First(first));
        witness.release("a")?;
        relay.until_passed(Direction::Replies, before)?;
        relay.end(end)?;
        witness.acquire("a", EXCLUSIVE)?;
        relay.set(Direction::Replies, Flow::Pass);
        super::ends::is_lost_or_waits_again(&driver, &mut witness, "a")?;
    }
    Ok(())
}
