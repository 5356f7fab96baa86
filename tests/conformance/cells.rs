//! Runs every client in every trial that applies to it, several at a time.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::clients::{Abilities, Client};
use crate::stage::Stage;
use crate::trials::{Pace, Trial};
use crate::verdict::{Failure, Verdict};

/// How one client did in one trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Ok,
    /// It failed, as it had to.
    Convicted,
    /// With all there is to say.
    Failed(String),
    /// For this reason.
    NotApplicable(String),
}

/// By the places of the client and of the trial; with the time it took.
pub(crate) type Cells = BTreeMap<(usize, usize), (Cell, Duration)>;

/// How many lines of a transcript are shown.
const TRANSCRIPT: usize = 80;

pub(crate) fn run(arguments: &Arguments, clients: &[Client], trials: &[&Trial]) -> Cells {
    // A cell that panics is a cell that fails, and is reported as such.
    std::panic::set_hook(Box::new(|_| {}));
    let known: Vec<_> = clients.iter().map(Client::abilities).collect();
    // Trials that mostly wait come first, and more of them run at a time.
    let (waiting, busy): (Vec<_>, Vec<_>) = (0..clients.len())
        .flat_map(|client| (0..trials.len()).map(move |trial| (client, trial)))
        .partition(|&(_, trial)| trials[trial].pace != Pace::Busy);
    let threads = arguments.threads();
    let cells = Mutex::new(Cells::new());
    let work = |places: &[(usize, usize)], next: &AtomicUsize| {
        while let Some(&(client, trial)) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begun = Instant::now();
            let number = client * trials.len() + trial;
            let cell =
                run_cell(arguments, &clients[client], &known[client], trials[trial], number, trial == 0);
            cells.lock().expect("no cell panics").insert((client, trial), (cell, begun.elapsed()));
        }
    };
    let (next_waiting, next_busy) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 * threads {
            scope.spawn(|| work(&waiting, &next_waiting));
        }
        for _ in 0..threads {
            scope.spawn(|| work(&busy, &next_busy));
        }
    });
    cells.into_inner().expect("no cell panics")
}

fn run_cell(
    arguments: &Arguments,
    client: &Client,
    known: &Verdict<Abilities>,
    trial: &Trial,
    number: usize,
    is_first: bool,
) -> Cell {
    let abilities = match known {
        Ok(abilities) => abilities,
        // Said once.
        Err(failure) if is_first => return Cell::Failed(failure.0.clone()),
        Err(_) => return Cell::NotApplicable("its driver does not work at all".to_owned()),
    };
    if let Some(missing) = trial.needs.iter().find(|ability| !abilities.can(ability)) {
        return Cell::NotApplicable(abilities.reason(missing));
    }
    if let Some(other) = trial.unless.iter().find(|ability| abilities.can(ability)) {
        return Cell::NotApplicable(format!("it is a client with `{other}`"));
    }
    if let Some(reason) = (trial.impossible)() {
        return Cell::NotApplicable(format!("SKIPPED: {reason}"));
    }
    (0..arguments.repetitions())
        .map(|_| run_once(arguments, client, abilities, trial, number))
        .find(|cell| !matches!(cell, Cell::Ok | Cell::Convicted))
        .unwrap_or(if must_fail(client, trial) { Cell::Convicted } else { Cell::Ok })
}

/// Whether the client is not safe, and the trial has to show it.
fn must_fail(client: &Client, trial: &Trial) -> bool {
    client.convicted_in.contains(&trial.name)
}

fn run_once(
    arguments: &Arguments,
    client: &Client,
    abilities: &Abilities,
    trial: &Trial,
    number: usize,
) -> Cell {
    let stage = Stage::new(client, abilities, number, arguments.rounds());
    let ended = catch_unwind(AssertUnwindSafe(|| (trial.run)(&stage).and_then(|()| stage.nothing_is_left())));
    let verdict = ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(Failure(format!("the trial panicked: {}", text.unwrap_or_default())))
    });
    let transcript = stage.transcript.clone();
    // Dropped first: the servers' logs belong to the transcript.
    drop(stage);
    let lines = transcript.end(TRANSCRIPT).join("\n");
    if arguments.verbose {
        say(&format!("---- {}, {}\n{lines}\n", client.name, trial.name));
    }
    match verdict {
        Ok(()) if must_fail(client, trial) => {
            Cell::Failed(format!("this client is not safe, and the trial does not show it\n{lines}"))
        }
        Ok(()) => Cell::Ok,
        Err(_) if must_fail(client, trial) => Cell::Convicted,
        Err(Failure(what)) => Cell::Failed(format!("{what}\n{lines}")),
    }
}

#[expect(clippy::print_stdout, reason = "this is a program")]
fn say(text: &str) {
    println!("{text}");
}
