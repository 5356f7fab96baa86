//! The lines that are to be written: so many, of so many bytes, and no more. What does not fit is lost and
//! counted. Knows neither what lines look like nor where they are written; the one who leaves a line never waits.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

/// Where lines are left.
pub(super) struct Queue {
    entries: Sender<Entry>,
    tally: Arc<Tally>,
    bytes_max: usize,
}

/// Where they are taken.
pub(super) struct Lines {
    entries: Receiver<Entry>,
    tally: Arc<Tally>,
}

enum Entry {
    Line {
        text: Box<str>,
        /// How many were lost since the last one that was not.
        lost_before: u64,
    },
    /// Tells the one who asked that everything before it has been written.
    Mark(Sender<()>),
}

#[derive(Default)]
struct Tally {
    /// Of all lines in the queue, and of the one that is being written.
    bytes: AtomicUsize,
    /// Lines that were lost since the last one that was not.
    lost: AtomicU64,
}

/// Somebody waits for lines to be written.
pub(super) struct Written(Receiver<()>);

/// A queue for at most so many lines of at most so many bytes in all.
pub(super) fn bounded(lines_max: usize, bytes_max: usize) -> (Queue, Lines) {
    let (sender, receiver) = crossbeam_channel::bounded(lines_max);
    let tally = Arc::new(Tally::default());
    (Queue { entries: sender, tally: tally.clone(), bytes_max }, Lines { entries: receiver, tally })
}

impl Queue {
    /// Leaves a line. If there is no room for it, it is lost.
    pub(super) fn push(&self, text: String) {
        // Without what the string has room for and does not use.
        let text = text.into_boxed_str();
        let bytes = text.len();
        let with_it = |before: usize| before.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        if self.tally.bytes.fetch_update(Relaxed, Relaxed, with_it).is_err() {
            self.tally.lost.fetch_add(1, Relaxed);
            return;
        }
        let lost_before = self.tally.lost.swap(0, Relaxed);
        if self.entries.try_send(Entry::Line { text, lost_before }).is_err() {
            self.tally.bytes.fetch_sub(bytes, Relaxed);
            self.tally.lost.fetch_add(lost_before + 1, Relaxed);
        }
    }

    /// Asks to be told when everything that has been left before is written; waits no longer than `limit` for
    /// room to ask, and returns `None` if there was none.
    pub(super) fn when_written(&self, limit: Duration) -> Option<Written> {
        let (mark, written) = crossbeam_channel::bounded(1);
        self.entries.send_timeout(Entry::Mark(mark), limit).ok().map(|()| Written(written))
    }
}

impl Written {
    /// Waits until it is so, but no longer than `limit`; says whether it is.
    pub(super) fn within(&self, limit: Duration) -> bool {
        self.0.recv_timeout(limit).is_ok()
    }
}

