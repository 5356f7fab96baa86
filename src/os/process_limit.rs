//! The moment by which the process must have ended: the kernel kills it then, even while it is
//! stopped or its control group is frozen, so that it never speaks again after a pause in which
//! others have gone on without it. Knows nothing of why there is such a moment.
//!
//! The clock is the one that also runs while the machine sleeps. A process has one such limit at
//! most. It can be moved, and never removed: a process that was to end must not go on because
//! somebody has forgotten why. A timer of the process does not survive `execve`.

#[cfg(feature = "cluster")]
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::os::boot_clock::BootTime;

/// The limit in nanoseconds since the start of the machine; zero without a limit.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// Whether the process may still speak: there is no limit, or it has not been reached. To be asked
/// right before each word to others. A limit that another thread is just moving may be seen as it
/// was, which is earlier.
pub(crate) fn is_within() -> bool {
    match LIMIT.load(Relaxed) {
        0 => true,
        limit => BootTime::now().nanos() < limit,
    }
}

/// Whether the kernel can end this process by a timer of its own: not the first one of a container
/// or of the machine, which it keeps from all signals that do not come from outside.
#[cfg(feature = "cluster")]
pub(crate) fn can_be_ended() -> bool {
    std::process::id() != 1
}

/// The process may not say a word more. It goes on until its limit.
#[cfg(feature = "cluster")]
pub(crate) fn silence() {
    LIMIT.store(1, Relaxed);
}

/// The kernel's timer that ends this process.
#[cfg(feature = "cluster")]
pub(crate) struct ProcessLimit(ManuallyDrop<nix::sys::timer::Timer>);

#[cfg(feature = "cluster")]
#[expect(unsafe_code, reason = "the type that libc has for the name of a timer is a pointer")]
// SAFETY: what looks like a pointer in it names a timer of the process, see timer_create(2); any
// thread may use it.
unsafe impl Send for ProcessLimit {}

#[cfg(feature = "cluster")]
impl ProcessLimit {
    /// Sets the limit of this process for the first time.
    ///
    /// # Errors
    /// If the kernel [cannot end](can_be_ended) this process, or has no more timers. Then there is no
    /// limit.
    pub(crate) fn begin(at: BootTime) -> std::io::Result<Self> {
        use nix::sys::signal::{SigEvent, SigevNotify, Signal};
        use nix::sys::timer::Timer;
        use nix::time::ClockId;

        if !can_be_ended() {
            return Err(std::io::Error::other("the kernel ends no process 1 by its own timer"));
        }
        let kill = SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 };
        let timer = Timer::new(ClockId::CLOCK_BOOTTIME, SigEvent::new(kill))?;
        // Never dropped: the limit holds whatever becomes of its owner.
        let mut limit = Self(ManuallyDrop::new(timer));
        limit.move_to(at)?;
        Ok(limit)
    }

    /// Moves the limit.
    ///
    /// # Errors
    /// If the kernel refuses. Then the limit is as it was.
    pub(crate) fn move_to(&mut self, at: BootTime) -> std::io::Result<()> {
        use nix::sys::time::TimeSpec;
        use nix::sys::timer::{Expiration, TimerSetTimeFlags};

        let at_nanos = at.nanos().max(1);
        let moment = TimeSpec::from_duration(std::time::Duration::from_nanos(at_nanos));
        // First the timer: a thread that sees the later limit must not be able to speak after it.
        self.0.set(Expiration::OneShot(moment), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        LIMIT.store(at_nanos, Relaxed);
        Ok(())
    }
}

#[cfg(test)]
#[cfg(feature = "cluster")]
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    const CHILD: &str = "LOCKD_TEST_OF_PROCESS_LIMIT";

    /// Runs one of the tests below in a process of its own, in which `CHILD` is set.
    fn child(test: &str) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("{}::{test}", module_path!().split_once("::").unwrap().1)]);
        command.env(CHILD, "1").stdout(std::process::Stdio::null()).spawn().unwrap()
    }

    fn is_child() -> bool {
        std::env::var_os(CHILD).is_some()
    }

    fn killed_by(child: &mut Child) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.signal();
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("the process has not ended at its limit");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_process_is_killed_at_its_limit_though_the_owner_of_the_limit_has_gone() {
        if !is_child() {
            let mut child = child("a_process_is_killed_at_its_limit_though_the_owner_of_the_limit_has_gone");
            return assert_eq!(killed_by(&mut child), Some(9));
        }
        assert!(is_within());
        let _ = ProcessLimit::begin(BootTime::now() + Duration::from_millis(200)).unwrap();
        assert!(is_within());
        loop {
            std::thread::sleep(Duration::from_secs(60));
        }
    }

    #[test]
    fn a_stopped_process_is_killed_at_its_limit() {
        if !is_child() {
            let mut child = child("a_stopped_process_is_killed_at_its_limit");
            return assert_eq!(killed_by(&mut child), Some(9));
        }
        let _limit = ProcessLimit::begin(BootTime::now() + Duration::from_millis(200)).unwrap();
        kill(Pid::this(), Signal::SIGSTOP).unwrap();
        unreachable!("nobody has let it go on");
    }

    #[test]
    fn a_limit_that_is_moved_in_time_ends_nothing_and_one_that_is_over_is_known() {
        if !is_child() {
            let test = "a_limit_that_is_moved_in_time_ends_nothing_and_one_that_is_over_is_known";
            let mut child = child(test);
            return assert_eq!(killed_by(&mut child), None, "the child has ended by itself");
        }
        let mut limit = ProcessLimit::begin(BootTime::now() + Duration::from_secs(600)).unwrap();
        limit.move_to(BootTime::now() + Duration::from_secs(1200)).unwrap();
        assert!(is_within());
        LIMIT.store(BootTime::now().nanos(), Relaxed);
        assert!(!is_within());
    }
}
