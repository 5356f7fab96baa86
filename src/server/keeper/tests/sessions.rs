//! What runs leave to one another about sessions that resume.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::server::resume::secret_key::random_id;
use crate::wire::message::ResumeId;

const EARLY: &str = "this run does not know it";

fn id() -> ResumeId {
    random_id().unwrap()
}

/// A run that is killed.
fn killed(directory: &TempDir) {
    drop(start(directory));
}

fn stopped_with(directory: &TempDir, held: &[ResumeId]) {
    let (broker, keeper) = start(directory);
    broker.shut();
    keeper.resumption().note_held(held.to_vec());
    keeper.stopped().unwrap();
}

fn check(keeper: &Keeper, id: ResumeId, epoch: u64) -> Result<(), &'static str> {
    keeper.resumption().check_earlier(id, epoch)
}

#[test]
fn runs_are_numbered_and_a_secret_holds_in_later_runs() {
    let directory = directory();
    let (_, keeper) = start(&directory);
    let (session, one) = (id(), keeper.resumption());
    assert_eq!(one.epoch(), 1);
    let secret = one.secret(session, TIMEOUT);
    drop((one, keeper));
    let (_, keeper) = start(&directory);
    let two = keeper.resumption();
    assert_eq!(two.epoch(), 2);
    assert!(two.is_secret(&secret, session, 1, TIMEOUT));
    assert!(!two.is_secret(&secret, session, 2, TIMEOUT));
}

#[test]
fn sessions_resume_in_the_grace_of_a_later_run_unless_a_run_has_granted_since() {
    let directory = directory();
    killed(&directory);
    // Two runs that end in their grace.
    killed(&directory);
    let (_, keeper) = start(&directory);
    let epoch = keeper.resumption().epoch();
    assert_eq!(epoch, 3);
    assert_eq!(check(&keeper, id(), 1), Ok(()));
    assert_eq!(check(&keeper, id(), 2), Ok(()));
    assert!(check(&keeper, id(), 0).is_err() && check(&keeper, id(), epoch).is_err());
    pass_grace(&keeper);
    assert_eq!(record(&directory).sessions.unwrap().opened, epoch);
    assert!(check(&keeper, id(), 2).unwrap_err().contains(EARLY));
    drop(keeper);
    let (_, keeper) = start(&directory);
    assert_eq!(check(&keeper, id(), 3), Ok(()));
    assert!(check(&keeper, id(), 2).is_err());
}

#[test]
fn a_run_without_a_grace_lets_nobody_resume() {
    let directory = directory();
    stopped_with(&directory, &[]);
    let (broker, keeper) = start(&directory);
    assert!(broker.grace().is_zero() && keeper.grace_cause().is_none());
    assert!(check(&keeper, id(), 1).is_err());
    assert_eq!(record(&directory).sessions.unwrap().opened, 2);
}

#[test]
fn the_grace_after_a_clean_stop_ends_when_all_holders_are_back() {
    let directory = directory();
    let (one, two) = (id(), id());
    stopped_with(&directory, &[one, two]);
    let (broker, keeper) = start(&directory);
    assert_eq!(keeper.grace_cause(), Some(GraceCause::Held(2)));
    let resumption = keeper.resumption();
    resumption.settle(id());
    resumption.settle(one);
    resumption.settle(one);
    assert!(!broker.grace().is_zero());
    assert_eq!(check(&keeper, two, 1), Ok(()));
    // It may not have heard of the run at which it resumed last.
    assert_eq!(check(&keeper, two, 0), Ok(()));
    assert!(check(&keeper, id(), 0).is_err());
    resumption.settle(two);
    await_end_of_grace(&keeper);
    assert_eq!(record(&directory).sessions.unwrap().opened, 2, "on disk before anything is granted");
}

/// Otherwise holders of the run before the last one could be forgotten.
#[test]
fn a_run_that_stops_in_its_grace_names_nobody() {
    let directory = directory();
    killed(&directory);
    let (one, _) = (id(), ());
    stopped_with(&directory, &[one]);
    let (_, keeper) = start(&directory);
    assert_eq!(keeper.grace_cause(), Some(GraceCause::Unclean));
    keeper.resumption().settle(one);
    assert!(!keeper.shared.broker.grace().is_zero());
}

