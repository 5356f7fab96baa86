//! The calls of a client whose session resumes. Each request on the wire is a call of the history:
//! one whose connection ends before its answer is one that was given up, and a call that waits asks
//! again afterwards. What a call is logged with was seen at a moment at which the session certainly
//! stood, or at which it was certainly within its limit: this process may be stopped at any time.

use serde_json::{Value, json};

use super::connection::Incoming;
use super::session::{Held, ResumableSession, Standing};
use crate::faults::log::{Log, now};
use crate::faults::wire::{Answer, Lost, seconds, text, want};
use crate::history::{CallKind, MILLISECOND, Mode, NEVER, Name, Nanos, Outcome, SECOND};

/// How often a call that waits looks whether its session needs something.
const LOOK_INTERVAL: Nanos = 100 * MILLISECOND;
/// How long a connection may stand on which nothing is answered.
const SERVER_DEAD_AFTER: Nanos = 60 * SECOND;

/// How a request on the wire ended.
enum Replied {
    Answer(Value),
    /// The connection ended first.
    Ended,
}

impl ResumableSession {
    /// Acquires these names, or what of `Answer` says why not: `GivenUp` also says that the session
    /// is in doubt, or was when the time limit was over.
    pub(crate) fn acquire(
        &mut self,
        wants: &[(Name, Mode)],
        limit: Option<Nanos>,
        acked: bool,
        log: &mut Log,
    ) -> Answer {
        let until = limit.map_or(NEVER, |limit| now() + limit);
        loop {
            if !self.look_until(until, log)? {
                return Ok(Outcome::GivenUp);
            }
            let left = limit.map(|limit| if limit == 0 { 0 } else { until.saturating_sub(now()).max(1000) });
            log.calling(CallKind::Acquire { limit: left }, wants);
            let mut parameters = match wants {
                [(name, mode)] => want(*name, *mode),
                _ => {
                    json!({"lockNames": wants.iter().map(|(name, mode)| want(*name, *mode)).collect::<Vec<_>>()})
                }
            };
            parameters["timeLimit"] = seconds(left);
            let outcome = self.ask("lock", &parameters, left, acked, log)?;
            if let Outcome::Granted(Some(token)) = outcome {
                self.held.extend(wants.iter().map(|&(name, mode)| Held { name, mode, token }));
            }
            match outcome {
                Outcome::GivenUp if limit != Some(0) && now() < until => {}
                outcome => return Ok(outcome),
            }
        }
    }

    pub(crate) fn convert(&mut self, name: Name, mode: Mode, limit: Option<Nanos>, log: &mut Log) -> Answer {
        let start = now();
        match self.look(log) {
            Standing::Alive => {}
            Standing::InDoubt => return Ok(Outcome::GivenUp),
            Standing::Lost => return Err(Lost),
        }
        log.calling_at(start, CallKind::Convert { limit }, &[(name, mode)]);
        let mut parameters = want(name, mode);
        parameters["timeLimit"] = seconds(limit);
        let Some(at) = self.held.iter().position(|held| held.name == name) else {
            return self.ask("convert", &parameters, limit, true, log);
        };
        let before = self.held[at].mode;
        // As long as it is not decided, the client claims what allows more holders.
        self.held[at].mode = before.max(mode);
        let outcome = self.ask("convert", &parameters, limit, true, log)?;
        match outcome {
            Outcome::Granted(Some(token)) => self.held[at] = Held { name, mode, token },
            // In doubt it stays undecided.
            Outcome::GivenUp => {}
            _ => self.held[at].mode = before,
        }
        Ok(outcome)
    }

    /// What the client believes to hold.
    pub(crate) fn holds(&self) -> Vec<(Name, Mode)> {
        self.held.iter().map(|held| (held.name, held.mode)).collect()
    }

    /// Releases these names. In doubt they are given up, and the outcome is `GivenUp`.
    pub(crate) fn release(&mut self, names: &[(Name, Mode)], log: &mut Log) -> Answer {
        let mut start = now();
        let mut standing = self.look(log);
        // Nothing that happened while its machine slept is certain.
        while standing == Standing::InDoubt && self.is_unsure() {
            std::thread::sleep(std::time::Duration::from_millis(1));
            start = now();
            standing = self.look(log);
        }
        if standing == Standing::Lost {
            return Err(Lost);
        }
        log.calling_at(start, CallKind::Release, names);
        let plain: Vec<Name> = names.iter().map(|(name, _)| *name).collect();
        if standing == Standing::InDoubt {
            self.give_up(&plain);
            return Ok(Outcome::GivenUp);
        }
        let parameters = match names {
            [(name, _)] => json!({"lockName": text(*name)}),
            _ => json!({"lockNames": plain.iter().map(|name| text(*name)).collect::<Vec<_>>()}),
        };
        self.releasing.extend(self.held.extract_if(.., |held| plain.contains(&held.name)));
        let is_held = !self.releasing.is_empty();
        let outcome = match self.exchange("unlock", &parameters, None, log) {
            Replied::Answer(answer) => {
                self.releasing.clear();
                match answer["status"].as_str() {
                    Some("ok") => Outcome::Released,
                    Some("notFound") => Outcome::NotHeld,
                    _ => panic!("an unlock was answered {answer}"),
                }
            }
            // Whether it was done is known when the session has resumed: then it has succeeded.
            Replied::Ended if is_held => {
                self.look_until(NEVER, log)?;
                Outcome::Released
            }
            Replied::Ended => return Ok(Outcome::GivenUp),
        };
        log.answered(outcome);
        Ok(outcome)
    }

