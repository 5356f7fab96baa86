//! Where a server is: at a Unix socket, in TLS, behind a secret.

use super::Trial;
use super::ends::is_lost_or_waits_again;
use crate::calls::EXCLUSIVE;
use crate::certificates::{certificate, text, with_certificate};
use crate::driver::{Driver, NOW};
use crate::outcome::Word;
use crate::server::Server;
use crate::stage::Stage;
use crate::verdict::{Verdict, ensure};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new("unix", "A server at a Unix socket is used like any other.", &["unix"], unix),
    Trial::new(
        "unix-lost",
        "The end of a server at a Unix socket ends the session.",
        &["unix", "wait"],
        unix_lost,
    ),
    Trial::new("tls", "A server in TLS is used like any other.", &["tls"], tls),
    Trial::new(
        "tls-strange",
        "A server whose certificate is signed by someone else is refused.",
        &["tls"],
        tls_strange,
    ),
    Trial::new("secret", "With the secret of the server, the client is served.", &["secret"], secret),
    Trial::new(
        "secret-wrong",
        "Without the secret, or with a wrong one, the client is told so, and has no session.",
        &["secret"],
        secret_wrong,
    ),
    Trial::new("nobody-there", "To connect where no server listens fails with a reason.", &[], nobody_there),
];

/// Acquires, is a holder for others, waits and releases.
fn is_of_use(stage: &Stage, driver: &Driver, server: &Server) -> Verdict {
    let mut witness = server.witness()?;
    driver.hold("a", EXCLUSIVE)?;
    witness.cannot_acquire("a", EXCLUSIVE)?;
    driver.release("a")?.must_be(Word::Ok)?;
    witness.acquire("a", EXCLUSIVE)?;
    if stage.can("wait") {
        driver.begin_acquire("a", EXCLUSIVE)?;
        witness.until("a", 1, 1)?;
        witness.release("a")?;
        driver.hear()?.must_be(Word::Granted)?;
        if stage.can("check") {
            driver.check("a")?.must_be(Word::Held)?;
        }
        witness.cannot_acquire("a", EXCLUSIVE)?;
    }
    driver.end()
}

fn unix(stage: &Stage) -> Verdict {
    let server = stage.server();
    is_of_use(stage, &stage.connected_to(&server.unix_url(stage.protocol()))?, &server)
}

fn unix_lost(stage: &Stage) -> Verdict {
    let server = stage.server();
    let (holder, waiter) = (
        stage.connected_to(&server.unix_url(stage.protocol()))?,
        stage.connected_to(&server.unix_url(stage.protocol()))?,
    );
    holder.hold("a", EXCLUSIVE)?;
    waiter.begin_acquire("a", EXCLUSIVE)?;
    server.witness()?.until("a", 1, 1)?;
    server.end(rustix::process::Signal::KILL);
    server.start_again();
    let mut witness = server.witness()?;
    witness.acquire("a", EXCLUSIVE)?;
    if stage.can("check") {
        holder.check("a")?.must_be_lost()?;
    }
    holder.release("a")?.must_be_one_of(&[Word::Lost, Word::NotHeld])?;
    is_lost_or_waits_again(&waiter, &mut witness, "a")
}

fn tls(stage: &Stage) -> Verdict {
    let (server, authority) = with_certificate(stage);
    let driver = stage.driver_with(&[("CONFORMANCE_CA", text(&authority))])?;
    driver.connect("driver", &[&server.tls_url()])?.must_be(Word::Ok)?;
    is_of_use(stage, &driver, &server)
}

fn tls_strange(stage: &Stage) -> Verdict {
    let (server, _) = with_certificate(stage);
    let (another, _) = certificate(stage, "another");
    let driver = stage.driver_with(&[("CONFORMANCE_CA", text(&another))])?;
    fails_with_a_reason(&driver, &server.tls_url())
}

const SECRET: &str = "a secret that is long enough";

/// A server that asks for the secret. Witnesses use its Unix socket, where no one needs it.
fn with_secret(stage: &Stage) -> std::rc::Rc<Server> {
    let file = stage.directory.path().join("secret");
    std::fs::write(&file, SECRET).expect("a file");
    stage.server_with(&["--auth-token-file", text(&file)])
}

fn secret(stage: &Stage) -> Verdict {
    let server = with_secret(stage);
    let driver = stage.driver_with(&[("CONFORMANCE_SECRET", SECRET)])?;
    driver.connect("driver", &[&stage.url(&server)])?.must_be(Word::Ok)?;
    is_of_use(stage, &driver, &server)
}

fn secret_wrong(stage: &Stage) -> Verdict {
    let server = with_secret(stage);
    fails_with_a_reason(&stage.driver()?, &stage.url(&server))?;
    let driver = stage.driver_with(&[("CONFORMANCE_SECRET", "a secret that is long enougj")])?;
    fails_with_a_reason(&driver, &stage.url(&server))
}

fn nobody_there(stage: &Stage) -> Verdict {
    let server = stage.server();
    server.end(rustix::process::Signal::TERM);
    let driver = stage.driver()?;
    let answer = driver.connect("driver", &[&stage.url(&server)])?;
    if answer.word == Word::Ok {
        // It connects when it has something to ask.
        let answer = driver.acquire("a", EXCLUSIVE, NOW)?;
        return answer.must_not_be_a_yes().map(drop);
    }
    answer.must_be(Word::Failed).map(drop)
}

/// The session cannot be opened, or the first lock cannot be had; and there is a reason.
fn fails_with_a_reason(driver: &Driver, url: &str) -> Verdict {
    let mut answer = driver.connect("driver", &[url])?;
    if answer.word == Word::Ok {
        answer = driver.acquire("a", EXCLUSIVE, Some(std::time::Duration::ZERO))?;
    }
    let answer = answer.must_be_one_of(&[Word::Failed, Word::Refused, Word::Lost])?;
    ensure(!answer.text.is_empty(), || answer.failure("it must say why").0)
}
