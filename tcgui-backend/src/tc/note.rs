//! What a reply says beside success: where the kernel got something else than the words of the request.

use std::fmt;

/// A hint for the client that asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Packets cannot overtake where none is held.
    DelayAdded,
    /// The jitter is the kernel's largest.
    JitterCapped,
    /// A value was left out because it does nothing on its own.
    NoEffect {
        /// The value.
        field: &'static str,
        /// What it would need.
        needs: &'static str,
    },
    /// The kernel is older than seeds.
    SeedUnknown,
    /// Nothing was removed: the root qdisc is no netem.
    LeftAlone {
        /// The root qdisc, by kind and handle.
        qdisc: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DelayAdded => f.write_str("delay 1 ms added, reordering needs one"),
            Self::JitterCapped => f.write_str("jitter set to 2147.483647 ms, the kernel's maximum"),
            Self::NoEffect { field, needs } => write!(f, "{field} left out, it needs {needs}"),
            Self::SeedUnknown => f.write_str("seed not used, it needs Linux 6.6"),
            Self::LeftAlone { qdisc } => {
                write!(f, "{qdisc} left alone, it is no netem")
            }
        }
    }
}
