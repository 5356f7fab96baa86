//! The purpose of it all: jobs that are started repeatedly in several places never run twice at the
//! same time.

use std::time::Instant;

use crate::support::DEADLINE;
use crate::tool::Site;

/// The minimum number of attempts of each loop.
const ROUNDS: usize = 40;

#[test]
fn two_loops_never_run_the_script_at_once() {
    let site = Site::start();
    // Only one process can create the directory.
    let script = "mkdir inside || exit 9; sleep 0.02; rmdir inside || exit 9";
    let deadline = Instant::now() + DEADLINE;
    let rounds = || {
        let (mut done, mut refused) = (0, 0);
        while done + refused < ROUNDS || (done == 0 || refused == 0) && Instant::now() < deadline {
            match site.said(&["run", "-n", "backup", "--", "sh", "-c", script]) {
                (0, ..) => done += 1,
                (75, ..) => refused += 1,
                (code, _, errors) => panic!("exit status {code}: {errors}"),
            }
        }
        (done, refused)
    };
    let counts = std::thread::scope(|scope| {
        let other = scope.spawn(rounds);
        [rounds(), other.join().unwrap()]
    });
    assert!(counts.iter().any(|(done, _)| *done > 0), "{counts:?}");
    assert!(counts.iter().any(|(_, refused)| *refused > 0), "{counts:?}");
}
