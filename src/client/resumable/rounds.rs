//! Where the next attempt to connect again goes: the places of the server in turn, in rounds. Knows
//! nothing of how an attempt ends, except whether it has found the server.

use socket2::SockAddr;

/// The places of a server, and where the next attempt goes.
pub(super) struct Rounds {
    places: Vec<KnownPlace>,
    /// The place where the server was last: each round begins there.
    active: usize,
    /// The place of the latest attempt.
    current: usize,
    /// How many attempts of this round have been made.
    made: usize,
}

/// The addresses of one place. An attempt tries one of them, and the next attempt there the next one.
struct KnownPlace {
    addresses: Vec<SockAddr>,
    next: usize,
}

/// Where an attempt goes.
pub(super) struct NextAttempt {
    pub(super) place: usize,
    /// `None` if the place has no address.
    pub(super) address: Option<SockAddr>,
    /// Whether it is the last one of its round.
    pub(super) is_last: bool,
}

impl Rounds {
    /// The addresses of each place, of which there is at least one. The server is at `active`.
    pub(super) fn new(addresses: Vec<Vec<SockAddr>>, active: usize) -> Self {
        let places = addresses.into_iter().map(|addresses| KnownPlace { addresses, next: 0 }).collect();
        Self { places, active, current: active, made: 0 }
    }

    /// Where the next attempt goes.
    pub(super) fn next(&mut self) -> NextAttempt {
        self.current = match self.made {
            0 => self.active,
            // The others in the order in which they are written.
            made if made <= self.active => made - 1,
            made => made,
        };
        self.made += 1;
        let is_last = self.made >= self.places.len();
        if is_last {
            self.made = 0;
        }
        let address = self.places.get_mut(self.current).and_then(KnownPlace::next_address);
        NextAttempt { place: self.current, address, is_last }
    }

    /// The place of the latest attempt.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// The latest attempt has found the server.
    pub(super) fn found(&mut self) {
        (self.active, self.made) = (self.current, 0);
    }

    /// The place has these addresses now, unless they are unknown.
    pub(super) fn set_addresses(&mut self, place: usize, addresses: Vec<SockAddr>) {
        if let Some(place) = self.places.get_mut(place)
            && !addresses.is_empty()
        {
            place.addresses = addresses;
        }
    }
}

impl KnownPlace {
    fn next_address(&mut self) -> Option<SockAddr> {
        let address = self.addresses.get(self.next % self.addresses.len().max(1)).cloned();
        self.next = self.next.wrapping_add(1);
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses of a place, with these ports.
    fn at(ports: &[u16]) -> Vec<SockAddr> {
        ports.iter().map(|&port| std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).collect()
    }

    /// The place, the port and whether the attempt is the last one of its round.
    fn next(rounds: &mut Rounds) -> (usize, Option<u16>, bool) {
        let NextAttempt { place, address, is_last } = rounds.next();
        (place, address.and_then(|address| address.as_socket()).map(|address| address.port()), is_last)
    }

    #[test]
    fn a_round_begins_where_the_server_was_last() {
        let mut rounds = Rounds::new(vec![at(&[1]), at(&[2]), at(&[3])], 1);
        for _ in 0..2 {
            let round = [next(&mut rounds), next(&mut rounds), next(&mut rounds)];
            assert_eq!(round, [(1, Some(2), false), (0, Some(1), false), (2, Some(3), true)]);
        }
        assert_eq!(next(&mut rounds), (1, Some(2), false));
        assert_eq!(next(&mut rounds), (0, Some(1), false));
        rounds.found();
        let round = [next(&mut rounds), next(&mut rounds), next(&mut rounds)];
        assert_eq!(round, [(0, Some(1), false), (1, Some(2), false), (2, Some(3), true)]);
    }

    #[test]
    fn each_attempt_at_a_place_goes_to_its_next_address() {
        let mut rounds = Rounds::new(vec![at(&[1, 2]), at(&[])], 0);
        assert_eq!([next(&mut rounds), next(&mut rounds)], [(0, Some(1), false), (1, None, true)]);
        assert_eq!([next(&mut rounds), next(&mut rounds)], [(0, Some(2), false), (1, None, true)]);
        rounds.set_addresses(0, Vec::new());
        rounds.set_addresses(1, at(&[9]));
        assert_eq!([next(&mut rounds), next(&mut rounds)], [(0, Some(1), false), (1, Some(9), true)]);
        let mut only = Rounds::new(vec![at(&[1, 2])], 0);
        assert_eq!([next(&mut only), next(&mut only)], [(0, Some(1), true), (0, Some(2), true)]);
    }
}
