//! Which addresses a `HOST:PORT` stands for, and that all of them are bound or none. Knows nothing of how one is bound.
//!
//! Clients try all addresses of a name. If only one were bound, the others could be another program's, which then
//! serves those clients that try it first.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};

use rustix::io::Errno;

/// How often a port is taken that must then be free at the other addresses of the same name.
const PORTS_TRIED: usize = 16;

/// Binds every address of `HOST:PORT` by `bind`, which also tells the address that it has bound. Port 0 takes a free
/// port, the same one at each address. An address of a family that this machine does not have (IPv6 that is turned
/// off) is left out if there is another one.
///
/// # Errors
/// If the host has no address, or one of them cannot be bound; then none is.
pub fn bind_every<T>(
    address: &str,
    bind: impl Fn(SocketAddr) -> io::Result<(T, SocketAddr)>,
) -> io::Result<Vec<(T, SocketAddr)>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in address.to_socket_addrs()? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    bind_all(&addresses, &bind)
}

fn bind_all<T>(
    addresses: &[SocketAddr],
    bind: &impl Fn(SocketAddr) -> io::Result<(T, SocketAddr)>,
) -> io::Result<Vec<(T, SocketAddr)>> {
    let mut tried = 0;
    loop {
        tried += 1;
        match bind_at_one_port(addresses, bind) {
            Err(Refused { error, port_was_taken_for_it: true }) if tried < PORTS_TRIED => {
                log::debug!("{error}; another port is tried");
            }
            bound => return bound.map_err(|refused| refused.error),
        }
    }
}

struct Refused {
    error: io::Error,
    /// Whether it is in use, and only wanted because it was free at another address.
    port_was_taken_for_it: bool,
}

fn bind_at_one_port<T>(
    addresses: &[SocketAddr],
    bind: &impl Fn(SocketAddr) -> io::Result<(T, SocketAddr)>,
) -> Result<Vec<(T, SocketAddr)>, Refused> {
    let mut bound: Vec<(T, SocketAddr)> = Vec::new();
    let mut left_out = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for &wanted in addresses {
        let mut address = wanted;
        let taken = bound.first().map(|(_, first)| first.port());
        let is_any_port = address.port() == 0;
        if let Some(port) = taken.filter(|_| is_any_port) {
            address.set_port(port);
        }
        match bind(address) {
            Ok(one) => bound.push(one),
            Err(error) if is_of_no_family_here(address, &error, bind) => left_out = error,
            Err(error) => {
                let is_in_use = error.kind() == io::ErrorKind::AddrInUse;
                let error = match addresses.len() {
                    1 => error,
                    _ => io::Error::new(error.kind(), format!("{address}: {error}")),
                };
                return Err(Refused {
                    error,
                    port_was_taken_for_it: is_any_port && taken.is_some() && is_in_use,
                });
            }
        }
    }
    if bound.is_empty() {
        return Err(Refused { error: left_out, port_was_taken_for_it: false });
    }
    Ok(bound)
}

/// Whether the address could not be bound because the machine has none of its kind at all.
fn is_of_no_family_here<T>(
    address: SocketAddr,
    error: &io::Error,
    bind: &impl Fn(SocketAddr) -> io::Result<(T, SocketAddr)>,
) -> bool {
    match Errno::from_io_error(error) {
        Some(Errno::AFNOSUPPORT) => true,
        // So it is also where IPv6 is turned off, and only a look at another address tells the two apart.
        Some(Errno::ADDRNOTAVAIL) if address.is_ipv6() => bind((Ipv6Addr::LOCALHOST, 0).into()).is_err(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const FREE: u16 = 7000;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Binds by `bound`, which says what is in the way; port 0 takes the next free one from [`FREE`] on.
    fn bound(texts: &[&str], bind: impl Fn(SocketAddr) -> Result<(), Errno>) -> io::Result<Vec<String>> {
        let next = RefCell::new(FREE);
        let bind = |mut address: SocketAddr| {
            bind(address).map_err(io::Error::from)?;
            if address.port() == 0 {
                address.set_port(*next.borrow());
                *next.borrow_mut() += 1;
            }
            Ok(((), address))
        };
        let bound = bind_all(&addresses(texts), &bind)?;
        Ok(bound.into_iter().map(|(_, address)| address.to_string()).collect())
    }

    #[test]
    fn every_address_of_a_name_is_bound() {
        let both = ["[::1]:5", "127.0.0.1:5"];
        assert_eq!(bound(&both, |_| Ok(())).unwrap(), both);
        let second_is_in_use =
            |address: SocketAddr| if address.is_ipv4() { Err(Errno::ADDRINUSE) } else { Ok(()) };
        let error = bound(&both, second_is_in_use).unwrap_err();
        assert!(
            error.kind() == io::ErrorKind::AddrInUse && error.to_string().contains("127.0.0.1:5"),
            "{error}"
        );
        assert_eq!(bound(&[], |_| Ok(())).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn any_port_is_the_same_port_at_each_address() {
        let both = ["[::1]:0", "127.0.0.1:0"];
        assert_eq!(bound(&both, |_| Ok(())).unwrap(), ["[::1]:7000", "127.0.0.1:7000"]);
        let first_two_are_in_use = |address: SocketAddr| match address.port() {
            FREE | 7001 if address.is_ipv4() => Err(Errno::ADDRINUSE),
            _ => Ok(()),
        };
        assert_eq!(bound(&both, first_two_are_in_use).unwrap(), ["[::1]:7002", "127.0.0.1:7002"]);
        let all_are_in_use = |address: SocketAddr| match address.is_ipv4() {
            true => Err(Errno::ADDRINUSE),
            false => Ok(()),
        };
        assert_eq!(bound(&both, all_are_in_use).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_family_that_the_machine_does_not_have_is_left_out() {
        let both = ["[::1]:5", "127.0.0.1:5"];
        for errno in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            let no_ipv6 = |address: SocketAddr| if address.is_ipv6() { Err(errno) } else { Ok(()) };
            assert_eq!(bound(&both, no_ipv6).unwrap(), ["127.0.0.1:5"]);
            assert!(bound(&both[..1], no_ipv6).is_err());
        }
        // This one has it, and not this address.
        let not_here = |address: SocketAddr| match address.ip().is_loopback() {
            true => Ok(()),
            false => Err(Errno::ADDRNOTAVAIL),
        };
        for other in ["[2001:db8::1]:5", "192.0.2.1:5"] {
            let error = bound(&["127.0.0.1:5", other], not_here).unwrap_err();
            assert!(error.to_string().contains(other), "{error}");
        }
    }
}