impl Lines {
    /// Has `write` write every line, in order, until the queue is gone; it says whether it could. Where lines were
    /// lost, what `notice` makes of their number is written instead.
    pub(super) fn write_all(&self, mut write: impl FnMut(&str) -> bool, notice: impl Fn(u64) -> String) {
        let tell_lost = |write: &mut dyn FnMut(&str) -> bool, lost: u64| {
            if lost > 0 && !write(&notice(lost)) {
                self.tally.lost.fetch_add(lost, Relaxed);
            }
        };
        loop {
            let next = self.entries.try_recv().or_else(|_| {
                // There may be no line for long that could tell of them.
                tell_lost(&mut write, self.tally.lost.swap(0, Relaxed));
                self.entries.recv()
            });
            match next {
                Ok(Entry::Line { text, lost_before }) => {
                    tell_lost(&mut write, lost_before);
                    if !write(&text) {
                        self.tally.lost.fetch_add(1, Relaxed);
                    }
                    self.tally.bytes.fetch_sub(text.len(), Relaxed);
                }
                Ok(Entry::Mark(written)) => {
                    tell_lost(&mut write, self.tally.lost.swap(0, Relaxed));
                    // It may have given up.
                    let _ = written.send(());
                }
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_secs(20);

    /// All that is written of a queue that nothing is left in any more.
    fn rest(queue: Queue, lines: &Lines) -> Vec<String> {
        drop(queue);
        let mut written = Vec::new();
        let write = |line: &str| {
            written.push(line.to_owned());
            true
        };
        lines.write_all(write, |lost| format!("{lost} lost"));
        written
    }

    fn push_all(queue: &Queue, lines: &[&str]) {
        lines.iter().for_each(|line| queue.push((*line).to_owned()));
    }

    #[test]
    fn lines_are_written_in_order() {
        let (queue, lines) = bounded(4, 100);
        push_all(&queue, &["a", "b", "c"]);
        assert_eq!(rest(queue, &lines), ["a", "b", "c"]);
    }

    #[test]
    fn more_lines_than_fit_are_lost_and_counted() {
        let (queue, lines) = bounded(2, 100);
        push_all(&queue, &["a", "b", "c", "d", "e"]);
        assert_eq!(rest(queue, &lines), ["a", "b", "3 lost"]);
    }

    #[test]
    fn more_bytes_than_fit_are_lost_and_shorter_ones_are_not() {
        let (queue, lines) = bounded(100, 10);
        push_all(&queue, &["12345", "123456", "1234", "1", "12"]);
        assert_eq!(rest(queue, &lines), ["12345", "1 lost", "1234", "1", "1 lost"]);
    }

    #[test]
    fn there_is_room_for_as_much_again_once_it_is_written() {
        let (queue, lines) = bounded(2, 10);
        let written = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let write = |line: &str| {
                    written.lock().unwrap().push(line.to_owned());
                    true
                };
                lines.write_all(write, |lost| format!("{lost} lost"));
            });
            for _ in 0..100 {
                push_all(&queue, &["12345", "67890"]);
                assert!(queue.when_written(LATE).unwrap().within(LATE));
            }
            drop(queue);
            // A thread sanitizer does not see how a scope waits.
            writer.join().unwrap();
        });
        assert_eq!(*written.lock().unwrap(), ["12345", "67890"].repeat(100));
    }

    #[test]
    fn nobody_waits_for_a_writer_that_hangs() {
        let (queue, lines) = bounded(2, 100);
        let (go_on, may_go_on) = crossbeam_channel::bounded::<()>(0);
        let (begun, has_begun) = crossbeam_channel::bounded(1);
        let written = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let write = |line: &str| {
                    let _ = begun.try_send(());
                    let _ = may_go_on.recv();
                    written.lock().unwrap().push(line.to_owned());
                    true
                };
                lines.write_all(write, |lost| format!("{lost} lost"));
            });
            queue.push("a".to_owned());
            has_begun.recv_timeout(LATE).unwrap();
            push_all(&queue, &["b", "c", "d", "e"]);
            assert!(queue.when_written(SOON).is_none(), "no room to ask");
            drop(go_on);
            let end = std::time::Instant::now() + LATE;
            while !queue.when_written(SOON).is_some_and(|written| written.within(SOON)) {
                assert!(std::time::Instant::now() < end);
            }
            drop(queue);
            // A thread sanitizer does not see how a scope waits.
            writer.join().unwrap();
        });
        assert_eq!(*written.lock().unwrap(), ["a", "b", "c", "2 lost"]);
    }

    #[test]
    fn what_cannot_be_written_is_counted_when_it_can_be_again() {
        let (queue, lines) = bounded(10, 100);
        push_all(&queue, &["a", "b", "c"]);
        drop(queue);
        let mut written = Vec::new();
        let mut calls = 0;
        let write = |line: &str| {
            calls += 1;
            let takes = calls > 3;
            takes.then(|| written.push(line.to_owned())).is_some()
        };
        lines.write_all(write, |lost| format!("{lost} lost"));
        assert_eq!(written, ["3 lost"]);
    }
}
