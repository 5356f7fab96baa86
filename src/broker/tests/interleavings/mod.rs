//! The broker's shell in every order in which threads can meet there, or in very many: built with a model
//! checker in the place of the operating system, see `broker/sync.rs`. Each scenario is set up by one thread,
//! in which nothing is left to chance, and then has two or three at once.
//!
//! What must hold always is checked by the parties themselves: never two holders, every wait ends exactly
//! once, and who was told of the end was told so for good.

mod converting;
mod ending;
mod granting;
mod local;
mod many;
mod opening;
mod party;
mod sharing;
