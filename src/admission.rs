//! The core: what a review is, what a chain of plugins may do to it, and what is decided.
//!
//! Values in, values out. Nothing here does I/O, reads a clock or awaits, and nothing here
//! imports another module of the house, so every rule of admission can be tested by feeding
//! it values by hand.

#[cfg(test)]
mod arbitrary;
pub mod chain;
pub mod decision;
pub mod effective;
mod legible;
pub mod merge;
pub mod patch;
pub mod protected;
pub mod review;
pub mod revision;
pub mod run;
pub mod schema;
pub mod scope;
pub mod secrets;
pub mod text;
pub mod trace;
pub mod verdict;
