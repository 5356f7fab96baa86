//! Runs of a broker, one after the other, with the same state directory.

mod sessions;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::broker::{AcquireError, Attempt, Broker, Grant, Limits, LocalSession, Mode};
use crate::os::Keepalive;
use crate::server::keeper::next_run::TOKENS_RESERVED;
use crate::server::keeper::record::{Record, RunEnd};
use crate::server::keeper::*;
use crate::server::state_dir::{go_on, resume};

const TIMEOUT: Duration = Keepalive::DEAD_PEER_TIMEOUT_MIN;
const NOW: Option<Duration> = Some(Duration::ZERO);

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn start(directory: &TempDir) -> (Broker, Keeper) {
    resume(directory.path(), Limits::default(), TIMEOUT, true).unwrap()
}

fn record(directory: &TempDir) -> Record {
    Record::parse(&fs::read(directory.path().join("state")).unwrap()).unwrap()
}

fn write(directory: &TempDir, record: &Record) {
    fs::write(directory.path().join("state"), record.encode()).unwrap();
}

fn acquire(session: &LocalSession) -> Result<Grant, AcquireError> {
    session.acquire(b"x", Mode::Exclusive, NOW)
}

/// Ends the grace now rather than in its time.
fn pass_grace(keeper: &Keeper) {
    let mut progress = keeper.shared.progress.lock();
    assert!(progress.grace_ends.is_some());
    progress.grace_ends = Some(Instant::now());
    drop(progress);
    keeper.shared.changed.notify_all();
    await_end_of_grace(keeper);
}

fn await_end_of_grace(keeper: &Keeper) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while keeper.shared.progress.lock().grace_ends.is_some() || !keeper.shared.broker.grace().is_zero() {
        assert!(Instant::now() < deadline, "the grace does not end");
        std::thread::yield_now();
    }
}

#[test]
fn after_a_clean_stop_locks_are_granted_at_once_and_tokens_continue() {
    let directory = directory();
    let (broker, keeper) = start(&directory);
    let first = acquire(&broker.open(None)).unwrap().token;
    assert_eq!(record(&directory).end, RunEnd::None);
    broker.shut();
    keeper.stopped().unwrap();
    assert_eq!(record(&directory).tokens_end, first + 1);
    let (broker, _keeper) = start(&directory);
    assert!(broker.grace().is_zero());
    assert!(acquire(&broker.open(None)).unwrap().token > first);
}

#[test]
fn after_an_unclean_end_nothing_is_granted_before_the_grace_is_over() {
    let directory = directory();
    let (broker, keeper) = start(&directory);
    let first = acquire(&broker.open(None)).unwrap().token;
    drop(keeper);
    drop(broker);
    let (broker, keeper) = start(&directory);
    assert!(broker.grace() > TIMEOUT / 2 && broker.grace() <= TIMEOUT);
    let (one, two) = (broker.open(None), broker.open(None));
    let refused = acquire(&one).unwrap_err();
    assert!(matches!(&refused, AcquireError::NotYet(reason) if reason.contains("has been started anew")));
    let set = [(b"x"[..].into(), Mode::Exclusive), (b"y"[..].into(), Mode::Shared)];
    assert!(matches!(one.acquire_all(&set, NOW), Err(AcquireError::NotYet(_))));
    // A short wait times out in the grace, a long one is granted after it.
    let short = one.acquire(b"x", Mode::Exclusive, Some(Duration::from_millis(1)));
    assert_eq!(short, Err(AcquireError::TimedOut));
    assert_eq!(one.enqueue(b"x", Mode::Exclusive), Ok(Attempt::Queued));
    assert_eq!(two.enqueue(b"x", Mode::Exclusive), Ok(Attempt::Queued));
    assert_eq!(one.inspect(b"x").holders, 0);
    pass_grace(&keeper);
    assert!(one.wait(b"x", None).unwrap().token > first);
    assert_eq!(two.inspect(b"x").holders, 1);
    one.release(b"x").unwrap();
    two.wait(b"x", None).unwrap();
    acquire(&one).unwrap_err();
}

