//! The name by which a `lockd run` shows itself to others, and what can be read from it. Pure.
//!
//! It is `run: COMMAND (USER@HOST, pid PID, id ID)`. The id is for the chain of a lock: process ids
//! are used again, and containers of one host name have the same ones. A `lockd run` in the command
//! of others has a session of its own. Its name lists the ids of those, the nearest first, so that
//! others can see that the outer ones wait for what the inner one waits for:
//! `run: COMMAND (USER@HOST, pid PID, id ID, inside ID ID)`.

use lockd::broker::OWNER_BYTES_MAX;

use super::processes::Process;

/// How many outer ones are listed.
const OUTER_MAX: usize = 10;

/// What identifies a `lockd run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunId(u32);

impl RunId {
    /// Of this process, where `place` says [where its id counts](super::processes::place_of_ids).
    pub(super) fn of(process: &Process, place: &[u8]) -> Self {
        let (pid, start) = (process.pid.to_le_bytes(), process.start.to_le_bytes());
        let bytes = place.iter().chain(&pid).chain(&start);
        // FNV-1a. Nobody gains by a collision, and any hash will do that is always the same.
        let hash = |hash: u32, &byte: &u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        Self(bytes.fold(0x811c_9dc5, hash))
    }

    fn text(self) -> String {
        format!("{:08x}", self.0)
    }
}

/// The name of the first of `line`, which runs in the commands of the others.
pub(super) fn owner_name(program: &str, user: &str, host: &str, pid: u32, line: &[RunId]) -> String {
    let mut place = format!("{user}@{host}, pid {pid}");
    if let Some((own, outer)) = line.split_first() {
        place.push_str(&format!(", id {}", own.text()));
        let outer: Vec<String> = outer.iter().take(OUTER_MAX).map(|outer| outer.text()).collect();
        if !outer.is_empty() {
            place.push_str(&format!(", inside {}", outer.join(" ")));
        }
    }
    // A server cuts long names at the end, where the ids are.
    let room = OWNER_BYTES_MAX.saturating_sub(place.len() + "run:  ()".len());
    let end = program.floor_char_boundary(room);
    format!("run: {} ({place})", &program[..end])
}

/// The parts of such a name: the host, the id, and the ids of the outer ones.
fn parts(name: &str) -> Option<(&str, &str, &str)> {
    let (_, place) = name.strip_prefix("run: ")?.strip_suffix(')')?.rsplit_once(" (")?;
    let (place, outer) = place.rsplit_once(", inside ").unwrap_or((place, ""));
    let (place, id) = place.rsplit_once(", id ")?;
    let (user_and_host, _) = place.rsplit_once(", pid ")?;
    let (_, host) = user_and_host.rsplit_once('@')?;
    Some((host, id, outer))
}

/// Whether it is the name of a `lockd run` in the command of another one.
pub(super) fn is_nested(name: &str) -> bool {
    parts(name).is_some_and(|(.., outer)| !outer.is_empty())
}

/// Whether `inner` is the name of a `lockd run` in the command of the one named `outer`, directly or
/// not.
pub(super) fn is_inside(inner: &str, outer: &str) -> bool {
    match (parts(inner), parts(outer)) {
        (Some((host, _, inside)), Some((outer_host, id, _))) => {
            host == outer_host && inside.split(' ').any(|outer| outer == id)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_in_which_lockd_runs_it_runs() {
        let ids = [7, 0xabc, u32::MAX].map(RunId);
        let outer = owner_name("deploy.sh (", "root", "a1", 12, &ids[2..]);
        let inner = owner_name("migrate", "web", "a1", 30, &ids[1..]);
        let innermost = owner_name("x", "web", "a1", 31, &ids);
        assert_eq!(outer, "run: deploy.sh ( (root@a1, pid 12, id ffffffff)");
        assert_eq!(innermost, "run: x (web@a1, pid 31, id 00000007, inside 00000abc ffffffff)");
        assert!(is_inside(&inner, &outer) && is_inside(&innermost, &inner) && is_inside(&innermost, &outer));
        assert!(!is_inside(&outer, &inner) && !is_inside(&inner, &innermost) && !is_inside(&inner, &inner));
        let elsewhere = owner_name("deploy.sh", "root", "a2", 12, &ids[2..]);
        assert!(!is_inside(&inner, &elsewhere) && !is_inside(&inner, "run: x") && !is_inside("bob", &outer));
        assert!(is_nested(&inner) && !is_nested(&outer) && !is_nested("inside 3"));
        // Without /proc there is no id, and nothing can be told.
        let unknown = owner_name("x", "web", "a1", 12, &[]);
        assert!(!is_inside(&inner, &unknown) && !is_nested(&unknown));
    }

    #[test]
    fn a_long_command_does_not_cut_the_ids_off() {
        let name = owner_name(&"ä".repeat(200), "web", "a1", 31, &[RunId(1); 20]);
        assert!(name.len() <= OWNER_BYTES_MAX && name.ends_with(" 00000001)") && is_nested(&name), "{name}");
    }

    #[test]
    fn a_process_id_that_is_used_again_is_another_id() {
        let this = Process::read(i32::try_from(std::process::id()).unwrap()).unwrap();
        let mut later = this.clone();
        later.start += 1;
        let id = RunId::of(&this, b"here");
        assert!(id == RunId::of(&this, b"here") && id != RunId::of(&later, b"here"));
        assert_ne!(id, RunId::of(&this, b"in a container"));
    }
}
