//! Each call, and each outcome that it can have while nothing is wrong with the network or the
//! server.

use std::time::{Duration, Instant};

use super::Trial;
use crate::calls::{EXCLUSIVE, acquiring};
use crate::driver::{FOREVER, HANG, NOW, millis};
use crate::outcome::Word;
use crate::stage::Stage;
use crate::verdict::{Verdict, ensure};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "acquire",
        "A free lock is granted, and no one else gets it until it is released.",
        &[],
        acquire,
    ),
    Trial::new("acquire-held", "A lock that another client holds is not granted.", &[], acquire_held),
    Trial::new("already", "A lock that the session holds is not granted once more.", &[], already),
    Trial::new("release", "What is not held cannot be released, and nothing else changes.", &[], release),
    Trial::new("check", "The client knows what it holds.", &["check"], check),
    Trial::new("limit-wait", "A wait ends at its time limit, and not before.", &["limit-wait"], limit_wait),
    Trial::new(
        "wait",
        "A client that waits gets the lock when it is released, and not before.",
        &["wait"],
        wait,
    ),
    Trial::new("token", "Fencing tokens rise, and are those of the broker.", &["token"], token),
    Trial::new(
        "orphaned",
        "A holder that vanished is reported, one that ended in order is not.",
        &["orphaned"],
        orphaned,
    ),
    Trial::new("inspect", "The state of a name is shown as it is.", &["inspect"], inspect),
    Trial::new("close", "An orderly end frees the locks, and leaves no orphan.", &[], close),
    Trial::new("exit", "The end of the program frees its locks.", &[], exit),
    Trial::new("killed", "The locks and waits of a client that is killed are freed at once.", &[], killed),
    Trial::new(
        "two-names",
        "Names do not exclude each other, and one is released without the other.",
        &[],
        two_names,
    ),
    Trial::new(
        "background",
        "Calls of one session do not wait for each other.",
        &["background", "wait"],
        background,
    ),
    Trial::new(
        "cancel",
        "A wait that is cancelled ends, and leaves nothing.",
        &["background", "cancel", "wait"],
        cancel,
    ),
    Trial::new(
        "close-waiting",
        "A session that is closed while it waits ends the wait.",
        &["background", "wait"],
        close_waiting,
    ),
];

/// Less than the times for which a server keeps the locks of clients that it cannot reach.
const AT_ONCE: Duration = Duration::from_secs(4);

fn acquire(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    for _ in 0..2 {
        driver.hold("a", EXCLUSIVE)?;
        witness.cannot_acquire("a", EXCLUSIVE)?;
        driver.release("a")?.must_be(Word::Ok)?;
        witness.acquire("a", EXCLUSIVE)?;
        witness.release("a")?;
    }
    if stage.can("wait") {
        driver.acquire("a", EXCLUSIVE, FOREVER)?.must_be(Word::Granted)?;
    }
    driver.end()
}

fn acquire_held(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.acquire("a", EXCLUSIVE, NOW)?.must_be(Word::Timeout)?;
    witness.until("a", 1, 0)?;
    witness.release("a")?;
    driver.hold("a", EXCLUSIVE)?;
    driver.end()
}

fn already(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    driver.hold("a", EXCLUSIVE)?;
    driver.acquire("a", EXCLUSIVE, NOW)?.must_be(Word::Already)?;
    if stage.can("limit-wait") {
        driver.acquire("a", EXCLUSIVE, millis(1000))?.must_be(Word::Already)?;
    }
    witness.cannot_acquire("a", EXCLUSIVE)?;
    // It is not counted: one release is enough.
    driver.release("a")?.must_be(Word::Ok)?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.end()
}

fn release(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    driver.release("a")?.must_be(Word::NotHeld)?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.release("a")?.must_be(Word::NotHeld)?;
    witness.until("a", 1, 0)?;
    witness.release("a")?;
    driver.hold("a", EXCLUSIVE)?;
    driver.release("a")?.must_be(Word::Ok)?;
    driver.release("a")?.must_be(Word::NotHeld)?;
    driver.end()
}

