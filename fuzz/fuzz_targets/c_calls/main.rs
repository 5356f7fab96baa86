//! The C ABI: valid and invalid calls in any order, of several sessions in this process and on a
//! server in it. Each result is compared with the broker's naive model and with the promises of the
//! header.
#![no_main]

mod calls;
mod expected;
mod input;
mod lifecycle;
#[path = "../../../src/broker/model.rs"]
#[expect(dead_code, reason = "the tests of the broker need more of it")]
mod model;
mod names;
mod sets;
mod world;

/// The model imports the mode from here.
mod mode {
    pub(crate) use lockd::broker::Mode;
}

use input::Input;
use libfuzzer_sys::fuzz_target;
use world::Worlds;

/// The most calls of one input.
const CALLS: usize = 64;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut worlds = Worlds::new(names::Names::new(&mut input));
    for _ in 0..CALLS {
        let Some(what) = input.next() else { break };
        match what {
            224..=231 => worlds.enqueue_convert(&mut input),
            232..=237 => worlds.token(&mut input),
            238..=243 => worlds.list(&mut input),
            244..=249 => worlds.end_session(&mut input),
            250..=252 => worlds.close_all(),
            253.. => worlds.serve_with_invalid_option(&mut input),
            _ => worlds.call(what, &mut input),
        }
        worlds.compare_all();
    }
    worlds.end();
});

impl Worlds {
    /// Makes the call of this number. The numbers must stay, because the seeds use them.
    fn call(&mut self, what: u8, input: &mut Input<'_>) {
        let worlds = self;
        match what % 20 {
            0 => worlds.open(input, world::OWN),
            1 => worlds.open(input, world::DEFAULT),
            2 => worlds.connect(input),
            3 => worlds.close(input),
            4..=6 => worlds.acquire(input),
            7 => worlds.acquire_all(input),
            8 => worlds.convert(input),
            9 | 10 => worlds.enqueue(input),
            11 | 12 => worlds.wait(input),
            13 | 14 => worlds.release(input),
            15 => worlds.release_all(input),
            16 => worlds.inspect(input),
            17 => worlds.cancel(input),
            18 => worlds.check(input),
            _ => worlds.other_call(input),
        }
    }
}
