//! Outages that come and go: in either direction or both, at random or at the worst times, with
//! idle and busy sessions. Whatever the pattern, no session is granted a lock while its previous
//! holder, asked at that moment, still believes that it holds the lock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lockd::Session;
use serde_json::json;

use crate::network::{Network, Passing, Scenario, in_networks};
use crate::site::{DEFAULT, Holder, SHORTEST, Site, loss_of, sleep_until};

/// Pseudo-random numbers that are the same on every machine (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_millis(self.roll(u64::try_from(longest.as_millis()).unwrap().max(1)))
    }
}

fn seed() -> u64 {
    let given = std::env::var("LOCKD_SEED").ok().map(|seed| seed.parse().expect("a number"));
    given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    })
}

/// Many sessions on a network that fails and recovers repeatedly, and finally fails for good.
#[derive(Clone, Copy)]
struct Crowd {
    dead_peer_timeout: u64,
    sessions: usize,
    coming_and_going: Duration,
    /// The longest time that the network works, and that it fails.
    there: Duration,
    gone: Duration,
}

impl Crowd {
    #[expect(clippy::print_stderr, reason = "what repeats a random test, and what it showed")]
    fn run(self, network: Network, seed: u64) {
        eprintln!("LOCKD_SEED={seed}");
        let site = Site::new(network, self.dead_peer_timeout);
        let holders: Vec<Holder> = (0..self.sessions)
            .map(|n| {
                let name = format!("lock {n}");
                (name.clone(), site.holder(&[&name]))
            })
            .collect();
        let heirs = site.heirs(&holders);
        let end = Instant::now() + self.coming_and_going + site.dead_peer_timeout * 3;
        let known = self.lose(&site, &holders, seed, end);
        let mut margins = Vec::new();
        for ((name, _), known) in holders.iter().zip(known) {
            let known = known.unwrap_or_else(|| panic!("{name}: its holder never knew; seed {seed}"));
            let granted = heirs.await_grant(name, end);
            let granted = granted.unwrap_or_else(|| panic!("{name}: never granted; seed {seed}"));
            assert!(!granted.too_early, "{name}: granted while its holder took itself for that; seed {seed}");
            margins.push(granted.at.saturating_duration_since(known).as_secs_f64());
        }
        margins.sort_by(f64::total_cmp);
        let without_a_word: Vec<f64> = margins.iter().copied().filter(|margin| *margin > 0.1).collect();
        eprintln!(
            "T = {} s, {} sessions lost; of {} the client's kernel told the server; of the others, holders knew \
             {:.3} s before the next were granted at least, {:.3} s at most; seed {seed}",
            self.dead_peer_timeout,
            margins.len(),
            margins.len() - without_a_word.len(),
            without_a_word.first().unwrap_or(&f64::NAN),
            without_a_word.last().unwrap_or(&f64::NAN),
        );
    }

    /// Makes the network fail and recover until all sessions are lost; returns when they knew.
    fn lose(&self, site: &Site, holders: &[Holder], seed: u64, end: Instant) -> Vec<Option<Instant>> {
        let over = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            let known: Vec<_> =
                holders.iter().map(|(_, session)| scope.spawn(move || loss_of(session, end))).collect();
            // A third of them are idle, a third always busy, a third busy now and then.
            let longest = [None, Some(Duration::from_millis(300)), Some(Duration::from_secs(5))];
            for ((n, (name, session)), longest) in (1..).zip(holders).zip(longest.into_iter().cycle()) {
                if let Some(longest) = longest {
                    let dice = Dice(seed ^ n << 32);
                    scope.spawn(move || ask_now_and_then(session, name, longest, dice, over));
                }
            }
            self.come_and_go(&site.network, &mut Dice(seed));
            let known = known.into_iter().map(|known| known.join().unwrap()).collect();
            over.store(true, Ordering::Relaxed);
            known
        })
    }

    fn come_and_go(&self, network: &Network, dice: &mut Dice) {
        let end = Instant::now() + self.coming_and_going;
        while Instant::now() < end {
            network.pass(Passing::ALL);
            sleep(dice.up_to(self.there));
            network.pass(match dice.roll(3) {
                0 => Passing::NONE,
                1 => Passing::TO_SERVER,
                _ => Passing::TO_CLIENTS,
            });
            sleep(dice.up_to(self.gone));
        }
        network.pass(Passing::NONE);
    }
}

fn ask_now_and_then(session: &Session, name: &str, longest: Duration, mut dice: Dice, over: &AtomicBool) {
    while session.inspect(name.as_bytes()).is_ok() {
        let next = Instant::now() + dice.up_to(longest);
        while Instant::now() < next && !over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(20));
        }
    }
}

