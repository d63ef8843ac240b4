//! Counters and rates of an interface.

use serde::{Deserialize, Serialize};

/// The counters of one interface at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BandwidthUpdate {
    /// The wire text of the namespace.
    pub namespace: String,
    /// The wire text of the interface.
    pub interface: String,
    /// Counters and rates.
    pub stats: BandwidthStats,
    /// The backend that publishes, as in the key.
    pub backend_name: String,
}

/// Cumulative counters from the kernel, and rates since the preceding sample.
///
/// A rate that is not finite (division by an interval of zero) is written as 0.0.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BandwidthStats {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Packets dropped on receipt.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Transmit errors.
    pub tx_errors: u64,
    /// Packets dropped on sending.
    pub tx_dropped: u64,
    /// The time at which the counters were read, in seconds since the Unix epoch.
    pub timestamp: u64,
    /// Received bytes per second since the preceding sample. 0.0 in the first sample.
    #[serde(serialize_with = "crate::number::finite")]
    pub rx_bytes_per_sec: f64,
    /// Sent bytes per second since the preceding sample. 0.0 in the first sample.
    #[serde(serialize_with = "crate::number::finite")]
    pub tx_bytes_per_sec: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_is_not_finite_is_written_as_zero() {
        let stats = BandwidthStats {
            rx_bytes_per_sec: f64::NAN,
            tx_bytes_per_sec: f64::INFINITY,
            ..BandwidthStats::default()
        };
        let written = serde_json::to_string(&stats).unwrap();
        let read: BandwidthStats = serde_json::from_str(&written).unwrap();
        assert_eq!(read, BandwidthStats::default());
    }
}
