//! The compiled-in files from `assets/`. Packages also install them as examples.

use std::path::Path;

macro_rules! assets {
    ($directory:literal: $($name:literal),+ $(,)?) => {
        [$((
            concat!("built-in/", $directory, "/", $name, ".json5"),
            include_bytes!(concat!("../../assets/", $directory, "/", $name, ".json5")),
        )),+]
    };
}

/// A compiled-in file: its name for messages, and its bytes.
type Asset = (&'static str, &'static [u8]);

/// The presets in the order of display.
pub(super) static PRESETS: [Asset; 7] = assets!("presets":
    "satellite-link",
    "cellular-network",
    "poor-wifi",
    "wan-link",
    "unreliable-connection",
    "high-latency-low-bandwidth",
    "test-all",
);

/// The scenarios in the order of display.
pub(super) static SCENARIOS: [Asset; 6] = assets!("scenarios":
    "mobile-degradation",
    "network-congestion",
    "intermittent-connectivity",
    "quality-degradation",
    "load-testing",
    "fast-degradation",
);

/// Returns the files as paths and bytes.
pub(super) fn files(
    assets: &'static [Asset],
) -> impl Iterator<Item = (&'static Path, &'static [u8])> {
    assets.iter().map(|(name, bytes)| (Path::new(name), *bytes))
}
