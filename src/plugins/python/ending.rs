//! Why workers end: what is counted, logged and done about it goes by these names.

/// Why a worker ended or is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ending {
    /// It ended by itself or broke the protocol.
    Crash,
    /// A review waited for it in vain.
    Timeout,
    /// It has answered as many reviews as it may.
    Recycled,
    /// It uses more memory than it may.
    Memory,
    /// It did not get ready.
    Start,
    /// It is no longer needed.
    Stopped,
}

impl Ending {
    /// Those after which another worker takes the place.
    pub const RESTARTS: [Ending; 5] = [
        Ending::Crash,
        Ending::Timeout,
        Ending::Recycled,
        Ending::Memory,
        Ending::Start,
    ];

    /// The `reason` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ending::Crash => "crash",
            Ending::Timeout => "timeout",
            Ending::Recycled => "recycled",
            Ending::Memory => "memory",
            Ending::Start => "start",
            Ending::Stopped => "stopped",
        }
    }
}