#[test]
fn tokens_rise_although_the_clock_has_been_set_back() {
    let directory = directory();
    // The last run was at a time that is in the future for this one.
    let ahead = Broker::first_token_by_clock() + 1_000_000_000_000;
    write(
        &directory,
        &Record {
            tokens_end: ahead,
            dead_peer_timeout: TIMEOUT,
            end: RunEnd::Stopped { held: BTreeSet::new() },
            sessions: None,
        },
    );
    let (broker, keeper) = start(&directory);
    assert_eq!(acquire(&broker.open(None)).unwrap().token, ahead);
    assert!(record(&directory).tokens_end > ahead);
    drop(keeper);
    let (_broker, keeper) = start(&directory);
    pass_grace(&keeper);
    assert!(keeper.shared.broker.next_token() > ahead);
}

#[test]
fn a_grace_lasts_as_long_as_the_clients_of_the_last_run_need() {
    let directory = directory();
    // Shorter than any server allows.
    let (_, keeper) = resume(directory.path(), Limits::default(), TIMEOUT / 2, true).unwrap();
    assert_eq!(record(&directory).dead_peer_timeout, TIMEOUT);
    keeper.set_dead_peer_timeout(TIMEOUT * 20).unwrap();
    // Clients that have connected meanwhile keep the longer timeout.
    keeper.set_dead_peer_timeout(TIMEOUT).unwrap();
    drop(keeper);
    let (broker, keeper) = start(&directory);
    assert!(broker.grace() > TIMEOUT * 19);
    // A run that ends in its grace, even cleanly, has not waited long enough for them.
    broker.shut();
    keeper.stopped().unwrap();
    let (broker, _keeper) = start(&directory);
    assert!(broker.grace() > TIMEOUT * 19);
}

#[test]
fn a_broker_that_is_shut_in_its_grace_grants_nothing_when_that_is_over() {
    let directory = directory();
    drop(start(&directory));
    let (broker, keeper) = start(&directory);
    let session = broker.open(None);
    assert_eq!(session.enqueue(b"x", Mode::Exclusive), Ok(Attempt::Queued));
    broker.shut();
    pass_grace(&keeper);
    assert!(matches!(session.wait(b"x", None), Err(AcquireError::Refused(_))));
    assert!(matches!(acquire(&session), Err(AcquireError::Refused(_))));
}

#[test]
fn tokens_are_reserved_ahead_and_never_given_beyond_that() {
    let directory = directory();
    let (broker, keeper) = start(&directory);
    let reserved = record(&directory).tokens_end;
    keeper.shared.keep_ahead().unwrap();
    assert_eq!(record(&directory).tokens_end, reserved, "there are enough");
    let session = broker.open(None);
    let token = acquire(&session).unwrap().token;
    assert!(token < reserved);
    // As if most of the reserved tokens had been given.
    broker.set_tokens_end(token + TOKENS_RESERVED / 4);
    keeper.shared.kept.lock().1.tokens_end = token + TOKENS_RESERVED / 4;
    keeper.shared.keep_ahead().unwrap();
    let raised = record(&directory).tokens_end;
    assert!(raised > token + TOKENS_RESERVED, "{raised}");
    // At the end of the reserve the broker fails, since another run could give the next token of
    // this name, too.
    broker.set_tokens_end(token + 1);
    session.release(b"x").unwrap();
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| acquire(&session)));
    assert!(failed.is_err() && broker.has_failed());
}

/// The keeper that a new image of the process has, while the old one rests.
fn gone_on(directory: &TempDir, keeper: &Keeper, broker: &Broker) -> Keeper {
    let rest = keeper.rest(Duration::from_secs(60)).unwrap();
    let snapshot = rest.snapshot();
    let json = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(serde_json::from_str::<KeeperSnapshot>(&json).unwrap(), snapshot);
    let locked = keeper.shared.kept.lock().0.lock().unwrap().try_clone_to_owned().unwrap();
    go_on(directory.path(), locked, &snapshot, broker).unwrap()
}

