//! The descriptor by which a program polls a session that may be resumed. It is readable when the
//! session has something to do: its connection, the attempt to connect again, or its timer. Knows
//! nothing of what that is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::epoll;

use crate::os::boot_clock::{BootTime, BootTimer};
use crate::os::fork::CloseOnForkFd;
use crate::os::socket::PollFlags;

pub(super) struct Watch {
    epoll: CloseOnForkFd,
    timer: BootTimer,
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = CloseOnForkFd::open_anonymous(|| Ok(epoll::create(epoll::CreateFlags::CLOEXEC)?))?;
        let timer = BootTimer::new()?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        Ok(Self { epoll, timer })
    }

    /// Makes it readable from `at` on.
    pub(super) fn set_timer(&self, at: Option<BootTime>) {
        self.timer.set(at);
    }

    /// Makes it readable while the socket is ready for this.
    pub(super) fn add(&self, socket: &impl AsFd, ready_for: PollFlags) {
        if !self.epoll.is_intact() {
            return;
        }
        let (data, mut flags) = (epoll::EventData::new_u64(0), epoll::EventFlags::empty());
        flags.set(epoll::EventFlags::IN, ready_for.contains(PollFlags::IN));
        flags.set(epoll::EventFlags::OUT, ready_for.contains(PollFlags::OUT));
        if epoll::add(&self.epoll, socket, data, flags).is_err() {
            // It fails only if the socket is watched already, or for want of memory. In that case
            // the timer alone drives the session.
            let _ = epoll::modify(&self.epoll, socket, data, flags);
        }
    }

    pub(super) fn remove(&self, socket: &impl AsFd) {
        if self.epoll.is_intact() {
            // It fails if the socket was not watched.
            let _ = epoll::delete(&self.epoll, socket);
        }
    }
}
