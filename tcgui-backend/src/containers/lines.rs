//! Splits a stream that arrives in parts of any size into lines.

use super::limits::MAX_EVENT;

/// A line is longer than [`MAX_EVENT`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {MAX_EVENT} bytes")]
pub(super) struct LineTooLong;

/// The start of a line whose end has not arrived yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes a part of the stream, and passes each line that it completes to `take`, without the newline. Blank
    /// lines are skipped.
    ///
    /// # Errors
    /// [`LineTooLong`], or the first error of `take`. The stream cannot be used after an error.
    pub(super) fn feed<E: From<LineTooLong>>(
        &mut self,
        mut piece: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (line, next) = (&piece[..end], &piece[end + 1..]);
            self.check(line)?;
            if self.rest.is_empty() {
                take_line(line, &mut take)?;
            } else {
                self.rest.extend_from_slice(line);
                take_line(&self.rest, &mut take)?;
                self.rest.clear();
            }
            piece = next;
        }
        self.check(piece)?;
        self.rest.extend_from_slice(piece);
        Ok(())
    }

    fn check(&self, more: &[u8]) -> Result<(), LineTooLong> {
        if self.rest.len() + more.len() > MAX_EVENT {
            return Err(LineTooLong);
        }
        Ok(())
    }
}

fn take_line<E>(line: &[u8], take: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    match line.trim_ascii() {
        [] => Ok(()),
        line => take(line),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, LineTooLong> {
        let mut stream = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            stream.feed(piece, |line| {
                found.push(line.to_vec());
                Ok::<_, LineTooLong>(())
            })?;
        }
        Ok(found)
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
        let longest = [b'x'; MAX_EVENT];
        assert_eq!(lines(&[&longest, b"\n"]).unwrap(), [longest.to_vec()]);
        assert_eq!(lines(&[&longest, b"x"]), Err(LineTooLong));
        assert_eq!(lines(&[&longest, b"x\n"]), Err(LineTooLong));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_parts_of_the_stream(text: Vec<u8>, cuts in prop::collection::vec(0_usize..200, 0..8)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            prop_assert_eq!(lines(&pieces).unwrap(), lines(&[&text]).unwrap());
        }
    }
}
