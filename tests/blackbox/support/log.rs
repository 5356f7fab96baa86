//! The server's standard error: a thread reads it all, unless a test makes the thread pause, so
//! that the pipe fills up and stays full.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::ChildStderr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::fs::OFlags;

use super::eventually;

/// The byte that fills the pipe, in addition to what the server has written.
const FILLER: [u8; 4096] = [b'\n'; 4096];

pub(crate) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
    /// Open while the reader reads, which it does until the server has ended.
    pipe: RawFd,
    breaks: Sender<Break>,
    /// The reader resumes when this is dropped.
    unread: Mutex<Option<Sender<()>>>,
}

/// Asks the reader to pause.
struct Break {
    begun: Sender<()>,
    over: Receiver<()>,
}

impl Log {
    pub(crate) fn read(stderr: ChildStderr) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (breaks, asked) = channel();
        let pipe = stderr.as_raw_fd();
        let into = lines.clone();
        let reader = std::thread::spawn(move || read(stderr, &into, &asked));
        Self { lines, reader, pipe, breaks, unread: Mutex::default() }
    }

    /// What has been read so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Pauses the reader; the pipe is full when this returns.
    pub(crate) fn stop_reading(&self) {
        let (begun, has_begun) = channel();
        let (unread, over) = channel();
        self.breaks.send(Break { begun, over }).unwrap();
        // A separate open file description, so that the server's writes still block.
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        let path = format!("/proc/self/fd/{}", self.pipe);
        let mut pipe = OpenOptions::new().write(true).custom_flags(nonblocking).open(path).unwrap();
        let mut fill = |bytes: &[u8]| match pipe.write(bytes) {
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => panic!("cannot fill the log: {error}"),
        };
        // The reader notices the request to pause when it has read something.
        eventually("the reader of the log has paused", || {
            fill(b"\n");
            has_begun.try_recv().is_ok()
        });
        for bytes in [&FILLER[..], &FILLER[..1]] {
            while !fill(bytes) {}
        }
        *self.unread.lock().unwrap() = Some(unread);
    }

    /// Resumes the reader.
    pub(crate) fn go_on_reading(&self) {
        self.unread.lock().unwrap().take();
    }

    /// Reads the rest of the log of a server that has ended; returns all of it.
    pub(crate) fn read_to_end(self) -> Vec<String> {
        self.go_on_reading();
        self.reader.join().unwrap();
        self.lines.lock().unwrap().clone()
    }
}

fn read(stderr: ChildStderr, into: &Mutex<Vec<String>>, breaks: &Receiver<Break>) {
    for line in BufReader::new(stderr).split(b'\n') {
        let Ok(line) = line else { return };
        if !line.is_empty() {
            into.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
        }
        if let Ok(Break { begun, over }) = breaks.try_recv() {
            // A failed test may have dropped its end.
            let _ = begun.send(());
            let _ = over.recv();
        }
    }
}
