//! Sessions that resume, on a server under control: what the client says while it is in doubt, what
//! it shows when it resumes, and what it does to its connections.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Pace, Trial};
use crate::calls::{EXCLUSIVE, SHARED, acquiring, converting};
use crate::driver::{Driver, FOREVER, HANG, NOW, millis};
use crate::fake_server::name_of;
use crate::outcome::Word;
use crate::relay::End;
use crate::resuming_server::{ResumingServer, SESSION, ToResume, secret_of};
use crate::stage::Stage;
use crate::verdict::{Verdict, ensure};

pub(super) const TRIALS: &[Trial] = &[
    Trial::new("doubt-calls", "In doubt no call says yes, and none hangs.", &["resume", "check"], calls),
    Trial::new(
        "doubt-streams",
        "In doubt the client ends no stream; when it is resumed, it resets what is left.",
        &["resume"],
        streams,
    )
    .pace(Pace::Waits),
    Trial::new("doubt-claims", "A session resumes with the locks that it holds.", &["resume"], claims),
    Trial::new(
        "doubt-released",
        "What is being released is not claimed, and is released when the session is resumed.",
        &["resume", "check"],
        released,
    ),
    Trial::new(
        "doubt-unread",
        "A grant that the client has not read is not claimed, and the client asks again.",
        &["resume", "wait"],
        unread,
    ),
    Trial::new(
        "doubt-converted",
        "Of a conversion under way, the mode is claimed that allows more holders.",
        &["resume", "convert", "shared"],
        converted,
    ),
    Trial::new(
        "doubt-attempts",
        "An attempt that comes to nothing is followed by another one, with a higher number.",
        &["resume"],
        attempts,
    ),
    Trial::new(
        "doubt-ended",
        "A session that the server has ended is lost; its connections end when it is closed.",
        &["resume", "check"],
        ended,
    ),
    Trial::new(
        "doubt-not-offered",
        "A session is lost with its connection if the server has not offered to resume it.",
        &["resume", "check"],
        not_offered,
    ),
    Trial::new(
        "doubt-late",
        "A session is lost if the client reads too late that it was resumed.",
        &["resume", "check"],
        late,
    )
    .pace(Pace::Waits),
    Trial::new(
        "doubt-proof",
        "Only answers prove something: after a long time without any, the end of the connection is a loss.",
        &["resume", "check"],
        proof,
    )
    .pace(Pace::Waits),
    Trial::new(
        "doubt-pings",
        "A client that is asked, or waits, now and then asks the server, so that it can resume.",
        &["resume", "wait"],
        pings,
    )
    .pace(Pace::Deep),
];

/// For how long a session is in doubt at most, from the latest proof, if the dead-peer timeout is 12 s
/// as for all servers of the kit: 2·B + 2.5 s, where B is 3 s.
const DOUBT: Duration = Duration::from_millis(8500);

pub(super) const LONGER_THAN_DOUBT: Duration = Duration::from_millis(9200);

/// A server under control, and a driver with a session that can resume.
fn set(stage: &Stage) -> Verdict<(ResumingServer, Driver)> {
    let server = ResumingServer::start(&stage.host, &stage.transcript);
    let driver = stage.connected_to(server.url())?;
    driver.state()?.must_be(Word::Alive)?;
    Ok((server, driver))
}

/// The same; it holds `a`, and is in doubt. What it tries then is answered by the plan.
fn in_doubt(stage: &Stage, plan: &[ToResume]) -> Verdict<(ResumingServer, Driver)> {
    let (server, driver) = set(stage)?;
    driver.hold("a", EXCLUSIVE)?;
    // Refused, so that no client knows its fate before it has said that it is in doubt.
    server.end_connection(End::Fin)?;
    driver.until_doubt()?;
    server.answer_resume(plan);
    Ok((server, driver))
}

fn is_resumed(driver: &Driver) -> Verdict {
    driver.certain(HANG)?.must_be(Word::Alive).map(drop)
}

/// A claim as the trials write it: name, mode or limit, token.
fn claim(name: &str, mode: &str, token: Option<u64>) -> Value {
    json!([name, mode, token])
}

/// The claims in the parameters of a `resume`, in the order of their names.
fn claims_of(parameters: &Value) -> Vec<Value> {
    let read = |lock: &Value| {
        let name = name_of(&json!({"parameters": lock}));
        let limit = lock["limit"].as_u64().map(|limit| json!(format!("at-most:{limit}")));
        json!([name, limit.unwrap_or_else(|| lock["mode"].clone()), lock["token"]])
    };
    let mut claims: Vec<_> = parameters["locks"].as_array().into_iter().flatten().map(read).collect();
    claims.sort_by_key(ToString::to_string);
    claims
}

