//! Opens and closes sessions, and makes the calls that need no session: servers, addresses, texts,
//! freeing.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr;

use lockd::ffi::{
    lock_abandon, lock_abi_version, lock_broker_free, lock_close, lock_close_all, lock_connect, lock_end,
    lock_lost_fd, lock_open, lock_serve, lock_serve_with, lock_server_address, lock_server_stop,
    lock_session, lock_status, lock_strerror, lock_version,
};

use crate::calls::{expect, session};
use crate::input::Input;
use crate::model::Event;
use crate::world::{DEFAULT, OWN, SLOTS, Session, Worlds, last_error};

/// Addresses that cannot be listened on. None of them may need a DNS query or create a file.
const INVALID_ADDRESSES: [&CStr; 8] = [
    c"",
    c",",
    c"message",
    c"message+unix:",
    c"http://127.0.0.1:0",
    c"message://127.0.0.1:70000",
    c"message://127.0.0.1:0,",
    c"message://\xff:1",
];

/// URLs that are refused before anything is connected.
const INVALID_SERVERS: [&CStr; 6] =
    [c"", c"unix:", c"tcp://", c"http://127.0.0.1:1", c"unix:relative", c"tcp://\xff:1"];

/// Options that are refused before anything is bound.
const INVALID_OPTIONS: [(Option<&CStr>, Option<&CStr>); 9] = [
    (None, Some(c"1")),
    (Some(c"line-max"), None),
    (Some(c"line-max"), Some(c"0")),
    (Some(c"line-max"), Some(c"\xff")),
    (Some(c""), Some(c"1")),
    (Some(c"--line-max"), Some(c"1")),
    (Some(c"listen"), Some(c"message+unix:@x")),
    (Some(c"user"), Some(c"nobody")),
    (Some(c"tls-cert"), Some(c"/nonexistent")),
];

impl Worlds {
    fn vacant(&self, input: &mut Input<'_>) -> Option<usize> {
        let slot = usize::from(input.byte()) % SLOTS;
        self.session(slot).is_none().then_some(slot)
    }

    fn add_session(&mut self, slot: usize, handle: *mut lock_session, world: usize, is_remote: bool) {
        assert!(!handle.is_null(), "no session: {:?}", last_error());
        // SAFETY: a session that was just made.
        let lost_fd = unsafe { lock_lost_fd(handle) };
        assert_eq!(lost_fd >= 0, is_remote);
        let number = self.worlds[world].next_number();
        let (enqueued, converting, tokens) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let is_lost = false;
        self.sessions[slot] = Some(Session {
            handle,
            world,
            number,
            is_remote,
            is_lost,
            enqueued,
            converting,
            tokens,
            lost_fd,
        });
    }

    pub(crate) fn open(&mut self, input: &mut Input<'_>, world: usize) {
        let Some(slot) = self.vacant(input) else { return };
        let broker = if world == DEFAULT { ptr::null_mut() } else { self.broker };
        if world == OWN && broker.is_null() {
            return;
        }
        let owner = owner(input);
        // SAFETY: a broker or NULL, a string or NULL.
        let handle = unsafe { lock_open(broker, owner.as_ref().map_or(ptr::null(), |owner| owner.as_ptr())) };
        self.add_session(slot, handle, world, false);
    }

    pub(crate) fn connect(&mut self, input: &mut Input<'_>) {
        let Some(slot) = self.vacant(input) else { return };
        if !self.serve() {
            return;
        }
        let owner = owner(input);
        let owner = owner.as_ref().map_or(ptr::null(), |owner| owner.as_ptr());
        let url = CString::new(format!("unix:{}", self.path.display())).expect("no zero byte");
        // SAFETY: strings, or NULL.
        let handle = unsafe { lock_connect(url.as_ptr(), owner, 5000) };
        self.add_session(slot, handle, OWN, true);
    }

    fn listen(&self) -> CString {
        CString::new(format!("message+unix:{}", self.path.display())).expect("no zero byte")
    }

    /// Serves the program's own broker, unless it is served already. False if it has been freed.
    fn serve(&mut self) -> bool {
        if self.server.is_null() && !self.broker.is_null() {
            // SAFETY: a broker, a string, NULL, and a place for the output.
            let status =
                unsafe { lock_serve(self.broker, self.listen().as_ptr(), ptr::null(), &mut self.server) };
            expect(status, lock_status::LOCK_OK, "lock_serve");
        }
        !self.server.is_null()
    }

    pub(crate) fn close(&mut self, input: &mut Input<'_>) {
        let slot = usize::from(input.byte()) % SLOTS;
        self.close_slot(slot);
    }

