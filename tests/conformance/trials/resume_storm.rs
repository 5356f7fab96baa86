//! Three clients whose sessions resume compete for one lock, while their connections are reset and
//! the server is restarted in a random order: no outage is so long that one of them loses its locks,
//! and there is never a second holder.

use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::resuming::{resumable, resuming};
use super::{Pace, Trial};
use crate::calls::EXCLUSIVE;
use crate::driver::{Driver, HANG};
use crate::outcome::{Answer, Word};
use crate::relay::Relay;
use crate::server::Server;
use crate::stage::Stage;
use crate::verdict::{Verdict, ensure};
use crate::witness::Witness;

pub(super) const TRIALS: &[Trial] = &[Trial::new(
    "resume-storm",
    "However often sessions resume that compete, none loses its locks, and each grant is the only one.",
    &["resume", "wait", "check", "bounded"],
    storm,
)
.pace(Pace::Waits)];

const NAME: &str = "storm";
const PLAYERS: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Waiting,
    Holding,
}

struct Player {
    /// Its name at the server.
    owner: String,
    driver: Driver,
    relay: Relay,
    state: State,
}

struct Storm {
    server: Rc<Server>,
    witness: Witness,
    players: Vec<Player>,
    random: u64,
}

fn storm(stage: &Stage) -> Verdict {
    let server = resumable(stage, &[]);
    let witness = server.witness()?;
    let mut storm = Storm { server, witness, players: Vec::new(), random: 0x9e37_79b9 };
    for number in 1..=PLAYERS {
        let relay = stage.relay(&storm.server);
        let driver = stage.connected_to(&resuming(relay.url().to_owned()))?;
        // So that every session has something to resume with.
        driver.hold(format!("own-{number}"), EXCLUSIVE)?;
        let owner = format!("driver-{number}");
        storm.players.push(Player { owner, driver, relay, state: State::Idle });
    }
    for _ in 0..5 * stage.rounds {
        for place in 0..PLAYERS {
            storm.look(place)?;
        }
        let place = storm.below(PLAYERS);
        storm.step(place).map_err(|failure| failure.during(&format!("player {place}")))?;
    }
    storm.calm()
}

impl Storm {
    /// A number below `limit`. Always the same ones, so that a failure can be repeated.
    fn below(&mut self, limit: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).unwrap_or_default() % limit
    }

    fn step(&mut self, place: usize) -> Verdict {
        let chance = self.below(24);
        let player = &mut self.players[place];
        match (chance, player.state) {
            (0, _) => return self.restart(),
            (1..4, _) => player.relay.reset_client_side()?,
            (4..7, _) => player.relay.reset_server_side()?,
            (_, State::Idle) => {
                player.driver.begin_acquire(NAME, EXCLUSIVE)?;
                player.state = State::Waiting;
            }
            (7..16, State::Holding) => self.let_go(place)?,
            (_, State::Holding) => {
                player.driver.check(NAME)?.must_be_one_of(&[Word::Held, Word::Doubt])?;
            }
            (_, State::Waiting) => {}
        }
        Ok(())
    }

    /// Not while it grants nothing, because the next server would wait for its whole grace; nor while
    /// a session is in doubt: it may have resumed without learning of it, and the next server would
    /// not take back what is so old.
    fn restart(&mut self) -> Verdict {
        for player in self.players.iter().filter(|player| player.state != State::Waiting) {
            player.driver.certain(HANG)?.must_be(Word::Alive)?;
        }
        if !self.witness.finds_all_well() {
            return Ok(());
        }
        self.server.end(Signal::TERM);
        self.server.start_again();
        self.witness = self.server.witness()?;
        Ok(())
    }

    /// Lets the session go on with resuming, which a call that waits does by itself; if the player
    /// has the lock now, it must be the only one.
    fn look(&mut self, place: usize) -> Verdict {
        let player = &mut self.players[place];
        if player.state != State::Waiting {
            return player.driver.state()?.must_be_one_of(&[Word::Alive, Word::Doubt]).map(drop);
        }
        if player.driver.has_no_outcome().is_ok() {
            return Ok(());
        }
        let answer = player.driver.hear()?.must_be(Word::Granted)?;
        player.state = State::Holding;
        let holders = self.players.iter().filter(|player| player.state == State::Holding).count();
        ensure(holders == 1, || answer.failure("A FALSE YES: another client holds the lock, too").0)?;
        self.is_the_holder(place, &answer)
    }

    /// As soon as it is certain what the player has, the server must say that it is the holder.
    fn is_the_holder(&mut self, place: usize, answer: &Answer) -> Verdict {
        let player = &self.players[place];
        if player.driver.state()?.word == Word::Doubt {
            return Ok(());
        }
        let end = Instant::now() + HANG;
        // A server that was restarted learns the name right after the session has resumed.
        while self.witness.names_of_holders(NAME) != [player.owner.as_str()] {
            let why = "A FALSE YES: the broker has not granted it";
            ensure(Instant::now() < end, || answer.failure(why).0)?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn let_go(&mut self, place: usize) -> Verdict {
        let player = &mut self.players[place];
        // In doubt it is given up, too.
        player.driver.release(NAME)?.must_be_one_of(&[Word::Ok, Word::Doubt])?;
        player.state = State::Idle;
        Ok(())
    }

    /// At last, everyone who waits gets the lock, and all are certain of what they have.
    fn calm(mut self) -> Verdict {
        let end = Instant::now() + HANG;
        while self.players.iter().any(|player| player.state != State::Idle) {
            ensure(Instant::now() < end, || "a client that waits does not get the lock".to_owned())?;
            for place in 0..PLAYERS {
                self.look(place)?;
                if self.players[place].state == State::Holding {
                    self.let_go(place)?;
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        for (player, number) in self.players.iter().zip(1..) {
            player.driver.certain(HANG)?.must_be(Word::Alive)?;
            player.driver.check(format!("own-{number}"))?.must_be(Word::Held)?;
            self.witness.until(format!("own-{number}"), 1, 0)?;
        }
        self.witness.until(NAME, 0, 0)?;
        self.players.iter().try_for_each(|player| player.driver.close())
    }
}
