//! The queue of lines to be written: bounded in the number of lines and in their bytes. A line for
//! which there is no room is lost and counted. Threads that push lines never wait. Knows neither
//! the text of lines nor where they are written.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

/// The sending side of the queue.
pub(super) struct LogQueue {
    entries: Sender<QueueEntry>,
    counts: Arc<QueueCounts>,
    bytes_max: usize,
}

/// The receiving side of the queue.
pub(super) struct QueuedLines {
    entries: Receiver<QueueEntry>,
    counts: Arc<QueueCounts>,
}

enum QueueEntry {
    Line {
        text: Box<str>,
        /// How many lines were lost between the line before and this one.
        lost_before: u64,
    },
    /// A request to be told when everything before it has been written.
    Flush(Sender<()>),
}

#[derive(Default)]
struct QueueCounts {
    /// The bytes of all lines in the queue, and of the line that is being written.
    bytes: AtomicUsize,
    /// How many lines were lost after the last line in the queue.
    lost: AtomicU64,
    /// How many lines have been neither written nor reported as lost.
    unwritten: AtomicU64,
}

/// Creates a queue for `lines_max` lines with `bytes_max` bytes in all.
pub(super) fn bounded(lines_max: usize, bytes_max: usize) -> (LogQueue, QueuedLines) {
    let (sender, receiver) = crossbeam_channel::bounded(lines_max);
    let counts = Arc::new(QueueCounts::default());
    (
        LogQueue { entries: sender, counts: counts.clone(), bytes_max },
        QueuedLines { entries: receiver, counts },
    )
}

impl LogQueue {
    /// Appends a line. It is lost if there is no room for it.
    pub(super) fn push(&self, text: String) {
        self.counts.unwritten.fetch_add(1, Relaxed);
        // A boxed string has no unused capacity, which `bytes` would not count.
        let text = text.into_boxed_str();
        let bytes = text.len();
        let with_it = |before: usize| before.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        if self.counts.bytes.fetch_update(Relaxed, Relaxed, with_it).is_err() {
            self.counts.lost.fetch_add(1, Relaxed);
            return;
        }
        let lost_before = self.counts.lost.swap(0, Relaxed);
        if self.entries.try_send(QueueEntry::Line { text, lost_before }).is_err() {
            self.counts.bytes.fetch_sub(bytes, Relaxed);
            self.counts.lost.fetch_add(lost_before + 1, Relaxed);
        }
    }

    /// How many lines have been neither written nor reported as lost.
    pub(super) fn unwritten(&self) -> u64 {
        self.counts.unwritten.load(Relaxed)
    }

    /// Counts lines that were lost before this queue was made.
    pub(super) fn add_lost(&self, lines: u64) {
        self.counts.unwritten.fetch_add(lines, Relaxed);
        self.counts.lost.fetch_add(lines, Relaxed);
    }

    /// Requests to be told, through the returned channel, when everything pushed before is written.
    /// Waits up to `limit` for room in the queue; `None` if there was none.
    pub(super) fn when_written(&self, limit: Duration) -> Option<Receiver<()>> {
        let (tell_written, written) = crossbeam_channel::bounded(1);
        self.entries.send_timeout(QueueEntry::Flush(tell_written), limit).ok().map(|()| written)
    }
}

