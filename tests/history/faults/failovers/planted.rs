//! The rules of a cluster, each broken by a patch in `tests/history/planted/cluster`: the checker
//! must convict the servers that are built with it. The same story with the servers as they are must
//! be acquitted.

use std::path::Path;

use lockd::etcd::Etcd;

use super::super::resuming::planted::{Planted, patches, patches_fit, plant};
use super::super::resuming::stage::Stage;
use super::super::run::say;
use super::clocks::Clocks;
use super::cluster::{Cluster, Setup};
use super::some_at_once;
use super::stories::{self, Scene};
use crate::checker::{Model, Verdict};
use crate::etcd::EtcdCluster;
use crate::history::{History, MILLISECOND};

/// A story, and with which servers it is told.
#[derive(Clone, Copy)]
pub(super) struct Telling {
    pub(super) name: &'static str,
    pub(super) servers: usize,
    pub(super) dead_peer_seconds: u64,
    pub(super) leader_seconds: u64,
    /// The leader timeout of servers that do not refuse one that does not fit.
    pub(super) planted_leader_seconds: u64,
    /// What servers with a fault are convicted of.
    pub(super) convicts: Model,
    pub(super) story: fn(&mut Scene),
}

pub(super) const USUAL: Telling = Telling {
    name: "",
    servers: 2,
    dead_peer_seconds: Setup::DEAD_PEER_SECONDS,
    leader_seconds: Setup::LEADER_SECONDS,
    planted_leader_seconds: Setup::LEADER_SECONDS,
    convicts: Model::Mutex,
    story: |_| {},
};

pub(super) const TELLINGS: [Telling; 9] = [
    Telling { name: "a_request_outlives_its_server", story: stories::a_request_outlives_its_server, ..USUAL },
    Telling {
        name: "a_stopped_server_keeps_its_clients",
        story: stories::a_stopped_server_keeps_its_clients,
        ..USUAL
    },
    // Two may answer at the same time, and the grace keeps that from doing harm. It is shorter than
    // it must be all the same.
    Telling {
        name: "the_active_server_is_cut_off",
        convicts: Model::Recovery,
        story: stories::the_active_server_is_cut_off,
        ..USUAL
    },
    Telling {
        name: "a_is_a_client_of_the_server_that_is_cut_off",
        planted_leader_seconds: 20,
        story: stories::a_is_a_client_of_the_server_that_is_cut_off,
        ..USUAL
    },
    Telling {
        name: "etcd_answers_late",
        dead_peer_seconds: 25,
        leader_seconds: 8,
        planted_leader_seconds: 8,
        convicts: Model::Recovery,
        // A request to etcd may take 2 s.
        story: |scene| stories::etcd_answers_late(scene, 1700 * MILLISECOND),
        ..USUAL
    },
    Telling { name: "a_sleeps_past_its_time", story: stories::a_sleeps_past_its_time, ..USUAL },
    Telling { name: "a_sleeps_through_a_run", servers: 3, story: stories::a_sleeps_through_a_run, ..USUAL },
    Telling { name: "a_is_cut_off_for_good", story: stories::a_is_cut_off_for_good, ..USUAL },
    Telling { name: "a_record_arrives_late", servers: 3, story: stories::a_record_arrives_late, ..USUAL },
];

/// Tells a story with the servers of this program, in a cluster with this name, and has it judged.
pub(super) fn told(
    etcd: &EtcdCluster,
    name: &str,
    program: &Path,
    telling: Telling,
    leader_seconds: u64,
    clocks: Option<Clocks<'_>>,
) -> (History, Verdict) {
    let stage = Stage::new();
    let mut cluster = Cluster::start(&Setup {
        directory: stage.path(),
        program,
        etcd: &[etcd.place(0)],
        name,
        servers: telling.servers,
        dead_peer_seconds: telling.dead_peer_seconds,
        leader_seconds,
        clocks,
    });
    cluster.ends_are_seen_at_once();
    let mut scene = Scene {
        stage,
        cluster,
        etcd: Etcd::new(&etcd.url(name).parse().unwrap()).unwrap(),
        leader_key: format!("/lockd/{name}/leader"),
    };
    (telling.story)(&mut scene);
    scene.cluster.look();
    let lives = scene.cluster.lives();
    scene.stage.judge_with(&lives)
}

/// What is told: with the servers as they are, or with a fault.
struct Task<'a> {
    telling: Telling,
    planted: Option<&'a Planted>,
}

fn carry_out(etcd: &EtcdCluster, number: usize, Task { telling, planted }: &Task<'_>) {
    let name = format!("story-{number}");
    let Some(Planted { what, program, .. }) = planted else {
        let program = Path::new(env!("CARGO_BIN_EXE_lockd"));
        let (history, verdict) = told(etcd, &name, program, *telling, telling.leader_seconds, None);
        assert!(verdict.acquits(), "{}: {}", telling.name, verdict.report(&history));
        return say(&format!("{}: acquitted, {} calls", telling.name, history.calls.len()));
    };
    let (history, verdict) = told(etcd, &name, program, *telling, telling.planted_leader_seconds, None);
    let report = verdict.report(&history);
    let servers = &history.servers;
    assert!(
        verdict.convicts(telling.convicts),
        "{what} {} was not convicted: {report}\n{servers:#?}",
        telling.name
    );
    say(&format!("{what}\n  {}: convicted\n{report}", telling.name));
}

#[test]
fn the_patches_for_clusters_fit_the_sources() {
    patches_fit("cluster");
}

#[test]
#[ignore = "builds the server again and again: make check-deep"]
fn deep_a_cluster_that_breaks_a_rule_is_convicted() {
    let directory = tempfile::tempdir().unwrap();
    let planted: Vec<Planted> =
        patches("cluster").iter().map(|patch| plant(patch, directory.path())).collect();
    let etcd = EtcdCluster::start(1);
    let find = |story: &str| TELLINGS.into_iter().find(|telling| telling.name == story).expect("a story");
    let mut tasks: Vec<Task<'_>> =
        TELLINGS.into_iter().map(|telling| Task { telling, planted: None }).collect();
    tasks.extend(planted.iter().map(|one| Task { telling: find(&one.story), planted: Some(one) }));
    some_at_once(tasks.into_iter().enumerate(), |(number, task)| {
        carry_out(&etcd, number, &task);
    });
}
