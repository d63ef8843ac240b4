//! Validated names and their two text forms.
//!
//! The kernel's names are bytes. Messages contain their *wire text*: UTF-8, with a literal backslash doubled and a byte that is
//! not UTF-8 written as `\xhh` in lower case. Keys contain their *key chunk*, in which a character that Zenoh does not allow is
//! written as `%HH` in upper case. Each name has exactly one text of either form, and no two names share one. For ordinary names
//! both texts are the name itself.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::str::FromStr;

/// The host's namespace in both text forms.
const HOST: &str = "default";
const CONTAINER_PREFIX: &str = "container:";
/// The prefix of a named namespace whose plain name would have another meaning.
const NETNS_PREFIX: &str = "netns:";
const PROCESS_PREFIX: &str = "pid:";

/// More than the maximum length of a host name label (63 bytes, RFC 1035).
const BACKEND_NAME_MAX: usize = 64;
/// `NAME_MAX` of `linux/limits.h`: a named namespace is a directory entry.
const NETNS_NAME_MAX: usize = 255;
/// `IFNAMSIZ` of `linux/if.h` without the terminating NUL.
const INTERFACE_NAME_MAX: usize = 15;
/// `TASK_COMM_LEN` of `linux/sched.h` without the terminating NUL.
const PROGRAM_NAME_MAX: usize = 15;

/// The intended kind of a rejected name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// A [`BackendName`].
    Backend,
    /// A [`NetnsName`].
    Netns,
    /// A [`ContainerName`].
    Container,
    /// A [`ProcessName`].
    Process,
    /// An [`InterfaceName`].
    Interface,
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backend => "backend name",
            Self::Netns => "namespace name",
            Self::Container => "container name",
            Self::Process => "program name",
            Self::Interface => "interface name",
        })
    }
}

/// Why a text or a byte string is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty.
    #[error("{kind} is empty, at least one character is needed")]
    Empty {
        /// The intended kind.
        kind: NameKind,
    },
    /// The name is too long.
    #[error("{kind} has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// The intended kind.
        kind: NameKind,
        /// Its length in bytes.
        len: usize,
        /// The maximum length in bytes.
        max: usize,
    },
    /// A backend name contains a character that is not allowed.
    #[error("backend name contains {found:?}, only letters, digits, '-' and '_' are allowed")]
    BackendCharacter {
        /// The first such character.
        found: char,
    },
    /// The kernel does not accept the name, because it is a path or contains NUL.
    #[error("{kind} is '.' or '..' or contains '/' or NUL, anything else is allowed")]
    NotAFileName {
        /// The intended kind.
        kind: NameKind,
    },
    /// A backslash does not begin a valid escape sequence.
    #[error(
        "{kind} has a bad escape, allowed are a doubled backslash and \\xhh in lower case for a \
         byte that is not UTF-8"
    )]
    BadEscape {
        /// The intended kind.
        kind: NameKind,
    },
    /// A container name has bytes that are not UTF-8.
    #[error("container name is not UTF-8, only UTF-8 is allowed")]
    ContainerNotUtf8,
    /// The text after `pid:` is not the name of a process.
    #[error("the namespace of a process is written {PROCESS_PREFIX}NUMBER(PROGRAM)")]
    ProcessNamespace,
}

/// The name of a backend, one chunk of every key.
///
/// ```
/// use tcgui_shared::names::BackendName;
///
/// let name: BackendName = "edge-1".parse().expect("letters, a hyphen and a digit");
/// assert_eq!(name.as_str(), "edge-1");
/// assert!("edge/1".parse::<BackendName>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendName(String);

