//! When a connection's server was last known to have this session: what a session that may be
//! resumed measures its time by. Counts moments; sends nothing.

use std::time::Duration;

use crate::os::boot_clock::BootTime;

/// The proof that the server has the session: the moment at which the latest of all answered
/// requests was sent. A later moment proves nothing, since the server may have ended as soon as it
/// had read that request; nor do acknowledgements, which its kernel goes on to send.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// When the latest of the answered requests was sent.
    latest: Option<BootTime>,
    /// How old the proof may become before the server is asked again.
    age_max: Duration,
    /// Whether the session holds something, and so must be able to prove it.
    pub(super) is_needed: bool,
    /// The `ping` that has not been answered, and when it was sent.
    ping: Option<(u64, BootTime)>,
    /// Whether the server may be at another place: then a `ping` without an answer is reason enough
    /// to look there, before the kernel finds out that nobody is here any more.
    pub(super) has_other_places: bool,
}

/// How long the answer to a `ping` is awaited before the server is looked for at another place, at
/// least.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

impl Proof {
    pub(super) fn latest(&self) -> Option<BootTime> {
        self.latest
    }

    pub(super) fn set_age_max(&mut self, age_max: Duration) {
        self.age_max = age_max;
    }

    /// The request `id`, which was sent then, has been answered.
    pub(super) fn answered(&mut self, id: u64, sent: BootTime) {
        self.latest = self.latest.max(Some(sent));
        if self.ping.is_some_and(|(ping, _)| ping == id) {
            self.ping = None;
        }
    }

    /// The server is asked by this `ping`.
    pub(super) fn asked(&mut self, id: u64, sent: BootTime) {
        self.ping = Some((id, sent));
    }

    /// When the server is to be asked; `None` if it need not be, or has been.
    pub(super) fn ping_at(&self) -> Option<BootTime> {
        if !self.is_needed || self.ping.is_some() {
            return None;
        }
        Some(self.latest? + self.age_max)
    }

    /// From when on the server is to be looked for at another place, unless an answer comes.
    pub(super) fn overdue_at(&self) -> Option<BootTime> {
        let (_, sent) = self.ping.filter(|_| self.is_needed && self.has_other_places)?;
        Some(sent + (self.age_max / 2).max(PATIENCE_MIN))
    }

    /// When something is to be done.
    pub(super) fn next_step_at(&self) -> Option<BootTime> {
        self.ping_at().or(self.overdue_at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::at(Duration::from_secs(seconds))
    }

    #[test]
    fn it_is_the_latest_sending_and_not_the_latest_answer() {
        let mut proof = Proof::default();
        for (id, sent, latest) in [(1, 5, 5), (2, 9, 9), (3, 7, 9), (4, 10, 10)] {
            proof.answered(id, at(sent));
            assert_eq!(proof.latest(), Some(at(latest)));
        }
    }

    #[test]
    fn the_server_is_asked_once_when_the_proof_is_old_and_needed() {
        let mut proof = Proof::default();
        proof.set_age_max(Duration::from_secs(3));
        proof.answered(1, at(5));
        assert_eq!(proof.ping_at(), None);
        proof.is_needed = true;
        assert_eq!(proof.ping_at(), Some(at(8)));
        proof.asked(2, at(8));
        assert_eq!((proof.ping_at(), proof.overdue_at()), (None, None));
        proof.answered(3, at(7));
        assert_eq!(proof.ping_at(), None, "a ping is under way");
        proof.answered(2, at(8));
        assert_eq!(proof.ping_at(), Some(at(11)));
    }

    #[test]
    fn a_server_that_may_be_elsewhere_is_not_awaited_for_long() {
        let mut proof = Proof { is_needed: true, has_other_places: true, ..Proof::default() };
        proof.set_age_max(Duration::from_secs(6));
        proof.answered(1, at(5));
        assert_eq!((proof.overdue_at(), proof.next_step_at()), (None, Some(at(11))));
        proof.asked(2, at(11));
        assert_eq!((proof.overdue_at(), proof.next_step_at()), (Some(at(14)), Some(at(14))));
        proof.set_age_max(Duration::from_secs(1));
        assert_eq!(proof.overdue_at(), Some(at(12)), "not at once");
        proof.answered(2, at(11));
        assert_eq!(proof.overdue_at(), None);
    }
}