fn check(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    driver.check("a")?.must_be(Word::NotHeld)?;
    driver.hold("a", EXCLUSIVE)?;
    driver.check("a")?.must_be(Word::Held)?;
    driver.check("b")?.must_be(Word::NotHeld)?;
    driver.release("a")?.must_be(Word::Ok)?;
    driver.check("a")?.must_be(Word::NotHeld)?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.check("a")?.must_be(Word::NotHeld)?;
    driver.acquire("a", EXCLUSIVE, NOW)?.must_be(Word::Timeout)?;
    driver.check("a")?.must_be(Word::NotHeld)?;
    driver.end()
}

fn limit_wait(stage: &Stage) -> Verdict {
    let limit = Duration::from_millis(300);
    let (_server, driver, mut witness) = stage.set()?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.say(&acquiring("a", EXCLUSIVE, Some(limit)), Some(limit))?;
    let answer = driver.hear()?.must_be(Word::Timeout)?;
    // The runner began to wait for the answer a little after the driver began.
    ensure(answer.took > limit - Duration::from_millis(50), || format!("it ended after {:?}", answer.took))?;
    witness.until("a", 1, 0)?;
    driver.say(&acquiring("a", EXCLUSIVE, Some(HANG)), Some(HANG))?;
    witness.until("a", 1, 1)?;
    witness.release("a")?;
    driver.hear()?.must_be(Word::Granted)?;
    witness.cannot_acquire("a", EXCLUSIVE)?;
    driver.end()
}

fn wait(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.begin_acquire("a", EXCLUSIVE)?;
    witness.until("a", 1, 1)?;
    driver.has_no_outcome()?;
    witness.release("a")?;
    driver.hear()?.must_be(Word::Granted)?;
    witness.cannot_acquire("a", EXCLUSIVE)?;
    driver.release("a")?.must_be(Word::Ok)?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.end()
}

fn token(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    let mut before = 0;
    let mut rises = |token: Option<u64>| {
        let token = token.unwrap_or_default();
        let rises = token > before;
        before = token;
        ensure(rises, || format!("the token {token} is not above the one before"))
    };
    for _ in 0..3 {
        rises(driver.hold("a", EXCLUSIVE)?.token())?;
        driver.release("a")?.must_be(Word::Ok)?;
        rises(witness.acquire("a", EXCLUSIVE)?["token"].as_u64())?;
        witness.release("a")?;
    }
    driver.end()
}

fn orphaned(stage: &Stage) -> Verdict {
    let (server, driver, mut witness) = stage.set()?;
    let mut next = |vanishes: bool| {
        let holder = stage.connected(&server)?;
        holder.hold("a", EXCLUSIVE)?;
        if vanishes {
            holder.kill()
        } else {
            holder.close()?
        }
        witness.until("a", 0, 0)?;
        let answer = driver.hold("a", EXCLUSIVE)?;
        if answer.is_orphaned() != vanishes {
            return Err(answer.failure(if vanishes {
                "the holder vanished"
            } else {
                "the holder ended in order"
            }));
        }
        driver.release("a")?.must_be(Word::Ok).map(drop)
    };
    next(true)?;
    next(false)?;
    driver.end()
}

fn inspect(stage: &Stage) -> Verdict {
    let (server, driver, mut witness) = stage.set()?;
    let state = |expected: &str| {
        let answer = driver.inspect("a")?;
        let seen = format!("{} {}", answer.word, answer.text);
        if seen.trim_end() == expected {
            Ok(())
        } else {
            Err(answer.failure(&format!("expected {expected:?}")))
        }
    };
    state("free")?;
    witness.acquire("a", EXCLUSIVE)?;
    state("exclusive 0")?;
    let mut other = server.witness()?;
    other.begin_acquire("a", "shared");
    witness.until("a", 1, 1)?;
    state("exclusive 1")?;
    witness.release("a")?;
    witness.until("a", 1, 0)?;
    state("shared 0")?;
    drop(other);
    witness.until("a", 0, 0)?;
    driver.hold("a", EXCLUSIVE)?;
    state("exclusive 0")?;
    driver.end()
}

