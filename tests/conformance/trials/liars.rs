//! Servers that lie, or are none: what is not a grant is not taken for one, and no call hangs.

use serde_json::{Value, json};

use super::{Pace, Trial};
use crate::calls::{EXCLUSIVE, acquiring, converting};
use crate::driver::{Driver, FOREVER, HANG, NOW, millis};
use crate::fake_server::{FakeServer, Lie, Step};
use crate::outcome::{Answer, Word};
use crate::relay::{Direction, Flow, Relay};
use crate::stage::Stage;
use crate::verdict::{Verdict, ensure};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new("liar-words", "Only `ok` is a yes, and it must be where it belongs.", &["message"], words)
        .pace(Pace::Waits),
    Trial::new("liar-token", "A grant without a valid token is none.", &["message", "token"], tokens)
        .pace(Pace::Waits),
    Trial::new("liar-garbage", "What is no message is not taken for a grant.", &["message"], garbage)
        .pace(Pace::Waits),
    Trial::new("liar-cut", "Half a grant is none.", &["message"], cut).pace(Pace::Waits),
    Trial::new(
        "liar-grant-and-end",
        "A grant that comes together with the end of the stream is none.",
        &["message"],
        grant_and_end,
    ),
    Trial::new(
        "liar-grant-and-more",
        "A grant is not believed if the end of the stream comes after many other messages.",
        &["message"],
        grant_and_more,
    )
    .unless(&["session-per-lock"]),
    Trial::new(
        "liar-twice",
        "A second answer to a request is not the answer to the next one.",
        &["message"],
        twice,
    ),
    Trial::new(
        "liar-order",
        "Replies are matched by their ids, in whatever order they come.",
        &["message", "background"],
        order,
    )
    .unless(&["session-per-lock"]),
    Trial::new("liar-release", "A release is confirmed only by `ok`.", &["message"], release)
        .unless(&["session-per-lock"]),
    Trial::new(
        "liar-convert",
        "A lock that the server does not know any more is not held.",
        &["message", "convert", "check"],
        convert,
    ),
    Trial::new(
        "liar-ids",
        "A grant with the id of no request is none, and the wait for the right one ends.",
        &["message", "bounded", "limit-wait"],
        ids,
    )
    .pace(Pace::Waits),
    Trial::new(
        "liar-silent",
        "A server that never answers again keeps no call.",
        &["message", "bounded", "limit-wait"],
        silent,
    )
    .pace(Pace::Waits),
];

fn reply(result: &Value) -> Lie {
    vec![Step::Message(json!({"id": "ID", "result": result}))]
}

/// A session on a server that tells this lie.
fn lied_to(stage: &Stage, lie: &Lie) -> Verdict<(FakeServer, Driver)> {
    let server = FakeServer::start(&stage.host, lie.clone(), &stage.transcript);
    let driver = stage.connected_to(server.url())?;
    // What is said rightly is believed; otherwise, that the lie is not believed would show nothing.
    driver.hold("truth", EXCLUSIVE)?;
    Ok((server, driver))
}

/// Asks for a lock, with a time limit if the client has them.
fn ask(stage: &Stage, driver: &Driver, name: &str) -> Verdict<Answer> {
    let limit = if stage.can("limit-wait") {
        millis(500)
    } else if stage.can("wait") {
        FOREVER
    } else {
        NOW
    };
    driver.acquire(name, EXCLUSIVE, limit)
}

/// The client must not believe that it was granted the lock.
fn is_no_grant(stage: &Stage, lie: &Lie) -> Verdict {
    let (_server, driver) = lied_to(stage, lie)?;
    let judged = ask(stage, &driver, "lie").and_then(Answer::must_not_be_a_yes).and_then(|_| {
        if stage.can("check") { driver.check("lie")?.must_not_be_a_yes().map(drop) } else { Ok(()) }
    });
    judged.map_err(|failure| failure.during(&format!("{lie:?}")))
}

fn words(stage: &Stage) -> Verdict {
    let results = [
        json!({"status": "granted"}),
        json!({"status": "OK", "token": 7}),
        json!({"status": "ok ", "token": 7}),
        json!({"status": true, "token": 7}),
        json!({"status": 1, "token": 7}),
        json!({"status": ["ok"], "token": 7}),
        json!({"status": null, "token": 7}),
        json!({"token": 7}),
        json!({}),
        json!("ok"),
        json!(true),
        json!(null),
        json!([{"status": "ok", "token": 7}]),
        json!({"status": "refused", "reason": "ok", "token": 7}),
        json!({"status": "timeout", "token": 7}),
        json!({"result": {"status": "ok", "token": 7}}),
    ];
    for result in &results {
        is_no_grant(stage, &reply(result))?;
    }
    // What belongs to the result is beside it, or there is an error beside it.
    is_no_grant(stage, &vec![Step::Message(json!({"id": "ID", "status": "ok", "token": 7}))])?;
    is_no_grant(stage, &vec![Step::Message(json!({"id": "ID", "error": "out of order"}))])?;
    if stage.can("convert") && stage.can("shared") {
        for result in [&results[0], &results[8], &results[9]] {
            is_no_conversion(stage, &reply(result))?;
        }
    }
    Ok(())
}

