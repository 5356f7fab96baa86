//! Tests of the checker with histories of a few calls, made by hand: what is broken fencing or an
//! overtaking, and what is not.

use crate::checker::search::is_possible;
use crate::checker::{Model, Rules, check};
use crate::history::{
    Call, CallKind, History, MILLISECOND, Mode, NEVER, Name, Nanos, Outcome, ServerLife, Session,
};

const RULES: Rules = Rules { grant_delay_max: NEVER, end_notice_max: 0, clock_lead: 0 };

const ACQUIRE: CallKind = CallKind::Acquire { limit: None };
const CONVERT: CallKind = CallKind::Convert { limit: None };

/// A history in the making.
#[derive(Default)]
struct Made {
    history: History,
}

impl Made {
    fn session(&mut self) -> usize {
        let label = format!("session {}", self.history.sessions.len());
        self.history.sessions.push(Session { label, alive_until: NEVER, ..Session::default() });
        self.history.sessions.len() - 1
    }

    fn call(
        &mut self,
        session: usize,
        kind: CallKind,
        wants: &[(Name, Mode)],
        at: (Nanos, Nanos),
        outcome: Outcome,
    ) {
        let (wants, (start, end)) = (wants.into(), at);
        self.history.calls.push(Call {
            session,
            kind,
            wants,
            start,
            end,
            queued: None,
            gave_up: None,
            outcome,
        });
        self.history.end = self.history.end.max(end);
    }

    /// A session of its own acquires these names at `at`, and releases them soon after.
    fn pair(mut self, names: &[Name], mode: Mode, at: Nanos, token: u64) -> Self {
        let session = self.session();
        let wants: Vec<_> = names.iter().map(|&name| (name, mode)).collect();
        self.call(session, ACQUIRE, &wants, (at, at + 3), Outcome::Granted(Some(token)));
        self.call(session, CallKind::Release, &wants, (at + 4, at + 6), Outcome::Released);
        self
    }

    /// The same, of one name in exclusive mode.
    fn one(self, name: Name, at: Nanos, token: u64) -> Self {
        self.pair(&[name], Mode::Exclusive, at, token)
    }

    /// One session acquires n0 in shared mode, converts it to exclusive, and back.
    fn conversions(mut self, at: Nanos, tokens: [u64; 3]) -> Self {
        let session = self.session();
        let modes = [Mode::Shared, Mode::Exclusive, Mode::Shared];
        for (step, (mode, token)) in (0..).zip(modes.into_iter().zip(tokens)) {
            let kind = if step == 0 { ACQUIRE } else { CONVERT };
            let start = at + 10 * step;
            self.call(session, kind, &[(0, mode)], (start, start + 3), Outcome::Granted(Some(token)));
        }
        self
    }

    fn is_broken(&self) -> bool {
        let verdict = check(&self.history, &RULES);
        let fencing = verdict.convicts(Model::Fencing) || verdict.convicts(Model::Sets);
        assert_eq!(fencing, !verdict.acquits(), "{}", verdict.report(&self.history));
        assert_eq!(fencing, !is_possible(&self.history), "{}", verdict.report(&self.history));
        fencing
    }
}

fn is_broken(made: Made) -> bool {
    made.is_broken()
}

#[test]
fn names_are_judged_each_by_itself() {
    let first = || Made::default().one(0, 0, 10);
    assert!(is_broken(first().one(0, 20, 9)), "lower for the same name");
    assert!(is_broken(first().one(0, 20, 10)), "the same for the same name");
    assert!(!is_broken(first().one(0, 20, 11)), "higher for the same name");
    assert!(!is_broken(first().one(1, 20, 9)), "lower for another name");
    assert!(!is_broken(first().one(1, 20, 10)), "the same for another name");
    assert!(!is_broken(first().one(1, 20, 9).one(0, 40, 11).one(1, 60, 10)), "crossing");
    assert!(is_broken(first().one(1, 20, 9).one(0, 40, 11).one(1, 60, 9)), "repeated after a crossing");
}

