//! Trying the next version: a child runs the program that is to take over, with a state that it
//! only reads, and says whether it could. A thread waits for it, so the server serves on meanwhile,
//! whatever the child does.

use std::ffi::OsString;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::cli::upgrade::program::{NOT_HANDED_ON, ProgramFile, REHEARSAL_OPTION, arguments};
use crate::cli::upgrade::verdict::Verdict;

/// How often to look whether the child has ended, and whether it is to be ended.
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
/// How much of what the child writes is kept.
const OUTPUT_MAX: usize = 1 << 16;

/// A child that tries to take over. If this is dropped, the child is ended first.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    /// Disconnected once the child is to be ended.
    go_on: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Rehearsal {
    /// Runs `program`, which must stay open meanwhile, with the arguments and the environment of this
    /// process. `done` is called in
    /// another thread with the verdict, or with the reason why there is none: also if the child
    /// has not ended within `limit`. It is not called once this has been dropped.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(
        program: &ProgramFile,
        state: OwnedFd,
        limit: Duration,
        done: impl FnOnce(Result<Verdict, String>) + Send + 'static,
    ) -> io::Result<Self> {
        let (go_on, ended) = crossbeam_channel::bounded(0);
        let (executable, path) = (program.executable(), program.path().to_owned());
        let work = move || {
            if let Some(verdict) = rehearse(&executable, &path, state, limit, &ended) {
                done(verdict);
            }
        };
        let thread = std::thread::Builder::new().name("lockd-rehearse".to_owned()).spawn(work)?;
        Ok(Self { go_on: Some(go_on), thread: Some(thread) })
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        drop(self.go_on.take());
        if let Some(thread) = self.thread.take() {
            // It fails only if the thread has panicked, which has been logged.
            let _ = thread.join();
        }
    }
}

/// The verdict; `None` if the child was ended because nobody waits for it any more.
fn rehearse(
    executable: &Path,
    path: &Path,
    state: OwnedFd,
    limit: Duration,
    ended: &Receiver<()>,
) -> Option<Result<Verdict, String>> {
    let cannot_run = |error: io::Error| Some(Err(format!("{}: {error}", path.display())));
    let (child, output) = match spawn(executable, state) {
        Ok(spawned) => spawned,
        Err(error) => return cannot_run(error),
    };
    let mut child = RunningChild { child, has_ended: false };
    let deadline = Instant::now() + limit;
    let mut said = Vec::new();
    loop {
        let has_ended = child.has_ended();
        // After the look at the child: then all that it has written is read.
        let _ = poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&LOOK_INTERVAL));
        read_on(&output, &mut said);
        if has_ended {
            let status = match child.end() {
                Ok(status) => status,
                Err(error) => return cannot_run(error),
            };
            return Some(match Verdict::find(&said) {
                Ok(Verdict::Ready { pid: Some(pid), .. }) if pid != child.child.id() => {
                    Err("it runs as another process: a script must become it by exec".to_owned())
                }
                Ok(verdict) if status.success() => Ok(verdict),
                Ok(_) => Err(format!("it ended with {status}")),
                Err(said) if said.contains(REHEARSAL_OPTION) && !status.success() => {
                    Err("it is too old to be upgraded to in place".to_owned())
                }
                Err(said) => Err(format!("it ended with {status}: {said}")),
            });
        }
        if let Err(TryRecvError::Disconnected) = ended.try_recv() {
            return None;
        }
        if Instant::now() >= deadline {
            return Some(Err(format!("it did not end within {} s", limit.as_secs_f64())));
        }
    }
}

fn spawn(executable: &Path, state: OwnedFd) -> io::Result<(Child, PipeReader)> {
    let (output, writer) = io::pipe()?;
    rustix::io::ioctl_fionbio(&output, true)?;
    let mut arguments = arguments().into_iter();
    let name = arguments.next().unwrap_or_else(|| OsString::from("lockd"));
    let mut command = Command::new(executable);
    NOT_HANDED_ON.iter().for_each(|name| _ = command.env_remove(name));
    let child = command
        .arg0(name)
        .args(arguments)
        // A version that knows no upgrade does not know this either, and does not start.
        .arg(REHEARSAL_OPTION)
        .stdin(state)
        .stdout(writer.try_clone()?)
        .stderr(writer)
        // With its own group, it is ended together with what it has started.
        .process_group(0)
        .spawn()?;
    Ok((child, output))
}

/// Reads what has been written so far.
fn read_on(mut output: &PipeReader, said: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = output.read(&mut buffer) {
        if said.len() < OUTPUT_MAX {
            said.extend_from_slice(&buffer[..read]);
        }
    }
}

/// A child that is ended, with all that is left of its group, when this is dropped.
struct RunningChild {
    child: Child,
    has_ended: bool,
}

impl RunningChild {
    /// Whether it has ended. It is not reaped by that: until then no other process has its id.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&self.child)), options).is_ok_and(|ended| ended.is_some())
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        if !std::mem::replace(&mut self.has_ended, true) {
            // It fails if no process of the group is left.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        self.child.wait()
    }
}

impl Drop for RunningChild {
    fn drop(&mut self) {
        // It fails only for a child that is not one of this process.
        let _ = self.end();
    }
}

#[cfg(test)]
mod tests;