impl BackendName {
    /// Returns the name as text, which is also its key chunk.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BackendName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_length(NameKind::Backend, text.len(), BACKEND_NAME_MAX)?;
        match text
            .chars()
            .find(|c| !(c.is_alphanumeric() || matches!(c, '-' | '_')))
        {
            Some(found) => Err(NameError::BackendCharacter { found }),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a network namespace.
///
/// ```
/// use tcgui_shared::names::NamespaceName;
///
/// let odd = NamespaceName::named("a/b");
/// assert!(odd.is_err());
/// let shadowing = NamespaceName::named("default").expect("a file may be called so");
/// assert_eq!(shadowing.to_wire(), "netns:default");
/// assert_eq!(NamespaceName::from_wire("netns:default"), Ok(shadowing));
/// assert_eq!(NamespaceName::from_wire("default"), Ok(NamespaceName::Host));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceName {
    /// The namespace of the backend itself.
    Host,
    /// An entry of `/run/netns`.
    Named(NetnsName),
    /// The namespace of a container.
    Container(ContainerName),
    /// A namespace that is only identified by a process in it.
    Process(ProcessName),
}

impl NamespaceName {
    /// Returns the name of the host's namespace.
    pub fn host() -> Self {
        Self::Host
    }

    /// Returns the name of an entry of `/run/netns`.
    ///
    /// # Errors
    /// If no directory entry can have this name. See [`NetnsName::new`].
    pub fn named(name: impl AsRef<OsStr>) -> Result<Self, NameError> {
        NetnsName::new(name).map(Self::Named)
    }

    /// Returns the name of the namespace of a container. `name` does not include `container:`.
    ///
    /// # Errors
    /// [`NameError::Empty`].
    pub fn container(name: &str) -> Result<Self, NameError> {
        ContainerName::new(name).map(Self::Container)
    }

    /// Returns the name of the namespace of a process. `program` is the name of its program.
    ///
    /// # Errors
    /// The errors of [`ProcessName::new`].
    pub fn process(pid: i32, program: &[u8]) -> Result<Self, NameError> {
        ProcessName::new(pid, program).map(Self::Process)
    }

    /// Parses a wire text.
    ///
    /// This is the inverse of [`to_wire`](Self::to_wire). An unnecessary `netns:` is accepted.
    ///
    /// # Errors
    /// [`NameError::BadEscape`] for an invalid escape sequence, [`NameError::ContainerNotUtf8`], [`NameError::ProcessNamespace`]
    /// if the text after `pid:` is not a number and a program in parentheses, and the errors of [`named`](Self::named),
    /// [`container`](Self::container) and [`process`](Self::process).
    pub fn from_wire(text: &str) -> Result<Self, NameError> {
        let netns = |escaped| Self::named(OsString::from_vec(unescape(NameKind::Netns, escaped)?));
        if text == HOST {
            Ok(Self::Host)
        } else if let Some(escaped) = text.strip_prefix(NETNS_PREFIX) {
            netns(escaped)
        } else if let Some(escaped) = text.strip_prefix(CONTAINER_PREFIX) {
            let name = String::from_utf8(unescape(NameKind::Container, escaped)?)
                .map_err(|_| NameError::ContainerNotUtf8)?;
            Self::container(&name)
        } else if let Some(process) = text.strip_prefix(PROCESS_PREFIX) {
            ProcessName::from_wire(process).map(Self::Process)
        } else {
            netns(text)
        }
    }

    /// Returns the wire text. `Display` writes the same.
    pub fn to_wire(&self) -> String {
        self.prefixed(escape)
    }

    /// Returns the key chunk.
    ///
    /// ```
    /// use tcgui_shared::names::NamespaceName;
    ///
    /// let named = |name| NamespaceName::named(name).map(|name| name.key_chunk());
    /// assert_eq!(named("lab-a"), Ok("lab-a".to_owned()));
    /// assert_eq!(named("50%*"), Ok("50%25%2A".to_owned()));
    /// assert_eq!(named("@x"), Ok("%40x".to_owned()));
    /// ```
    pub fn key_chunk(&self) -> String {
        self.prefixed(percent_encode)
    }

