//! What a server may not grant, or not yet: it is a no, and the session goes on.

use rustix::process::Signal;

use super::{Pace, Trial};
use crate::calls::EXCLUSIVE;
use crate::certificates::text;
use crate::driver::{FOREVER, NOW};
use crate::outcome::Word;
use crate::stage::Stage;
use crate::verdict::{Verdict, ensure};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "refused",
        "A lock that the server refuses is not held, and the session goes on.",
        &[],
        refused,
    ),
    Trial::new("full", "A server that has no room for the client is no server.", &[], full),
    Trial::new("grace", "After a crash, nothing is granted until all holders know.", &["wait"], grace)
        .pace(Pace::Waits),
];

const NO: &[Word] = &[Word::Refused, Word::Timeout, Word::Invalid, Word::Lost, Word::Failed];

fn refused(stage: &Stage) -> Verdict {
    let server = stage.server_with(&["--locks-max", "1"]);
    let (driver, mut witness) = (stage.connected(&server)?, server.witness()?);
    driver.hold("a", EXCLUSIVE)?;
    driver.acquire("b", EXCLUSIVE, NOW)?.must_be_one_of(&[Word::Refused, Word::Timeout, Word::Invalid])?;
    if stage.can("check") {
        driver.check("b")?.must_be(Word::NotHeld)?;
        driver.check("a")?.must_be(Word::Held)?;
    }
    witness.until("b", 0, 0)?;
    driver.release("a")?.must_be(Word::Ok)?;
    driver.hold("b", EXCLUSIVE)?;
    driver.end()
}

fn full(stage: &Stage) -> Verdict {
    let server = stage.server_with(&["--connections-max", "1"]);
    let mut witness = server.witness()?;
    witness.until("a", 0, 0)?;
    let driver = stage.driver()?;
    let mut answer = driver.connect("driver", &[&stage.url(&server)])?;
    if answer.word == Word::Ok {
        // It connects when it has something to ask.
        answer = driver.acquire("a", EXCLUSIVE, NOW)?;
    }
    answer.must_be_one_of(NO)?;
    witness.until("a", 0, 0)?;
    // It would have no room either for the witness that looks for what is left.
    server.end(Signal::TERM);
    Ok(())
}

fn grace(stage: &Stage) -> Verdict {
    let directory = stage.directory.path().join("state");
    std::fs::create_dir(&directory).expect("a directory");
    let server = stage.server_with(&["--state-dir", text(&directory), "--first-start"]);
    let holder = stage.connected(&server)?;
    let before = holder.hold("a", EXCLUSIVE)?.token();
    server.end(Signal::KILL);
    // Or a client that always resumes, as `lockd run` does, would have the lock again.
    holder.kill();
    server.start_again();
    let driver = stage.connected(&server)?;
    driver.acquire("a", EXCLUSIVE, NOW)?.must_be_one_of(NO)?;
    let answer = driver.acquire("a", EXCLUSIVE, FOREVER)?.must_be(Word::Granted)?;
    if stage.can("token") {
        ensure(answer.token() > before, || {
            answer.failure("the token must be above that of the last server").0
        })?;
    }
    server.witness()?.cannot_acquire("a", EXCLUSIVE)?;
    driver.end()
}
