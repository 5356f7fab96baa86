//! Servers whose clocks run faster or slower than the machine's. A library in C, which is preloaded,
//! changes what a server reads and waits for. If the clocks differ by a hundredth, nothing may break:
//! that is what the times of a cluster allow for. If they differ by far more, the checker must convict.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::child::Orders;
use super::super::run::say;
use super::planted::{TELLINGS, Telling, USUAL, told};
use super::{some_at_once, stories};
use crate::checker::Model;
use crate::etcd::EtcdCluster;
use crate::planting::{cargo_build, must_succeed, root};

/// How fast the machine's clock runs, in thousandths.
pub(super) const MACHINE_RATE: u64 = 1000;

/// The clocks of the servers of a cluster.
#[derive(Clone, Copy)]
pub(crate) struct Clocks<'a> {
    pub(super) built: &'a Built,
    /// How fast each runs, in thousandths of the machine's clock.
    rates: &'a [u64],
}

impl Clocks<'_> {
    pub(super) fn of(&self, server: usize) -> Clock {
        Clock { library: self.built.library.clone(), rate: self.rates[server % self.rates.len()] }
    }
}

/// The clock of one server, and its rate in thousandths.
pub(super) struct Clock {
    library: PathBuf,
    pub(super) rate: u64,
}

impl Clock {
    /// To become this program with these arguments and this clock.
    pub(super) fn orders(&self, program: &Path, arguments: &[String]) -> Orders {
        let mut all = vec![
            format!("LD_PRELOAD={}", self.library.display()),
            format!("CLOCK_RATE={}", self.rate),
            program.display().to_string(),
        ];
        all.extend_from_slice(arguments);
        Orders::Serve("/usr/bin/env".into(), all)
    }
}

/// What it takes to change the clock of a server.
pub(super) struct Built {
    /// A server that reads its clocks through the C library, as the usual one does not.
    pub(super) program: PathBuf,
    library: PathBuf,
}

impl Built {
    pub(super) fn new() -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clocks");
        let mut cargo = cargo_build(root(), &directory, &["--bin", "lockd"]);
        cargo.env("RUSTFLAGS", "--cfg rustix_use_libc");
        let library = directory.join("clock_rate.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"]);
        compiler.arg(root().join("tests/history/faults/failovers/clock_rate.c")).arg("-o").arg(&library);
        for command in [&mut cargo, &mut compiler] {
            must_succeed(command).unwrap_or_else(|problem| panic!("{problem}"));
        }
        Self { program: directory.join("debug/lockd"), library }
    }

    pub(super) fn clocks<'a>(&'a self, rates: &'a [u64]) -> Clocks<'a> {
        Clocks { built: self, rates }
    }
}

/// A story, told with such clocks.
#[derive(Clone, Copy)]
struct Task {
    telling: Telling,
    rates: &'static [u64],
    /// `None`: nothing may break.
    convicts: Option<Model>,
}

/// The next server counts faster than the clients and the server before it, or that one slower.
const A_HUNDREDTH: [&[u64]; 2] = [&[1000, 1010], &[990, 1000]];

/// Clocks that no cluster allows for.
const FAR_TOO_MUCH: [Task; 2] = [
    // The grace is over while A still believes in its lock.
    Task {
        telling: Telling {
            name: "the next server counts twice as fast",
            story: stories::a_is_cut_off_for_good,
            ..USUAL
        },
        rates: &[1000, 2000],
        convicts: Some(Model::Mutex),
    },
    // It answers when the next server is already active.
    Task {
        telling: Telling {
            name: "the active server counts half as fast",
            story: stories::the_active_server_is_cut_off,
            ..USUAL
        },
        rates: &[500, 1000],
        convicts: Some(Model::Recovery),
    },
];

fn carry_out(etcd: &EtcdCluster, built: &Built, number: usize, Task { telling, rates, convicts }: Task) {
    let (name, clocks) = (format!("clocks-{number}"), built.clocks(rates));
    let (history, verdict) = told(etcd, &name, &built.program, telling, telling.leader_seconds, Some(clocks));
    let report = verdict.report(&history);
    match convicts {
        None => assert!(verdict.acquits(), "{}, clocks {rates:?}: {report}", telling.name),
        Some(model) => assert!(verdict.convicts(model), "{} was not convicted: {report}", telling.name),
    }
    let verdict = if convicts.is_some() { "convicted" } else { "acquitted" };
    say(&format!("{}, clocks {rates:?}: {verdict}, {} calls", telling.name, history.calls.len()));
}

#[test]
#[ignore = "builds the server: make check-deep"]
fn deep_clocks_may_differ_by_a_hundredth() {
    let built = Built::new();
    let etcd = EtcdCluster::start(1);
    let tellings = A_HUNDREDTH
        .into_iter()
        .flat_map(|rates| TELLINGS.into_iter().map(move |telling| Task { telling, rates, convicts: None }));
    some_at_once(FAR_TOO_MUCH.into_iter().chain(tellings).enumerate(), |(number, task)| {
        carry_out(&etcd, &built, number, task);
    });
}
