//! A driver: the process of the client that is tested. Commands go in, outcomes come out, each with
//! a deadline. The process and its children can be stopped, continued and killed; they are killed
//! when the driver is dropped.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::clients::Abilities;
use crate::outcome::Answer;
use crate::output::{Of, Output};
use crate::transcript::Transcript;
use crate::verdict::{Failure, Verdict};

/// How much later than its time limit, or than the fault that ends it, a call may return.
pub(crate) const HANG: Duration = Duration::from_secs(30);

pub(crate) const NOW: Option<Duration> = Some(Duration::ZERO);
pub(crate) const FOREVER: Option<Duration> = None;

pub(crate) const fn millis(millis: u64) -> Option<Duration> {
    Some(Duration::from_millis(millis))
}

pub(crate) struct Driver {
    name: String,
    child: RefCell<Child>,
    input: RefCell<Option<ChildStdin>>,
    output: Output,
    /// The command whose outcome is awaited, and its time limit.
    asked: RefCell<String>,
    limit: Cell<Duration>,
    transcript: Transcript,
    is_stopped: Cell<bool>,
    pub(crate) abilities: Abilities,
}

impl Driver {
    /// Starts the program and reads its greeting.
    pub(crate) fn start(name: &str, mut command: Command, transcript: &Transcript) -> Verdict<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that what it starts is stopped and killed with it.
        command.process_group(0);
        let mut child = command
            .spawn()
            .map_err(|error| Failure::new(format!("cannot start {:?}: {error}", command.get_program())))?;
        let no_pipe = || Failure::new("the driver has no pipe");
        let output = Output::read(child.stdout.take().ok_or_else(no_pipe)?, name, transcript);
        let output = output.map_err(|error| Failure::new(format!("the output cannot be read: {error}")))?;
        let errors = child.stderr.take().ok_or_else(no_pipe)?;
        let (to, driver) = (transcript.clone(), name.to_owned());
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                to.add(format!("{driver} ! {line}"));
            }
        });
        let mut driver = Self {
            name: name.to_owned(),
            input: RefCell::new(child.stdin.take()),
            child: RefCell::new(child),
            output,
            asked: RefCell::new("the greeting".to_owned()),
            limit: Cell::default(),
            transcript: transcript.clone(),
            is_stopped: Cell::new(false),
            abilities: Abilities::default(),
        };
        let first = driver.line(Of::Command, HANG)?;
        if first != "conformance 1" {
            return Err(Failure::new(format!("{name}: the greeting begins with {first:?}")));
        }
        loop {
            let line = driver.line(Of::Command, HANG)?;
            if line == "ready" {
                return Ok(driver);
            }
            driver.abilities.learn(&line)?;
        }
    }

    pub(crate) fn can(&self, ability: &str) -> bool {
        self.abilities.can(ability)
    }

    fn line(&self, of: Of, within: Duration) -> Verdict<String> {
        let line = self.output.next(of, within);
        line.map_err(|failure| failure.during(&format!("{}: {}", self.name, self.asked.borrow())))
    }

    /// Sends a command and does not wait for its outcome; `limit` is its own time limit, or zero.
    pub(crate) fn say(&self, command: &str, limit: Option<Duration>) -> Verdict {
        self.transcript.add(format!("{} < {command}", self.name));
        *self.asked.borrow_mut() = command.to_owned();
        self.limit.set(limit.unwrap_or_default());
        let mut input = self.input.borrow_mut();
        let input = input.as_mut().ok_or_else(|| Failure::new("the driver's input was closed"))?;
        let sent = input.write_all(format!("{command}\n").as_bytes());
        sent.map_err(|error| Failure::new(format!("{}: it takes no commands: {error}", self.name)))
    }

    /// The outcome of the command that was sent last.
    pub(crate) fn hear(&self) -> Verdict<Answer> {
        self.hear_within(self.limit.get() + HANG)
    }

    pub(crate) fn hear_within(&self, within: Duration) -> Verdict<Answer> {
        let begun = Instant::now();
        let line = self.line(Of::Command, within)?;
        let asked = format!("{}: {}", self.name, self.asked.borrow());
        Answer::parse(&asked, &line, begun.elapsed())
    }

    /// The outcome of a call in the background, which must come within `within`.
    pub(crate) fn hear_background(&self, within: Duration) -> Verdict<Answer> {
        let begun = Instant::now();
        let line = self.line(Of::Background, within)?;
        Answer::parse(&format!("{}: background", self.name), &line, begun.elapsed())
    }

    /// The last command must not have an outcome yet.
    pub(crate) fn has_no_outcome(&self) -> Verdict {
        let asked = || format!("{}: {}", self.name, self.asked.borrow());
        self.output.peek().map_or(Ok(()), |line| Err(Failure::new(format!("{}: too early: {line}", asked()))))
    }

    pub(crate) fn ask(&self, command: &str, limit: Option<Duration>) -> Verdict<Answer> {
        self.say(command, limit)?;
        self.hear()
    }

    /// Stops the process and all that it has started; they are stopped when this returns.
    pub(crate) fn stop(&self) -> Verdict {
        self.transcript.add(format!("{} is stopped", self.name));
        self.signal(Signal::STOP);
        self.is_stopped.set(true);
        let end = Instant::now() + HANG;
        while !processes_of_group(self.pid()).iter().all(|state| "TtZX".contains(*state)) {
            if Instant::now() > end {
                return Err(Failure::new("the driver could not be stopped"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub(crate) fn resume(&self) {
        self.transcript.add(format!("{} goes on", self.name));
        self.is_stopped.set(false);
        self.signal(Signal::CONT);
    }

    /// Kills the process and all that it has started.
    pub(crate) fn kill(&self) {
        self.transcript.add(format!("{} is killed", self.name));
        self.signal(Signal::KILL);
        // It can only fail if it was reaped already.
        let _ = self.child.borrow_mut().wait();
    }

    /// Kills only the process itself, and leaves its children alive.
    pub(crate) fn kill_without_children(&self) {
        self.transcript.add(format!("{} is killed, its children are not", self.name));
        let _ = kill_process(self.pid(), Signal::KILL);
        let _ = self.child.borrow_mut().wait();
    }

    /// Ends the driver's input; it must end, and so must its session.
    pub(crate) fn end(&self) -> Verdict {
        self.transcript.add(format!("{}: its input ends", self.name));
        self.input.borrow_mut().take();
        if self.has_ended_within(HANG) {
            return Ok(());
        }
        Err(Failure::new(format!("{}: it does not end when its input ends", self.name)))
    }

    fn has_ended_within(&self, within: Duration) -> bool {
        let end = Instant::now() + within;
        loop {
            if !matches!(self.child.borrow_mut().try_wait(), Ok(None)) {
                return true;
            }
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child.borrow())
    }

    fn signal(&self, signal: Signal) {
        // It fails only if no process of the group is left.
        let _ = kill_process_group(self.pid(), signal);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // In order, so that a driver that started processes can end them; unless it hangs in a call.
        self.input.borrow_mut().take();
        if self.is_stopped.get() || !self.has_ended_within(Duration::from_millis(100)) {
            self.kill();
        } else {
            self.signal(Signal::KILL);
        }
    }
}

/// The states of the processes of a group, as in `ps`.
fn processes_of_group(group: Pid) -> Vec<char> {
    let stats = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let state = |stat: String| {
        // After the name, which may have any bytes in it: the state, the parent, the group.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.chars().next()?;
        (fields.nth(1)? == group.as_raw_nonzero().to_string()).then_some(state)
    };
    stats.filter_map(state).collect()
}

/// `name` as a word of a command.
pub(crate) fn encoded(name: &[u8]) -> String {
    if name.is_empty() {
        return "\"\"".to_owned();
    }
    let byte = |&byte: &u8| match byte {
        b'.' | b'_' | b'-' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.iter().map(byte).collect()
}
