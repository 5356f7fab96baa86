//! What the program hands over to the next image of its process: a file in memory with what the
//! program itself has, and after that the server's state, whose format is the server's. Knows what
//! is in the file; nothing of how it comes about.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::time::SystemTime;

use lockd::server::keeper::KeeperSnapshot;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// The first line. The number is the version of the format.
const HEADING: &str = "lockd program state 1";

/// What the program has, besides the server. Descriptors are the numbers that they keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProgramState {
    /// The version of the program that has written this.
    pub(crate) version: String,
    /// The process, which stays the same.
    pub(crate) pid: u32,
    /// Where the next version of the program will be: the path by which it was started.
    pub(crate) program: OsString,
    /// When the process was started.
    pub(crate) started: SystemTime,
    /// When it ceased to serve, in nanoseconds of CLOCK_MONOTONIC.
    pub(crate) ceased: u64,
    /// The options in effect, each value as JSON.
    pub(crate) options: BTreeMap<String, String>,
    /// How many upgrades there have been before this one.
    pub(crate) upgrades: u64,
    /// How many lines of the log nobody has read.
    pub(crate) lost_lines: u64,
    /// Whether the configuration is to be read again, as a signal has asked for meanwhile.
    pub(crate) reload: bool,
    pub(crate) pidfile: Option<RawFd>,
    pub(crate) state_dir: Option<StateDirHandOver>,
    /// The control socket, its file, and the file that is locked for it.
    pub(crate) control: Option<[RawFd; 3]>,
    /// The client that has asked for the upgrade.
    pub(crate) asker: Option<RawFd>,
    /// The listeners of the pages.
    pub(crate) http: Vec<RawFd>,
}

/// The state directory, by its descriptor, which has locked it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateDirHandOver {
    pub(crate) directory: RawFd,
    pub(crate) keeper: KeeperSnapshot,
}

impl ProgramState {
    /// All descriptors in it.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let mut all = self.http.clone();
        all.extend(self.pidfile.into_iter().chain(self.asker));
        all.extend(self.state_dir.as_ref().map(|state_dir| state_dir.directory));
        all.extend(self.control.iter().flatten());
        all
    }
}

/// The time of CLOCK_MONOTONIC, which goes on through an upgrade.
pub(crate) fn monotonic_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // It counts from the start of the machine.
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos).unwrap_or_default()
}

/// Writes both parts to a file in memory, which cannot be changed any more.
///
/// # Errors
/// If there is not enough memory, or no descriptor left.
pub(crate) fn write(program: &ProgramState, server: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(create()?);
    // JSON without line ends.
    let program = serde_json::to_string(program)?;
    file.write_all(format!("{HEADING}\n{program}\n").as_bytes())?;
    file.write_all(server)?;
    let file = OwnedFd::from(file);
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file)
}

fn create() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(c"lockd-upgrade", flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know that flag; later ones may be set to insist on it.
        Err(Errno::INVAL) => Ok(memfd_create(c"lockd-upgrade", flags)?),
        created => Ok(created?),
    }
}

/// Reads both parts from such a file.
///
/// # Errors
/// If it cannot be read, or does not have this format.
pub(crate) fn read(file: OwnedFd) -> Result<(ProgramState, Vec<u8>), String> {
    let mut file = File::from(file);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(&mut bytes))
        .map_err(|error| format!("the state cannot be read: {error}"))?;
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let heading = parts.next().unwrap_or_default();
    if heading != HEADING.as_bytes() {
        return Err("the state is of a format that this version does not know".to_owned());
    }
    let program = serde_json::from_slice(parts.next().unwrap_or_default())
        .map_err(|error| format!("the program's state makes no sense: {error}"))?;
    let server = parts.next().ok_or("the server's state is missing")?;
    Ok((program, server.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn state() -> ProgramState {
        ProgramState {
            version: "1.2.3".to_owned(),
            pid: 17,
            program: OsStr::from_bytes(b"/a/b\xff").to_owned(),
            started: SystemTime::UNIX_EPOCH,
            ceased: u64::MAX,
            options: [("state-dir".to_owned(), "\"/a\\nb\"".to_owned())].into(),
            upgrades: 4,
            lost_lines: 3,
            reload: true,
            pidfile: Some(5),
            state_dir: Some(StateDirHandOver {
                directory: 6,
                keeper: KeeperSnapshot {
                    tokens_end: 7,
                    dead_peer_timeout: 8,
                    in_grace: true,
                    sessions: None,
                },
            }),
            control: Some([8, 9, 10]),
            asker: Some(11),
            http: vec![12, 13],
        }
    }

    fn file(bytes: &[u8]) -> OwnedFd {
        let mut file = File::from(create().unwrap());
        file.write_all(bytes).unwrap();
        file.into()
    }

    #[test]
    fn a_state_is_read_as_it_was_written_and_cannot_be_changed() {
        for server in [&b""[..], b"a\nb\n", &[0, 255]] {
            let written = write(&state(), server).unwrap();
            let mut other = File::from(written.try_clone().unwrap());
            assert!(other.write_all(b"x").is_err() && other.set_len(0).is_err());
            assert_eq!(read(written), Ok((state(), server.to_vec())));
        }
    }

    #[test]
    fn every_descriptor_is_handed_over() {
        let mut all = state().descriptors();
        all.sort_unstable();
        assert_eq!(all, [5, 6, 8, 9, 10, 11, 12, 13]);
    }

    #[test]
    fn anything_else_is_refused() {
        let json = serde_json::to_string(&state()).unwrap();
        let whole = format!("{HEADING}\n{json}\n");
        let error = |text: &str| read(file(text.as_bytes())).unwrap_err();
        assert!(error("").contains("format"));
        assert!(error(&whole.replace("state 1", "state 2")).contains("format"));
        assert!(error(whole.trim_end()).contains("missing"));
        assert!(error(&whole.replace("\"reload\"", "\"relaod\"")).contains("relaod"));
        assert!(error(&whole[..whole.len() - 2]).contains("makes no sense"));
    }
}
