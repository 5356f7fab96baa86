//! The processes in which clients run: started, killed, stopped and continued, with the times of
//! these events.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::child::{ClientOrders, DRAIN, Orders, start};
use super::gather::{Gathered, Life};
use super::log::now;
use crate::history::{NEVER, Nanos, SECOND};

struct Running {
    child: Child,
    life: Life,
    stopped_since: Option<Nanos>,
}

/// All client processes. Those that still run are killed when this is dropped.
pub(crate) struct Fleet {
    orders: ClientOrders,
    slots: Vec<Running>,
    past: Vec<Life>,
}

impl Fleet {
    pub(crate) fn start(orders: ClientOrders, processes: usize) -> Self {
        let mut fleet = Self { orders, slots: Vec::new(), past: Vec::new() };
        for _ in 0..processes {
            let running = fleet.start_one();
            fleet.slots.push(running);
        }
        fleet
    }

    fn start_one(&mut self) -> Running {
        let process = self.orders.process;
        self.orders.process += 1;
        let errors = File::create(self.errors_path(process)).unwrap();
        let orders = ClientOrders { process, ..self.orders.clone() };
        let child = start(&Orders::Clients(orders), Stdio::from(errors));
        let life = Life { process, killed: None, gone: NEVER, pauses: Vec::new() };
        Running { child, life, stopped_since: None }
    }

    fn errors_path(&self, process: u64) -> PathBuf {
        self.orders.directory.join(format!("{process}.err"))
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Kills the process of this slot, even if it is stopped, and starts another one in its place.
    pub(crate) fn kill(&mut self, slot: usize) {
        let next = self.start_one();
        let mut running = std::mem::replace(&mut self.slots[slot], next);
        running.life.killed = Some(now());
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        running.life.gone = now();
        let since = running.stopped_since.map(|since| (since, running.life.gone));
        running.life.pauses.extend(since);
        self.past.push(running.life);
    }

    /// Stops the process of this slot, if it runs.
    pub(crate) fn pause(&mut self, slot: usize) {
        let running = &mut self.slots[slot];
        if running.stopped_since.is_none() {
            running.stopped_since = Some(now());
            kill_process(Pid::from_child(&running.child), Signal::STOP).unwrap();
        }
    }

    /// Continues the process of this slot.
    pub(crate) fn resume(&mut self, slot: usize) {
        let running = &mut self.slots[slot];
        if let Some(since) = running.stopped_since.take() {
            kill_process(Pid::from_child(&running.child), Signal::CONT).unwrap();
            // By the time taken here its threads have run again, or at least could have.
            running.life.pauses.push((since, now()));
        }
    }

    /// How many bytes have been logged so far.
    pub(crate) fn noted(&self) -> u64 {
        let logs = std::fs::read_dir(&self.orders.directory).unwrap().flatten();
        let of_logs = logs.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "log"));
        of_logs.filter_map(|entry| entry.metadata().ok()).map(|about| about.len()).sum()
    }

    /// Tells all clients to stop, and waits until they have.
    pub(crate) fn finish(mut self) -> Gathered {
        (0..self.slots.len()).for_each(|slot| self.resume(slot));
        self.slots.iter_mut().for_each(|running| drop(running.child.stdin.take()));
        let stopped = now();
        let drain = u64::try_from(DRAIN.as_nanos()).unwrap();
        for mut running in std::mem::take(&mut self.slots) {
            let deadline = stopped + drain + 20 * SECOND;
            let status = loop {
                match running.child.try_wait().unwrap() {
                    Some(status) => break status,
                    None if now() > deadline => {
                        let _ = running.child.kill();
                        break running.child.wait().unwrap();
                    }
                    None => std::thread::sleep(Duration::from_millis(2)),
                }
            };
            running.life.gone = now();
            let said = || std::fs::read_to_string(self.errors_path(running.life.process)).unwrap_or_default();
            assert!(status.success(), "clients ended with {status}:\n{}", said());
            self.past.push(running.life);
        }
        Gathered::of(&self.past, &self.orders.directory, self.orders.threads, stopped + drain - SECOND)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for running in &mut self.slots {
            // Both calls fail only if the process has already ended.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}