#[test]
fn a_set_counts_for_each_of_its_names() {
    let set = |made: Made, names: &[Name], at, token| made.pair(names, Mode::Exclusive, at, token);
    let both = || Made::default().one(0, 0, 10).one(1, 20, 20);
    assert!(is_broken(set(both(), &[0, 1], 40, 15)), "below the second name's");
    assert!(is_broken(set(both(), &[1, 0], 40, 15)), "below the first name's");
    assert!(is_broken(set(both(), &[0, 1], 40, 20)), "that of the second name again");
    assert!(!is_broken(set(both(), &[0, 1], 40, 21)), "above both");
    assert!(!is_broken(set(both(), &[0, 2], 40, 15)), "below that of a name that is not in the set");
    assert!(is_broken(set(Made::default(), &[0, 1], 0, 10).one(1, 20, 10)), "a name of the set after it");
    assert!(
        is_broken(set(set(Made::default(), &[0, 1], 0, 10), &[2, 1], 20, 9)),
        "sets with one name in common"
    );
    assert!(!is_broken(set(set(Made::default(), &[0, 1], 0, 10), &[2, 3], 20, 10)), "sets with none");
}

#[test]
fn grants_that_overlap_are_judged_by_what_must_have_come_first() {
    let shared = |made: Made, at, token| made.pair(&[0], Mode::Shared, at, token);
    assert!(!is_broken(shared(shared(Made::default(), 0, 10), 2, 9)), "either may have been first");
    assert!(
        is_broken(shared(shared(Made::default(), 0, 10), 5, 9)),
        "one was granted before the other began"
    );
    assert!(is_broken(shared(shared(Made::default(), 0, 10), 2, 10)), "the same token");
    // The calls overlap, but the second one holds only after the first one has released.
    let mut made = Made::default();
    let (one, other) = (made.session(), made.session());
    let want = [(0, Mode::Exclusive)];
    made.call(one, ACQUIRE, &want, (0, 10), Outcome::Granted(Some(10)));
    made.call(other, ACQUIRE, &want, (5, 30), Outcome::Granted(Some(9)));
    made.call(one, CallKind::Release, &want, (20, 25), Outcome::Released);
    assert!(is_broken(made));
}

#[test]
fn a_conversion_to_exclusive_has_a_new_token() {
    let after = |tokens| Made::default().one(0, 0, 10).one(1, 0, 99).conversions(20, tokens);
    assert!(!is_broken(after([11, 12, 12])));
    assert!(is_broken(after([11, 11, 11])), "the token of the shared hold again");
    assert!(is_broken(after([12, 11, 11])), "lower than that of the shared hold");
}

#[test]
fn tokens_of_a_name_rise_from_one_server_to_the_next() {
    let life = |started, stopped: Nanos| {
        let ended = stopped.saturating_add(1);
        ServerLife {
            started,
            ready: started,
            stopped,
            ended,
            grace: 0,
            grace_max: 0,
            is_remembered: false,
            is_new: false,
        }
    };
    let restarted = |token| {
        let mut made = Made::default().one(0, 1, 10).one(1, 1, 99).one(0, 41, token);
        made.history
            .sessions
            .iter_mut()
            .zip([0, 0, 40])
            .for_each(|(session, opened)| session.opened = opened);
        made.history.servers = vec![life(0, 30), life(35, NEVER)];
        made
    };
    assert!(!is_broken(restarted(11)));
    assert!(is_broken(restarted(10)));
    assert!(is_broken(restarted(9)));
}

/// Whether a grant that ends at `end` has overtaken a request with this limit that was in the queue
/// and whose reply was lost.
fn has_overtaken(limit: Option<Nanos>, end: Nanos) -> bool {
    let mut made = Made::default();
    let [holder, lost, other] = [(); 3].map(|()| made.session());
    let wants = [(0, Mode::Exclusive)];
    made.call(holder, ACQUIRE, &wants, (0, 3), Outcome::Granted(Some(1)));
    made.call(lost, CallKind::Acquire { limit }, &wants, (4, NEVER), Outcome::Unknown);
    made.history.calls[1].queued = Some(5);
    made.call(other, ACQUIRE, &wants, (6, end), Outcome::Granted(Some(2)));
    made.call(holder, CallKind::Release, &wants, (7, end - 1), Outcome::Released);
    check(&made.history, &RULES).convicts(Model::Fifo)
}

#[test]
fn a_request_whose_reply_was_lost_may_have_ended_by_its_limit() {
    let limit = 5 * MILLISECOND;
    assert!(has_overtaken(None, 2 * limit));
    assert!(has_overtaken(Some(limit), limit / 2));
    assert!(!has_overtaken(Some(limit), 2 * limit));
}
