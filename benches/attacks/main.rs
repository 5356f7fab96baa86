//! What other clients notice while a server is attacked: each attack of `tests/attacks` at its full
//! size, compared with the same clients without an attack, and with a machine that is merely busy.
//! Prints a table.
//!
//! `cargo bench --bench attacks -- WORD…` runs only the attacks whose names contain one of these
//! words.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement is started by hand, and a panic is how it fails"
)]

#[path = "../../tests/attacks/calm.rs"]
mod calm;
#[path = "../../tests/attacks/circles.rs"]
mod circles;
#[path = "../../tests/attacks/deaf.rs"]
mod deaf;
#[path = "../../tests/attacks/floods.rs"]
mod floods;
#[path = "../../tests/attacks/hoards.rs"]
mod hoards;
#[path = "../../tests/attacks/siege.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod siege;
#[path = "../../tests/blackbox/support/mod.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod support;
#[path = "../../tests/attacks/vitals.rs"]
mod vitals;
#[path = "../../tests/attacks/words.rs"]
mod words;

use std::time::{Duration, Instant};

use siege::{Attack, endure, no_options};

const CALM: Duration = Duration::from_secs(1);

/// No attack: `full` threads keep the processors busy.
const BUSY: Attack = Attack {
    name: "no attack: threads that do nothing keep the processors busy",
    options: no_options,
    newcomers: false,
    short: 2,
    full: 4,
    growth_max_kib: |_| 0,
    run: |_, threads| {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let end = Instant::now() + Duration::from_secs(3);
                    while Instant::now() < end {
                        std::hint::spin_loop();
                    }
                });
            }
        });
    },
};

const ATTACKS: [Attack; 29] = [
    BUSY,
    hoards::LOCKS,
    hoards::SETS,
    hoards::WAITS_APART,
    hoards::HOLDER_VANISHES,
    hoards::WAITS_TOGETHER,
    hoards::TIME_OUTS,
    hoards::ONE_NAME,
    hoards::CANCELS_IN_VAIN,
    circles::CHAIN,
    circles::WIDE,
    Attack { full: 1, ..circles::REFUSED_SEARCHES },
    Attack { full: 16, ..circles::REFUSED_SEARCHES },
    Attack { full: 48, ..circles::REFUSED_SEARCHES },
    circles::REFUSED_SEARCHES,
    circles::SETS_IN_VAIN,
    circles::SHARED_SETS,
    floods::OVER_THE_LIMIT,
    floods::OUT_OF_DESCRIPTORS,
    floods::RESETS,
    floods::SILENT,
    words::ENDLESS_LINES,
    words::ANNOUNCED,
    words::HALF_SENT,
    words::DRIPPED,
    words::BOMBS,
    deaf::LISTINGS_READ,
    deaf::LISTINGS_UNREAD,
    deaf::GRANTS_UNREAD,
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    println!(
        "| meanwhile | takes, s | alone, calm: p50 · p99 · max, ms | alone, meanwhile | in turns, calm | in turns, meanwhile | newcomers, calm | newcomers, meanwhile | memory before · peak · after, MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for attack in ATTACKS {
        if !words.is_empty() && !words.iter().any(|word| attack.name.contains(word.as_str())) {
            continue;
        }
        let endured = endure(&attack, attack.full, CALM, 0);
        let [alone, in_turns, new] = endured.calm.map(quantiles);
        let [alone_then, in_turns_then, new_then] = endured.meanwhile.map(quantiles);
        let memory = [endured.before.resident_kib, endured.peak_kib, endured.after.resident_kib];
        let memory = memory.map(|kib| (kib >> 10).to_string()).join(" · ");
        let took = endured.took.as_secs_f64();
        println!(
            "| {} ({}) | {took:.1} | {alone} | {alone_then} | {in_turns} | {in_turns_then} | {new} | {new_then} | {memory} |",
            attack.name, attack.full
        );
    }
}

/// The median, the 99th percentile, and the maximum, in milliseconds.
fn quantiles(mut took: Vec<Duration>) -> String {
    if took.is_empty() {
        return "–".to_owned();
    }
    took.sort_unstable();
    let millis = |at: usize| took.get(at).map_or(f64::NAN, |it| it.as_secs_f64() * 1e3);
    let last = took.len().saturating_sub(1);
    format!("{:.2} · {:.2} · {:.2}", millis(last / 2), millis(last * 99 / 100), millis(last))
}
