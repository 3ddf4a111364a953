//! Where the lines of a sink stay: what its writer asks of a file, a stream or a spool.

use std::time::Duration;

use super::backups::Keep;
use super::whole::{Appended, Durability};

/// What whole lines are handed to.
pub(super) trait Destination: Send {
    /// Adds whole lines, in order. Those that fit before an error stay.
    fn append(&mut self, lines: &[u8], durability: Durability) -> Appended;

    /// Does what time brings.
    fn tend(&mut self) {}

    /// Takes over changed settings, where there are some.
    fn rotate_by(&mut self, _rotation: &Rotation) {}
}

/// When a new file is begun, and what becomes of the old ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes that a file may have. None: any number.
    pub max_size: Option<u64>,
    /// How old a file may become. None: any age.
    pub every: Option<Duration>,
    pub keep: Keep,
}
