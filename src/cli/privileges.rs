//! What a daemon asks of the system at its start: to become another user, and to have enough
//! descriptors.

use std::ffi::CString;
use std::io;
use std::path::Path;

use lockd::server::state_dir;
use lockd::server::{Bound, ControlSocket};
use nix::unistd::{User, initgroups, setgid, setuid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for other things than connections: listeners, the log, files.
const OTHER_DESCRIPTORS: u64 = 100;

#[derive(Debug)]
pub(super) struct UserAccount(User);

impl UserAccount {
    /// # Errors
    /// If there is no such user; the message names it.
    pub(super) fn find(name: &str) -> io::Result<Self> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "there is no such user");
        let found = User::from_name(name).map_err(io::Error::from).and_then(|user| user.ok_or_else(unknown));
        found.map(Self).map_err(|error| in_context(name, &error))
    }

    /// Becomes this user for good. Before that, gives it the files of the Unix sockets, with their
    /// lock files, those of the control socket, and the state directory.
    ///
    /// # Errors
    /// If this process may not do that; the message names the user.
    pub(super) fn take_over(
        &self,
        bound: &Bound,
        control: Option<&ControlSocket>,
        state_dir: Option<&Path>,
    ) -> io::Result<()> {
        self.become_it(bound, control, state_dir).map_err(|error| in_context(&self.0.name, &error))
    }

    fn become_it(
        &self,
        bound: &Bound,
        control: Option<&ControlSocket>,
        state_dir: Option<&Path>,
    ) -> io::Result<()> {
        let (uid, gid) = (self.0.uid, self.0.gid);
        bound.give_to(uid.as_raw(), gid.as_raw())?;
        if let Some(control) = control {
            control.give_to(uid.as_raw(), gid.as_raw())?;
        }
        if let Some(directory) = state_dir {
            state_dir::prepare_for(directory, uid.as_raw(), gid.as_raw())?;
        }
        let name = CString::new(&*self.0.name)?;
        // The groups first: after the change of the user they can no longer be changed.
        initgroups(&name, gid)?;
        setgid(gid)?;
        setuid(uid)?;
        Ok(())
    }
}

fn in_context(user: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("user {user}: {error}"))
}

/// Raises the limit on open descriptors to what `connections` connections need, or as far as the
/// system allows. Warns if that is not enough.
pub(super) fn raise_descriptor_limit(connections: usize) {
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    // One for the connection itself, and one for the waker that some connections need.
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
