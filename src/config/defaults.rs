//! What holds where the file says nothing. The schema shows these values, resolving uses them.

use std::time::Duration;

use super::units::{ByteCount, Period};

pub const LISTEN: &str = "127.0.0.1:8443";
pub const ADMIN: &str = "127.0.0.1:9443";
pub const STATE_DIR: &str = "/var/lib/dstack-admission";

/// For the whole chain. The dstack server waits 8 s for bytes.
pub const DEADLINE: Period = seconds(5);
/// For one plugin, cut to what is left of the deadline.
pub const TIMEOUT: Period = seconds(2);

pub const BODY_BYTES: ByteCount = ByteCount(8 << 20);
pub const IN_FLIGHT: u32 = 256;
pub const IN_FLIGHT_WAIT: Period = seconds(1);
pub const CONNECTIONS: u32 = 1024;
pub const HANDSHAKE_TIMEOUT: Period = seconds(10);
pub const HEADER_TIMEOUT: Period = seconds(10);
pub const BODY_TIMEOUT: Period = seconds(10);
/// Below the 30 s that Kubernetes gives a pod between SIGTERM and SIGKILL.
pub const GRACE_PERIOD: Period = seconds(25);

pub const MAX_RESPONSE_BYTES: ByteCount = ByteCount(8 << 20);
pub const BREAKER_FAILURES: u32 = 5;
pub const BREAKER_OPEN_FOR: Period = seconds(10);

/// Of one audit file.
pub const AUDIT_MAX_SIZE: ByteCount = ByteCount(100_000_000);
pub const AUDIT_MAX_BACKUPS: u32 = 10;
/// Records of one request, as Kubernetes' webhook backend has it.
pub const AUDIT_BATCH_MAX_SIZE: u32 = 400;
pub const AUDIT_BATCH_MAX_WAIT: Period = seconds(1);
pub const AUDIT_SPOOL: ByteCount = ByteCount(256 << 20);

/// Where a collector listens, and how spans go there: as OpenTelemetry has it.
pub const OTLP_ENDPOINT: &str = "http://localhost:4318/v1/traces";
pub const OTLP_TIMEOUT: Period = seconds(10);
pub const OTLP_BATCH_MAX_SIZE: u32 = 512;
pub const OTLP_BATCH_MAX_WAIT: Period = seconds(5);
pub const OTLP_QUEUE_SIZE: u32 = 2048;

/// Worker processes of a Python plugin.
pub const WORKERS: u32 = 1;

const fn seconds(seconds: u64) -> Period {
    Period(Duration::from_secs(seconds))
}
