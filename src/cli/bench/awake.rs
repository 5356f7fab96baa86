//! Keeps the machine's processors from idling during a measurement. To wake an idle processor can
//! take longer than a whole round trip does otherwise, above all in a virtual machine, so a busy
//! machine answers sooner than an idle one.

use std::hint::spin_loop;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{Builder, JoinHandle};

use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The nice value of what should get no more than what others leave.
const LOWEST_PRIORITY: i32 = 19;

/// A thread for each processor, which is busy until this is dropped. It has the lowest priority, so
/// that it takes little from what is measured.
pub(super) struct ProcessorsAwake {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl ProcessorsAwake {
    /// Waits until every thread has begun.
    ///
    /// # Errors
    /// If a thread cannot be started, or cannot be bound to its processor.
    pub(super) fn new() -> io::Result<Self> {
        let mut awake = Self { is_over: Arc::default(), threads: Vec::new() };
        let all = sched_getaffinity(None)?;
        for processor in (0..CpuSet::MAX_CPU).filter(|&processor| all.is_set(processor)) {
            let is_over = awake.is_over.clone();
            let (has_begun, begins) = std::sync::mpsc::channel();
            awake.threads.push(Builder::new().spawn(move || {
                let begun = begin(processor);
                let is_busy = begun.is_ok();
                // Fails only if the measurement is over: then nothing waits for this thread.
                let _ = has_begun.send(begun);
                while is_busy && !is_over.load(Relaxed) {
                    spin_loop();
                }
            })?);
            begins.recv().map_err(io::Error::other)??;
        }
        Ok(awake)
    }
}

/// Binds the current thread to the processor, with the lowest priority.
fn begin(processor: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(processor);
    sched_setaffinity(None, &only)?;
    // On Linux this is the priority of the thread alone.
    Ok(setpriority_process(None, LOWEST_PRIORITY)?)
}

impl Drop for ProcessorsAwake {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // Its only work is to be busy.
            let _ = thread.join();
        }
    }
}