/// A conversion of a lock that was granted rightly is answered by the lie.
fn is_no_conversion(stage: &Stage, lie: &Lie) -> Verdict {
    let grant = reply(&json!({"status": "ok", "token": 7}));
    let server = FakeServer::with_lies(&stage.host, vec![grant, lie.clone()], &stage.transcript);
    let driver = stage.connected_to(server.url())?;
    driver.hold("lie", EXCLUSIVE)?;
    driver.ask(&converting("lie", "shared", NOW), NOW)?.must_not_be_a_yes()?;
    Ok(())
}

fn tokens(stage: &Stage) -> Verdict {
    let tokens = [
        json!(null),
        json!("7"),
        json!(true),
        json!(-1),
        json!(7.5),
        json!([7]),
        json!({"token": 7}),
        json!(1e300),
    ];
    for token in tokens {
        is_no_grant(stage, &reply(&json!({"status": "ok", "token": token})))?;
    }
    is_no_grant(stage, &reply(&json!({"status": "ok"})))
}

fn garbage(stage: &Stage) -> Verdict {
    let grant = json!({"id": 1, "result": {"status": "ok", "token": 7}}).to_string();
    let lies = [
        Step::Bytes(vec![0xff; 64]),
        Step::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        Step::Bytes(b"1 Lock Get Success: lie\r\n".to_vec()),
        Step::Bytes([b"\x7f\xff\xff\xff".as_slice(), grant.as_bytes()].concat()),
        Step::Bytes(b"\x00\x20\x00\x00{".to_vec()),
        Step::Frame(Vec::new()),
        Step::Frame(b"{\"id\":".to_vec()),
        Step::Frame(b"ok".to_vec()),
        Step::Frame(b"\"ok\"".to_vec()),
        Step::Frame(b"null".to_vec()),
        Step::Frame(b"[]".to_vec()),
        Step::Frame(b"\xff\xfe{}".to_vec()),
        Step::Frame([b"[".repeat(100_000), b"]".repeat(100_000)].concat()),
        Step::Frame(format!("{grant}{grant}").into_bytes()),
    ];
    for lie in lies {
        // The server is no use any more, and ends the connection, so that no client waits for ever.
        is_no_grant(stage, &vec![lie, Step::Fin])?;
    }
    Ok(())
}

fn cut(stage: &Stage) -> Verdict {
    let header = Step::Bytes(vec![0, 0, 0, 40]);
    for lie in [
        vec![Step::Half, Step::Fin],
        vec![Step::Half, Step::Reset],
        vec![header, Step::Fin],
        vec![Step::Bytes(vec![0, 0]), Step::Fin],
        vec![Step::Fin],
        vec![Step::Reset],
    ] {
        is_no_grant(stage, &lie)?;
    }
    Ok(())
}

fn grant_and_end(stage: &Stage) -> Verdict {
    let mut lie = reply(&json!({"status": "ok", "token": 7}));
    lie.push(Step::Fin);
    is_no_grant(stage, &lie)?;
    // With another message between the two: one more read is not enough to see the end.
    lie.insert(1, Step::Message(json!({"id": "late", "result": {"status": "ok"}})));
    is_no_grant(stage, &lie)
}

fn grant_and_more(stage: &Stage) -> Verdict {
    let mut lie = reply(&json!({"status": "ok", "token": 7}));
    let other = Step::Message(json!({"id": "late", "result": {"status": "ok", "more": "x".repeat(4000)}}));
    lie.extend(std::iter::repeat_n(other, 10));
    lie.push(Step::Fin);
    let server = FakeServer::start(&stage.host, lie, &stage.transcript);
    let address = server.url().trim_start_matches("tcp://");
    let relay = Relay::start(&stage.host, "tcp", address, &stage.transcript);
    let driver = stage.connected_to(relay.url())?;
    // All of it arrives while the client is stopped, so that it can know of the end.
    relay.set(Direction::Replies, Flow::Hold);
    driver.say(&acquiring("lie", EXCLUSIVE, NOW), NOW)?;
    server.until_asked()?;
    driver.stop()?;
    relay.set(Direction::Replies, Flow::Pass);
    relay.until_ended()?;
    driver.resume();
    driver.hear()?.must_not_be_a_yes()?;
    if stage.can("check") {
        driver.check("lie")?.must_not_be_a_yes()?;
    }
    Ok(())
}

