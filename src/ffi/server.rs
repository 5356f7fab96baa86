//! `lock_server`: a broker of this process, served to the network.

use std::ffi::c_char;
use std::ptr;

use super::arguments::{free, handle, is_null, own, text, texts};
use super::broker::{LazyBroker, lazy_broker_of, lock_broker};
use super::guard::guard;
use super::status::{Failure, lock_status};
use crate::broker::Limits;
use crate::os::fork::NotInherited;
use crate::os::sync::Arc;
use crate::server::{Bound, Config, Listen, Options, Server, Service, parse_allow};

/// Listeners and connections that serve a broker to the network. Made by lock_serve or
/// lock_serve_with, freed by lock_server_stop.
pub struct lock_server(NotInherited<Served>);

struct Served {
    /// `None` once it is being stopped.
    server: Option<Server>,
    /// The broker, if this server has given it a state directory.
    kept_broker: Option<Arc<LazyBroker>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let (Some(server), Some(broker)) = (self.server.take(), &self.kept_broker) {
            broker.stop(server);
        }
    }
}

/// Starts a server, in a box for C. Binds the addresses first: if that fails, nothing has changed.
fn start(lazy: &Arc<LazyBroker>, config: Config, options: &Options) -> Result<*mut lock_server, Failure> {
    let timeout = config.dead_peer_timeout;
    let bound = Bound::new(config)?;
    if let Some(directory) = options.state_dir() {
        let limits = options.limits(Limits::default());
        lazy.resume(directory, limits, timeout, options.is_first_start())?;
    }
    lazy.note_dead_peer_timeout(timeout)?;
    let broker = lazy.broker();
    broker.set_limits(options.limits(broker.limits()));
    let server = Some(bound.serve_resumable(&broker, Service::locks(), lazy.resumption())?);
    let kept_broker = options.state_dir().map(|_| lazy.clone());
    Ok(Box::into_raw(Box::new(lock_server(NotInherited::new(Served { server, kept_broker })))))
}

/// Runs a call that starts a server on a broker, and writes the server to `out`.
///
/// # Safety
/// As for [`lazy_broker_of`]; `out` is NULL, or may be written to.
unsafe fn guard_start(
    broker: *mut lock_broker,
    out: *mut *mut lock_server,
    body: impl FnOnce(&Arc<LazyBroker>) -> Result<*mut lock_server, Failure>,
) -> lock_status {
    guard(|| {
        if out.is_null() {
            return Err(is_null("out"));
        }
        // SAFETY: the caller's promise.
        let server = body(&unsafe { lazy_broker_of(broker) }?)?;
        // SAFETY: not NULL, and the caller's promise.
        unsafe { out.write(server) };
        Ok(lock_status::LOCK_OK)
    })
}

/// Serves a broker to other processes. Starts threads: one for each address, one for maintenance,
/// and one for each connection, all with all signals blocked. Sessions in this program continue to
/// use the broker as before.
///
/// @param broker  The broker; NULL: the default one.
/// @param listen  The addresses to listen on, separated by commas: PROTOCOL://HOST:PORT or
///                PROTOCOL+unix:PATH, where PROTOCOL is lockd, glockd or message (which
///                lock_connect speaks); glockd+ws is glockd in WebSocket. Port 0 takes a free port,
///                which lock_server_address returns. A Unix socket accepts only this user. For TLS,
///                a secret and more see lock_serve_with.
/// @param allow   The addresses that may connect over TCP, separated by commas: IP or IP/BITS. NULL
///                or empty: this machine only, whatever address is bound.
/// @param out     Receives the server, to be stopped with lock_server_stop.
///
/// @return LOCK_OK;
///         LOCK_INVALID: listen or out is NULL, or an address is malformed;
///         LOCK_IO: an address cannot be bound, or a thread cannot be started; then nothing is
///         served;
///         LOCK_FORKED: the broker is that of a parent process; LOCK_INTERNAL.
///
/// Any thread. If listen has host names, blocks while they are resolved.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_serve(
    broker: *mut lock_broker,
    listen: *const c_char,
    allow: *const c_char,
    out: *mut *mut lock_server,
) -> lock_status {
    let body = |broker: &Arc<LazyBroker>| {
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
        start(broker, config, &Options::default())
    };
    // SAFETY: the caller passes a broker that is not being freed, and an address to write to, or
    // NULLs.
    unsafe { guard_start(broker, out, body) }
}

