//! Tests of the whole broker: lanes, table and shell together.

#[cfg(any(explore = "loom", explore = "shuttle"))]
mod interleavings;
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod moving;
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod observers;
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod sequences;
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod snapshots;
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod threads;
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod times;
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod turns;