    /// The encodings neither change nor produce the characters of the prefixes. Therefore the encoded text needs a prefix exactly
    /// if the name does.
    fn prefixed(&self, encode: fn(&[u8]) -> String) -> String {
        match self {
            Self::Host => HOST.to_owned(),
            Self::Container(name) => format!("{CONTAINER_PREFIX}{}", encode(name.0.as_bytes())),
            Self::Process(ProcessName { pid, program }) => {
                format!("{PROCESS_PREFIX}{pid}({})", encode(program))
            }
            Self::Named(name) => {
                let text = encode(name.as_bytes());
                let reads_otherwise = text == HOST
                    || [CONTAINER_PREFIX, NETNS_PREFIX, PROCESS_PREFIX]
                        .iter()
                        .any(|prefix| text.starts_with(prefix));
                if reads_otherwise {
                    format!("{NETNS_PREFIX}{text}")
                } else {
                    text
                }
            }
        }
    }
}

impl fmt::Display for NamespaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_wire())
    }
}

/// The name of a directory entry of `/run/netns`, as bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsName(OsString);

impl NetnsName {
    /// Validates and returns the name.
    ///
    /// # Errors
    /// [`NameError::Empty`], [`NameError::TooLong`] for more than 255 bytes, [`NameError::NotAFileName`] for `.`, `..` and names
    /// with `/` or NUL.
    pub fn new(name: impl AsRef<OsStr>) -> Result<Self, NameError> {
        file_name(NameKind::Netns, name.as_ref(), NETNS_NAME_MAX).map(Self)
    }

    /// Returns the name as in the file system.
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    /// Returns the bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The name of a container in its runtime.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerName(String);

impl ContainerName {
    /// Validates and returns the name.
    ///
    /// # Errors
    /// [`NameError::Empty`]. There are no other rules, because runtimes differ.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check_length(NameKind::Container, name.len(), usize::MAX)?;
        Ok(Self(name.to_owned()))
    }

    /// Returns the name as text, without `container:`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A process and the name of its program, which may have any bytes except NUL (proc_pid_comm(5)).
///
/// ```
/// use tcgui_shared::names::NamespaceName;
///
/// let name = NamespaceName::process(4711, b"(sd-pam)")?;
/// assert_eq!(name.to_wire(), "pid:4711((sd-pam))");
/// assert_eq!(NamespaceName::from_wire("pid:4711((sd-pam))"), Ok(name));
/// # Ok::<(), tcgui_shared::names::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessName {
    pid: i32,
    program: Vec<u8>,
}

impl ProcessName {
    /// Validates and returns the name.
    ///
    /// # Errors
    /// [`NameError::ProcessNamespace`] if `pid` is not positive or the program contains NUL, [`NameError::TooLong`] if the
    /// program has more than 15 bytes. The program may be empty.
    pub fn new(pid: i32, program: &[u8]) -> Result<Self, NameError> {
        if pid <= 0 || program.contains(&0) {
            return Err(NameError::ProcessNamespace);
        }
        if program.len() > PROGRAM_NAME_MAX {
            return Err(NameError::TooLong {
                kind: NameKind::Process,
                len: program.len(),
                max: PROGRAM_NAME_MAX,
            });
        }
        Ok(Self {
            pid,
            program: program.to_owned(),
        })
    }

    /// Parses the text after `pid:`. The number ends at the first parenthesis, the program at the last.
    fn from_wire(text: &str) -> Result<Self, NameError> {
        let (digits, rest) = text.split_once('(').ok_or(NameError::ProcessNamespace)?;
        let escaped = rest.strip_suffix(')').ok_or(NameError::ProcessNamespace)?;
        let pid: i32 = digits.parse().map_err(|_| NameError::ProcessNamespace)?;
        if pid.to_string() != digits {
            return Err(NameError::ProcessNamespace);
        }
        Self::new(pid, &unescape(NameKind::Process, escaped)?)
    }

    /// Returns the pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns the bytes of the program name.
    pub fn program(&self) -> &[u8] {
        &self.program
    }
}

/// The name of a network interface, as bytes.
///
/// All names that `dev_valid_name` in the kernel's `net/core/dev.c` accepts are valid. That function also refuses `:` and white
/// space, which are valid here. A lookup finds no interface with such a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(OsString);

