//! Binding TCP addresses. A host name may stand for several addresses; either all of them are bound
//! or none. Clients try all addresses of a name, so if only one were bound, another program could
//! listen at the others, and would get the clients that try these first.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};

use rustix::io::Errno;
use socket2::{Domain, SockRef};

use crate::os::fork::CloseOnForkFd;
use crate::os::socket::new_socket;

/// How many connections may wait to be accepted, on any socket. More than the kernel's usual 128:
/// if a burst of connects overflows this queue, each connection that did not fit costs its client a
/// second.
pub(super) const BACKLOG: i32 = 4096;
/// How many free ports are tried for port 0: each must be free at all addresses of a name.
const PORTS_MAX: usize = 16;

/// A listening socket, and its address with the port that was taken for port 0.
pub(super) fn bind(address: SocketAddr) -> io::Result<(CloseOnForkFd, SocketAddr)> {
    let descriptor = new_socket(Domain::for_address(address))?;
    let socket = SockRef::from(&descriptor);
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok((descriptor, bound))
}

/// Binds every address of `HOST:PORT` with `bind`, which returns a socket and the address that it
/// has bound. Port 0 takes a free port, the same one at each address. An address of a family that
/// this machine does not have (IPv6 may be turned off) is left out if there is another one.
///
/// # Errors
/// If the host has no address, or one of its addresses cannot be bound. In either case none is.
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
            Err((error, true)) if tried < PORTS_MAX => {
                log::debug!("{error}; another port is tried");
            }
            bound => return bound.map_err(|(error, _)| error),
        }
    }
}

/// An error says, too, whether another port may be free everywhere: the port is in use, and was
/// only wanted because it was free at another address.
fn bind_at_one_port<T>(
    addresses: &[SocketAddr],
    bind: &impl Fn(SocketAddr) -> io::Result<(T, SocketAddr)>,
) -> Result<Vec<(T, SocketAddr)>, (io::Error, bool)> {
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
            Err(error) if is_family_missing(address, &error, bind) => left_out = error,
            Err(error) => {
                let is_in_use = error.kind() == io::ErrorKind::AddrInUse;
                let error = match addresses.len() {
                    1 => error,
                    _ => io::Error::new(error.kind(), format!("{address}: {error}")),
                };
                let may_try_another_port = is_any_port && taken.is_some() && is_in_use;
                return Err((error, may_try_another_port));
            }
        }
    }
    if bound.is_empty() {
        return Err((left_out, false));
    }
    Ok(bound)
}

/// Whether the address could not be bound because the machine has no address of its family at all.
fn is_family_missing<T>(
    address: SocketAddr,
    error: &io::Error,
    bind: &impl Fn(SocketAddr) -> io::Result<(T, SocketAddr)>,
) -> bool {
    match Errno::from_io_error(error) {
        Some(Errno::AFNOSUPPORT) => true,
        // The same error means that IPv6 is turned off, or that only this address is missing.
        // Binding another address tells the two apart.
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

    /// Binds each address unless `bind` returns an error for it. Port 0 takes the next port from
    /// [`FREE`] on.
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
        // The machine has the family, but not this address.
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