/// A kernel does not count its peer's probes as a sign of life, only answers to its own. So there
/// are outages that swallow every answer to the server but leave enough to the client: it hears
/// from the server until the end, while the server gives it up.
fn swallows_all_probes_of_the_server(network: Network) {
    let site = Site::new(network, SHORTEST);
    let holder = [("lock".to_owned(), site.holder(&["lock"]))];
    let heirs = site.heirs(&holder);
    let start = Instant::now();
    let figures = site.near().call("hello", json!({}))["keepalive"].take();
    let figure = |name: &str| Duration::from_secs(figures[name].as_u64().unwrap());
    let (idle, interval) = (figure("idle"), figure("interval"));
    let known = Mutex::new(None);
    std::thread::scope(|scope| {
        scope.spawn(|| *known.lock().unwrap() = loss_of(&holder[0].1, start + site.dead_peer_timeout * 3));
        for probe in 0..u32::try_from(figures["probes"].as_u64().unwrap()).unwrap() {
            let at = start + idle + interval * probe;
            sleep_until(at - Duration::from_millis(250));
            site.network.pass(Passing::NONE);
            sleep_until(at + Duration::from_millis(250));
            site.network.pass(Passing::ALL);
        }
        sleep_until(start + figure("userTimeout") - Duration::from_millis(100));
        site.network.pass(Passing::NONE);
    });
    let granted = heirs.await_grant("lock", start + site.dead_peer_timeout * 3).expect("granted in the end");
    assert!(!granted.too_early, "granted {:?} after the start", granted.at - start);
    assert!(known.into_inner().unwrap().is_some_and(|known| known < granted.at));
}

/// If the sender's own host drops a probe, its kernel does not count the probe, and goes on for
/// ever.
fn drops_at_the_clients_own_host(network: Network) {
    let site = Site::new(network, SHORTEST);
    let holder = [("lock".to_owned(), site.holder(&["lock"]))];
    let heirs = site.heirs(&holder);
    if !site.network.drop_what_clients_send() {
        return;
    }
    site.network.pass(Passing::NONE);
    let granted = heirs.await_grant("lock", Instant::now() + site.dead_peer_timeout * 2);
    assert!(!granted.expect("granted in the end").too_early, "granted while its holder took itself for that");
}

/// A kernel mistakes an outage for a slow round trip, and retransmits later because of it. After
/// the next outage, a client that sends at the worst time must still know in time.
fn had_an_outage_before(network: Network) {
    let site = Site::new(network, DEFAULT);
    let holder = [("lock".to_owned(), site.holder(&["lock"]))];
    let heirs = site.heirs(&holder);
    let session = &holder[0].1;
    for _ in 0..3 {
        site.network.pass(Passing::TO_SERVER);
        std::thread::scope(|scope| {
            let call = scope.spawn(|| session.inspect(b"lock"));
            sleep(Duration::from_secs(6));
            site.network.pass(Passing::ALL);
            call.join().unwrap().expect("nothing is lost yet");
        });
    }
    site.network.pass(Passing::NONE);
    let cut = Instant::now();
    let end = cut + site.dead_peer_timeout * 2;
    let known = std::thread::scope(|scope| {
        scope.spawn(|| {
            sleep_until(cut + Duration::from_millis(6800));
            session.inspect(b"lock").expect_err("no answer can have come");
        });
        loss_of(session, end).expect("it knows in the end")
    });
    // The time by which every client knows, whatever happened before: `Keepalive::silence_max`.
    assert!(known < cut + Duration::from_millis(16_500), "after {:?}", known - cut);
    assert!(!heirs.await_grant("lock", end).expect("granted in the end").too_early);
}

#[test]
fn in_every_outage_a_holder_knows_first() {
    let seed = seed();
    let crowd = Crowd {
        dead_peer_timeout: SHORTEST,
        sessions: 60,
        coming_and_going: Duration::from_secs(4),
        there: Duration::from_millis(600),
        gone: Duration::from_millis(1200),
    };
    let restless = Crowd { there: Duration::from_millis(1500), gone: Duration::from_millis(900), ..crowd };
    let scenarios: Vec<Scenario> = vec![
        Box::new(move |network| crowd.run(network, seed)),
        Box::new(move |network| restless.run(network, seed)),
        Box::new(swallows_all_probes_of_the_server),
        Box::new(drops_at_the_clients_own_host),
    ];
    in_networks("outages::in_every_outage_a_holder_knows_first", scenarios);
}

#[test]
#[ignore = "takes 2 minutes: make check-deep"]
fn in_long_outages_a_holder_knows_first() {
    let seed = seed();
    let crowd = Crowd {
        dead_peer_timeout: DEFAULT,
        sessions: 100,
        coming_and_going: Duration::from_secs(60),
        there: Duration::from_secs(2),
        gone: Duration::from_secs(6),
    };
    let mut scenarios: Vec<Scenario> = vec![Box::new(had_an_outage_before)];
    for n in 0..3 {
        scenarios.push(Box::new(move |network| crowd.run(network, seed + n)));
        let short = Crowd {
            dead_peer_timeout: SHORTEST,
            there: Duration::from_millis(1500),
            gone: Duration::from_millis(1000),
            ..crowd
        };
        scenarios.push(Box::new(move |network| short.run(network, seed + n)));
    }
    in_networks("outages::in_long_outages_a_holder_knows_first", scenarios);
}