    pub(crate) fn inspect(&mut self, name: Name, log: &mut Log) -> Answer {
        match self.look(log) {
            Standing::Alive => {}
            Standing::InDoubt => return Ok(Outcome::GivenUp),
            Standing::Lost => return Err(Lost),
        }
        log.calling(CallKind::Inspect, &[(name, Mode::Exclusive)]);
        match self.exchange("inspect", &json!({"lockName": text(name)}), None, log) {
            Replied::Answer(answer) => {
                let holders = answer["holders"].as_u64().expect("a number of holders");
                let outcome = Outcome::Seen(u32::try_from(holders).unwrap());
                log.answered(outcome);
                Ok(outcome)
            }
            Replied::Ended => Ok(Outcome::GivenUp),
        }
    }

    /// Sends a request that may wait, and logs its outcome. A grant counts only if the connection
    /// stands after it was read.
    fn ask(
        &mut self,
        command: &str,
        parameters: &Value,
        limit: Option<Nanos>,
        acked: bool,
        log: &mut Log,
    ) -> Answer {
        let is_convert = command == "convert";
        let Replied::Answer(answer) = self.exchange(command, parameters, acked.then_some(limit), log) else {
            return Ok(self.undecided(is_convert, log));
        };
        let outcome = match answer["status"].as_str() {
            Some("ok") if answer["already"] == true => {
                panic!("a client was told that it already holds the lock: {answer}")
            }
            Some("ok") => Outcome::Granted(Some(answer["token"].as_u64().expect("a token"))),
            Some("timeout") if limit == Some(0) => Outcome::Busy,
            Some("timeout") => Outcome::TimedOut,
            Some("deadlock") => Outcome::Deadlock,
            Some("refused") if answer["cause"] == "stopping" => {
                self.await_end(log);
                return Ok(self.undecided(is_convert, log));
            }
            Some("refused") => Outcome::Refused,
            Some("notFound") => Outcome::NotHeld,
            _ => panic!("a request was answered {answer}"),
        };
        let at = now();
        if matches!(outcome, Outcome::Granted(_) | Outcome::NotHeld) || is_convert {
            if !self.attached().is_some_and(super::connection::Connection::read_up_to_now) {
                let undecided = self.undecided(is_convert, log);
                self.has_ended(log);
                return Ok(undecided);
            }
            self.confirm(log);
        }
        log.answered_at(at, outcome);
        Ok(outcome)
    }

    /// The outcome of a request whose answer does not count. A conversion stays without one: it
    /// happened or it did not.
    fn undecided(&self, is_convert: bool, log: &mut Log) -> Outcome {
        if !is_convert {
            log.answered(Outcome::GivenUp);
        }
        Outcome::GivenUp
    }

    /// The server is stopping: it ends the connection soon.
    fn await_end(&mut self, log: &mut Log) {
        let until = now() + SERVER_DEAD_AFTER;
        while self.attached().is_some_and(super::connection::Connection::read_up_to_now) {
            assert!(now() < until, "a server that is stopping has not ended a connection");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.has_ended(log);
    }

    /// Sends a request and waits for its answer. With `acked`, sends a ping after it: if that is
    /// answered first, the request is queued.
    fn exchange(
        &mut self,
        command: &str,
        parameters: &Value,
        acked: Option<Option<Nanos>>,
        log: &mut Log,
    ) -> Replied {
        let at = self.clock.now();
        let Some(connection) = self.attached() else { return Replied::Ended };
        let id = connection.send(command, parameters, at);
        let mut ping = acked.map(|_| connection.send("ping", &json!({}), at));
        let may_wait = matches!(command, "lock" | "convert");
        let dead_after = now() + SERVER_DEAD_AFTER;
        let mut answer = None;
        loop {
            let Some(connection) = self.attached() else { return Replied::Ended };
            match connection.receive(now() + LOOK_INTERVAL) {
                Incoming::Answer(answered, _) if Some(answered) == ping => {
                    ping = None;
                    if answer.is_none() {
                        log.queued();
                    }
                }
                Incoming::Answer(answered, result) if answered == id => answer = Some(result),
                // Of an earlier `ping`, `identify` or `unlock`.
                Incoming::Answer(..) => {}
                Incoming::End => {
                    self.has_ended(log);
                    // A release or an answer that has come counts all the same.
                    return answer.filter(|_| !may_wait).map_or(Replied::Ended, Replied::Answer);
                }
                Incoming::Nothing => {
                    self.look(log);
                    let is_late = !may_wait && now() > dead_after;
                    assert!(!is_late, "a server that stands has not answered {command}");
                }
            }
            if let (Some(result), None) = (&answer, ping) {
                return Replied::Answer(result.clone());
            }
        }
    }
}
