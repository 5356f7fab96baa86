//! The rules for clients, each broken by a client: the checker must convict it. The same story with a
//! client that breaks none must be acquitted.

use super::session::Broken;
use super::stage::Stage;
use super::stories;
use crate::checker::{Model, Verdict};
use crate::faults::daemon::Daemon;
use crate::history::{History, Name};

type Story = fn(&mut Stage, &str, Name, Option<Broken>);

/// Stories at one server, each with a lock of its own.
const STORIES: [(Broken, Story); 4] = [
    (Broken::NoLimit, stories::a_is_cut_off_for_good),
    (Broken::EndsStreamInDoubt, stories::answers_are_delayed),
    (Broken::TrustsKernel, stories::only_the_server_sees_a_reset),
    (Broken::TakesLateAnswers, stories::a_reads_late),
];

fn must_be_convicted(broken: Option<Broken>, (history, verdict): (History, Verdict)) {
    assert_eq!(
        broken.is_some(),
        verdict.convicts(Model::Mutex),
        "a client that breaks {broken:?}: {}\n{}",
        verdict.report(&history),
        history.excerpt(&(0..history.calls.len()).collect::<Vec<_>>(), 20)
    );
    assert_eq!(broken.is_none(), verdict.acquits(), "breaks {broken:?}: {}", verdict.report(&history));
}

#[test]
fn a_client_that_breaks_a_rule_for_resuming_is_convicted() {
    let common = Stage::new();
    let server = common.server();
    std::thread::scope(|scope| {
        let daemon = &server;
        let mut name = 0;
        for (broken, story) in STORIES {
            for broken in [None, Some(broken)] {
                let x = name;
                name += 1;
                scope.spawn(move || {
                    let mut stage = Stage::new();
                    story(&mut stage, daemon.address(), x, broken);
                    must_be_convicted(broken, stage.judge(daemon));
                });
            }
        }
        for broken in [None, Some(Broken::ClaimsReleases)] {
            scope.spawn(move || {
                let mut stage = Stage::new();
                let mut daemon: Daemon = stage.server();
                stories::a_release_is_not_confirmed(&mut stage, &mut daemon, broken);
                must_be_convicted(broken, stage.judge(&daemon));
            });
        }
    });
}
