//! Socket options that no crate offers: how long a TCP peer has been silent, how much it has not
//! acknowledged, and a limit on the time after which the kernel sends again. Knows sockets by their
//! descriptors only.
#![expect(unsafe_code, reason = "socket options are read and set through libc")]

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use libc::{IPPROTO_TCP, TCP_INFO, TIOCOUTQ, getsockopt, ioctl, setsockopt, socklen_t};

/// From tcp.h; Linux has it since 6.15.
const TCP_RTO_MAX_MS: c_int = 44;
/// The smallest value that the option accepts, in milliseconds.
const RTO_MAX_MS: c_int = 1000;

/// The beginning of `struct tcp_info` (tcp.h). The struct has only ever grown at its end.
type TcpInfo = [u32; 15];
/// The index of the milliseconds since data was received.
const LAST_DATA_RECV: usize = 13;
/// The index of the milliseconds since an acknowledgement was received.
const LAST_ACK_RECV: usize = 14;

/// Makes the kernel send unacknowledged data again after a second at the latest. Without this
/// option, it waits for as long as the slowest round trips took, and it takes an outage for a slow
/// round trip. An older kernel refuses the option, which is ignored.
pub(super) fn limit_retransmission_timeout(fd: BorrowedFd<'_>) {
    let value: *const c_int = &RTO_MAX_MS;
    let length = socklen_t::try_from(size_of::<c_int>()).unwrap_or_default();
    // SAFETY: the descriptor is open while it is borrowed, and `value` points to `length` bytes.
    let _ =
        unsafe { setsockopt(fd.as_raw_fd(), IPPROTO_TCP, TCP_RTO_MAX_MS, value.cast::<c_void>(), length) };
}

/// The time since the last data or acknowledgement from the peer.
pub(super) fn silence(fd: BorrowedFd<'_>) -> Option<Duration> {
    let mut info: TcpInfo = [0; 15];
    let mut length = socklen_t::try_from(size_of::<TcpInfo>()).unwrap_or_default();
    let into: *mut TcpInfo = &mut info;
    // SAFETY: the descriptor is open while it is borrowed, and `into` has room for `length` bytes.
    let result =
        unsafe { getsockopt(fd.as_raw_fd(), IPPROTO_TCP, TCP_INFO, into.cast::<c_void>(), &raw mut length) };
    let is_whole = usize::try_from(length).is_ok_and(|length| length >= size_of::<TcpInfo>());
    let last = info[LAST_DATA_RECV].min(info[LAST_ACK_RECV]);
    (result == 0 && is_whole).then(|| Duration::from_millis(last.into()))
}

/// The number of bytes that the peer has not acknowledged yet. The end of the stream has a sequence
/// number, too, and counts as one byte.
pub(super) fn unacknowledged(fd: BorrowedFd<'_>) -> Option<c_int> {
    let mut bytes = 0;
    let into: *mut c_int = &mut bytes;
    // SAFETY: the descriptor is open while it is borrowed, and for a socket this request writes one
    // `int`.
    let result = unsafe { ioctl(fd.as_raw_fd(), TIOCOUTQ, into) };
    (result == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::thread::sleep;

    use super::*;

    #[test]
    fn silence_lasts_until_data_is_received() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let pause = Duration::from_millis(300);
        sleep(pause);
        let before = silence(client.as_fd()).unwrap();
        assert!(before >= pause, "{before:?}");
        server.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        let after = silence(client.as_fd()).unwrap();
        assert!(after < before, "{after:?}");
    }
}
