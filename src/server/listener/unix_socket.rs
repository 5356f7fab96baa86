//! Binding Unix sockets, whose files outlive their servers: a stale one is replaced, a live one never, and two
//! servers never share a path. Knows paths and sockets, and nothing of what is served there.
//!
//! Looking whether a socket is live, removing it and binding another one are three steps. So that no two servers
//! take them at once, each takes an exclusive flock(2) on `PATH.lock` before, and holds it until it has removed its
//! own socket. That file is in the directory of the socket, and so is the same by whatever name the directory
//! goes. It is removed at a clean stop, while it is locked; therefore one that has just locked it looks whether it is
//! still at its path. If it stays (the server was killed, or may not write there any more), that does no harm.
//!
//! Another user may write in that directory and put a link in the place of a file at any moment. So a mode and an owner
//! are set on what has been opened and looked at, never by path: a server with privileges must not give away a file
//! elsewhere.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Uid, flock};
use rustix::io::Errno;
use rustix::process::geteuid;
use socket2::{Domain, SockAddr, SockRef};

use super::BACKLOG;
use crate::os::fork::Descriptor;
use crate::os::socket::new_socket;

/// The file of a socket. Removed when the listener goes, if it is still the file that was made for it.
pub(super) struct SocketFile {
    path: PathBuf,
    /// The file itself, whatever is at its path.
    file: Descriptor,
    /// Let go after the socket's file is removed.
    lock: PathLock,
}

impl SocketFile {
    /// The file that has just been made at `path`.
    ///
    /// # Errors
    /// If something else is there by now.
    fn find(path: &Path, lock: PathLock) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = Descriptor::open(|| Ok(rustix::fs::open(path, flags, Mode::empty())?))?;
        let found = rustix::fs::fstat(&file)?;
        // Others cannot make one that is root's, and without privileges there is nothing to be had from this process.
        let is_own = !geteuid().is_root() || Uid::from_raw(found.st_uid).is_root();
        if FileType::from_raw_mode(found.st_mode) != FileType::Socket || !is_own {
            return Err(io::Error::other("somebody else has replaced the socket's file"));
        }
        Ok(Self { path: path.to_owned(), file, lock })
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        if rustix::fs::fstat(&self.file)?.st_mode & 0o777 == mode {
            return Ok(());
        }
        // What is opened so cannot be changed by its descriptor, but by the link to it.
        let link = format!("/proc/self/fd/{}", self.file.as_fd().as_raw_fd());
        match fs::set_permissions(link, fs::Permissions::from_mode(mode)) {
            // There is no /proc.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !geteuid().is_root() => {
                fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))
            }
            set => set,
        }
    }

    /// Gives the file, and its lock, to this user and group.
    ///
    /// # Errors
    /// If that may not be.
    pub(super) fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(&self.file, "", owner.0, owner.1, AtFlags::EMPTY_PATH)?;
        fchown(&self.lock.file, Some(uid), Some(gid))
    }
}

impl SocketFile {
    /// Absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if is_at(&self.file, &self.path).unwrap_or(false) {
            // Nothing to be done about a file that stays: the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A listening socket at `path`, and its file.
///
/// # Errors
/// If another server has the path, or something else is there; if a file cannot be made.
pub(super) fn bind(path: &Path, mode: u32) -> io::Result<(Descriptor, SocketFile)> {
    // Clients may be elsewhere, and so may this process be when it removes the file.
    let path = &std::path::absolute(path)?;
    check_directory(path)?;
    let lock = PathLock::take(path)?;
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "a file that is no socket is there"));
        }
        // It may be one of a server that knows no lock. Without waiting: it may be too busy to accept.
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
    // The file is made with the mode of the socket, less the process's umask. Where this does not work, the file's mode
    // is set all the same.
    let _ = rustix::fs::fchmod(&descriptor, Mode::from_raw_mode(mode));
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::find(path, lock)?;
    // The mode is set before anyone can connect: that takes `listen`.
    file.set_mode(mode)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((descriptor, file))
}

/// Whether there is a directory for this file. Only so that what is said names it: everything after this finds out for
/// itself.
///
/// # Errors
/// If there is none.
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

/// The right to bind a socket at a path, which one server has at a time.
struct PathLock {
    /// Locked for as long as it is open. A forked child closes its copy, and keeps nobody from the path.
    file: Descriptor,
    path: PathBuf,
}

