//! Becoming somebody else, and having descriptors enough: what a daemon asks of the system at its start.

use std::io;
use std::iter;
use std::os::unix::fs::{chown, lchown};
use std::path::Path;

use lockd::server::{Listen, ListenAddress};
use nix::unistd::{User, initgroups, setgid, setuid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not a connection's: listeners, logs, files.
const OTHER_DESCRIPTORS: u64 = 100;

/// Becomes `name` for good, and gives it the sockets' files, with their locks, and the state directory.
///
/// # Errors
/// If there is no such user, or this process may not become it.
pub(super) fn become_user(name: &str, addresses: &[Listen], state_dir: Option<&Path>) -> io::Result<()> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, "there is no such user");
    let user = User::from_name(name)?.ok_or_else(unknown)?;
    for listen in addresses {
        if let ListenAddress::Unix(path) = &listen.address {
            // What was bound there, and no file behind a link that has taken its place.
            for path in iter::once(path.clone()).chain(listen.address.lock_file()) {
                lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
            }
        }
    }
    if let Some(directory) = state_dir {
        chown(directory, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    let c_name = std::ffi::CString::new(name)?;
    // The groups first: afterwards there is no right to change them.
    initgroups(&c_name, user.gid)?;
    setgid(user.gid)?;
    setuid(user.uid)?;
    Ok(())
}

/// Raises the limit on open descriptors as far as `connections` need it and the system lets it.
pub(super) fn raise_descriptor_limit(connections: usize) {
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    // One for the connection, and one for the waker that some of them need.
    let wanted = connections.saturating_mul(2).saturating_add(OTHER_DESCRIPTORS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let may = maximum.unwrap_or(u64::MAX).min(wanted);
    if current.is_some_and(|current| current < may) {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(may), maximum });
        if let Err(error) = raised {
            log::warn!("cannot raise the limit on open files to {may}: {error}");
        }
    }
    if may < connections.saturating_add(OTHER_DESCRIPTORS) {
        log::warn!("the system allows {may} open files: too few for {connections} connections");
    }
}
