//! A grant that lies unread in the socket of a client, while its connection has ended and another
//! client has the lock: the client must not believe it.

use super::Trial;
use super::ends::{LOSSES, Loss, Place, Scene, is_lost_or_waits_again};
use crate::calls::{EXCLUSIVE, SHARED, acquiring, acquiring_set, converting};
use crate::driver::{FOREVER, HANG, NOW};
use crate::relay::{Direction, Flow};
use crate::stage::Stage;
use crate::verdict::Verdict;
use crate::witness::Witness;

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "stale-kicked",
        "A grant whose client was kicked while it was stopped is not believed.",
        &["wait"],
        |stage| every_wait(stage, Place::Tcp, Loss::Kick),
    ),
    Trial::new(
        "stale-server-stopped",
        "A grant of a server that has stopped since is not believed.",
        &["wait"],
        |stage| every_wait(stage, Place::Tcp, Loss::ServerStops),
    ),
    Trial::new(
        "stale-server-killed",
        "A grant of a server that was killed since is not believed.",
        &["wait"],
        |stage| every_wait(stage, Place::Tcp, Loss::ServerIsKilled),
    ),
    Trial::new("stale-fin", "A grant before the end of the stream is not believed.", &["wait"], |stage| {
        every_wait(stage, Place::Tcp, Loss::Fin)
    }),
    Trial::new(
        "stale-reset",
        "A grant on a connection that was reset since is not believed.",
        &["wait"],
        |stage| every_wait(stage, Place::Tcp, Loss::Reset),
    ),
    Trial::new(
        "stale-unix",
        "Over a Unix socket, a grant whose connection has ended since is not believed.",
        &["wait", "unix"],
        |stage| every_loss(stage, Place::Unix),
    ),
    Trial::new(
        "stale-tls",
        "In TLS, a grant whose connection has ended since is not believed.",
        &["wait", "tls"],
        |stage| every_loss(stage, Place::Tls),
    ),
    Trial::new(
        "stale-answer",
        "A grant at once is not believed if the connection has ended before it was read.",
        &[],
        answer,
    )
    .unless(&["session-per-lock"]),
    Trial::new(
        "stale-two",
        "Of two waits of one session, neither believes a grant that is stale.",
        &["wait", "background"],
        two,
    )
    .unless(&["session-per-lock"]),
    Trial::new(
        "stale-held",
        "A client that was stopped does not believe that it still holds what it held before.",
        &["check"],
        held,
    ),
];

/// What the client waits for while it is stopped.
struct Wait {
    what: &'static str,
    needs: Option<&'static str>,
    /// What it holds before.
    held: Option<&'static str>,
    command: fn() -> String,
    /// The modes of the witnesses that hold the lock first. When the first one releases it, the
    /// client is granted it.
    holders: &'static [&'static str],
    /// How many hold it then.
    then: u64,
    /// The mode in which the first witness gets it once more when the client has lost it.
    taken: &'static str,
}

const TWO: &str = "at-most:2";

const WAITS: [Wait; 5] = [
    Wait {
        what: "exclusive",
        needs: None,
        held: None,
        command: || acquiring("a", EXCLUSIVE, FOREVER),
        holders: &[EXCLUSIVE],
        then: 1,
        taken: EXCLUSIVE,
    },
    Wait {
        what: "shared",
        needs: Some("shared"),
        held: None,
        command: || acquiring("a", SHARED, FOREVER),
        holders: &[EXCLUSIVE],
        then: 1,
        taken: EXCLUSIVE,
    },
    Wait {
        what: "at most two",
        needs: Some("limit"),
        held: None,
        command: || acquiring("a", TWO, FOREVER),
        holders: &[TWO, TWO],
        then: 2,
        taken: TWO,
    },
    Wait {
        what: "a conversion",
        needs: Some("convert"),
        held: Some(SHARED),
        command: || converting("a", EXCLUSIVE, FOREVER),
        holders: &[SHARED],
        then: 1,
        taken: EXCLUSIVE,
    },
    Wait {
        what: "a set",
        needs: Some("set"),
        held: None,
        command: || acquiring_set(&["a", "b"], EXCLUSIVE, FOREVER),
        holders: &[EXCLUSIVE],
        then: 1,
        taken: EXCLUSIVE,
    },
];

fn every_wait(stage: &Stage, place: Place, loss: Loss) -> Verdict {
    for wait in &WAITS {
        if wait.needs.is_none_or(|ability| stage.can(ability)) {
            stage.transcript.add(format!("it waits for: {}", wait.what));
            one_wait(stage, place, loss, wait).map_err(|failure| failure.during(wait.what))?;
        }
    }
    Ok(())
}