#[test]
fn a_keeper_that_goes_on_writes_nothing_and_stops_as_the_first_one() {
    let directory = directory();
    let (broker, first) = start(&directory);
    let before = record(&directory);
    let keeper = gone_on(&directory, &first, &broker);
    drop(first);
    assert!(broker.grace().is_zero());
    assert_eq!(record(&directory), before, "also not stopped");
    let error = resume(directory.path(), Limits::default(), TIMEOUT, true).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "it is locked all the time");
    let token = acquire(&broker.open(None)).unwrap().token;
    keeper.set_dead_peer_timeout(2 * TIMEOUT).unwrap();
    assert_eq!(record(&directory).dead_peer_timeout, 2 * TIMEOUT);
    broker.shut();
    keeper.stopped().unwrap();
    assert_ne!(record(&directory).end, RunEnd::None);
    assert_eq!(record(&directory).tokens_end, token + 1);
}

#[test]
fn a_grace_goes_on_and_ends_once() {
    let directory = directory();
    drop(start(&directory));
    let (broker, first) = start(&directory);
    let left = broker.grace();
    let keeper = gone_on(&directory, &first, &broker);
    drop(first);
    assert!(!broker.grace().is_zero() && broker.grace() <= left);
    let session = broker.open(None);
    assert!(acquire(&session).is_err());
    pass_grace(&keeper);
    assert!(acquire(&session).is_ok());
    assert!(!keeper.rest(Duration::from_secs(60)).unwrap().snapshot().in_grace);
}

#[test]
fn a_keeper_that_rests_ends_no_grace_and_goes_on_afterwards() {
    let directory = directory();
    drop(start(&directory));
    let (broker, keeper) = start(&directory);
    let rest = keeper.rest(Duration::from_secs(60)).unwrap();
    keeper.shared.progress.lock().grace_ends = Some(Instant::now());
    keeper.shared.changed.notify_all();
    // It may wake late, but it must not do anything then.
    let until = Instant::now() + Duration::from_millis(100);
    while Instant::now() < until {
        assert!(rest.snapshot().in_grace && !broker.grace().is_zero());
        std::thread::yield_now();
    }
    drop(rest);
    await_end_of_grace(&keeper);
}

#[test]
fn a_keeper_that_is_busy_does_not_rest() {
    let directory = directory();
    let (_broker, keeper) = start(&directory);
    // As if it were writing.
    let _ = keeper.rest(Duration::from_secs(60)).unwrap();
    keeper.shared.progress.lock().is_busy = true;
    let error = keeper.rest(Duration::ZERO).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(!keeper.shared.progress.lock().rest);
}

#[test]
fn a_directory_is_used_by_one_process_at_a_time() {
    let directory = directory();
    let (_broker, keeper) = start(&directory);
    let error = resume(directory.path(), Limits::default(), TIMEOUT, true).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains("another lockd"), "{error}");
    drop(keeper);
    start(&directory);
}

#[test]
fn a_damaged_or_foreign_file_is_refused_and_left_as_it_is() {
    let whole = Record {
        tokens_end: 7,
        dead_peer_timeout: TIMEOUT,
        end: RunEnd::Stopped { held: BTreeSet::new() },
        sessions: None,
    }
    .encode()
    .into_bytes();
    let foreign = b"[Unit]\nDescription=something else\n".to_vec();
    for bytes in [&whole[..10], &whole[..whole.len() - 1], &foreign, &[b' '; 5000], b""] {
        let directory = directory();
        let file = directory.path().join("state");
        fs::write(&file, bytes).unwrap();
        let error = resume(directory.path(), Limits::default(), TIMEOUT, true).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let text = error.to_string();
        assert!(text.contains(&*file.to_string_lossy()) && text.contains("may be removed"), "{text}");
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
}

#[test]
fn the_rest_of_an_interrupted_write_is_ignored() {
    let directory = directory();
    fs::write(directory.path().join("state.new"), "lockd st").unwrap();
    let (broker, _keeper) = start(&directory);
    assert!(broker.grace().is_zero());
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below"), directory.path().join("no/such")] {
        let error = resume(&path, Limits::default(), TIMEOUT, true).err().unwrap();
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    }
}
