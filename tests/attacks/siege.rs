//! Runs one attack: starts a server, keeps calm clients busy, and measures what the server uses
//! before, during and after. Knows no particular attack.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::calm::{Felt, between, work_alone, work_anew, work_in_turns};
use crate::support::eventually;
use crate::support::server::{Launch, Server, raise_descriptor_limit};
use crate::vitals::{Vitals, forget_peak, peak_kib};

/// One attack on a server.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// How the server is started, depending on the size of the attack.
    pub(crate) options: fn(usize) -> Vec<String>,
    /// Whether calm clients also make new connections meanwhile; not if the attack uses up
    /// connections.
    pub(crate) newcomers: bool,
    /// Its size in a short test, and its full size.
    pub(crate) short: usize,
    pub(crate) full: usize,
    /// How much memory the server may use for it, in KiB, by its size: what the limits allow.
    pub(crate) growth_max_kib: fn(usize) -> u64,
    /// Runs the attack and checks the replies to the attacker. When this returns, the attacker has
    /// gone.
    pub(crate) run: fn(&Server, usize),
}

/// The defaults for most attacks.
pub(crate) fn no_options(_: usize) -> Vec<String> {
    Vec::new()
}

/// The result of an attack.
pub(crate) struct Endured {
    pub(crate) before: Vitals,
    pub(crate) peak_kib: u64,
    pub(crate) after: Vitals,
    pub(crate) took: Duration,
    /// How many KiB more remained after each repetition, to look for leaks.
    pub(crate) left_again: Vec<u64>,
    /// The latencies of calm clients (alone, in turns, and as new connections), before and during
    /// the attack.
    pub(crate) calm: [Vec<Duration>; 3],
    pub(crate) meanwhile: [Vec<Duration>; 3],
}

/// Runs an attack after a time of calm. Fails if a calm client is not answered, or if the server
/// does not drop the attacker's connections. If more memory than a little remains, the attack is
/// repeated, up to `repeats` times.
pub(crate) fn endure(attack: &Attack, size: usize, calm_for: Duration, repeats: usize) -> Endured {
    raise_descriptor_limit();
    let options = (attack.options)(size);
    let server = Launch::everywhere().args(options.iter().map(String::as_str)).start();
    let (felt, stop) = (Felt::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Also if the attack fails, so that the test ends.
        let stopper = Stopper(&stop);
        let mut calm = vec![
            scope.spawn(|| work_alone(&server, &felt, &stop)),
            scope.spawn(|| work_in_turns(&server, &felt, &stop)),
        ];
        if attack.newcomers {
            calm.push(scope.spawn(|| work_anew(&server, &felt, &stop)));
        }
        let rounds = || (felt.alone.lock().unwrap().len(), felt.in_turns.lock().unwrap().len());
        let await_round = |(alone, in_turns): (usize, usize)| {
            eventually("the calm clients are answered", || {
                let ended = calm.iter().any(|client| client.is_finished());
                ended || rounds() > (alone, in_turns) && rounds().1 > in_turns
            });
        };
        await_round((10, 10));
        let calm_since = Instant::now();
        std::thread::sleep(calm_for);
        // On a busy machine they may not have had a turn yet.
        await_round(rounds());
        forget_peak(&server);
        let before = Vitals::of(&server);
        let start = Instant::now();
        (attack.run)(&server, size);
        await_round(rounds());
        let end = Instant::now();
        let await_end = || {
            eventually("descriptors and threads are back", || {
                let now = Vitals::of(&server);
                now.descriptors <= before.descriptors && now.threads <= before.threads
            });
            Vitals::of(&server)
        };
        let after = await_end();
        let peak_kib = peak_kib(&server);
        let mut left_again = Vec::new();
        let mut last_kib = after.resident_kib;
        let few_kib = SLACK_KIB + peak_kib.saturating_sub(before.resident_kib) / 4;
        while left_again.len() < repeats && left_again.last().is_none_or(|&left| left > few_kib) {
            (attack.run)(&server, size);
            let now_kib = await_end().resident_kib;
            left_again.push(now_kib.saturating_sub(last_kib));
            last_kib = now_kib;
        }
        drop(stopper);
        calm.into_iter().for_each(|client| client.join().unwrap());
        let felt_in =
            |from, to| [&felt.alone, &felt.in_turns, &felt.anew].map(|samples| between(samples, from, to));
        Endured {
            before,
            peak_kib,
            after,
            left_again,
            took: end - start,
            calm: felt_in(calm_since, start),
            meanwhile: felt_in(start, end),
        }
    })
}

struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What code that runs for the first time, the log, and the calm clients may add.
const SLACK_KIB: u64 = 8 << 10;

/// The maximum number of repetitions of an attack.
const REPEATS: usize = 4;

/// Runs the attack and fails if it used too much memory or left some in use.
pub(crate) fn withstand(attack: &Attack, size: usize) {
    let endured = endure(attack, size, Duration::from_millis(50), REPEATS);
    let before = endured.before.resident_kib;
    let growth = endured.peak_kib.saturating_sub(before);
    let most = (attack.growth_max_kib)(size) + SLACK_KIB;
    assert!(
        growth <= most,
        "{}: {growth} KiB more at its peak, and {most} at most was to be expected",
        attack.name
    );
    // The allocator keeps freed memory between blocks that are in use, in one arena for each set of
    // threads that competed, and uses it again. So sooner or later the same attack must fit into
    // memory that is kept. A leak would add memory each time.
    let most = SLACK_KIB + growth / 4;
    assert!(
        endured.left_again.iter().any(|&left| left <= most),
        "{}: {:?} KiB are left of {growth} each time after the first, which left {}",
        attack.name,
        endured.left_again,
        endured.after.resident_kib.saturating_sub(before)
    );
    let groups = if attack.newcomers { 3 } else { 2 };
    let felt = [&endured.calm, &endured.meanwhile].into_iter().flat_map(|felt| &felt[..groups]);
    assert!(
        felt.into_iter().all(|felt| !felt.is_empty()),
        "{}: no calm client made a request for {:?}",
        attack.name,
        endured.took
    );
}
