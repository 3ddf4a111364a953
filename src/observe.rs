//! What becomes known of a decision: one [`Record`] of it goes to the metrics, the log and the
//! audit sinks. Nothing here decides anything, but for one rule: where the audit must be complete,
//! a record that cannot be written denies.

pub mod audit;
pub mod batch;
pub mod events;
pub mod logs;
pub mod metrics;
pub mod recent;
pub mod record;
pub mod redaction;
pub mod repeats;
pub mod traces;
pub mod workers;
