//! The wire form of a namespace name, written from the specification.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

/// The prefixes of host and unnamed namespaces. A named namespace with such a prefix gets `netns:`.
const RESERVED: [&str; 3] = ["container:", "pid:", "netns:"];

/// The JSON name of a *named* namespace.
///
/// A literal backslash is doubled, bytes that are not UTF-8 become `\xHH`, and a name with another meaning on the wire gets the
/// prefix `netns:`.
#[must_use]
pub fn on_wire(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', r"\\"));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            write!(text, r"\x{byte:02x}").ok();
        }
    }
    if text == "default" || RESERVED.iter().any(|prefix| text.starts_with(prefix)) {
        text.insert_str(0, "netns:");
    }
    text
}
