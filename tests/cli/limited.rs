//! `lockd run --at-most`: so many jobs run at the same time, the others wait, and each place is had
//! again when its job has ended.

use std::thread;

use crate::tool::{Site, until};

/// How many jobs may run at the same time, and how many are started at once.
const AT_MOST: usize = 3;
const JOBS: usize = 12;

#[test]
fn never_more_jobs_run_than_the_limit_and_each_has_its_turn() {
    let site = Site::start();
    // Only one process can create a directory. So many that there is one too few for a job too many.
    let places: Vec<String> = (0..AT_MOST).map(|number| format!("place{number}")).collect();
    let places = places.join(" ");
    let script = format!(
        "for place in {places}; do \
             if mkdir $place 2>/dev/null; then sleep 0.02; rmdir $place; exit 0; fi; \
         done; exit 9"
    );
    let codes: Vec<i32> = thread::scope(|scope| {
        let job = || site.said(&["run", "--at-most", "3", "gpu", "--", "sh", "-c", &script]).0;
        let jobs: Vec<_> = (0..JOBS).map(|_| scope.spawn(job)).collect();
        jobs.into_iter().map(|job| job.join().unwrap()).collect()
    });
    assert_eq!(codes, [0; JOBS]);
}

#[test]
fn a_full_lock_is_shown_with_its_holders_and_its_limit() {
    let site = Site::start();
    let mut jobs = ["one", "two"].map(|ready| {
        let script = format!("echo >{ready}; {}", until("done"));
        site.run(&["--at-most", "2", "gpu"], &script)
    });
    for ready in ["one", "two"] {
        site.line(ready);
    }
    let (code, _, errors) = site.said(&["run", "-n", "--at-most", "4", "gpu", "--", "true"]);
    assert_eq!(code, 75, "{errors}");
    assert!(errors.contains("held by 2 of at most 2: "), "{errors}");
    let (_, listed, _) = site.said(&["list"]);
    assert!(listed.lines().skip(1).all(|line| line.starts_with("gpu   2/2 ")), "{listed}");
    let (_, seen, _) = site.said(&["inspect", "gpu"]);
    assert!(seen.starts_with("gpu: held by 2 of at most 2, 0 free\n"), "{seen}");
    site.write("done");
    assert_eq!(jobs.each_mut().map(|job| job.code()), [0, 0]);
}

#[test]
fn a_limit_that_makes_no_sense_is_a_mistake() {
    let site = Site::start();
    for limit in ["0", "-1", "1.5", "16777216", "many"] {
        let (code, _, errors) = site.said(&["run", &format!("--at-most={limit}"), "gpu", "--", "true"]);
        assert_eq!(code, 2, "{errors}");
        assert!(errors.contains("not a whole number from 1 to 16777215"), "{errors}");
    }
    let (code, _, errors) = site.said(&["run", "-s", "--at-most", "2", "gpu", "--", "true"]);
    assert!(code == 2 && errors.contains("cannot be used with"), "{code} {errors}");
}
