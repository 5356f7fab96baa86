//! A server that does not answer, because all its threads are stopped: no call hangs, and what a
//! client has given up is not left locked when the server goes on.

use std::rc::Rc;
use std::time::Duration;

use super::{Pace, Trial};
use crate::calls::{EXCLUSIVE, acquiring};
use crate::driver::{Driver, FOREVER, HANG, NOW, millis};
use crate::outcome::Word;
use crate::server::Server;
use crate::stage::Stage;
use crate::verdict::Verdict;

pub(super) const TRIALS: &[Trial] = &[
    Trial::new(
        "hung-server",
        "Every call to a server that does not answer returns, and leaves nothing locked.",
        &["bounded"],
        calls,
    )
    .pace(Pace::Waits),
    Trial::new(
        "hung-connect",
        "To connect to a server that does not answer fails in time.",
        &["bounded"],
        connect,
    )
    .pace(Pace::Waits),
    Trial::new(
        "hung-cancel",
        "A call to a server that does not answer can be cancelled.",
        &["bounded", "background", "cancel", "wait"],
        cancel,
    )
    .pace(Pace::Waits),
    Trial::new(
        "hung-close",
        "A session on a server that does not answer can be closed.",
        &["bounded", "background", "wait"],
        close_waiting,
    )
    .pace(Pace::Waits),
];

/// A call that is made while the server does not answer.
struct Call {
    needs: &'static [&'static str],
    /// The names that the driver holds before, in this mode.
    held: Option<&'static str>,
    command: String,
    limit: Duration,
    /// The outcomes that say what is so.
    honest: &'static [Word],
    /// Whether the lock is the driver's when the server goes on, and the session is not lost.
    stays: bool,
}

fn calls(stage: &Stage) -> Verdict {
    const NOTHING: &[Word] = &[Word::Timeout, Word::Lost, Word::Cancelled, Word::Refused];
    let short = Duration::from_millis(300);
    let call = |needs, held, command: String, limit, honest, stays| Call {
        needs,
        held,
        command,
        limit,
        honest,
        stays,
    };
    let calls = [
        call(&["limit-wait"], None, acquiring("n0", EXCLUSIVE, Some(short)), short, NOTHING, false),
        call(&[], None, acquiring("n1", EXCLUSIVE, NOW), Duration::ZERO, NOTHING, false),
        call(&[], Some(EXCLUSIVE), "release n2".to_owned(), Duration::ZERO, &[Word::Lost, Word::Ok], false),
        call(
            &["check"],
            Some(EXCLUSIVE),
            "check n3".to_owned(),
            Duration::ZERO,
            &[Word::Held, Word::Lost],
            true,
        ),
        call(&["inspect"], None, "inspect n4".to_owned(), Duration::ZERO, NOTHING, false),
        call(&[], Some(EXCLUSIVE), "close".to_owned(), Duration::ZERO, &[Word::Ok], false),
        call(
            &["set"],
            None,
            format!("acquire-set exclusive {} n6 n6x", short.as_millis()),
            short,
            NOTHING,
            false,
        ),
        call(
            &["convert", "shared"],
            Some("shared"),
            format!("convert n7 exclusive {}", short.as_millis()),
            short,
            NOTHING,
            true,
        ),
        call(
            &["convert", "shared"],
            Some(EXCLUSIVE),
            "convert n8 shared 0".to_owned(),
            Duration::ZERO,
            NOTHING,
            true,
        ),
    ];
    let server = stage.server();
    let mut drivers: Vec<(usize, &Call, Driver)> = Vec::new();
    for (number, call) in calls.iter().enumerate() {
        if call.needs.iter().all(|ability| stage.can(ability)) {
            let driver = stage.connected(&server)?;
            if let Some(mode) = call.held {
                driver.hold(format!("n{number}"), mode)?;
            }
            drivers.push((number, call, driver));
        }
    }
    server.pause();
    for (_, call, driver) in &drivers {
        driver.say(&call.command, Some(call.limit))?;
    }
    let mut answers = Vec::new();
    for (_, call, driver) in &drivers {
        answers.push(driver.hear()?.must_be_one_of(call.honest)?);
    }
    server.resume();
    let mut witness = server.witness()?;
    for ((number, call, driver), answer) in drivers.iter().zip(&answers) {
        let mut stays = call.stays && answer.word != Word::Lost;
        if stays && stage.can("check") {
            // A client that asks now and then may have given the server up since.
            stays = driver.check(format!("n{number}"))?.word != Word::Lost;
        }
        witness
            .until(format!("n{number}"), u64::from(stays), 0)
            .map_err(|failure| failure.during(&call.command))?;
    }
    Ok(())
}

fn connect(stage: &Stage) -> Verdict {
    let server = stage.server();
    let driver = stage.driver()?;
    server.pause();
    driver.say(&format!("connect driver 1000 {}", stage.url(&server)), millis(1000))?;
    let answer = driver.hear()?;
    server.resume();
    if answer.word == Word::Ok {
        // It connects when it has something to ask.
        driver.acquire("a", EXCLUSIVE, NOW)?.must_be_one_of(&[Word::Granted, Word::Lost, Word::Timeout])?;
        return Ok(());
    }
    answer.must_be(Word::Failed).map(drop)
}

/// A server that hangs, and a driver that waits for a lock in the background: it is granted when the
/// server goes on.
fn waiting(stage: &Stage) -> Verdict<(Rc<Server>, Driver)> {
    let (server, driver, mut witness) = stage.set()?;
    witness.acquire("a", EXCLUSIVE)?;
    driver.in_background(&acquiring("a", EXCLUSIVE, FOREVER))?;
    witness.until("a", 1, 1)?;
    server.pause();
    // The end of its connection is its release.
    drop(witness);
    Ok((server, driver))
}

fn cancel(stage: &Stage) -> Verdict {
    let (server, driver) = waiting(stage)?;
    driver.cancel()?;
    let answer = driver.hear_background(HANG)?.must_be_one_of(&[Word::Cancelled, Word::Lost])?;
    server.resume();
    let free = server.witness()?.until("a", 0, 0);
    free.map_err(|failure| failure.during(&format!("after {}", answer.word)))
}

fn close_waiting(stage: &Stage) -> Verdict {
    let (server, driver) = waiting(stage)?;
    driver.close()?;
    driver.hear_background(HANG)?.must_be_one_of(&[Word::Cancelled, Word::Lost])?;
    server.resume();
    server.witness()?.until("a", 0, 0)
}