fn close(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    driver.hold("a", EXCLUSIVE)?;
    driver.hold("b", EXCLUSIVE)?;
    driver.close()?;
    for name in ["a", "b"] {
        witness.acquire(name, EXCLUSIVE)?;
    }
    // Nothing is held any more, and the client must know it.
    driver.acquire("a", EXCLUSIVE, NOW)?.must_not_be_a_yes()?;
    if stage.can("check") {
        driver.check("a")?.must_not_be_a_yes()?;
    }
    driver.end()
}

fn exit(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    driver.hold("a", EXCLUSIVE)?;
    witness.cannot_acquire("a", EXCLUSIVE)?;
    driver.end()?;
    let begun = Instant::now();
    witness.acquire("a", EXCLUSIVE)?;
    ensure(begun.elapsed() < AT_ONCE, || format!("its lock was freed after {:?}", begun.elapsed()))
}

fn killed(stage: &Stage) -> Verdict {
    let (server, holder, mut witness) = stage.set()?;
    holder.hold("a", EXCLUSIVE)?;
    let waiter = stage.can("wait").then(|| stage.connected(&server)).transpose()?;
    if let Some(waiter) = &waiter {
        witness.acquire("b", EXCLUSIVE)?;
        waiter.begin_acquire("b", EXCLUSIVE)?;
        witness.until("b", 1, 1)?;
        waiter.kill();
        witness.until("b", 1, 0)?;
    }
    holder.kill();
    let begun = Instant::now();
    witness.acquire("a", EXCLUSIVE)?;
    ensure(begun.elapsed() < AT_ONCE, || format!("its lock was freed after {:?}", begun.elapsed()))
}

fn two_names(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    witness.acquire("other", EXCLUSIVE)?;
    driver.hold("a", EXCLUSIVE)?;
    driver.hold("b", EXCLUSIVE)?;
    driver.release("a")?.must_be(Word::Ok)?;
    witness.acquire("a", EXCLUSIVE)?;
    witness.cannot_acquire("b", EXCLUSIVE)?;
    if stage.can("check") {
        driver.check("a")?.must_be(Word::NotHeld)?;
        driver.check("b")?.must_be(Word::Held)?;
    }
    driver.release("b")?.must_be(Word::Ok)?;
    driver.end()
}

fn background(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.in_background(&acquiring("a", EXCLUSIVE, FOREVER))?;
    witness.until("a", 1, 1)?;
    driver.hold("b", EXCLUSIVE)?;
    driver.release("b")?.must_be(Word::Ok)?;
    // The session is one owner, and only one of its calls can be told that it got the lock.
    driver.acquire("a", EXCLUSIVE, millis(100))?.must_be_one_of(&[
        Word::Already,
        Word::Timeout,
        Word::Refused,
    ])?;
    witness.release("a")?;
    driver.hear_background(HANG)?.must_be(Word::Granted)?;
    driver.acquire("a", EXCLUSIVE, NOW)?.must_be(Word::Already)?;
    witness.cannot_acquire("a", EXCLUSIVE)?;
    driver.end()
}

fn cancel(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.in_background(&acquiring("a", EXCLUSIVE, FOREVER))?;
    witness.until("a", 1, 1)?;
    driver.cancel()?;
    driver.hear_background(HANG)?.must_be(Word::Cancelled)?;
    witness.until("a", 1, 0)?;
    witness.release("a")?;
    driver.hold("a", EXCLUSIVE)?;
    driver.end()
}

fn close_waiting(stage: &Stage) -> Verdict {
    let (_server, driver, mut witness) = stage.set()?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.in_background(&acquiring("a", EXCLUSIVE, FOREVER))?;
    witness.until("a", 1, 1)?;
    driver.close()?;
    driver.hear_background(HANG)?.must_be_one_of(&[Word::Lost, Word::Cancelled])?;
    witness.until("a", 1, 0)?;
    driver.end()
}
