//! Binding Unix sockets. The file of a socket outlives its server, so a stale file is replaced, but
//! the file of a live socket never is, and two servers never share a path. Knows paths and sockets,
//! and nothing of what is served there.
//!
//! To check whether a socket is live, to remove its file and to bind another socket are three
//! steps. So that no two servers take them at once, each takes an exclusive flock(2) on `PATH.lock`
//! before, and holds it until it has removed its own socket. The lock file is in the socket's
//! directory, so it is the same file by whatever name the directory is reached. A clean stop
//! removes it while it is locked; therefore a server that has just locked it checks that the file
//! is still at its path. If it is left behind (the server was killed, or may not write there any
//! more), that does no harm.
//!
//! Another user may be able to write in that directory, and replace a file by a link at any moment.
//! So a mode and an owner are set through a descriptor whose file has been checked, never by path:
//! a server with privileges must not give away a file elsewhere.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Uid, flock};
use rustix::io::Errno;
use rustix::process::geteuid;
use socket2::{Domain, SockAddr, SockRef};

use super::tcp::BACKLOG;
use crate::os::fork::CloseOnForkFd;
use crate::os::socket::new_socket;
use crate::server::snapshot::types::SocketFileSnapshot;

/// The file of a socket. Removed when it is dropped, unless another file has taken its place.
pub(in crate::server) struct SocketFile {
    /// Absolute.
    path: PathBuf,
    /// The file itself, whatever is at its path by now.
    file: CloseOnForkFd,
    /// Dropped after the socket's file is removed.
    lock: PathLock,
}

impl SocketFile {
    /// Opens the file that has just been made at `path`.
    ///
    /// # Errors
    /// If something else is there by now.
    fn open(path: &Path, lock: PathLock) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = CloseOnForkFd::open(|| Ok(rustix::fs::open(path, flags, Mode::empty())?))?;
        let found = rustix::fs::fstat(&file)?;
        // Another user cannot make a file that is root's. Without privileges this process has
        // nothing to give away.
        let is_own = !geteuid().is_root() || Uid::from_raw(found.st_uid).is_root();
        if FileType::from_raw_mode(found.st_mode) != FileType::Socket || !is_own {
            return Err(io::Error::other("somebody else has replaced the socket's file"));
        }
        Ok(Self { path: path.to_owned(), file, lock })
    }

    /// Its descriptors.
    pub(in crate::server) fn snapshot(&self) -> SocketFileSnapshot {
        let number = |fd: &CloseOnForkFd| fd.as_fd().as_raw_fd();
        SocketFileSnapshot { fd: number(&self.file), lock_fd: number(&self.lock.file) }
    }

    /// Takes over the file at `path`, and the right to the path, from an earlier image of the
    /// program.
    ///
    /// # Errors
    /// If a descriptor is not of such a file.
    pub(in crate::server) fn restore(path: &Path, snapshot: SocketFileSnapshot) -> io::Result<Self> {
        let file = CloseOnForkFd::take_over(snapshot.fd)?;
        let lock = CloseOnForkFd::take_over(snapshot.lock_fd)?;
        let kind =
            |fd: &CloseOnForkFd| Ok::<_, Errno>(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode));
        if kind(&file)? != FileType::Socket || kind(&lock)? != FileType::RegularFile {
            return Err(io::Error::other("a descriptor is not of the socket's file or its lock file"));
        }
        // The lock belongs to the open file, which this process has had all the time.
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                Ok(Self { path: path.into(), file, lock: PathLock { file: lock, path: lock_file(path) } })
            }
            Err(error) => Err(io::Error::new(io::Error::from(error).kind(), "its lock file is another's")),
        }
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        if rustix::fs::fstat(&self.file)?.st_mode & 0o777 == mode {
            return Ok(());
        }
        // A descriptor opened with O_PATH does not allow fchmod(2), but its link in /proc allows
        // chmod(2).
        let link = format!("/proc/self/fd/{}", self.file.as_fd().as_raw_fd());
        match fs::set_permissions(link, fs::Permissions::from_mode(mode)) {
            // There is no /proc.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !geteuid().is_root() => {
                fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))
            }
            set => set,
        }
    }

    /// Makes this user and group the owners of the file and of its lock file.
    ///
    /// # Errors
    /// If this process may not do that.
    pub(in crate::server) fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(&self.file, "", owner.0, owner.1, AtFlags::EMPTY_PATH)?;
        fchown(&self.lock.file, Some(uid), Some(gid))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if is_at(&self.file, &self.path).unwrap_or(false) {
            // If that fails, the next start replaces the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns a listening socket at `path`, and its file, which has the permissions `mode`.
///
/// # Errors
/// If another server has the path, if something else is there, or if a file cannot be made.
pub(in crate::server) fn bind(path: &Path, mode: u32) -> io::Result<(CloseOnForkFd, SocketFile)> {
    // Clients may have another working directory, and so may this process when it removes the file.
    let path = &std::path::absolute(path)?;
    check_directory(path)?;
    let lock = PathLock::take(path)?;
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "a file that is no socket is there"));
        }
        // It may be the socket of a server that takes no lock. Non-blocking, since that may be too
        // busy to accept.
        let probe = new_socket(Domain::UNIX)?;
        let probe = SockRef::from(&probe);
        probe.set_nonblocking(true)?;
        match probe.connect(&SockAddr::unix(path)?) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            _ => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there")),
        }
    }
    let descriptor = new_socket(Domain::UNIX)?;
    let socket = SockRef::from(&descriptor);
    // The kernel makes the file with the mode of the socket, less the process's umask. If that
    // fails, the mode of the file is set below all the same.
    let _ = rustix::fs::fchmod(&descriptor, Mode::from_raw_mode(mode));
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::open(path, lock)?;
    // Before `listen`, so that no client can connect before the mode is set.
    file.set_mode(mode)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((descriptor, file))
}

