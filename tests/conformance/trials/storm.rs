//! Three clients compete for one lock, while they are stopped, kicked and cut off in a random order:
//! each grant is the broker's, and there is never a second holder.

use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use super::Trial;
use crate::calls::EXCLUSIVE;
use crate::driver::{Driver, HANG};
use crate::outcome::{Answer, Word};
use crate::relay::{End, Relay};
use crate::server::Server;
use crate::stage::Stage;
use crate::verdict::{Failure, Verdict, ensure};
use crate::witness::Witness;

pub(super) const TRIALS: &[Trial] = &[Trial::new(
    "storm",
    "Whatever happens to three clients that compete, each grant is the broker's.",
    &["wait"],
    storm,
)
.unless(&["session-per-lock"])];

const NAME: &str = "storm";
const PLAYERS: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Waiting,
    Holding,
}

struct Player {
    driver: Driver,
    relay: Relay,
    state: State,
    is_stopped: bool,
}

struct Storm<'a> {
    stage: &'a Stage,
    server: Rc<Server>,
    witness: Witness,
    players: Vec<Player>,
    random: u64,
}

fn storm(stage: &Stage) -> Verdict {
    let server = stage.server();
    let witness = server.witness()?;
    let mut storm = Storm { stage, server, witness, players: Vec::new(), random: 0x9e37_79b9 };
    for _ in 0..PLAYERS {
        let player = storm.player()?;
        storm.players.push(player);
    }
    for _ in 0..5 * stage.rounds {
        let place = storm.below(PLAYERS);
        storm.step(place).map_err(|failure| failure.during(&format!("player {place}")))?;
    }
    // At last, everyone who waits gets the lock.
    for place in 0..PLAYERS {
        storm.resume(place);
    }
    let end = Instant::now() + HANG;
    while storm.players.iter().any(|player| player.state != State::Idle) {
        ensure(Instant::now() < end, || "a client that waits does not get the lock".to_owned())?;
        for place in 0..PLAYERS {
            storm.take_notice(place)?;
            storm.let_go(place)?;
        }
        thread::sleep(Duration::from_millis(1));
    }
    storm.witness.until(NAME, 0, 0)
}

impl Storm<'_> {
    /// A number below `limit`. Always the same ones, so that a failure can be repeated.
    fn below(&mut self, limit: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).unwrap_or_default() % limit
    }

    fn player(&self) -> Verdict<Player> {
        let relay = self.stage.relay(&self.server);
        let driver = self.stage.connected_to(relay.url())?;
        Ok(Player { driver, relay, state: State::Idle, is_stopped: false })
    }

    fn step(&mut self, place: usize) -> Verdict {
        self.take_notice(place)?;
        let chance = self.below(10);
        let player = &mut self.players[place];
        match (player.is_stopped, player.state) {
            (true, _) if chance < 2 => self.resume(place),
            (true, State::Waiting | State::Holding) if chance < 5 => return self.lose(place),
            (true, _) => {}
            (false, State::Idle) => {
                player.driver.begin_acquire(NAME, EXCLUSIVE)?;
                player.state = State::Waiting;
                return self.settle();
            }
            (false, State::Holding) if chance < 6 => return self.let_go(place),
            (false, _) if chance < 8 => return self.stop(place),
            (false, State::Holding) if player.driver.can("check") => {
                player.driver.check(NAME)?.must_be(Word::Held)?;
            }
            (false, _) => {}
        }
        Ok(())
    }

    /// Waits until the broker has exactly the requests of the players that hold the lock or wait.
    fn settle(&mut self) -> Verdict {
        let busy = self.players.iter().filter(|player| player.state != State::Idle).count();
        self.witness.until_requests(NAME, busy as u64)
    }

    /// Stops the player. If the broker has granted it the lock already, it says so first: otherwise
    /// no one could tell whether it was stopped before it had looked at its connection, or after.
    fn stop(&mut self, place: usize) -> Verdict {
        let holders = self.witness.addresses_of_holders(NAME);
        let player = &mut self.players[place];
        let is_holder = player.relay.server_side().iter().any(|own| holders.contains(own));
        if player.state == State::Waiting && is_holder {
            let answer = player.driver.hear()?.must_be(Word::Granted)?;
            player.state = State::Holding;
            self.is_the_holder(place, &answer)?;
        }
        let player = &mut self.players[place];
        player.driver.stop()?;
        player.is_stopped = true;
        Ok(())
    }

    fn resume(&mut self, place: usize) {
        let player = &mut self.players[place];
        if player.is_stopped {
            player.driver.resume();
            player.is_stopped = false;
        }
    }

    /// If the player waits and its driver has said something: it must be a grant, and true.
    fn take_notice(&mut self, place: usize) -> Verdict {
        let player = &mut self.players[place];
        if player.state != State::Waiting || player.driver.has_no_outcome().is_ok() {
            return Ok(());
        }
        let answer = player.driver.hear()?.must_be(Word::Granted)?;
        player.state = State::Holding;
        self.is_the_holder(place, &answer)
    }

    /// The broker must say that this player holds the lock, and no other one may believe it.
    fn is_the_holder(&mut self, place: usize, answer: &Answer) -> Verdict {
        let holders = self.witness.addresses_of_holders(NAME);
        let own = self.players[place].relay.server_side();
        ensure(holders.len() == 1 && own.contains(&holders[0]), || {
            answer.failure(&format!("A FALSE YES: the broker has granted it to {holders:?}, not {own:?}")).0
        })?;
        let believers = self.players.iter().filter(|player| player.state == State::Holding).count();
        ensure(believers == 1, || answer.failure("A FALSE YES: another client holds the lock, too").0)
    }

    fn let_go(&mut self, place: usize) -> Verdict {
        let player = &mut self.players[place];
        if player.state == State::Holding && !player.is_stopped {
            player.driver.release(NAME)?.must_be(Word::Ok)?;
            player.state = State::Idle;
        }
        Ok(())
    }

    /// The session of a player that is stopped ends, and the lock goes to someone else.
    fn lose(&mut self, place: usize) -> Verdict {
        let way = self.below(3);
        let player = &self.players[place];
        let own = player.relay.server_side();
        match way {
            0 => player.relay.end(End::Fin)?,
            1 => player.relay.end(End::Reset)?,
            _ => {
                let address = own.first().ok_or_else(|| Failure::new("it has no connection"))?;
                self.witness.kick(address)?;
                // The relay passes the end on; the client must be able to know.
                player.relay.until_ended()?;
            }
        }
        let was = std::mem::replace(&mut self.players[place].state, State::Idle);
        self.settle()?;
        // Its lock is free, or someone else has it.
        let player = &self.players[place];
        player.driver.resume();
        if was == State::Waiting {
            player.driver.hear()?.must_be_lost()?;
        }
        if player.driver.can("check") {
            player.driver.check(NAME)?.must_be_lost()?;
        }
        self.players[place] = self.player()?;
        Ok(())
    }
}