    pub(crate) fn close_slot(&mut self, slot: usize) {
        let Some(session) = self.sessions[slot].take() else { return };
        // SAFETY: a session, which is not used any more.
        unsafe { lock_close(session.handle) };
        if session.is_lost {
            return;
        }
        self.apply(session.world, &Event::End { session: session.number, vanished: false });
        if session.is_remote {
            // The connection's thread may not have noticed yet.
            self.await_model(session.world);
        }
    }

    /// Ends a session, in order or as if it had vanished, without freeing it. It is lost
    /// afterwards.
    pub(crate) fn end_session(&mut self, input: &mut Input<'_>) {
        let slot = session(input);
        let vanished = input.byte() & 1 == 1;
        // SAFETY: a session or NULL.
        let status =
            unsafe { if vanished { lock_abandon(self.handle(slot)) } else { lock_end(self.handle(slot)) } };
        let expected =
            if self.session(slot).is_some() { lock_status::LOCK_OK } else { lock_status::LOCK_INVALID };
        expect(status, expected, "lock_end");
        let Some(session) = self.sessions.get_mut(slot).and_then(Option::as_mut) else { return };
        if std::mem::replace(&mut session.is_lost, true) {
            return;
        }
        session.enqueued.clear();
        let (world, number, is_remote) = (session.world, session.number, session.is_remote);
        self.apply(world, &Event::End { session: number, vanished });
        if is_remote {
            self.await_model(world);
        }
    }

    /// Closes all sessions as if they had vanished, including the observers.
    pub(crate) fn close_all(&mut self) {
        if self.broker.is_null() {
            return;
        }
        // Waits end first. Otherwise a waiter could be granted the lock of a session that is closed
        // before it, and the model does not know the order.
        (0..SLOTS).for_each(|slot| self.cancel_slot(slot));
        let open: Vec<Session> = self.sessions.iter_mut().filter_map(Option::take).collect();
        // SAFETY: none of this thread's sessions is used any more.
        let count = unsafe { lock_close_all() };
        assert_eq!(count, open.len() + self.worlds.len());
        [OWN, DEFAULT].into_iter().for_each(|world| self.reopen_observer(world));
        for session in open.into_iter().filter(|session| !session.is_lost) {
            self.apply(session.world, &Event::End { session: session.number, vanished: true });
        }
        [OWN, DEFAULT].into_iter().for_each(|world| self.await_model(world));
    }

    /// Unknown options, and options with invalid values.
    pub(crate) fn serve_with_invalid_option(&mut self, input: &mut Input<'_>) {
        let (name, value) = INVALID_OPTIONS[usize::from(input.byte()) % INVALID_OPTIONS.len()];
        let listen = self.listen();
        let names = [c"listen".as_ptr(), name.map_or(ptr::null(), CStr::as_ptr)];
        let values = [listen.as_ptr(), value.map_or(ptr::null(), CStr::as_ptr)];
        let mut server = ptr::null_mut();
        // SAFETY: a broker or NULL, two strings or NULL each, and a place for the output.
        let status = unsafe { lock_serve_with(self.broker, names.as_ptr(), values.as_ptr(), 2, &mut server) };
        expect(status, lock_status::LOCK_INVALID, "lock_serve_with");
        assert!(server.is_null(), "an output was written");
    }

    pub(crate) fn other_call(&mut self, input: &mut Input<'_>) {
        let more = input.byte();
        match input.byte() % 10 {
            0 => self.stop_serving(),
            1 => self.serve_invalid(usize::from(more)),
            2 => connect_invalid(usize::from(more)),
            3 => self.read_address(usize::from(more)),
            4 => read_texts(i32::from(more) - 100),
            5 => free_null(),
            6 if more.is_multiple_of(4) => self.free_broker(),
            _ => {}
        }
    }

    /// Stops the server. Its sessions are lost and their locks free.
    fn stop_serving(&mut self) {
        // SAFETY: a server or NULL, which is not used any more.
        unsafe { lock_server_stop(std::mem::replace(&mut self.server, ptr::null_mut())) };
        assert!(!self.path.exists(), "the socket's file is still there");
        for slot in 0..SLOTS {
            let Some(session) = &mut self.sessions[slot] else { continue };
            if !session.is_remote || session.is_lost {
                continue;
            }
            session.is_lost = true;
            session.enqueued.clear();
            let (world, number) = (session.world, session.number);
            self.apply(world, &Event::End { session: number, vanished: true });
        }
    }

