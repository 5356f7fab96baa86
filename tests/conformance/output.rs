//! What a driver writes to its standard output: outcomes, and outcomes of calls in the background.
//! A thread reads it as it comes. Whoever asks also reads first, so that nothing is overlooked that
//! a driver had written before it was stopped.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::process::ChildStdout;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::transcript::Transcript;
use crate::verdict::{Failure, Verdict};

/// Which of the driver's calls an outcome belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// The command that was sent last.
    Command,
    Background,
}

#[derive(Clone)]
pub(crate) struct Output(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    pipe: ChildStdout,
    driver: String,
    transcript: Transcript,
    /// The beginning of a line.
    begun: Vec<u8>,
    outcomes: [VecDeque<String>; 2],
    has_ended: bool,
}

impl Output {
    pub(crate) fn read(pipe: ChildStdout, driver: &str, transcript: &Transcript) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let to_poll = pipe.as_fd().try_clone_to_owned()?;
        let state = State {
            pipe,
            driver: driver.to_owned(),
            transcript: transcript.clone(),
            begun: Vec::new(),
            outcomes: Default::default(),
            has_ended: false,
        };
        let output = Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }));
        let of_thread = output.clone();
        std::thread::spawn(move || {
            // Fails only if a signal comes in between.
            while poll(&mut [PollFd::new(&to_poll, PollFlags::IN)], None).is_err()
                || !of_thread.state().has_ended
            {
                of_thread.0.changed.notify_all();
            }
            of_thread.0.changed.notify_all();
        });
        Ok(output)
    }

    /// The state after all that has been written.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.read_available();
        state
    }

    /// The next outcome, which must come within this time.
    pub(crate) fn next(&self, of: Of, within: Duration) -> Verdict<String> {
        let end = Instant::now() + within;
        let mut state = self.state();
        loop {
            if let Some(line) = state.outcomes[of as usize].pop_front() {
                return Ok(line);
            }
            if state.has_ended {
                return Err(Failure::new("the driver has ended"));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::new(format!("A HANG: no outcome within {within:?}")));
            }
            let waited = self.0.changed.wait_timeout(state, left);
            drop(waited);
            state = self.state();
        }
    }

    /// The outcome of the last command, if there is one already; it remains the next one.
    pub(crate) fn peek(&self) -> Option<String> {
        self.state().outcomes[Of::Command as usize].front().cloned()
    }
}

impl State {
    fn read_available(&mut self) {
        let mut buffer = [0; 4096];
        while !self.has_ended {
            match self.pipe.read(&mut buffer) {
                Ok(0) => self.has_ended = true,
                Ok(length) => self.begun.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.has_ended = true,
            }
        }
        while let Some(length) = self.begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.begun.drain(..=length).collect();
            let line = String::from_utf8_lossy(&line[..length]).into_owned();
            self.transcript.add(format!("{} > {line}", self.driver));
            match line.strip_prefix("background ") {
                Some(outcome) => self.outcomes[Of::Background as usize].push_back(outcome.to_owned()),
                None => self.outcomes[Of::Command as usize].push_back(line),
            }
        }
    }
}
