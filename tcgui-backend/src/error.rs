//! Formats errors for the log, and converts them to the error kinds of the wire.

use std::error::Error;
use std::fmt;
#[cfg(feature = "daemon")]
use std::io;

#[cfg(feature = "daemon")]
use tcgui_shared::error_kind::ErrorKind;

/// An error of a library without its own error type, or of any actor.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Displays an error with all its causes: `cannot x: cannot y: permission denied`.
pub fn chain(err: &dyn Error) -> impl fmt::Display {
    struct Chain<'a>(&'a dyn Error);
    impl fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)?;
            let mut next = self.0.source();
            while let Some(err) = next {
                write!(f, ": {err}")?;
                next = err.source();
            }
            Ok(())
        }
    }
    Chain(err)
}

/// Returns the error kind for an error number of the kernel.
#[cfg(feature = "daemon")]
pub(crate) fn kind_of(errno: Option<i32>) -> ErrorKind {
    match errno.map(|errno| io::Error::from_raw_os_error(errno).kind()) {
        Some(io::ErrorKind::PermissionDenied) => ErrorKind::Denied,
        Some(io::ErrorKind::NotFound) => ErrorKind::NotFound,
        Some(io::ErrorKind::ResourceBusy) => ErrorKind::Busy,
        Some(io::ErrorKind::Unsupported) => ErrorKind::Unsupported,
        Some(io::ErrorKind::InvalidInput) => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    }
}