/// The latest `resume` claims exactly this.
fn has_claimed(server: &ResumingServer, expected: &[Value]) -> Verdict {
    let resumes = server.resumes();
    let claims = resumes.last().map(|(_, parameters)| claims_of(parameters));
    ensure(claims.as_deref() == Some(expected), || {
        format!("the client claims {claims:?}, and must claim {expected:?}")
    })
}

fn calls(stage: &Stage) -> Verdict {
    let (server, driver) = set(stage)?;
    for name in ["a", "b", "c"] {
        driver.hold(name, EXCLUSIVE)?;
    }
    server.end_connection(End::Fin)?;
    let short = millis(300);
    driver.until_doubt()?;
    driver.check("a")?.must_be(Word::Doubt)?;
    driver.acquire("n", EXCLUSIVE, NOW)?.must_be(Word::Doubt)?;
    driver.certain(Duration::from_millis(200))?.must_be(Word::Doubt)?;
    if stage.can("limit-wait") {
        driver.acquire("n", EXCLUSIVE, short)?.must_be(Word::Doubt)?;
    }
    if stage.can("convert") && stage.can("shared") {
        driver.convert("b", SHARED, NOW)?.must_be(Word::Doubt)?;
        driver.convert("b", SHARED, short)?.must_be(Word::Doubt)?;
    }
    if stage.can("inspect") {
        driver.inspect("a")?.must_be(Word::Doubt)?;
    }
    driver.release("c")?.must_be(Word::Doubt)?;
    driver.check("c")?.must_be_one_of(&[Word::Doubt, Word::NotHeld])?;
    driver.until_doubt()?;
    server.answer_resume(&[ToResume::Resumed]);
    is_resumed(&driver)?;
    driver.check("a")?.must_be(Word::Held)?;
    driver.check("c")?.must_be(Word::NotHeld)?;
    gives_up(&server, "c")?;
    server.no_stream_was_ended_in_doubt()?;
    driver.close()
}

/// The last `resume` does not claim the name, or the next request releases it.
fn gives_up(server: &ResumingServer, name: &str) -> Verdict {
    let resumes = server.resumes();
    let last = resumes.last().map(|(connection, parameters)| (*connection, claims_of(parameters)));
    let (connection, claims) = last.unwrap_or_default();
    let next = server.requests(connection).get(1).cloned().unwrap_or_default();
    let is_claimed = claims.iter().any(|claim| claim[0] == name);
    let is_released = next["command"] == "unlock" && name_of(&next).as_deref() == Some(name);
    ensure(!is_claimed || is_released, || {
        format!("{name} was released in doubt; it is claimed, and what follows is {next}")
    })
}

fn streams(stage: &Stage) -> Verdict {
    let plan = [ToResume::Nothing, ToResume::Refused, ToResume::Fin, ToResume::Resumed];
    let (server, driver) = in_doubt(stage, &plan)?;
    driver.certain(Duration::from_millis(300))?.must_be(Word::Doubt)?;
    is_resumed(&driver)?;
    server.no_stream_was_ended_in_doubt()?;
    let resumes = server.resumes();
    let (last, earlier) = resumes.split_last().expect("it was resumed");
    server.until_ended(0, End::Reset)?;
    for (connection, _) in earlier {
        server.until_ended(*connection, End::Reset)?;
    }
    ensure(server.end_of(last.0).is_none(), || "the client has ended the connection that it has".to_owned())?;
    driver.close()?;
    server.until_ended(last.0, End::Fin)
}

fn claims(stage: &Stage) -> Verdict {
    let (server, driver) = set(stage)?;
    let mut expected = Vec::new();
    let mut hold = |name: &str, mode: &str| {
        driver.hold(name, mode)?;
        expected.push(claim(name, mode, server.token(name)));
        Ok(())
    };
    hold("a", EXCLUSIVE)?;
    hold("b b/\u{e9}", EXCLUSIVE)?;
    if stage.can("limit") {
        hold("c", "at-most:4")?;
    }
    if stage.can("shared") {
        hold("d", SHARED)?;
    }
    driver.hold("released", EXCLUSIVE)?;
    driver.release("released")?.must_be(Word::Ok)?;
    if stage.can("convert") && stage.can("shared") {
        driver.hold("e", EXCLUSIVE)?;
        driver.convert("e", SHARED, NOW)?.must_be(Word::Granted)?;
        expected.push(claim("e", SHARED, server.token("e")));
    }
    server.answer_resume(&[ToResume::Resumed]);
    server.end_connection(End::Reset)?;
    is_resumed(&driver)?;
    has_claimed(&server, &expected)?;
    let (connection, parameters) = server.resumes().pop().expect("it was resumed");
    let told = json!([SESSION, 7, secret_of(7), 12]);
    let shown = ["session", "epoch", "secret", "deadPeerTimeout"].map(|key| parameters[key].clone());
    ensure(json!(shown) == told, || format!("the client shows {shown:?}, and was told {told}"))?;
    ensure(server.count(connection, "hello") == 0, || "it has said hello after resume".to_owned())?;
    driver.close()
}

