//! Writing tombstones for many sessions at once: after an outage, thousands of threads may want to
//! write one each, and each write waits for the disk. One thread writes for all that have come
//! meanwhile. Knows no file.

use std::io;

use crate::os::sync::{Arc, Condvar, Mutex};
use crate::wire::message::ResumeId;

/// The sessions that wait for their tombstones.
#[derive(Default)]
pub(super) struct Burial {
    state: Mutex<BurialState>,
    changed: Condvar,
}

#[derive(Default)]
struct BurialState {
    waiting: Vec<ResumeId>,
    /// That of those that wait.
    round: Arc<Round>,
    is_writing: bool,
}

/// Those that are written together, and how that ended.
#[derive(Default)]
struct Round(Mutex<Option<Result<(), (io::ErrorKind, String)>>>);

impl Burial {
    /// Returns once `write` has been called with these sessions, perhaps by another thread, with
    /// its result.
    ///
    /// # Errors
    /// That of `write`. Then none of those that were written together counts as written.
    pub(super) fn bury(
        &self,
        ids: &[ResumeId],
        write: impl Fn(&[ResumeId]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state.lock();
        state.waiting.extend_from_slice(ids);
        let round = state.round.clone();
        loop {
            if let Some(result) = &*round.0.lock() {
                return result.clone().map_err(|(kind, text)| io::Error::new(kind, text));
            }
            if state.is_writing {
                state = self.changed.wait(state);
                continue;
            }
            state.is_writing = true;
            let all = std::mem::take(&mut state.waiting);
            let written = std::mem::take(&mut state.round);
            drop(state);
            let result = write(&all).map_err(|error| (error.kind(), error.to_string()));
            state = self.state.lock();
            *written.0.lock() = Some(result);
            state.is_writing = false;
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    fn id(number: usize) -> ResumeId {
        ResumeId((number as u128).to_be_bytes())
    }

    #[test]
    fn each_is_written_once_before_its_call_returns_and_many_together() {
        let (burial, writes) = (Burial::default(), AtomicUsize::new(0));
        let written = Mutex::new(BTreeSet::new());
        let write = |ids: &[ResumeId]| {
            writes.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
            let mut all = written.lock();
            assert!(ids.iter().all(|id| all.insert(*id)), "written twice");
            Ok(())
        };
        thread::scope(|scope| {
            for number in 0..200 {
                let (burial, written, write) = (&burial, &written, &write);
                scope.spawn(move || {
                    burial.bury(&[id(number)], write).unwrap();
                    assert!(written.lock().contains(&id(number)));
                });
            }
        });
        assert_eq!(written.lock().len(), 200);
        assert!(writes.load(Ordering::SeqCst) <= 200);
    }

    #[test]
    fn an_error_is_that_of_all_who_were_written_together_and_of_nobody_later() {
        let burial = Burial::default();
        let fail = |_: &[ResumeId]| Err(io::Error::new(io::ErrorKind::StorageFull, "full"));
        let error = burial.bury(&[id(1)], fail).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::StorageFull, "full"));
        burial
            .bury(&[id(2)], |ids| {
                assert_eq!(ids, [id(2)]);
                Ok(())
            })
            .unwrap();
    }
}
