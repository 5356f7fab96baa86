//! What it is all for: jobs that are started again and again, in several places, and never run twice at a time.

use std::time::Instant;

use crate::support::DEADLINE;
use crate::tool::Site;

/// How often each of the two loops tries at least.
const ROUNDS: usize = 40;

#[test]
fn two_loops_never_run_the_script_at_once() {
    let site = Site::start();
    // The directory can be made by one only.
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