fn released(stage: &Stage) -> Verdict {
    let (server, driver) = set(stage)?;
    for name in ["a", "b"] {
        driver.hold(name, EXCLUSIVE)?;
    }
    server.withhold(&["unlock"]);
    server.answer_resume(&[ToResume::Resumed]);
    driver.say("release b", NOW)?;
    server.until_asked("unlock", 1)?;
    server.withhold(&[]);
    server.end_connection(End::Fin)?;
    // It has succeeded, because the server has released what was not claimed.
    driver.hear()?.must_be(Word::Ok)?;
    has_claimed(&server, &[claim("a", EXCLUSIVE, server.token("a"))])?;
    driver.check("a")?.must_be(Word::Held)?;
    driver.check("b")?.must_be(Word::NotHeld)?;
    // The same when nothing else is held: that it is released is certain only then.
    server.withhold(&["unlock"]);
    server.answer_resume(&[ToResume::Resumed]);
    driver.say("release a", NOW)?;
    server.until_asked("unlock", 1)?;
    server.withhold(&[]);
    server.end_connection(End::Fin)?;
    driver.hear()?.must_be(Word::Ok)?;
    has_claimed(&server, &[])?;
    driver.close()
}

fn unread(stage: &Stage) -> Verdict {
    let (server, driver) = set(stage)?;
    driver.hold("a", EXCLUSIVE)?;
    server.withhold(&["lock"]);
    server.answer_resume(&[ToResume::Refused, ToResume::Resumed]);
    driver.say(&acquiring("b", EXCLUSIVE, FOREVER), FOREVER)?;
    server.until_asked("lock", 2)?;
    driver.has_no_outcome()?;
    server.withhold(&[]);
    server.end_connection(End::Fin)?;
    driver.hear()?.must_be(Word::Granted)?;
    has_claimed(&server, &[claim("a", EXCLUSIVE, server.token("a"))])?;
    let (connection, _) = server.resumes().pop().expect("it was resumed");
    let asked = server.count(connection, "lock");
    ensure(asked == 1, || format!("after it was resumed, the client has asked for the lock {asked} times"))?;
    driver.close()
}

fn converted(stage: &Stage) -> Verdict {
    for (held, wanted) in [(EXCLUSIVE, SHARED), (SHARED, EXCLUSIVE)] {
        let (server, driver) = set(stage)?;
        driver.hold("a", held)?;
        let token = server.token("a");
        server.withhold(&["convert"]);
        server.answer_resume(&[ToResume::Resumed]);
        driver.say(&converting("a", wanted, FOREVER), FOREVER)?;
        server.until_asked("convert", 1)?;
        server.withhold(&[]);
        server.end_connection(End::Fin)?;
        // It may have been resumed, and then converted, before the call has returned.
        driver.hear()?.must_be_one_of(&[Word::Granted, Word::Doubt])?;
        is_resumed(&driver)?;
        has_claimed(&server, &[claim("a", SHARED, token)])
            .map_err(|failure| failure.during(&format!("from {held} to {wanted}")))?;
        driver.close()?;
    }
    Ok(())
}

fn attempts(stage: &Stage) -> Verdict {
    let failures = [
        ToResume::Reset,
        ToResume::Fin,
        ToResume::Garbage,
        ToResume::Refused,
        ToResume::NoRoom,
        ToResume::Resumed,
    ];
    let (server, driver) = in_doubt(stage, &failures)?;
    is_resumed(&driver)?;
    // The number goes on to rise, and the epoch is that which was told last.
    server.answer_resume(&[ToResume::Resumed]);
    server.end_connection(End::Fin)?;
    is_resumed(&driver)?;
    let shown: Vec<_> = server.resumes().into_iter().map(|(_, parameters)| parameters).collect();
    let numbers: Vec<_> = shown.iter().filter_map(|parameters| parameters["attempt"].as_u64()).collect();
    ensure(numbers.len() > failures.len() && numbers.is_sorted_by(|one, next| one < next), || {
        format!("the attempts have the numbers {numbers:?}")
    })?;
    let epochs: Vec<_> = shown.iter().map(|parameters| parameters["epoch"].clone()).collect();
    let (last, earlier) = epochs.split_last().expect("it was resumed");
    ensure(*last == 8 && earlier.iter().all(|epoch| *epoch == 7), || {
        format!("the client shows the epochs {epochs:?}; it was told 7, and 8 when it was resumed first")
    })?;
    driver.close()
}