fn twice(stage: &Stage) -> Verdict {
    let grant = Step::Message(json!({"id": "ID", "result": {"status": "ok", "token": 7}}));
    let no = reply(&json!({"status": "timeout"}));
    let lies = vec![vec![grant.clone(), grant], no];
    let server = FakeServer::with_lies(&stage.host, lies, &stage.transcript);
    let driver = stage.connected_to(server.url())?;
    ask(stage, &driver, "lie1")?.must_be_one_of(&[Word::Granted, Word::Lost])?;
    ask(stage, &driver, "lie2")?.must_not_be_a_yes()?;
    if stage.can("check") {
        driver.check("lie2")?.must_not_be_a_yes()?;
    }
    Ok(())
}

fn order(stage: &Stage) -> Verdict {
    // The first request is answered after the second one.
    let (server, driver) =
        lied_to(stage, &vec![Step::After(json!({"id": "ID", "result": {"status": "timeout"}}))])?;
    driver.in_background(&acquiring("lie", EXCLUSIVE, millis(10_000)))?;
    server.until_asked()?;
    driver.acquire("b", EXCLUSIVE, millis(10_000))?.must_be(Word::Granted)?;
    driver.hear_background(HANG)?.must_be(Word::Timeout)?;
    Ok(())
}

fn release(stage: &Stage) -> Verdict {
    let grant = reply(&json!({"status": "ok", "token": 7}));
    let attempted = |result: &str| {
        vec![Step::Message(json!({"attempted": "unlock", "result": result, "lockName": "lie"}))]
    };
    let lies = [
        (reply(&json!({"status": "refused", "reason": "no"})), attempted("refused")),
        (reply(&json!({"status": "perhaps"})), attempted("perhaps")),
        (reply(&json!({})), attempted("")),
    ];
    for (new, old) in lies {
        // Both forms of a release; a client takes notice of the one that it has asked for.
        let lies = vec![grant.clone(), [new, old].concat()];
        let server = FakeServer::with_lies(&stage.host, lies, &stage.transcript);
        let driver = stage.connected_to(server.url())?;
        ask(stage, &driver, "lie")?.must_be(Word::Granted)?;
        let answer = driver.release("lie")?;
        ensure(answer.word != Word::Ok, || answer.failure("the server has not confirmed it").0)?;
    }
    Ok(())
}

/// A server that says that a lock is not held which it has granted and not taken back.
fn convert(stage: &Stage) -> Verdict {
    let lies = vec![reply(&json!({"status": "ok", "token": 7})), reply(&json!({"status": "notFound"}))];
    let server = FakeServer::with_lies(&stage.host, lies, &stage.transcript);
    let driver = stage.connected_to(server.url())?;
    ask(stage, &driver, "lie")?.must_be(Word::Granted)?;
    driver.convert("lie", "shared", millis(300))?.must_not_be_a_yes()?;
    let answer = driver.check("lie")?;
    ensure(answer.word != Word::Held, || answer.failure("the server has said that it is not held").0)
}

/// Each lie is told to a driver of its own, all at the same time: each takes as long as the client
/// needs to give up.
fn all_at_once(stage: &Stage, lies: &[Lie]) -> Verdict {
    let mut told = Vec::new();
    for lie in lies {
        let (server, driver) = lied_to(stage, lie)?;
        driver.say(&acquiring("lie", EXCLUSIVE, millis(300)), millis(300))?;
        told.push((lie, server, driver));
    }
    for (lie, _server, driver) in &told {
        let answer = driver.hear().and_then(Answer::must_not_be_a_yes);
        answer.map_err(|failure| failure.during(&format!("{lie:?}")))?;
        if stage.can("check") {
            driver.check("lie")?.must_not_be_a_yes()?;
        }
    }
    Ok(())
}

fn ids(stage: &Stage) -> Verdict {
    let ok = json!({"status": "ok", "token": 7});
    let mut lies: Vec<Lie> =
        [json!("other"), json!(4_000_000_000_u32), json!(null), json!([]), json!(-1), json!(1.0)]
            .iter()
            .map(|id| vec![Step::Message(json!({"id": id, "result": ok}))])
            .collect();
    lies.push(vec![Step::Message(json!({"result": ok}))]);
    lies.push(vec![Step::Message(json!({"attempted": "unlock", "result": "ok", "lockName": "lie"}))]);
    all_at_once(stage, &lies)
}

fn silent(stage: &Stage) -> Verdict {
    let lies = [
        vec![],
        vec![Step::FallSilent],
        vec![Step::Half, Step::FallSilent],
        vec![Step::Bytes(vec![0, 0]), Step::FallSilent],
    ];
    all_at_once(stage, &lies)
}