impl InterfaceName {
    /// Validates and returns the name.
    ///
    /// # Errors
    /// [`NameError::Empty`], [`NameError::TooLong`] for more than 15 bytes, [`NameError::NotAFileName`] for `.`, `..` and names
    /// with `/` or NUL.
    pub fn new(name: impl AsRef<OsStr>) -> Result<Self, NameError> {
        file_name(NameKind::Interface, name.as_ref(), INTERFACE_NAME_MAX).map(Self)
    }

    /// Returns the name of these bytes, without a terminating NUL.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new).
    pub fn from_bytes(name: &[u8]) -> Result<Self, NameError> {
        Self::new(OsStr::from_bytes(name))
    }

    /// Parses a wire text. This is the inverse of [`to_wire`](Self::to_wire).
    ///
    /// # Errors
    /// [`NameError::BadEscape`] for an invalid escape sequence, and the errors of [`new`](Self::new).
    pub fn from_wire(text: &str) -> Result<Self, NameError> {
        Self::from_bytes(&unescape(NameKind::Interface, text)?)
    }

    /// Returns the wire text. `Display` writes the same.
    pub fn to_wire(&self) -> String {
        escape(self.as_bytes())
    }

    /// Returns the key chunk.
    pub fn key_chunk(&self) -> String {
        percent_encode(self.as_bytes())
    }

    /// Returns the name as under `/sys/class/net`.
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    /// Returns the bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_wire())
    }
}

fn check_length(kind: NameKind, len: usize, max: usize) -> Result<(), NameError> {
    match len {
        0 => Err(NameError::Empty { kind }),
        _ if len > max => Err(NameError::TooLong { kind, len, max }),
        _ => Ok(()),
    }
}

fn file_name(kind: NameKind, name: &OsStr, max: usize) -> Result<OsString, NameError> {
    let bytes = name.as_bytes();
    check_length(kind, bytes.len(), max)?;
    if matches!(bytes, b"." | b"..") || bytes.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(NameError::NotAFileName { kind });
    }
    Ok(name.to_owned())
}

/// Returns the wire text of any kernel name, valid as an interface name or not.
///
/// ```
/// use tcgui_shared::names::wire_text;
///
/// assert_eq!(wire_text("enp0s31f6-uplink"), "enp0s31f6-uplink");
/// assert_eq!(wire_text(r"a\b"), r"a\\b");
/// ```
pub fn wire_text(name: impl AsRef<OsStr>) -> String {
    escape(name.as_ref().as_bytes())
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', r"\\"));
        text.extend(chunk.invalid().iter().map(|byte| format!(r"\x{byte:02x}")));
    }
    text
}

/// Inverts [`escape`]. Refuses every text that `escape` does not produce, so that no name has two texts.
fn unescape(kind: NameKind, text: &str) -> Result<Vec<u8>, NameError> {
    let bad = NameError::BadEscape { kind };
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    while let Some(part) = parts.next() {
        let rest = if part.is_empty() {
            // A doubled backslash. The text after it is literal.
            bytes.push(b'\\');
            parts.next().ok_or_else(|| bad.clone())?
        } else {
            let hex = part.strip_prefix('x').ok_or_else(|| bad.clone())?;
            let (digits, rest) = hex.split_at_checked(2).ok_or_else(|| bad.clone())?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad.clone())?);
            rest
        };
        bytes.extend_from_slice(rest.as_bytes());
    }
    if escape(&bytes) == text {
        Ok(bytes)
    } else {
        Err(bad)
    }
}

/// Returns the key chunk of a name.
///
/// Zenoh forbids `/ # ? $ *` within a chunk, and its wildcards do not match chunks that start with `@`. `%` introduces an escape,
/// and control characters would corrupt logs.
fn percent_encode(bytes: &[u8]) -> String {
    let percent = |byte: &u8| format!("%{byte:02X}");
    let mut encoded = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let verbatim_mark = c == '@' && encoded.is_empty();
            if c.is_control() || "%/#?$*".contains(c) || verbatim_mark {
                encoded.extend(c.encode_utf8(&mut [0; 4]).as_bytes().iter().map(percent));
            } else {
                encoded.push(c);
            }
        }
        encoded.extend(chunk.invalid().iter().map(percent));
    }
    encoded
}

#[cfg(test)]
mod tests;