fn ended(stage: &Stage) -> Verdict {
    for answer in [ToResume::Ended, ToResume::Unknown, ToResume::Invalid] {
        let (server, driver) = in_doubt(stage, &[answer])?;
        let judged = is_ended(&server, &driver);
        judged.map_err(|failure| failure.during(&format!("{answer:?}")))?;
    }
    Ok(())
}

fn is_ended(server: &ResumingServer, driver: &Driver) -> Verdict {
    driver.certain(HANG)?.must_be(Word::Lost)?;
    driver.check("a")?.must_be_lost()?;
    driver.acquire("n", EXCLUSIVE, NOW)?.must_be(Word::Lost)?;
    let resumes = server.resumes();
    let (connection, _) = resumes.last().expect("it has tried");
    ensure(server.end_of(0).is_none() && server.end_of(*connection).is_none(), || {
        "the client has ended a connection, and its caller may not have ended the work".to_owned()
    })?;
    driver.ask("close", NOW)?.must_be_one_of(&[Word::Ok, Word::Lost])?;
    server.until_ended(*connection, End::Fin)?;
    server.until_ended(0, End::Fin)
}

fn not_offered(stage: &Stage) -> Verdict {
    let server = ResumingServer::start(&stage.host, &stage.transcript);
    server.offer_nothing();
    server.answer_resume(&[ToResume::Resumed]);
    let driver = stage.connected_to(server.url())?;
    driver.hold("a", EXCLUSIVE)?;
    driver.check("a")?.must_be(Word::Held)?;
    server.end_connection(End::Fin)?;
    driver.state()?.must_be(Word::Lost)?;
    driver.check("a")?.must_be_lost()?;
    driver.release("a")?.must_be(Word::Lost)?;
    ensure(server.connections() == 1, || "the client has connected again".to_owned())
}

fn late(stage: &Stage) -> Verdict {
    let (server, driver) = set(stage)?;
    driver.hold("a", EXCLUSIVE)?;
    let begun = Instant::now();
    server.end_connection(End::Fin)?;
    // An attempt that begins so late that its own time is not over when that of the session is.
    driver.certain(DOUBT - Duration::from_millis(1300))?.must_be_one_of(&[Word::Doubt, Word::Lost])?;
    server.answer_resume(&[ToResume::Nothing]);
    while !server.leaves_resume_unanswered() && begun.elapsed() < DOUBT {
        if driver.state()?.must_be_one_of(&[Word::Doubt, Word::Lost])?.word == Word::Lost {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    driver.stop()?;
    server.answer_resume(&[ToResume::Resumed]);
    server.answer_resume_late()?;
    thread::sleep((DOUBT + Duration::from_millis(200)).saturating_sub(begun.elapsed()));
    driver.resume();
    driver.state()?.must_be(Word::Lost)?;
    driver.check("a")?.must_be_lost()?;
    driver.certain(HANG)?.must_be(Word::Lost).map(drop)
}

fn proof(stage: &Stage) -> Verdict {
    let (server, driver) = set(stage)?;
    driver.hold("a", EXCLUSIVE)?;
    server.withhold(&["ping"]);
    server.answer_resume(&[ToResume::Resumed]);
    let begun = Instant::now();
    while begun.elapsed() < LONGER_THAN_DOUBT {
        // A connection that is open leaves no doubt.
        driver.state()?.must_be(Word::Alive)?;
        thread::sleep(Duration::from_millis(500));
    }
    server.end_connection(End::Reset)?;
    driver.state()?.must_be(Word::Lost)?;
    driver.check("a")?.must_be_lost()?;
    ensure(server.resumes().is_empty(), || "the client has tried to resume".to_owned())
}

fn pings(stage: &Stage) -> Verdict {
    let (asked_server, asked) = set(stage)?;
    let (waited_server, waiting) = set(stage)?;
    for (server, driver) in [(&asked_server, &asked), (&waited_server, &waiting)] {
        driver.hold("a", EXCLUSIVE)?;
        server.answer_resume(&[ToResume::Resumed]);
    }
    waited_server.withhold(&["lock"]);
    waiting.say(&acquiring("b", EXCLUSIVE, FOREVER), FOREVER)?;
    waited_server.until_asked("lock", 2)?;
    let begun = Instant::now();
    while begun.elapsed() < LONGER_THAN_DOUBT {
        asked.state()?.must_be(Word::Alive)?;
        thread::sleep(Duration::from_millis(500));
    }
    waited_server.withhold(&[]);
    for server in [&asked_server, &waited_server] {
        server.end_connection(End::Fin)?;
    }
    is_resumed(&asked)?;
    waiting.hear()?.must_be(Word::Granted)?;
    has_claimed(&asked_server, &[claim("a", EXCLUSIVE, asked_server.token("a"))])?;
    has_claimed(&waited_server, &[claim("a", EXCLUSIVE, waited_server.token("a"))])?;
    asked.close()?;
    waiting.close()
}
