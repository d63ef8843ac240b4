//! How errors are printed where they stop travelling.

use std::error::Error;
use std::fmt;

/// An error of a library that has no type of its own for it, or of any actor.
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