    fn serve_invalid(&mut self, which: usize) {
        let mut server = ptr::null_mut();
        let listen = INVALID_ADDRESSES.get(which % (INVALID_ADDRESSES.len() + 2));
        if let Some(listen) = listen {
            // SAFETY: a broker or NULL, a string, NULL, and a place for the output.
            let status = unsafe { lock_serve(self.broker, listen.as_ptr(), ptr::null(), &mut server) };
            return expect(status, lock_status::LOCK_INVALID, "lock_serve");
        }
        // SAFETY: as above; no address, and a place for the output.
        let status = unsafe { lock_serve(self.broker, ptr::null(), ptr::null(), &mut server) };
        expect(status, lock_status::LOCK_INVALID, "lock_serve");
        // SAFETY: as above.
        let status = unsafe { lock_serve(self.broker, self.listen().as_ptr(), ptr::null(), ptr::null_mut()) };
        expect(status, lock_status::LOCK_INVALID, "lock_serve");
        let allow = c"127.0.0.1/33".as_ptr();
        // SAFETY: as above.
        let status = unsafe { lock_serve(self.broker, self.listen().as_ptr(), allow, &mut server) };
        expect(status, lock_status::LOCK_INVALID, "lock_serve");
        if !self.server.is_null() {
            // SAFETY: as above. The server listens at this address already.
            let status = unsafe { lock_serve(self.broker, self.listen().as_ptr(), ptr::null(), &mut server) };
            expect(status, lock_status::LOCK_IO, "lock_serve");
        }
        assert!(server.is_null(), "an output was written");
    }

    fn read_address(&self, more: usize) {
        let address = self.listen();
        let written = address.as_bytes_with_nul().len();
        // Mostly within two bytes of the length that is needed.
        let len = if more < 100 { more } else { (written + more % 4).saturating_sub(2) };
        let mut buffer = vec![0x55_u8; len];
        let pointer = buffer.as_mut_ptr().cast::<c_char>();
        let index = usize::from(more % 5 == 4);
        // SAFETY: a server or NULL, and a buffer of `len` bytes.
        let status = unsafe { lock_server_address(self.server, index, pointer, len) };
        let is_written = !self.server.is_null() && index == 0 && written <= len;
        let expected = if is_written { lock_status::LOCK_OK } else { lock_status::LOCK_INVALID };
        expect(status, expected, "lock_server_address");
        let (output, rest) = buffer.split_at(if is_written { written } else { 0 });
        assert!(!is_written || output == address.as_bytes_with_nul());
        assert!(rest.iter().all(|&byte| byte == 0x55), "bytes after the output were written");
        // SAFETY: a server or NULL, and no buffer.
        let status = unsafe { lock_server_address(self.server, 0, ptr::null_mut(), len) };
        expect(status, lock_status::LOCK_INVALID, "lock_server_address");
    }

    /// Frees the broker. Its sessions and its server are not affected.
    fn free_broker(&mut self) {
        // SAFETY: a broker or NULL, which is not used any more.
        unsafe { lock_broker_free(std::mem::replace(&mut self.broker, ptr::null_mut())) };
    }
}

fn owner(input: &mut Input<'_>) -> Option<CString> {
    let owner = input.string(8);
    (!owner.is_empty()).then(|| CString::new(owner).expect("no zero byte"))
}

fn connect_invalid(which: usize) {
    let url =
        INVALID_SERVERS.get(which % (INVALID_SERVERS.len() + 1)).map_or(ptr::null(), |url| url.as_ptr());
    // SAFETY: a string or NULL, and NULL.
    let handle = unsafe { lock_connect(url, ptr::null(), 100) };
    assert!(handle.is_null(), "an invalid URL was connected");
    assert!(!last_error().is_empty());
}

fn read_texts(status: i32) {
    // SAFETY: static text.
    let text = unsafe { CStr::from_ptr(lock_strerror(status)) };
    let is_known = (0..=13).contains(&status);
    assert_eq!(text != c"no status of lockd", is_known, "{status}");
    // SAFETY: static text.
    let version = unsafe { CStr::from_ptr(lock_version()) };
    assert_eq!(version.to_bytes().iter().filter(|&&byte| byte == b'.').count(), 2);
    assert_eq!(lock_abi_version(), 1);
}

fn free_null() {
    // SAFETY: NULL may be freed.
    unsafe { lock_close(ptr::null_mut()) };
    // SAFETY: as above.
    unsafe { lock_broker_free(ptr::null_mut()) };
    // SAFETY: as above.
    unsafe { lock_server_stop(ptr::null_mut()) };
}
