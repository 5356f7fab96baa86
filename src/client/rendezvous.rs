//! Which of several servers a name belongs to: rendezvous hashing. Every client must compute the
//! same, so the result is part of the contract (docs/protocol.md).
//!
//! The server with the highest score for the name wins. The score is FNV-1a, 64 bits, over the
//! server's address as it is written (without a `?` and what follows it; of a server with several
//! places, `SCHEME://` and the places as they are written, sorted by their bytes and joined by
//! commas), a zero byte and the name, and then FNV-1a again over the eight bytes of that hash, the most significant byte first. If
//! scores are equal, the address that is smaller by its bytes wins. So all clients must be given
//! the same addresses, written alike; their order does not matter. An additional server takes over
//! names, but moves no name between the others.

/// The index of the server that the name belongs to. With one server, nothing is computed.
pub(super) fn choose<'a>(servers: impl ExactSizeIterator<Item = &'a str>, name: &[u8]) -> usize {
    if servers.len() == 1 {
        return 0;
    }
    let rank = |&(_, server): &(usize, &'a str)| (score(server, name), std::cmp::Reverse(server.as_bytes()));
    servers.enumerate().max_by_key(rank).map_or(0, |(index, _)| index)
}

fn score(server: &str, name: &[u8]) -> u64 {
    let once = fnv1a(server.bytes().chain([0]).chain(name.iter().copied()));
    // After one round, addresses that differ only in a late byte have scores that differ in few
    // bits, and the servers' shares of the names would be uneven.
    fnv1a(once.to_be_bytes())
}

fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.into_iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> impl Iterator<Item = String> {
        (0..10_000).map(|n| format!("job:{n}"))
    }

    fn servers(count: usize) -> Vec<String> {
        (1..=count).map(|n| format!("tcp://lock{n}.example.org:20934")).collect()
    }

    fn chosen<'a>(servers: &'a [String], name: &str) -> &'a str {
        &servers[choose(servers.iter().map(String::as_str), name.as_bytes())]
    }

    /// Expected values that other clients can be tested against. Computed with PHP's
    /// `hash('fnv1a64', hash('fnv1a64', $server . "\0" . $name, true))`.
    #[test]
    fn scores_and_choices_are_fixed() {
        for (server, name, expected) in [
            ("", b"".as_slice(), 0xe414_49fc_8a23_2c69),
            ("tcp://lock1.example.org:20934", b"foo", 0x57eb_4096_6afa_eec0),
            ("tcp://lock2.example.org:20934", b"foo", 0x5221_013b_83ee_0290),
            ("unix:/run/lockd.sock", b"a\xff\0b", 0xbf55_f2c7_c23a_e0d2),
            ("tcp://a:20934,b:20934", b"foo", 0xbcbf_a783_74b6_0104),
            ("tcp://10.0.0.9:7,lock1.example.org:20934,lock2.example.org", b"foo", 0x76bc_2258_8d57_6dc8),
            ("tls://A,[::1]:7,a", b"job:17", 0x360a_1dc1_bcaf_a74a),
        ] {
            assert_eq!(score(server, name), expected, "{server} {name:?}");
        }
        let three = servers(3);
        for (name, expected) in [("", 2), ("foo", 3), ("bar", 2), ("job:17", 1)] {
            assert_eq!(chosen(&three, name), three[expected - 1], "{name}");
        }
    }

    #[test]
    fn names_are_spread_evenly() {
        for count in [2, 3, 5, 10, 12] {
            let servers = servers(count);
            for server in &servers {
                let own = names().filter(|name| chosen(&servers, name) == server).count();
                let fair = 10_000 / count;
                assert!(own.abs_diff(fair) * 100 < fair * 10, "{server} of {count} has {own}");
            }
        }
    }

    #[test]
    fn an_additional_server_only_takes_names_over() {
        let (four, five) = (servers(4), servers(5));
        let moved = names().filter(|name| chosen(&four, name) != chosen(&five, name));
        let moved: Vec<String> = moved.collect();
        assert!(moved.iter().all(|name| chosen(&five, name) == five[4]));
        assert!((1_600..2_400).contains(&moved.len()), "{} moved", moved.len());
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let forth = servers(5);
        let back: Vec<String> = forth.iter().rev().cloned().collect();
        assert!(names().all(|name| chosen(&forth, &name) == chosen(&back, &name)));
    }
}
