//! Every hold is counted once, whatever ends it, if hold times are measured.

use crate::broker::*;

fn holds(broker: &Broker) -> u64 {
    broker.stats().hold_times.count()
}

/// Seven holds, which end in every possible way.
fn seven_holds(broker: &Broker) {
    let (one, two, three) = (broker.open(None), broker.open(None), broker.open(None));
    one.acquire(b"free", Mode::Exclusive, None).unwrap();
    one.release(b"free").unwrap();
    // Shared by two, so in the table; then made exclusive, which begins another hold.
    one.acquire(b"shared", Mode::Shared, None).unwrap();
    two.acquire(b"shared", Mode::Shared, None).unwrap();
    one.release(b"shared").unwrap();
    two.convert(b"shared", Mode::Exclusive, None).unwrap();
    two.release(b"shared").unwrap();
    // Granted to a waiter when the holder releases it.
    one.acquire(b"wanted", Mode::Exclusive, None).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| three.acquire(b"wanted", Mode::Exclusive, None).unwrap());
        while broker.stats().waiting == 0 {
            std::thread::yield_now();
        }
        one.release(b"wanted").unwrap();
        waiter.join().unwrap();
    });
    // Lost with a session that vanishes: one lock in the table, and one in a lane.
    three.acquire(b"free", Mode::Exclusive, None).unwrap();
    drop(three);
}

#[test]
fn every_hold_and_every_wait_is_counted_once() {
    let broker = Broker::default();
    broker.measure_holds();
    seven_holds(&broker);
    assert_eq!(holds(&broker), 7);
    assert_eq!(broker.stats().wait_times.count(), 1);
}

#[test]
fn hold_times_are_measured_only_if_that_was_asked_for() {
    let broker = Broker::default();
    seven_holds(&broker);
    assert_eq!(broker.stats().hold_times, Histogram::default());
    broker.measure_holds();
    let session = broker.open(None);
    session.acquire(b"free", Mode::Exclusive, None).unwrap();
    session.release(b"free").unwrap();
    assert_eq!(broker.stats().wait_times.count(), 1);
}
