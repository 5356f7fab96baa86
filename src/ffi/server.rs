//! `lock_server`: a broker of this process, served to the network.

use std::ffi::c_char;
use std::ptr;

use super::arguments::{free, handle, is_null, own, text, texts};
use super::broker::{Home, home_of, lock_broker};
use super::guard::guard;
use super::status::{Failure, lock_status};
use crate::broker::Limits;
use crate::os::fork::OfThisProcess;
use crate::os::sync::Arc;
use crate::server::{Bound, Config, Listen, Options, Server, Service, parse_allow};

/// Listeners and connections that serve a broker to the network. Made by lock_serve or lock_serve_with, freed by
/// lock_server_stop.
pub struct lock_server(OfThisProcess<Served>);

struct Served {
    /// `None` once it is being stopped.
    server: Option<Server>,
    /// That of the broker whose state directory it has brought.
    home: Option<Arc<Home>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let (Some(server), Some(home)) = (self.server.take(), &self.home) {
            home.stop(server);
        }
    }
}

/// Starts a server, in a box for C. The addresses are bound first: if they cannot be, nothing has happened.
fn start(home: &Arc<Home>, config: Config, options: &Options) -> Result<*mut lock_server, Failure> {
    let timeout = config.dead_peer_timeout;
    let bound = Bound::new(config)?;
    if let Some(directory) = options.state_dir() {
        home.resume(directory, options.limits(Limits::default()), timeout)?;
    }
    home.note_dead_peer_timeout(timeout)?;
    let broker = home.broker();
    broker.set_limits(options.limits(broker.limits()));
    let server = Some(bound.serve(&broker, Service::locks())?);
    let home = options.state_dir().map(|_| home.clone());
    Ok(Box::into_raw(Box::new(lock_server(OfThisProcess::new(Served { server, home })))))
}

/// Serves a broker to other processes, from threads that this starts: one for each address, one for chores,
/// and one for each connection, all with all signals blocked. Sessions of the program's own go on using
/// the broker as before.
///
/// @param broker  The broker; NULL: the default one.
/// @param listen  Where to listen, separated by commas: PROTOCOL://HOST:PORT or PROTOCOL+unix:PATH, where
///                PROTOCOL is lockd, glockd or message (which lock_connect speaks); glockd+ws is glockd
///                in WebSocket. Port 0 takes a free port; lock_server_address tells which. A Unix socket is
///                for this user alone. For TLS, a secret and more see lock_serve_with.
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
        let home = unsafe { home_of(broker) }?;
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
        let server = start(&home, config, &Options::default())?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { out.write(server) };
        Ok(lock_status::LOCK_OK)
    })
}

/// As lock_serve, with all that a server can be told: the options of the program lockd (`lockd serve --help`), by
/// their long names without the dashes, with values as text. `listen` must be among them.
///
/// ```c
/// const char *names[] = {"listen", "allow", "tls-cert", "tls-key", "no-dump"};
/// const char *values[] = {"message+tls://0.0.0.0:20934", "10.0.0.0/8", "cert.pem", "key.pem", "true"};
/// status = lock_serve_with(NULL, names, values, 5, &server);
/// ```
///
/// An option that takes no value on the command line is "true" or "false" here. `listen`, `allow` and `ws-origin`
/// take several values, separated by commas or as several options of that name. What is not given is as of
/// lock_serve.
///
/// - locks-max, locks-per-connection-max, waits-per-connection-max and name-max are limits of the broker, and so
///   hold for the program's own sessions too.
/// - state-dir makes the broker go on where the last one with that directory ended, as `lockd --state-dir`. It
///   must come before any other use of the broker (lock_open, lock_serve). lock_server_stop of this server then
///   ends the broker: nothing is granted any more, to the program's own sessions either.
/// - http, http-host, config, check, pidfile, user and log-level are for the program lockd alone, and refused.
///
/// @param broker  The broker; NULL: the default one.
/// @param names   The options' names.
/// @param values  As many values.
/// @param n       How many.
/// @param out     Receives the server, to be stopped with lock_server_stop.
///
/// @return LOCK_OK;
///         LOCK_INVALID: out, names or values is NULL, or one of them; there is no such option; a value makes no
///         sense, or names a file that cannot be read: lock_last_error begins with the option's name;
///         LOCK_IO: an address cannot be bound, a thread not started, or the state directory not used;
///         LOCK_FORKED: the broker is that of a parent process; LOCK_INTERNAL. If it is not LOCK_OK, nothing is
///         served.
///
/// Any thread. Blocks for as long as the resolver takes if there are host names among the addresses, and reads files.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_serve_with(
    broker: *mut lock_broker,
    names: *const *const c_char,
    values: *const *const c_char,
    n: usize,
    out: *mut *mut lock_server,
) -> lock_status {
    guard(|| {
        if out.is_null() {
            return Err(is_null("out"));
        }
        // SAFETY: the caller passes a broker or NULL.
        let home = unsafe { home_of(broker) }?;
        // SAFETY: the caller passes `n` strings or NULL.
        let names = unsafe { texts(names, n, "names", |at| format!("names[{at}]")) }?;
        // SAFETY: the caller passes `n` strings or NULL.
        let values = unsafe { texts(values, n, "values", |at| format!("{}: the value", names[at])) }?;
        let mut options = Options::default();
        let mut given = names.into_iter().zip(values);
        given.try_for_each(|(name, value)| options.set(name, value)).map_err(Failure::invalid)?;
        if !options.is_given("listen") {
            return Err(Failure::invalid("listen: it is not given"));
        }
        let server = start(&home, options.config().map_err(Failure::invalid)?, &options)?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { out.write(server) };
        Ok(lock_status::LOCK_OK)
    })
}

/// An address that a server listens on, with the port that was taken for port 0, and the path of a Unix socket
/// made absolute: in the form in which lock_serve was given it, which lock_connect takes too if the protocol is
/// message.
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
        let served = own(&unsafe { handle(server, "server") }?.0)?;
        let addresses = served.server.as_ref().map_or(&[][..], Server::addresses);
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
/// With a state directory (lock_serve_with) the broker ends too. The next start with that directory grants at once
/// if all who held locks could be told; else after the dead-peer timeout. If the program's own sessions still hold
/// locks of the broker, the directory stays taken until the process ends.
///
/// Any thread; blocks until the threads have ended. That may take long: a client that holds locks and cannot be
/// told that they are lost takes the dead-peer timeout (25 seconds unless set otherwise), and one that asked for
/// time to end its work as long again, at most. If there is none, it is a matter of milliseconds. In a forked child it frees the handle, and touches nothing of the parent's.
/// If another part of the program has closed the server's descriptors, it may block for ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_server_stop(server: *mut lock_server) {
    // SAFETY: made by `lock_serve` from a box, or NULL, and given back here for good.
    guard(|| unsafe { free(server) });
}
