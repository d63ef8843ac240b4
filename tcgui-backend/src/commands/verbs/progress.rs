//! Progress on a terminal, for what takes longer than a second.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tcgui_backend::listing::printable;

use super::output::is_interactive;

/// Nothing is shown before.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// A bar or a line of text that appears after a second. It is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    begun: Instant,
    is_wanted: bool,
}

impl Progress {
    /// Begins with a number of steps; `None`: it is not known.
    pub(super) fn new(total: Option<u64>, quiet: bool) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let template = match total {
            Some(_) => "{msg} {bar:30} {pos}/{len}",
            None => "{spinner} {msg} ({elapsed})",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            bar,
            begun: Instant::now(),
            is_wanted: !quiet && is_interactive(),
        }
    }

    /// Shows a bar from 0 to 1000 with a text.
    pub(super) fn share(quiet: bool) -> Self {
        let progress = Self::new(Some(1000), quiet);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}") {
            progress.bar.set_style(style);
        }
        progress
    }

    /// Shows this text.
    pub(super) fn say(&self, text: &str) {
        self.bar.set_message(printable(text));
        self.show();
    }

    /// One more step is done.
    pub(super) fn advance(&self) {
        self.bar.inc(1);
        self.show();
    }

    /// Sets the share that is done, in percent.
    pub(super) fn percent(&self, percent: f64, text: &str) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 1000"
        )]
        let thousandths = (percent.clamp(0.0, 100.0) * 10.0) as u64;
        self.bar.set_position(thousandths);
        self.say(text);
    }

    fn show(&self) {
        if self.is_wanted && self.begun.elapsed() >= SHOWN_AFTER && self.bar.is_hidden() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