/// Waits in the ordinary way only: how the bytes come makes no difference to the others.
fn every_loss(stage: &Stage, place: Place) -> Verdict {
    for loss in LOSSES {
        // No one but its two ends can reset a Unix socket, and it looks the same to the client.
        if (place, loss) != (Place::Unix, Loss::Reset) {
            let judged = one_wait(stage, place, loss, &WAITS[0]);
            judged.map_err(|failure| failure.during(&format!("{loss:?}")))?;
        }
    }
    Ok(())
}

fn one_wait(stage: &Stage, place: Place, loss: Loss, wait: &Wait) -> Verdict {
    let scene = Scene::at(stage, loss, place)?;
    let driver = &scene.driver;
    if let Some(mode) = wait.held {
        driver.hold("a", mode)?;
    }
    let mut witnesses = Vec::new();
    for mode in wait.holders {
        let mut witness = scene.server.witness()?;
        witness.acquire("a", mode)?;
        witnesses.push(witness);
    }
    driver.say(&(wait.command)(), FOREVER)?;
    let held_before = wait.holders.len() + usize::from(wait.held.is_some());
    witnesses[0].until("a", held_before as u64, 1)?;
    driver.stop()?;
    let before = scene.replies_passed();
    witnesses[0].release("a")?;
    witnesses[0].until("a", wait.then, 0)?;
    scene.until_more_replies(before)?;
    let mut witnesses = scene.lose("a", witnesses)?;
    take(&mut witnesses, wait, loss)?;
    driver.resume();
    is_lost_or_waits_again(driver, &mut witnesses[0], "a")?;
    if stage.can("check") && !stage.can("patient") {
        driver.check("a")?.must_be_lost()?;
    }
    Ok(())
}

/// The witnesses take the lock, so that the client cannot hold it.
fn take(witnesses: &mut [Witness], wait: &Wait, loss: Loss) -> Verdict {
    let is_new_server = matches!(loss, Loss::ServerStops | Loss::ServerIsKilled);
    // On the same server, all but the first still hold it.
    let count = if is_new_server { witnesses.len() } else { 1 };
    for witness in &mut witnesses[..count] {
        witness.acquire("a", wait.taken)?;
    }
    Ok(())
}

fn held(stage: &Stage) -> Verdict {
    for loss in LOSSES {
        let scene = Scene::new(stage, loss)?;
        scene.driver.hold("a", EXCLUSIVE)?;
        scene.driver.stop()?;
        let mut witnesses = scene.lose("a", vec![scene.server.witness()?])?;
        witnesses[0].acquire("a", EXCLUSIVE)?;
        scene.driver.resume();
        scene.driver.check("a")?.must_be_lost().map_err(|failure| failure.during(&format!("{loss:?}")))?;
    }
    Ok(())
}

fn answer(stage: &Stage) -> Verdict {
    for loss in [Loss::Fin, Loss::Reset] {
        let scene = Scene::new(stage, loss)?;
        let mut witness = scene.server.witness()?;
        let Some(relay) = scene.relay() else { continue };
        relay.set(Direction::Replies, Flow::Hold);
        scene.driver.say(&acquiring("a", EXCLUSIVE, NOW), NOW)?;
        witness.until("a", 1, 0)?;
        scene.driver.stop()?;
        let before = relay.passed(Direction::Replies);
        relay.set(Direction::Replies, Flow::Pass);
        relay.until_passed(Direction::Replies, before)?;
        let mut witnesses = scene.lose("a", vec![witness])?;
        witnesses[0].acquire("a", EXCLUSIVE)?;
        scene.driver.resume();
        scene.driver.hear()?.must_be_lost().map_err(|failure| failure.during(&format!("{loss:?}")))?;
    }
    Ok(())
}

fn two(stage: &Stage) -> Verdict {
    for loss in LOSSES {
        let scene = Scene::new(stage, loss)?;
        let (driver, names) = (&scene.driver, ["a", "b"]);
        let mut witness = scene.server.witness()?;
        for name in names {
            witness.acquire(name, EXCLUSIVE)?;
        }
        driver.in_background(&acquiring("a", EXCLUSIVE, FOREVER))?;
        driver.begin_acquire("b", EXCLUSIVE)?;
        for name in names {
            witness.until(name, 1, 1)?;
        }
        driver.stop()?;
        for name in names {
            let before = scene.replies_passed();
            witness.release(name)?;
            witness.until(name, 1, 0)?;
            scene.until_more_replies(before)?;
        }
        let mut witnesses = scene.lose("a", vec![witness])?;
        for name in names {
            witnesses[0].acquire(name, EXCLUSIVE)?;
        }
        driver.resume();
        for answer in [driver.hear_background(HANG)?, driver.hear()?] {
            answer.must_be_lost().map_err(|failure| failure.during(&format!("{loss:?}")))?;
        }
    }
    Ok(())
}
