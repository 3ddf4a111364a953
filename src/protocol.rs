//! Wire formats, and nothing but: bytes to values and back. Nothing here opens a connection.

mod json;

pub mod admission_review;
pub mod dstack;

#[cfg(test)]
mod hostile;