/// As lock_serve, but with any options of a server: those of the program lockd (`lockd serve --help`),
/// by their long names without the dashes, with their values as text. `listen` must be among them.
///
/// ```c
/// const char *names[] = {"listen", "allow", "tls-cert", "tls-key", "no-dump"};
/// const char *values[] = {"message+tls://0.0.0.0:20934", "10.0.0.0/8", "cert.pem", "key.pem", "true"};
/// status = lock_serve_with(NULL, names, values, 5, &server);
/// ```
///
/// An option that takes no value on the command line is "true" or "false" here. `listen`, `allow`
/// and `ws-origin` take several values, separated by commas or as several options of that name. An
/// option that is not given has the value that lock_serve uses.
///
/// - locks-max, locks-per-connection-max, waits-per-connection-max and name-max are limits of the
///   broker, so they also apply to the sessions in this program.
/// - state-dir makes the broker continue where the last broker with that directory ended, as `lockd
///   --state-dir`. It must come before any other use of the broker (lock_open, lock_serve). If the
///   directory is new, nothing is granted until the dead-peer timeout has passed, unless
///   first-start says that there was no server before.
///   lock_server_stop of this server then ends the broker: nothing is granted any more, not even to
///   sessions in this program.
/// - http, http-host, config, check, pidfile, user and log-level are only for the program lockd,
///   and are refused.
///
/// @param broker  The broker; NULL: the default one.
/// @param names   The options' names.
/// @param values  As many values.
/// @param n       The number of options.
/// @param out     Receives the server, to be stopped with lock_server_stop.
///
/// @return LOCK_OK;
///         LOCK_INVALID: out, names or values is NULL, or an element of names or values is NULL;
///         there is no such option; a value is malformed, or names a file that cannot be read: then
///         lock_last_error begins with the option's name;
///         LOCK_IO: an address cannot be bound, a thread cannot be started, or the state directory
///         cannot be used;
///         LOCK_FORKED: the broker is that of a parent process; LOCK_INTERNAL. Unless it is
///         LOCK_OK, nothing is served.
///
/// Any thread. Reads files. If there are host names among the addresses, blocks while they are
/// resolved.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_serve_with(
    broker: *mut lock_broker,
    names: *const *const c_char,
    values: *const *const c_char,
    n: usize,
    out: *mut *mut lock_server,
) -> lock_status {
    let body = |broker: &Arc<LazyBroker>| {
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
        start(broker, options.config().map_err(Failure::invalid)?, &options)
    };
    // SAFETY: the caller passes a broker that is not being freed, and an address to write to, or
    // NULLs.
    unsafe { guard_start(broker, out, body) }
}

/// An address that a server listens on, in the form in which lock_serve takes it. lock_connect
/// takes it too if the protocol is message. For port 0 it has the port that was taken; the path of
/// a Unix socket is absolute.
///
/// @param server  The server.
/// @param index   Which address, counted from 0, in the order in which they were given to lock_serve. A host
///                name that has several addresses counts once for each, in their order.
/// @param buf     Receives the address, with a zero byte at its end.
/// @param len     The size of buf in bytes. 300 are enough for any address except one with a long
///                host name.
///
/// @return LOCK_OK;
///         LOCK_INVALID: server or buf is NULL, there is no such address, or buf is too small (then
///         lock_last_error says how many bytes are needed, and nothing is written);
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
        // SAFETY: `buf` has `len` bytes, more than the address has; a new string does not overlap
        // it.
        unsafe { ptr::copy_nonoverlapping(address.as_ptr().cast(), buf, address.len()) };
        // SAFETY: still within `len`.
        let end = unsafe { buf.add(address.len()) };
        // SAFETY: as above.
        unsafe { end.write(0) };
        Ok(lock_status::LOCK_OK)
    })
}

/// Stops a server and frees it: closes its listeners and connections, frees the locks of those
/// connections, and joins every thread it started. The broker and the sessions in this program stay
/// as they are.
///
/// @param server  May be NULL. Must not be used any more, nor be in use by another thread.
///
/// If the server was given a state directory (lock_serve_with), the broker ends too. The next start
/// with that directory grants at once if all clients that held locks could be told that they are
/// lost. If some of them can resume (lock_connect), it grants as soon as they are back, or after
/// the dead-peer timeout; if one could not be told, only after the dead-peer timeout. If sessions
/// in this program still hold locks of the broker, no other server can use the directory until the
/// process ends.
///
/// Any thread; blocks until the threads have ended, normally for milliseconds. But a client that
/// holds locks and cannot be told that they are lost takes up to the dead-peer timeout (25 seconds
/// unless configured otherwise), and a client that asked for time to end its work takes up to twice
/// that. If another part of the program has closed the server's descriptors, it may block for ever.
/// In a forked child it frees the handle and does not touch the parent's server.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_server_stop(server: *mut lock_server) {
    // SAFETY: made by `lock_serve` from a box, or NULL, and not used any more.
    guard(|| unsafe { free(server) });
}