impl QueuedLines {
    /// Passes every line to `write`, in order, until the [`LogQueue`] is dropped. `write` returns
    /// whether it has written the line; if not, the line is lost. Where lines were lost, `notice`
    /// makes a line of their number.
    pub(super) fn write_all(&self, mut write: impl FnMut(&str) -> bool, notice: impl Fn(u64) -> String) {
        let write_notice = |write: &mut dyn FnMut(&str) -> bool, lost: u64| {
            if lost > 0 && write(&notice(lost)) {
                self.counts.unwritten.fetch_sub(lost, Relaxed);
            } else {
                self.counts.lost.fetch_add(lost, Relaxed);
            }
        };
        loop {
            let next = self.entries.try_recv().or_else(|_| {
                // The queue is empty, and the next line, which would bring their number, may not
                // come for long.
                write_notice(&mut write, self.counts.lost.swap(0, Relaxed));
                self.entries.recv()
            });
            match next {
                Ok(QueueEntry::Line { text, lost_before }) => {
                    write_notice(&mut write, lost_before);
                    if write(&text) {
                        self.counts.unwritten.fetch_sub(1, Relaxed);
                    } else {
                        self.counts.lost.fetch_add(1, Relaxed);
                    }
                    self.counts.bytes.fetch_sub(text.len(), Relaxed);
                }
                Ok(QueueEntry::Flush(tell_written)) => {
                    write_notice(&mut write, self.counts.lost.swap(0, Relaxed));
                    // The thread that asked may not wait any more.
                    let _ = tell_written.send(());
                }
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_secs(20);

    /// Closes the queue, and returns everything that is written of it.
    fn rest(queue: LogQueue, lines: &QueuedLines) -> Vec<String> {
        drop(queue);
        let mut written = Vec::new();
        let write = |line: &str| {
            written.push(line.to_owned());
            true
        };
        lines.write_all(write, |lost| format!("{lost} lost"));
        written
    }

    fn push_all(queue: &LogQueue, lines: &[&str]) {
        lines.iter().for_each(|line| queue.push((*line).to_owned()));
    }

    #[test]
    fn lines_are_written_in_order() {
        let (queue, lines) = bounded(4, 100);
        push_all(&queue, &["a", "b", "c"]);
        assert_eq!(rest(queue, &lines), ["a", "b", "c"]);
    }

    #[test]
    fn lines_beyond_the_limit_are_lost_and_counted() {
        let (queue, lines) = bounded(2, 100);
        push_all(&queue, &["a", "b", "c", "d", "e"]);
        assert_eq!(rest(queue, &lines), ["a", "b", "3 lost"]);
    }

    #[test]
    fn a_line_too_long_for_the_rest_is_lost_and_a_shorter_one_is_not() {
        let (queue, lines) = bounded(100, 10);
        push_all(&queue, &["12345", "123456", "1234", "1", "12"]);
        assert_eq!(rest(queue, &lines), ["12345", "1 lost", "1234", "1", "1 lost"]);
    }

    #[test]
    fn written_lines_make_room_for_new_ones() {
        let (queue, lines) = bounded(2, 10);
        let written = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let write = |line: &str| {
                    written.lock().push(line.to_owned());
                    true
                };
                lines.write_all(write, |lost| format!("{lost} lost"));
            });
            for _ in 0..100 {
                push_all(&queue, &["12345", "67890"]);
                assert!(queue.when_written(LATE).unwrap().recv_timeout(LATE).is_ok());
            }
            drop(queue);
            // Joined here, since ThreadSanitizer does not see that the scope waits for the thread.
            writer.join().unwrap();
        });
        assert_eq!(*written.lock(), ["12345", "67890"].repeat(100));
    }

    #[test]
    fn push_does_not_wait_for_a_writer_that_hangs() {
        let (queue, lines) = bounded(2, 100);
        let (go_on, may_go_on) = crossbeam_channel::bounded::<()>(0);
        let (begun, has_begun) = crossbeam_channel::bounded(1);
        let written = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let write = |line: &str| {
                    let _ = begun.try_send(());
                    let _ = may_go_on.recv();
                    written.lock().push(line.to_owned());
                    true
                };
                lines.write_all(write, |lost| format!("{lost} lost"));
            });
            queue.push("a".to_owned());
            has_begun.recv_timeout(LATE).unwrap();
            push_all(&queue, &["b", "c", "d", "e"]);
            assert!(queue.when_written(SOON).is_none(), "no room for the request");
            drop(go_on);
            let end = std::time::Instant::now() + LATE;
            while queue.when_written(SOON).is_none_or(|written| written.recv_timeout(SOON).is_err()) {
                assert!(std::time::Instant::now() < end);
            }
            drop(queue);
            // Joined here, since ThreadSanitizer does not see that the scope waits for the thread.
            writer.join().unwrap();
        });
        assert_eq!(*written.lock(), ["a", "b", "c", "2 lost"]);
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted_as_lost() {
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
