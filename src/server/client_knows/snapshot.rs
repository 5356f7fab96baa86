//! The facts about the end of a connection as data, and from it: another image of the program goes
//! on with the same facts, so that the rule has the same result there.

use std::time::{Duration, Instant};

use super::{ConnectionEnd, HelloTerms};
use crate::os::monotonic::{moment_at, nanos_in, nanos_of};
use crate::server::snapshot::types::{EndSnapshot, TermsSnapshot};

impl ConnectionEnd {
    pub(in crate::server) fn snapshot(&self) -> EndSnapshot {
        let terms = |terms: &HelloTerms| TermsSnapshot {
            release_delay_nanos: nanos_in(terms.release_delay),
            wind_down_nanos: nanos_in(terms.wind_down),
            has_work: terms.has_work,
            can_resume: terms.can_resume,
        };
        EndSnapshot {
            is_local: self.is_local,
            peer_ended: self.peer_ended,
            peer_reset: self.peer_reset,
            server_ended: self.server_ended,
            end_acknowledged: self.end_acknowledged,
            peer_timed_out: self.peer_timed_out,
            input_ended: self.input_ended,
            reset_at_nanos: self.reset_at.map(nanos_of),
            known_since_nanos: self.known_since.map(nanos_of),
            silent_since_nanos: self.silent_since.map(nanos_of),
            is_kicked: self.is_kicked,
            terms: self.terms.as_ref().map(terms),
        }
    }

    /// # Errors
    /// If the server is said to have reset the connection, or the client to have known, in the
    /// future.
    pub(in crate::server) fn restore(snapshot: EndSnapshot) -> Result<Self, &'static str> {
        let terms = |terms: TermsSnapshot| HelloTerms {
            release_delay: Duration::from_nanos(terms.release_delay_nanos),
            wind_down: Duration::from_nanos(terms.wind_down_nanos),
            has_work: terms.has_work,
            can_resume: terms.can_resume,
        };
        Ok(Self {
            is_local: snapshot.is_local,
            peer_ended: snapshot.peer_ended,
            peer_reset: snapshot.peer_reset,
            server_ended: snapshot.server_ended,
            end_acknowledged: snapshot.end_acknowledged,
            peer_timed_out: snapshot.peer_timed_out,
            input_ended: snapshot.input_ended,
            reset_at: snapshot.reset_at_nanos.map(past).transpose()?,
            known_since: snapshot.known_since_nanos.map(past).transpose()?,
            silent_since: snapshot.silent_since_nanos.map(past).transpose()?,
            is_kicked: snapshot.is_kicked,
            terms: snapshot.terms.map(terms),
        })
    }
}

/// A moment that has been. One in the future could keep locks for ever.
fn past(nanos: u64) -> Result<Instant, &'static str> {
    let is_past = nanos <= nanos_of(Instant::now());
    moment_at(nanos).filter(|_| is_past).ok_or("a moment in the future")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::os::Keepalive;
    use crate::server::client_knows::TELL_LIMIT;
    use crate::wire::changed_leaves::for_each_changed_leaf;

    /// Ends with every combination of a few facts.
    fn ends() -> Vec<ConnectionEnd> {
        type Fact = fn(&mut ConnectionEnd);
        let facts: [Fact; 12] = [
            ConnectionEnd::set_local,
            |end| {
                let keepalive = Keepalive::server_after_hello(Keepalive::DEAD_PEER_TIMEOUT);
                end.set_terms(&keepalive, Duration::from_secs(3), false);
            },
            |end| {
                let keepalive = Keepalive::server_after_hello(Keepalive::DEAD_PEER_TIMEOUT);
                end.set_terms(&keepalive, Duration::ZERO, true);
            },
            |end| end.note_silence(Instant::now()),
            ConnectionEnd::note_server_end,
            ConnectionEnd::note_all_acknowledged,
            |end| end.note_error(&io::Error::from_raw_os_error(libc::ECONNRESET)),
            |end| end.note_error(&io::Error::from_raw_os_error(libc::ETIMEDOUT)),
            |end| end.note_checked(Instant::now()),
            |end| end.note_reset(Instant::now()),
            ConnectionEnd::note_kick,
            ConnectionEnd::note_end_of_input,
        ];
        (0..1_usize << facts.len())
            .map(|chosen| {
                let mut end = ConnectionEnd::default();
                let is_chosen = |index: &usize| chosen >> index & 1 == 1;
                (0..facts.len()).filter(is_chosen).for_each(|index| facts[index](&mut end));
                end
            })
            .collect()
    }

    /// The facts, with moments that differ by less than a second taken for the same.
    fn without_moments(end: &ConnectionEnd) -> (EndSnapshot, [Option<u64>; 3]) {
        let snapshot = end.snapshot();
        let seconds = |nanos: Option<u64>| nanos.map(|nanos| nanos / 1_000_000_000 / 60);
        let moments =
            [snapshot.reset_at_nanos, snapshot.known_since_nanos, snapshot.silent_since_nanos].map(seconds);
        let none = None;
        let facts = EndSnapshot {
            reset_at_nanos: none,
            known_since_nanos: none,
            silent_since_nanos: none,
            ..snapshot
        };
        (facts, moments)
    }

    #[test]
    fn the_rule_has_the_same_result_in_the_next_image() {
        for end in ends() {
            let json = serde_json::to_string(&end.snapshot()).unwrap();
            let restored = ConnectionEnd::restore(serde_json::from_str(&json).unwrap()).unwrap();
            assert_eq!(restored.client_state(), end.client_state());
            assert_eq!(restored.cause(), end.cause());
            for seconds in [0, 2, 3600] {
                let at = Instant::now() + Duration::from_secs(seconds);
                let next = |end: &ConnectionEnd| end.next_step(at, Instant::now() + TELL_LIMIT);
                let same = std::mem::discriminant(&next(&restored)) == std::mem::discriminant(&next(&end));
                assert!(same, "{:?} and {:?} after {seconds} s", next(&restored), next(&end));
                let (left, before) = (restored.wind_down_left(at), end.wind_down_left(at));
                assert!(left >= before && left - before < Duration::from_secs(1), "{left:?}, {before:?}");
            }
        }
    }

    #[test]
    fn every_fact_arrives_or_is_refused() {
        for end in ends() {
            for_each_changed_leaf(&end.snapshot(), |changed: EndSnapshot| {
                if let Ok(restored) = ConnectionEnd::restore(changed) {
                    let (facts, moments) = without_moments(&restored);
                    let minutes = |nanos: Option<u64>| nanos.map(|nanos| nanos / 1_000_000_000 / 60);
                    let EndSnapshot { reset_at_nanos, known_since_nanos, silent_since_nanos, .. } = changed;
                    let expected = [reset_at_nanos, known_since_nanos, silent_since_nanos];
                    assert_eq!(moments, expected.map(minutes));
                    let expected = EndSnapshot {
                        reset_at_nanos: None,
                        known_since_nanos: None,
                        silent_since_nanos: None,
                        ..changed
                    };
                    assert_eq!(facts, expected);
                }
            });
        }
        let future = Some(u64::MAX / 2);
        assert!(
            ConnectionEnd::restore(EndSnapshot { reset_at_nanos: future, ..EndSnapshot::default() }).is_err()
        );
        assert!(
            ConnectionEnd::restore(EndSnapshot { known_since_nanos: future, ..EndSnapshot::default() })
                .is_err()
        );
    }
}
