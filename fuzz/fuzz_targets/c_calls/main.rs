//! The C ABI: calls that make sense and calls that make none, in any order, of several sessions in this process
//! and on a server in it. What each call returns is compared with what the broker's naive model says, and
//! what the header promises.
#![no_main]

mod calls;
mod chores;
mod expected;
mod input;
#[path = "../../../src/broker/model.rs"]
#[expect(dead_code, reason = "the tests of the broker need more of it")]
mod model;
mod names;
mod sets;
mod world;

/// Where the model looks for what it is about.
mod outcome {
    pub(crate) use lockd::broker::Mode;
}

use input::Input;
use libfuzzer_sys::fuzz_target;
use world::Worlds;

/// How many calls there are at most.
const CALLS: usize = 64;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut worlds = Worlds::new(names::Names::new(&mut input));
    for _ in 0..CALLS {
        let Some(what) = input.next() else { break };
        match what % 20 {
            0 => worlds.open(&mut input, world::OWN),
            1 => worlds.open(&mut input, world::DEFAULT),
            2 => worlds.connect(&mut input),
            3 => worlds.close(&mut input),
            4..=6 => worlds.acquire(&mut input),
            7 => worlds.acquire_all(&mut input),
            8 => worlds.convert(&mut input),
            9 | 10 => worlds.enqueue(&mut input),
            11 | 12 => worlds.wait(&mut input),
            13 | 14 => worlds.release(&mut input),
            15 => worlds.release_all(&mut input),
            16 => worlds.inspect(&mut input),
            17 => worlds.cancel(&mut input),
            18 => worlds.check(&mut input),
            _ => worlds.chore(&mut input),
        }
        worlds.audit();
    }
    worlds.end();
});
