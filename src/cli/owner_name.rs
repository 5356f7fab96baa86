//! The name by which a `lockd run` shows itself to others, `run: COMMAND (USER@HOST, pid PID)`, and
//! what can be read from it. Pure.
//!
//! A `lockd run` in the command of another one has a session of its own. Its name says in which
//! one it runs, so that others can see that the outer one waits for what the inner one waits for:
//! `run: COMMAND (USER@HOST, pid PID, inside pid OUTER)`.

/// The name, for a process in the command of the `lockd run` with the id `outer`, if it is in one.
pub(super) fn owner_name(program: &str, user: &str, host: &str, pid: u32, outer: Option<u32>) -> String {
    let inside = outer.map_or_else(String::new, |outer| format!(", inside pid {outer}"));
    format!("run: {program} ({user}@{host}, pid {pid}{inside})")
}

/// The parts of such a name: host, pid, and the pid of the outer one, if there is one.
fn parts(name: &str) -> Option<(&str, &str, Option<&str>)> {
    let (_, place) = name.strip_prefix("run: ")?.strip_suffix(')')?.rsplit_once(" (")?;
    let (place, outer) = match place.rsplit_once(", inside pid ") {
        Some((place, outer)) => (place, Some(outer)),
        None => (place, None),
    };
    let (user_and_host, pid) = place.rsplit_once(", pid ")?;
    let (_, host) = user_and_host.rsplit_once('@')?;
    Some((host, pid, outer))
}

/// Whether it is the name of a `lockd run` in the command of another one.
pub(super) fn is_nested(name: &str) -> bool {
    parts(name).is_some_and(|(.., outer)| outer.is_some())
}

/// Whether `inner` is the name of a `lockd run` in the command of the one named `outer`.
pub(super) fn is_inside(inner: &str, outer: &str) -> bool {
    match (parts(inner), parts(outer)) {
        (Some((host, _, Some(inside))), Some((outer_host, pid, _))) => host == outer_host && inside == pid,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_in_which_lockd_run_it_runs() {
        let outer = owner_name("deploy.sh (", "root", "a1", 12, None);
        let inner = owner_name("migrate", "web", "a1", 30, Some(12));
        let innermost = owner_name("x", "web", "a1", 31, Some(30));
        assert_eq!(outer, "run: deploy.sh ( (root@a1, pid 12)");
        assert_eq!(inner, "run: migrate (web@a1, pid 30, inside pid 12)");
        assert!(is_inside(&inner, &outer) && is_inside(&innermost, &inner));
        assert!(!is_inside(&outer, &inner) && !is_inside(&innermost, &outer));
        let elsewhere = owner_name("deploy.sh", "root", "a2", 12, None);
        assert!(!is_inside(&inner, &elsewhere) && !is_inside(&inner, "run: x") && !is_inside("bob", &outer));
        assert!(is_nested(&inner) && !is_nested(&outer) && !is_nested("inside pid 3"));
    }
}
