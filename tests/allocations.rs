//! A free lock is acquired and released without a heap allocation, once the broker has allocated
//! memory for the greatest number of locks held at a time, and its tables have grown for the names
//! that it remembers.

#![expect(unsafe_code, reason = "the test needs an allocator that counts")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use lockd::Session;
use lockd::broker::{Broker, Mode};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is forwarded to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of the trait.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of the trait.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of the trait.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// The number of allocations while the names are acquired and released, one after the other.
fn allocations(session: &Session, names: &[Vec<u8>], mode: Mode) -> usize {
    let before = ALLOCATIONS.load(Relaxed);
    for name in names {
        session.acquire(name, mode, None).unwrap();
        session.release(name).unwrap();
    }
    ALLOCATIONS.load(Relaxed) - before
}

/// There must be only one test here, because the count is that of the whole process.
#[test]
fn names_of_up_to_22_bytes_need_no_allocation() {
    let broker = Broker::default();
    let session = Session::open(&broker, None);
    let lengths = |n: usize| format!("{n:022}").into_bytes().split_off(n % 13);
    let names: Vec<Vec<u8>> = (0..2000).map(lengths).collect();
    for _ in 0..8 {
        allocations(&session, &names, Mode::Exclusive);
    }
    for mode in [Mode::Exclusive, Mode::Shared] {
        assert_eq!(allocations(&session, &names, mode), 0);
    }
    let long = [vec![b'x'; 23]];
    assert!(allocations(&session, &long, Mode::Exclusive) > 0, "the allocator must count");
}
