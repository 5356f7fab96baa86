//! A session that is lost while it holds a lock or waits for one: every call says so, and none
//! begins a new session in silence.

use std::time::Duration;

use super::Trial;
use super::ends::{LOSSES, Scene, is_lost_or_waits_again};
use crate::calls::EXCLUSIVE;
use crate::driver::NOW;
use crate::outcome::Word;
use crate::stage::Stage;
use crate::verdict::{Verdict, ensure};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "lost-check",
        "A client whose session was lost does not say that it holds the lock.",
        &["check"],
        |stage| holding(stage, check),
    ),
    Trial::new("lost-release", "To release a lock that was lost is no success.", &[], |stage| {
        holding(stage, release)
    }),
    Trial::new("lost-close", "A session that was lost can be closed.", &[], |stage| holding(stage, close)),
    Trial::new(
        "lost-acquire",
        "After a loss, no lock is granted as if nothing had happened.",
        &[],
        |stage| holding(stage, acquire),
    ),
    Trial::new("lost-convert", "A lock that was lost cannot be converted.", &["convert"], |stage| {
        holding(stage, convert)
    }),
    Trial::new("lost-notice", "The client learns of the loss without a call.", &["notice"], |stage| {
        holding(stage, notice)
    }),
    Trial::new("lost-waiting", "A wait ends when its session is lost.", &["wait"], waiting),
];

/// The client holds a lock and loses its session; another client has the lock when it is asked.
fn holding(stage: &Stage, ask: fn(&Scene) -> Verdict) -> Verdict {
    for loss in LOSSES {
        let scene = Scene::new(stage, loss)?;
        scene.driver.hold("a", EXCLUSIVE)?;
        if stage.can("notice") {
            scene.driver.notice(Duration::from_millis(20))?.must_be(Word::Alive)?;
        }
        let mut witnesses = scene.lose("a", vec![scene.server.witness()?])?;
        witnesses[0].acquire("a", EXCLUSIVE)?;
        ask(&scene).map_err(|failure| failure.during(&format!("{loss:?}")))?;
        witnesses[0].until("a", 1, 0)?;
    }
    Ok(())
}

fn check(scene: &Scene) -> Verdict {
    scene.driver.check("a")?.must_be_lost().map(drop)
}

fn release(scene: &Scene) -> Verdict {
    scene.driver.release("a")?.must_be_one_of(&[Word::Lost, Word::NotHeld]).map(drop)
}

fn close(scene: &Scene) -> Verdict {
    scene.driver.ask("close", NOW)?.must_be_one_of(&[Word::Ok, Word::Lost]).map(drop)
}

fn convert(scene: &Scene) -> Verdict {
    scene.driver.convert("a", "shared", NOW)?.must_be_lost().map(drop)
}

fn acquire(scene: &Scene) -> Verdict {
    let driver = &scene.driver;
    if driver.can("session-per-lock") && driver.can("notice") {
        // A command that has lost its lock is ended. A server that stops waits until its clients know,
        // but not until such a command has ended: docs/operations.md, "Stopping".
        notice(scene)?;
    }
    driver.acquire("a", EXCLUSIVE, NOW)?.must_not_be_a_yes()?;
    let other = driver.acquire("b", EXCLUSIVE, NOW)?;
    if other.word == Word::Granted {
        // A client that has a connection for each lock may go on. One that has lost a lock must say so
        // nevertheless.
        scene.server.witness()?.cannot_acquire("b", EXCLUSIVE)?;
        let why = "it has begun a new session, and does not say that the lock of the old one is lost";
        let answer = driver.release("a")?;
        ensure(matches!(answer.word, Word::Lost | Word::NotHeld), || answer.failure(why).0)?;
    }
    Ok(())
}

fn notice(scene: &Scene) -> Verdict {
    scene.driver.notice(Duration::from_secs(20))?.must_be(Word::Lost).map(drop)
}

fn waiting(stage: &Stage) -> Verdict {
    for loss in LOSSES {
        let scene = Scene::new(stage, loss)?;
        let mut witness = scene.server.witness()?;
        witness.acquire("a", EXCLUSIVE)?;
        scene.driver.begin_acquire("a", EXCLUSIVE)?;
        witness.until("a", 1, 1)?;
        let mut witnesses = scene.lose("a", vec![witness])?;
        // A server that was started again knows nothing of the lock that the witness had.
        witnesses[0].acquire("a", EXCLUSIVE)?;
        let judged = is_lost_or_waits_again(&scene.driver, &mut witnesses[0], "a");
        judged.map_err(|failure| failure.during(&format!("{loss:?}")))?;
    }
    Ok(())
}
