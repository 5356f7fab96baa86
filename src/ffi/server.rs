//! `lock_server`: a broker of this process, served to the network.

use std::ffi::c_char;
use std::ptr;

use super::arguments::{free, handle, is_null, own, text};
use super::broker::{broker_of, lock_broker};
use super::guard::guard;
use super::status::{Failure, lock_status};
use crate::fork::OfThisProcess;
use crate::server::{Config, Listen, Server, Service, parse_allow};

/// Listeners and connections that serve a broker to the network. Made by lock_serve, freed by
/// lock_server_stop.
pub struct lock_server(OfThisProcess<Server>);

/// Serves a broker to other processes, from threads that this starts: one for each address, one for chores,
/// and one for each connection, all with all signals blocked. Sessions of the program's own go on using
/// the broker as before.
///
/// @param broker  The broker; NULL: the default one.
/// @param listen  Where to listen, separated by commas: PROTOCOL://HOST:PORT or PROTOCOL+unix:PATH, where
///                PROTOCOL is lockd, glockd or message (which lock_connect speaks); glockd+ws is glockd
///                in WebSocket. Port 0 takes a free port; lock_server_address tells which. A Unix socket is
///                for this user alone. TLS and a secret are for the program lockd alone.
/// @param allow   Who may connect over TCP, separated by commas: IP or IP/BITS. NULL or empty: this machine
///                only, whatever address is bound.
/// @param out     Receives the server, to be stopped with lock_server_stop.
///
/// @return LOCK_OK;
///         LOCK_INVALID: listen or out is NULL, or an address makes no sense;
///         LOCK_IO: an address cannot be bound, or a thread not started; then nothing is served;
///         LOCK_FORKED: the broker is that of a parent process; LOCK_INTERNAL.
///
/// Any thread. Blocks for as long as the resolver takes if listen has host names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_serve(
    broker: *mut lock_broker,
    listen: *const c_char,
    allow: *const c_char,
    out: *mut *mut lock_server,
) -> lock_status {
    guard(|| {
        if out.is_null() {
            return Err(is_null("out"));
        }
        // SAFETY: the caller passes a broker or NULL.
        let broker = unsafe { broker_of(broker) }?;
        // SAFETY: the caller passes a string or NULL.
        let listen = unsafe { text(listen, "listen") }?;
        let listen = listen.split(',').map(|part| part.trim().parse::<Listen>());
        let listen = listen.collect::<Result<_, _>>().map_err(Failure::invalid)?;
        let mut config = Config { listen, ..Config::default() };
        // SAFETY: the caller passes a string or NULL.
        let allow = if allow.is_null() { "" } else { unsafe { text(allow, "allow") }? };
        if !allow.trim().is_empty() {
            let nets = allow.split(',').map(|part| parse_allow(part.trim()));
            config.allow = nets.collect::<Result<_, _>>().map_err(Failure::invalid)?;
        }
        config.check().map_err(Failure::invalid)?;
        let server = Server::start(&broker, config, Service::locks())?;
        let server = Box::into_raw(Box::new(lock_server(OfThisProcess::new(server))));
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { out.write(server) };
        Ok(lock_status::LOCK_OK)
    })
}

/// An address that a server listens on, with the port that was taken for port 0: in the form in which
/// lock_serve was given it, which lock_connect takes too if the protocol is message.
///
/// @param server  The server.
/// @param index   Which of the addresses, counted from 0 in the order given to lock_serve. A
///                host name that has several addresses makes as many, one after the other.
/// @param buf     Receives the address, with a zero byte at its end.
/// @param len     How many bytes buf has. 300 are enough for any address but a long host name.
///
/// @return LOCK_OK;
///         LOCK_INVALID: server or buf is NULL, there is no such address, or buf is too small (then
///         lock_last_error says how many bytes it takes, and nothing is written);
///         LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_server_address(
    server: *const lock_server,
    index: usize,
    buf: *mut c_char,
    len: usize,
) -> lock_status {
    guard(|| {
        // SAFETY: the caller passes a server that is not being stopped, or NULL.
        let server = own(&unsafe { handle(server, "server") }?.0)?;
        let addresses = server.addresses();
        let none = || Failure::invalid(format_args!("there are {} addresses", addresses.len()));
        let address = addresses.get(index).ok_or_else(none)?.to_string();
        if buf.is_null() {
            return Err(is_null("buf"));
        }
        if address.len() >= len {
            return Err(Failure::invalid(format_args!("the address takes {} bytes", address.len() + 1)));
        }
        // SAFETY: `buf` has `len` bytes, more than the address has; a new string does not overlap it.
        unsafe { ptr::copy_nonoverlapping(address.as_ptr().cast(), buf, address.len()) };
        // SAFETY: still within `len`.
        let end = unsafe { buf.add(address.len()) };
        // SAFETY: as above.
        unsafe { end.write(0) };
        Ok(lock_status::LOCK_OK)
    })
}

/// Stops a server: closes its listeners and connections, frees the locks of those connections, joins every
/// thread it started, and frees it. The broker and the program's own sessions stay as they are.
///
/// @param server  May be NULL. Must not be used any more, nor be in use by another thread.
///
/// Any thread; blocks until the threads have ended. That is at once, unless a client that holds locks cannot be
/// told that they are lost, or asked for time to end its work: the first takes the dead-peer timeout (25 seconds),
/// the second as long again, at most. In a forked child it frees the handle, and touches nothing of the parent's.
/// If another part of the program has closed the server's descriptors, it may block for ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_server_stop(server: *mut lock_server) {
    // SAFETY: made by `lock_serve` from a box, or NULL, and given back here for good.
    guard(|| unsafe { free(server) });
}