/// Checks that the directory of this file exists: only for the sake of an error that names it,
/// since every later step fails without it, too.
///
/// # Errors
/// If there is no such directory.
fn check_directory(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    let shown = directory.display();
    match fs::metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("there is no directory {shown}")))
        }
        Ok(found) if !found.is_dir() => {
            Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{shown} is no directory")))
        }
        _ => Ok(()),
    }
}

/// The right to bind a socket at a path. One server has it at a time.
struct PathLock {
    /// Locked while it is open. A forked child closes its copy, so it does not keep the path
    /// locked.
    file: CloseOnForkFd,
    path: PathBuf,
}

impl PathLock {
    /// # Errors
    /// If another server has it, or the lock file cannot be opened or made; the message names the
    /// file.
    fn take(socket: &Path) -> io::Result<Self> {
        let path = lock_file(socket);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        // Whatever is at the path, no link is followed, and the call does not block.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        // O_CREAT only if the file is missing: in a directory like /tmp the kernel refuses it for a
        // file of another user, and after `--user` the file belongs to one.
        let open = || match rustix::fs::open(&path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                let new = flags | OFlags::CREATE | OFlags::EXCL;
                Ok(rustix::fs::open(&path, new, Mode::RUSR | Mode::WUSR)?)
            }
            opened => Ok(opened?),
        };
        loop {
            let file = match CloseOnForkFd::open(open) {
                // Another server has made it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened.map_err(named)?,
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, &path).map_err(named)? => {
                    check_lock_file(&file).map_err(named)?;
                    return Ok(Self { file, path });
                }
                // The server that held the lock has removed the file since it was opened here; or a
                // signal came.
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => {
                    let text =
                        format!("another server listens there, or is about to: it holds {}", path.display());
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
                }
                Err(error) => return Err(named(error.into())),
            }
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // A server that opens it from now on makes another file. One that has opened it already
        // will see that it is no longer at its path.
        if is_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Checks that this can be a lock file made by a server.
///
/// # Errors
/// If it is something else, or has other names: it could be any user's file, and its owner must not
/// be changed.
fn check_lock_file(file: &CloseOnForkFd) -> io::Result<()> {
    let found = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile || found.st_nlink > 1 {
        return Err(io::Error::other("it is no file of its own, made by a server"));
    }
    Ok(())
}

/// Whether this file is still the one at `path`.
fn is_at(file: &CloseOnForkFd, path: &Path) -> io::Result<bool> {
    let own = rustix::fs::fstat(file)?;
    match rustix::fs::lstat(path) {
        Ok(found) => Ok((found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The lock file of the server at this socket.
pub(crate) fn lock_file(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;
    use std::thread;

    use super::*;

    /// Leaves a file behind, as a server does that is killed.
    fn leave_stale(path: &Path) {
        drop(UnixListener::bind(path).unwrap());
    }

    #[test]
    fn one_of_many_servers_that_replace_a_stale_file_at_once_gets_the_path() {
        const SERVERS: usize = 8;
        let directory = tempfile::tempdir().unwrap();
        for round in 0..100 {
            let path = directory.path().join(format!("{round}.sock"));
            leave_stale(&path);
            let start = Barrier::new(SERVERS);
            let bound: Vec<_> = thread::scope(|scope| {
                let bind = || {
                    start.wait();
                    bind(&path, 0o600)
                };
                let servers: Vec<_> = (0..SERVERS).map(|_| scope.spawn(bind)).collect();
                servers.into_iter().filter_map(|server| server.join().unwrap().ok()).collect()
            });
            assert_eq!(bound.len(), 1, "round {round}");
            UnixStream::connect(&path).unwrap();
        }
    }

    #[test]
    fn one_server_at_a_time_has_the_path_while_many_start_and_stop() {
        const SERVERS: usize = 8;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let serving = AtomicUsize::new(0);
        let served = AtomicUsize::new(0);
        thread::scope(|scope| {
            let serve = || {
                for _ in 0..2000 {
                    // Only the lock: with the slow steps that follow it, most races would not occur
                    // here.
                    let Ok(lock) = PathLock::take(&path) else { continue };
                    assert_eq!(serving.fetch_add(1, SeqCst), 0, "two serve");
                    served.fetch_add(1, SeqCst);
                    thread::yield_now();
                    serving.fetch_sub(1, SeqCst);
                    drop(lock);
                }
            };
            // Joined one by one, since a thread sanitizer does not understand how a scope waits for
            // its threads.
            let servers: Vec<_> = (0..SERVERS).map(|_| scope.spawn(serve)).collect();
            servers.into_iter().for_each(|server| server.join().unwrap());
        });
        assert!(served.into_inner() > 0);
        assert!(!lock_file(&path).exists());
    }

    #[test]
    fn the_lock_file_of_a_killed_server_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        leave_stale(&path);
        fs::write(lock_file(&path), "").unwrap();
        let server = bind(&path, 0o600).unwrap();
        assert!(bind(&path, 0o600).is_err());
        drop(server);
        assert!(!lock_file(&path).exists());
    }

    #[test]
    fn only_its_owner_can_open_the_lock_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let _server = bind(&path, 0o666).unwrap();
        assert_eq!(fs::metadata(lock_file(&path)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_path_through_a_link_to_the_directory_is_the_same_path() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        let server = bind(&real.join("sock"), 0o600).unwrap();
        // Even if the live socket would not be found.
        fs::remove_file(real.join("sock")).unwrap();
        let error = bind(&link.join("sock"), 0o600).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
        drop(server);
    }

    #[test]
    fn a_live_server_is_found_even_if_its_lock_file_was_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let server = bind(&path, 0o600).unwrap();
        fs::remove_file(lock_file(&path)).unwrap();
        let error = bind(&path, 0o600).err().unwrap();
        assert!(error.to_string().contains("another server listens there"), "{error}");
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn an_error_names_what_is_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| bind(&directory.path().join(name), 0o600).err().unwrap().to_string();
        fs::write(directory.path().join("file"), "data").unwrap();
        let error = at("file");
        assert!(error.contains("a file that is no socket is there"), "{error}");
        assert_eq!(fs::read_to_string(directory.path().join("file")).unwrap(), "data");
        let error = at("missing/sock");
        assert!(error.contains("there is no directory") && error.ends_with("missing"), "{error}");
        assert!(at("file/sock").ends_with("file is no directory"), "{}", at("file/sock"));
    }

    #[test]
    fn a_link_or_directory_in_place_of_the_lock_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, precious) = (directory.path().join("sock"), directory.path().join("precious"));
        fs::write(&precious, "data").unwrap();
        symlink(&precious, lock_file(&path)).unwrap();
        let error = bind(&path, 0o600).err().unwrap();
        assert!(error.to_string().contains("sock.lock"), "{error}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "data");
        fs::remove_file(lock_file(&path)).unwrap();
        fs::create_dir(lock_file(&path)).unwrap();
        assert!(bind(&path, 0o600).is_err());
        assert!(lock_file(&path).is_dir() && !path.exists());
    }

    #[test]
    fn mode_and_owner_are_set_on_the_socket_even_if_its_path_was_replaced() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("sock"), directory.path().join("moved"));
        let precious = directory.path().join("precious");
        fs::write(&precious, "data").unwrap();
        let before = fs::metadata(&precious).unwrap();
        let (_socket, file) = bind(&path, 0o600).unwrap();
        fs::rename(&path, &moved).unwrap();
        symlink(&precious, &path).unwrap();
        file.set_mode(0o660).unwrap();
        assert_eq!(fs::metadata(&moved).unwrap().permissions().mode() & 0o777, 0o660);
        if geteuid().is_root() {
            file.give_to(65_534, 65_534).unwrap();
            assert_eq!(fs::metadata(&moved).unwrap().uid(), 65_534);
        }
        let after = fs::metadata(&precious).unwrap();
        assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
        // A link or an ordinary file is not taken for the socket's file.
        drop(file);
        let lock = || PathLock::take(&path).unwrap();
        assert!(SocketFile::open(&path, lock()).is_err());
        assert!(SocketFile::open(&precious, lock()).is_err());
        assert!(path.is_symlink() && precious.exists());
    }
}