impl PathLock {
    /// # Errors
    /// If another server has it, or there can be no such file; the message names the file.
    fn take(socket: &Path) -> io::Result<Self> {
        let path = lock_file(socket);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        // Whatever is at the path: nothing behind a link is opened, and nothing is waited for.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        // Made only where there is none: in a directory like /tmp the kernel refuses O_CREAT where the file is another
        // user's, which after `--user` it is.
        let open = || match rustix::fs::open(&path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                let new = flags | OFlags::CREATE | OFlags::EXCL;
                Ok(rustix::fs::open(&path, new, Mode::RUSR | Mode::WUSR)?)
            }
            opened => Ok(opened?),
        };
        loop {
            let file = match Descriptor::open(open) {
                // It has been made by another one meanwhile.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened.map_err(named)?,
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, &path).map_err(named)? => {
                    check_lock_file(&file).map_err(named)?;
                    return Ok(Self { file, path });
                }
                // The server that had it has removed it since it was opened here; or a signal has come.
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
        // Whoever opens it from now on makes another one; who has opened it already sees that it is not there.
        if is_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether this can be a file of this library's.
///
/// # Errors
/// If it is something else, or has other names: it could be anybody's file, and must not be given to anyone.
fn check_lock_file(file: &Descriptor) -> io::Result<()> {
    let found = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile || found.st_nlink > 1 {
        return Err(io::Error::other("it is no file of its own, made by a server"));
    }
    Ok(())
}

/// Whether the file is still the one at its path.
fn is_at(file: &Descriptor, path: &Path) -> io::Result<bool> {
    let own = rustix::fs::fstat(file)?;
    match rustix::fs::lstat(path) {
        Ok(found) => Ok((found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The file that is locked by the server at this socket.
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

    /// Leaves a file as a server does that is killed.
    fn leave_stale(path: &Path) {
        drop(UnixListener::bind(path).unwrap());
    }

    #[test]
    fn of_many_that_replace_a_stale_file_at_once_one_serves() {
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
    fn of_many_that_start_while_others_stop_there_is_one_at_a_time() {
        const SERVERS: usize = 8;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let serving = AtomicUsize::new(0);
        let served = AtomicUsize::new(0);
        thread::scope(|scope| {
            let serve = || {
                for _ in 0..2000 {
                    // The lock alone, since what is between it and the socket hides most of what can go wrong.
                    let Ok(lock) = PathLock::take(&path) else { continue };
                    assert_eq!(serving.fetch_add(1, SeqCst), 0, "two serve");
                    served.fetch_add(1, SeqCst);
                    thread::yield_now();
                    serving.fetch_sub(1, SeqCst);
                    drop(lock);
                }
            };
            // Joined one by one, since a thread sanitizer does not see how a scope waits for its threads.
            let servers: Vec<_> = (0..SERVERS).map(|_| scope.spawn(serve)).collect();
            servers.into_iter().for_each(|server| server.join().unwrap());
        });
        assert!(served.into_inner() > 0);
        assert!(!lock_file(&path).exists());
    }

    #[test]
    fn the_lock_of_a_server_that_was_killed_is_no_obstacle_and_is_taken_over() {
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
    fn the_lock_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let _server = bind(&path, 0o666).unwrap();
        assert_eq!(fs::metadata(lock_file(&path)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn by_another_name_of_the_directory_it_is_the_same_path() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        let server = bind(&real.join("sock"), 0o600).unwrap();
        // Also where no live socket would be found.
        fs::remove_file(real.join("sock")).unwrap();
        let error = bind(&link.join("sock"), 0o600).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
        drop(server);
    }

    #[test]
    fn a_server_whose_lock_was_tidied_away_is_still_found() {
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
    fn what_keeps_a_socket_from_its_path_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| bind(&directory.path().join(name), 0o600).err().unwrap().to_string();
        fs::write(directory.path().join("file"), "data").unwrap();
        let said = at("file");
        assert!(said.contains("a file that is no socket is there"), "{said}");
        assert_eq!(fs::read_to_string(directory.path().join("file")).unwrap(), "data");
        let said = at("missing/sock");
        assert!(said.contains("there is no directory") && said.ends_with("missing"), "{said}");
        assert!(at("file/sock").ends_with("file is no directory"), "{}", at("file/sock"));
    }

    #[test]
    fn a_link_or_something_else_in_the_place_of_the_lock_is_left_alone() {
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
    fn a_mode_and_an_owner_are_those_of_the_socket_whatever_is_at_its_path_by_now() {
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
        // Nor is something else taken for the socket's file.
        drop(file);
        let lock = || PathLock::take(&path).unwrap();
        assert!(SocketFile::find(&path, lock()).is_err());
        assert!(SocketFile::find(&precious, lock()).is_err());
        assert!(path.is_symlink() && precious.exists());
    }
}
