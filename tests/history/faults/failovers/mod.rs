//! Fail-overs: several servers of one cluster on a real etcd, of which the active one is killed,
//! stopped, cut off from etcd or from its clients, and told to hand over, while clients of all kinds
//! work. The checker decides, as for one server.
//!
//! - `cluster`: the servers as processes, with what is between them, etcd and their clients, and the
//!   times at which each of them was active.
//! - `courses`: random runs, of several clusters side by side. `course`: one cluster in such a run.
//! - `stories`: for each rule, what brings out that it is broken. `planted`: servers that break one
//!   must be convicted there, and those that do not must be acquitted. `clocks`: the same stories with
//!   servers whose clocks differ. `times`: how long all that takes.

mod clocks;
mod cluster;
mod course;
mod courses;
mod planted;
mod stories;
mod times;

use std::sync::Mutex;

/// How many tasks are carried out at once: a server that is not run for a while is not active any
/// more.
const AT_ONCE: usize = 3;

/// Carries all tasks out, some of them at once.
fn some_at_once<T>(tasks: impl Iterator<Item = T> + Send, carry_out: impl Fn(T) + Sync) {
    let left = Mutex::new(tasks);
    let next = || left.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(task) = next() {
                    carry_out(task);
                }
            });
        }
    });
}
