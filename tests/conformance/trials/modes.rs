//! Shared and limited locks, and converting between modes.

use super::Trial;
use crate::calls::{EXCLUSIVE, SHARED, converting};
use crate::driver::{FOREVER, NOW, millis};
use crate::outcome::Word;
use crate::stage::Stage;
use crate::verdict::{Verdict, ensure};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new("shared", "Shared locks go together, and exclude exclusive ones.", &["shared"], shared),
    Trial::new(
        "limit",
        "Of a lock for at most three, three get one and the fourth does not.",
        &["limit"],
        limit,
    ),
    Trial::new(
        "limit-queue",
        "The fourth waits until one of the three has gone.",
        &["limit", "wait"],
        limit_queue,
    ),
    Trial::new("convert", "A lock changes its mode without being given up.", &["convert", "shared"], convert),
    Trial::new(
        "convert-waiting",
        "A conversion waits for the other holders.",
        &["convert", "shared", "wait"],
        convert_waiting,
    ),
    Trial::new(
        "convert-deadlock",
        "Of two that convert to exclusive, the second is told of the deadlock.",
        &["convert", "shared", "wait", "deadlock"],
        convert_deadlock,
    ),
    Trial::new("deadlock", "A wait that would close a circle is refused.", &["wait", "deadlock"], deadlock),
];

fn shared(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    driver.hold("a", SHARED)?;
    witness.cannot_acquire("a", EXCLUSIVE)?;
    witness.acquire("a", SHARED)?;
    driver.release("a")?.must_be(Word::Ok)?;
    driver.acquire("a", EXCLUSIVE, NOW)?.must_be(Word::Timeout)?;
    driver.hold("a", SHARED)?;
    driver.release("a")?.must_be(Word::Ok)?;
    witness.release("a")?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.acquire("a", SHARED, NOW)?.must_be(Word::Timeout)?;
    driver.end()
}

fn limit(stage: &Stage) -> Verdict {
    const THREE: &str = "at-most:3";
    let (server, first, mut witness) = stage.set()?;
    let second = stage.connected(&server)?;
    first.hold("a", THREE)?;
    second.hold("a", THREE)?;
    witness.acquire("a", THREE)?;
    let fourth = stage.connected(&server)?;
    fourth.acquire("a", THREE, NOW)?.must_be(Word::Timeout)?;
    second.release("a")?.must_be(Word::Ok)?;
    // A lower limit of its own counts, too.
    fourth.acquire("a", "at-most:2", NOW)?.must_be(Word::Timeout)?;
    fourth.hold("a", THREE)?;
    witness.until("a", 3, 0)?;
    for driver in [first, second, fourth] {
        driver.end()?;
    }
    witness.until("a", 1, 0)
}

fn limit_queue(stage: &Stage) -> Verdict {
    const THREE: &str = "at-most:3";
    let server = stage.server();
    let mut witnesses = [server.witness()?, server.witness()?, server.witness()?];
    for witness in &mut witnesses {
        witness.acquire("a", THREE)?;
    }
    let driver = stage.connected(&server)?;
    driver.begin_acquire("a", THREE)?;
    let [first, second, _third] = &mut witnesses;
    first.until("a", 3, 1)?;
    driver.has_no_outcome()?;
    second.release("a")?;
    driver.hear()?.must_be(Word::Granted)?;
    first.until("a", 3, 0)?;
    second.cannot_acquire("a", THREE)?;
    driver.end()
}

fn convert(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    driver.convert("a", SHARED, NOW)?.must_be(Word::NotHeld)?;
    let first = driver.hold("a", EXCLUSIVE)?.token();
    driver.convert("a", SHARED, NOW)?.must_be(Word::Granted)?;
    witness.acquire("a", SHARED)?;
    // It stays what it was when it cannot be converted.
    driver.convert("a", EXCLUSIVE, NOW)?.must_be(Word::Timeout)?;
    if stage.can("limit-wait") {
        driver.convert("a", EXCLUSIVE, millis(100))?.must_be(Word::Timeout)?;
    }
    witness.until("a", 2, 0)?;
    if stage.can("check") {
        driver.check("a")?.must_be(Word::Held)?;
    }
    witness.release("a")?;
    let last = driver.convert("a", EXCLUSIVE, NOW)?.must_be(Word::Granted)?.token();
    if stage.can("token") {
        ensure(last > first, || format!("the token of the conversion, {last:?}, is not above {first:?}"))?;
    }
    witness.cannot_acquire("a", SHARED)?;
    driver.release("a")?.must_be(Word::Ok)?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.end()
}

fn convert_waiting(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    driver.hold("a", SHARED)?;
    witness.acquire("a", SHARED)?;
    driver.say(&converting("a", EXCLUSIVE, FOREVER), FOREVER)?;
    witness.until("a", 2, 1)?;
    driver.has_no_outcome()?;
    witness.release("a")?;
    driver.hear()?.must_be(Word::Granted)?;
    witness.cannot_acquire("a", SHARED)?;
    driver.end()
}

fn convert_deadlock(stage: &Stage) -> Verdict {
    let (server, first, mut witness) = stage.set()?;
    let second = stage.connected(&server)?;
    first.hold("a", SHARED)?;
    second.hold("a", SHARED)?;
    first.say(&converting("a", EXCLUSIVE, FOREVER), FOREVER)?;
    witness.until("a", 2, 1)?;
    second.convert("a", EXCLUSIVE, FOREVER)?.must_be(Word::Deadlock)?;
    // It still has what it had, and the other one still waits for it.
    witness.until("a", 2, 1)?;
    first.has_no_outcome()?;
    second.release("a")?.must_be(Word::Ok)?;
    first.hear()?.must_be(Word::Granted)?;
    first.end()
}

fn deadlock(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    driver.hold("a", EXCLUSIVE)?;
    witness.acquire("b", EXCLUSIVE)?;
    let id = witness.begin_acquire("a", EXCLUSIVE);
    witness.until("a", 1, 1)?;
    driver.acquire("b", EXCLUSIVE, FOREVER)?.must_be(Word::Deadlock)?;
    driver.release("a")?.must_be(Word::Ok)?;
    ensure(witness.status(id) == "ok", || "the other client does not get the lock".to_owned())?;
    driver.end()
}
