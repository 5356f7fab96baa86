//! That every lock's time is counted once, however it is let go, if that was asked for.

use crate::broker::*;

fn holds(broker: &Broker) -> u64 {
    broker.stats().hold_times.count()
}

/// Lets locks go in every way there is: seven holds.
fn come_and_go(broker: &Broker) {
    let (one, two, three) = (broker.open(None), broker.open(None), broker.open(None));
    one.acquire(b"free", Mode::Exclusive, None).unwrap();
    one.release(b"free").unwrap();
    // Shared, so at the table; and made exclusive, which is another hold.
    one.acquire(b"shared", Mode::Shared, None).unwrap();
    two.acquire(b"shared", Mode::Shared, None).unwrap();
    one.release(b"shared").unwrap();
    two.convert(b"shared", Mode::Exclusive, None).unwrap();
    two.release(b"shared").unwrap();
    // Waited for, and handed over.
    one.acquire(b"wanted", Mode::Exclusive, None).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| three.acquire(b"wanted", Mode::Exclusive, None).unwrap());
        while broker.stats().waiting == 0 {
            std::thread::yield_now();
        }
        one.release(b"wanted").unwrap();
        waiter.join().unwrap();
    });
    // Lost by those who vanish: one at the table, and one in a lane.
    three.acquire(b"free", Mode::Exclusive, None).unwrap();
    drop(three);
}

#[test]
fn every_hold_and_every_wait_is_counted_once() {
    let broker = Broker::default();
    broker.measure_holds();
    come_and_go(&broker);
    assert_eq!(holds(&broker), 7);
    assert_eq!(broker.stats().wait_times.count(), 1);
}

#[test]
fn how_long_locks_are_held_is_measured_for_those_who_ask() {
    let broker = Broker::default();
    come_and_go(&broker);
    assert_eq!(broker.stats().hold_times, Histogram::default());
    broker.measure_holds();
    let session = broker.open(None);
    session.acquire(b"free", Mode::Exclusive, None).unwrap();
    session.release(b"free").unwrap();
    assert_eq!(broker.stats().wait_times.count(), 1);
}
