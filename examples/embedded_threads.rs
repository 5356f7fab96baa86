//! Threads of one process that share a broker.
//!
//! Workers make transfers between accounts. Each transfer locks its two accounts in one call, so
//! that only one worker uses an account at a time and no two workers wait for each other; transfers
//! between other accounts continue at the same time. Balances are read and written separately: only
//! the locks make a transfer atomic.
//!
//! `cargo run --example embedded_threads [TRANSFERS]`

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::error::Error;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::thread;

use lockd::Session;
use lockd::broker::{AcquireError, Broker, Mode};

type Failure = Box<dyn Error + Send + Sync>;

const WORKERS: u32 = 4;
const ACCOUNTS: usize = 5;
const OPENING_BALANCE: i64 = 1000;

/// Moves an amount from one account to another, or nothing if the balance is too low.
fn transfer(
    session: &Session,
    balances: &[AtomicI64],
    (from, to): (usize, usize),
    amount: i64,
) -> Result<(), Failure> {
    let names = [format!("account/{from}"), format!("account/{to}")];
    let [from_name, to_name] = names.each_ref().map(String::as_bytes);
    session.acquire_all(&[(from_name, Mode::Exclusive), (to_name, Mode::Exclusive)], None)?;
    let balance = balances[from].load(Relaxed);
    if balance >= amount {
        balances[from].store(balance - amount, Relaxed);
        balances[to].store(balances[to].load(Relaxed) + amount, Relaxed);
    }
    Ok(session.release_all(&[from_name, to_name])?)
}

/// A worker: makes transfers until none are left.
fn work(broker: &Broker, number: u32, balances: &[AtomicI64], left: &AtomicI64) -> Result<(), Failure> {
    // One session for each worker: a session is one owner, and the workers contend with one
    // another.
    let session = Session::open(broker, Some(&format!("worker {number}")));
    let mut dice = number;
    let mut throw = |sides: usize| {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (dice >> 8) as usize % sides
    };
    while left.fetch_sub(1, Relaxed) > 0 {
        let from = throw(ACCOUNTS);
        let to = (from + 1 + throw(ACCOUNTS - 1)) % ACCOUNTS;
        transfer(&session, balances, (from, to), i64::try_from(throw(100))?)?;
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let transfers = std::env::args().nth(1).map_or(Ok(10_000), |argument| argument.parse())?;
    let broker = Broker::default();
    let balances: Vec<AtomicI64> = (0..ACCOUNTS).map(|_| AtomicI64::new(OPENING_BALANCE)).collect();
    let before: i64 = balances.iter().map(|balance| balance.load(Relaxed)).sum();
    let left = AtomicI64::new(transfers);

    // A try fails at once if another session holds the lock.
    let (clerk, other) = (Session::open(&broker, Some("clerk")), Session::open(&broker, None));
    clerk.acquire(b"account/0", Mode::Exclusive, None)?;
    let refused = other.acquire(b"account/0", Mode::Exclusive, Some(std::time::Duration::ZERO));
    if refused != Err(AcquireError::TimedOut) {
        return Err(format!("two holders: {refused:?}").into());
    }
    // Dropping a session releases its locks.
    drop(clerk);

    thread::scope(|scope| {
        let start = |number| {
            scope.spawn({
                let (broker, balances, left) = (&broker, &balances, &left);
                move || work(broker, number, balances, left)
            })
        };
        let workers: Vec<_> = (0..WORKERS).map(start).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a panic".into())))
    })?;

    let after: i64 = balances.iter().map(|balance| balance.load(Relaxed)).sum();
    println!("{transfers} transfers by {WORKERS} workers: {after} in all accounts, {before} to begin with");
    if after == before { Ok(()) } else { Err("money has come or gone".into()) }
}
