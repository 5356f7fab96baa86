//! Jobs under `lockd run` while their server is killed again and again: each runs to its end, and
//! never beside another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::place::{Place, stop};
use crate::resuming::await_resumed;
use crate::support::eventually;
use crate::tool::{Running, until};

/// A job that notes in a file when it begins and ends, and does `work` in between.
fn job(journal: &str, work: &str) -> String {
    format!("echo begin $$ >> {journal}; {work}; echo end $$ >> {journal}")
}

/// Every job in the journal has ended before the next one has begun. Returns how many there are.
fn assert_one_after_another(place: &Place, journal: &str) -> usize {
    let text = std::fs::read_to_string(place.site.path(journal)).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap()).collect();
    for job in lines.chunks(2) {
        let is_whole = matches!(job, [("begin", one), ("end", other)] if one == other);
        assert!(is_whole, "{job:?} in\n{text}");
    }
    lines.len() / 2
}

/// Ends the short jobs, also if the test fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One long job holds `a` while the server is killed `kills` times, and started again at once. Other
/// jobs wait for `a` all the time. Short jobs take turns at `b`.
fn live_through(kills: usize, between: Duration) {
    let place = Place::tcp().with_state();
    let mut server = place.serve();
    let script = format!("echo $LOCKD_TOKEN > token; {}", job("long", &until("stop")));
    let mut long = place.run_with_grace("2", "errors", &["--verbose", "a"], &script);
    let token = place.site.line("token").parse().unwrap();
    let others: Vec<Running> = (0..3)
        .map(|number| place.run(&format!("other{number}"), &["a"], &job("long", "sleep 0.1")))
        .collect();
    let is_over = AtomicBool::new(false);
    let turns = &|number: usize| {
        let errors = format!("short{number}");
        while !is_over.load(Ordering::Relaxed) {
            let code = place.run(&errors, &["b"], &job("short", "sleep 0.2")).code();
            assert_eq!(code, 0, "{}", place.errors(&errors));
        }
    };
    let server = thread::scope(|scope| {
        let short: Vec<_> = [0, 1, 2].map(|number| scope.spawn(move || turns(number))).into();
        let over = SetOnDrop(&is_over);
        for _ in 0..kills {
            let begun = Instant::now();
            eventually("it is time for the next crash", || begun.elapsed() >= between);
            stop(server, Signal::KILL);
            server = place.serve();
            await_resumed(&place, &server, token);
        }
        drop(over);
        short.into_iter().for_each(|turns| turns.join().unwrap());
        server
    });
    server.await_waiters("a", others.len());
    place.site.write("stop");
    assert_eq!(long.code(), 0, "{}", place.errors("errors"));
    for mut other in others {
        assert_eq!(other.code(), 0);
    }
    assert_eq!(assert_one_after_another(&place, "long"), 4);
    assert!(assert_one_after_another(&place, "short") > 0);
}

/// Long enough between the crashes that a session would be lost that has not asked its server.
#[test]
fn a_job_lives_through_two_crashes_and_is_never_run_beside_another() {
    live_through(2, Duration::from_secs(9));
}

#[test]
#[ignore = "takes ten minutes: make check-deep"]
fn deep_jobs_live_through_twenty_crashes_in_ten_minutes() {
    live_through(20, Duration::from_secs(29));
}