#[test]
fn a_session_with_a_tombstone_cannot_resume_until_the_runs_that_know_it_are_forgotten() {
    let directory = directory();
    let (buried, other, in_grace) = (id(), id(), id());
    let (_, keeper) = start(&directory);
    keeper.resumption().bury(&[buried]).unwrap();
    drop(keeper);
    let file = directory.path().join("tombstones");
    // A line that was torn does no harm, not even to the next one.
    let torn = format!("{}{}", fs::read_to_string(&file).unwrap(), &other.to_string()[..20]);
    fs::write(&file, torn).unwrap();
    let (_, keeper) = start(&directory);
    assert!(check(&keeper, buried, 1).is_err());
    assert_eq!(check(&keeper, other, 1), Ok(()));
    keeper.resumption().bury(&[in_grace]).unwrap();
    assert!(check(&keeper, in_grace, 1).is_err());
    drop(keeper);
    let (_, keeper) = start(&directory);
    assert!(check(&keeper, buried, 1).is_err() && check(&keeper, in_grace, 2).is_err());
    keeper.resumption().bury(&[other]).unwrap();
    pass_grace(&keeper);
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::read_to_string(&file).unwrap().lines().count() != 1 {
        assert!(Instant::now() < deadline, "those of earlier runs stay");
        std::thread::yield_now();
    }
    drop(keeper);
    let (_, keeper) = start(&directory);
    assert!(check(&keeper, other, 3).is_err());
    assert_eq!(check(&keeper, id(), 3), Ok(()));
}

#[test]
fn if_the_tombstones_are_damaged_nobody_resumes() {
    let directory = directory();
    killed(&directory);
    fs::write(directory.path().join("tombstones"), "something else\n").unwrap();
    let (_, keeper) = start(&directory);
    assert!(check(&keeper, id(), 1).unwrap_err().contains("damaged"));
}

#[test]
fn what_cannot_be_written_down_is_an_error() {
    if rustix::process::geteuid().is_root() {
        // Permissions do not keep root from writing; a directory in its place does.
        let directory = directory();
        let (_, keeper) = start(&directory);
        fs::remove_file(directory.path().join("tombstones")).unwrap();
        fs::create_dir(directory.path().join("tombstones")).unwrap();
        keeper.resumption().bury(&[id()]).unwrap_err();
        return;
    }
    let directory = directory();
    let (_, keeper) = start(&directory);
    let file = directory.path().join("tombstones");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    keeper.resumption().bury(&[id()]).unwrap_err();
}

#[test]
fn a_new_directory_has_a_grace_unless_there_was_no_server_before() {
    let directory = directory();
    let (broker, keeper) = resume(directory.path(), Limits::default(), TIMEOUT, false).unwrap();
    assert_eq!(keeper.grace_cause(), Some(GraceCause::NewStore));
    assert!(broker.grace() > TIMEOUT / 2);
    drop(keeper);
    // That there was none before is not believed of a directory that shows one.
    let (broker, keeper) = start(&directory);
    assert_eq!(keeper.grace_cause(), Some(GraceCause::Unclean));
    assert!(!broker.grace().is_zero());
}

#[test]
fn a_directory_of_an_earlier_version_is_read() {
    let directory = directory();
    let tokens_end = Broker::first_token_by_clock();
    let before = Record { tokens_end, dead_peer_timeout: TIMEOUT, end: RunEnd::None, sessions: None };
    write(&directory, &before);
    let (broker, keeper) = start(&directory);
    assert!(!broker.grace().is_zero());
    assert_eq!(keeper.resumption().epoch(), 1);
    assert!(check(&keeper, id(), 1).is_err());
}

#[test]
fn the_next_image_of_a_run_knows_the_same() {
    let directory = directory();
    let (one, two, buried) = (id(), id(), id());
    stopped_with(&directory, &[one, two]);
    let (broker, first) = start(&directory);
    first.resumption().settle(one);
    first.resumption().bury(&[buried]).unwrap();
    let secret = first.resumption().secret(two, TIMEOUT);
    let keeper = gone_on(&directory, &first, &broker);
    drop(first);
    let resumption = keeper.resumption();
    assert_eq!(resumption.epoch(), 2);
    assert!(resumption.is_secret(&secret, two, 2, TIMEOUT));
    assert!(check(&keeper, buried, 1).is_err());
    assert_eq!(check(&keeper, two, 1), Ok(()));
    resumption.settle(two);
    await_end_of_grace(&keeper);
}

#[test]
fn an_image_after_one_that_knew_of_no_such_sessions_begins_to_number_the_runs() {
    let directory = directory();
    let (broker, first) = start(&directory);
    let rest = first.rest(Duration::from_secs(60)).unwrap();
    let snapshot = KeeperSnapshot { sessions: None, ..rest.snapshot() };
    let locked = first.shared.kept.lock().0.lock().unwrap().try_clone_to_owned().unwrap();
    let keeper = go_on(directory.path(), locked, &snapshot, &broker).unwrap();
    assert_eq!(keeper.resumption().epoch(), 1);
    let sessions = record(&directory).sessions.unwrap();
    assert_eq!((sessions.epoch, sessions.opened), (1, 1));
}
