//! SIGHUP: reads the configuration again, and finds out what changed.

use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::config::{Config, RELOADABLE, Reloadable, Setting, Sources};
use crate::error::{BoxError, chain};

/// Reads the configuration again on request.
///
/// Files are read on a blocking thread, one reading at a time.
#[derive(Debug)]
pub struct ConfigReader {
    sources: Sources,
    in_force: Vec<Setting>,
    reading: JoinSet<Result<NewConfig, BoxError>>,
    /// The files may have changed since the reading began.
    again: bool,
}

/// A valid configuration that was read again.
#[derive(Debug)]
pub(super) struct NewConfig {
    reloadable: Reloadable,
    settings: Vec<Setting>,
}

/// The options that differ from those in force.
#[derive(Debug, Default, PartialEq, Eq)]
struct Differences {
    reloadable: Vec<String>,
    need_restart: Vec<String>,
}

impl ConfigReader {
    /// Takes the sources, and the values with which the daemon starts.
    pub fn new(sources: Sources, in_force: Vec<Setting>) -> Self {
        Self {
            sources,
            in_force,
            reading: JoinSet::new(),
            again: false,
        }
    }

    /// Begins to read the configuration. If a reading is under way, another one follows it.
    pub(super) fn begin(&mut self) {
        if !self.reading.is_empty() {
            self.again = true;
            return;
        }
        let sources = self.sources.clone();
        self.reading.spawn_blocking(move || read(&sources));
    }

    /// Waits for the end of a reading, and logs what it found. Returns the new values if they differ from those in force.
    /// Cancel-safe: the set keeps a result until it is returned.
    pub(super) async fn next(&mut self) -> Option<Reloadable> {
        let Some(read) = self.reading.join_next().await else {
            return std::future::pending().await;
        };
        if std::mem::take(&mut self.again) {
            self.begin();
        }
        match read.map_err(BoxError::from).flatten() {
            Ok(new) => self.take(new),
            Err(err) => {
                let error = chain(err.as_ref());
                error!(%error, "the configuration is invalid, the old one stays in force");
                None
            }
        }
    }

    /// Logs what changed. From now on the new values of reloadable options count as in force.
    fn take(&mut self, new: NewConfig) -> Option<Reloadable> {
        let differences = compare(&self.in_force, &new.settings);
        if !differences.need_restart.is_empty() {
            let options = differences.need_restart.join(", ");
            warn!(
                options,
                "these options change only when the daemon is restarted"
            );
        }
        if differences.reloadable.is_empty() {
            info!("configuration read again, no option changed");
            return None;
        }
        let options = differences.reloadable.join(", ");
        info!(options, "configuration read again, options changed");
        let changed = new.settings.into_iter();
        for setting in changed.filter(|setting| is_reloadable(&setting.option)) {
            let old = self.in_force.iter_mut();
            for old in old.filter(|old| old.option == setting.option) {
                *old = setting.clone();
            }
        }
        Some(new.reloadable)
    }
}

fn read(sources: &Sources) -> Result<NewConfig, BoxError> {
    let (args, settings) = sources.load()?.into_valid()?;
    let reloadable = Config::try_from(args)?.reloadable();
    Ok(NewConfig {
        reloadable,
        settings,
    })
}

fn is_reloadable(option: &str) -> bool {
    RELOADABLE.contains(&option)
}

/// Compares the values of all options. Where they come from does not matter.
fn compare(old: &[Setting], new: &[Setting]) -> Differences {
    let mut differences = Differences::default();
    for (old, new) in old.iter().zip(new) {
        if old.values == new.values {
            continue;
        }
        let options = if is_reloadable(&new.option) {
            &mut differences.reloadable
        } else {
            &mut differences.need_restart
        };
        options.push(new.option.clone());
    }
    differences
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    use nix::sys::signal;

    use super::super::{Signal, Signals};
    use super::*;
    use crate::config::Loaded;

    struct Lab {
        root: tempfile::TempDir,
        reader: ConfigReader,
    }

    fn file(root: &tempfile::TempDir) -> PathBuf {
        root.path().join("backend.toml")
    }

    impl Lab {
        fn new(text: &str) -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::write(file(&root), text).unwrap();
            let line = ["tcgui-backend".into(), "--config".into(), file(&root)];
            let sources = Sources::new(line, []);
            let Loaded { settings, .. } = sources.load().unwrap();
            let reader = ConfigReader::new(sources, settings);
            Self { root, reader }
        }

        async fn reload(&mut self, text: &str) -> Option<Reloadable> {
            fs::write(file(&self.root), text).unwrap();
            self.reader.begin();
            self.reader.next().await
        }
    }

    #[tokio::test]
    async fn only_a_changed_reloadable_option_gives_new_values() {
        let mut lab = Lab::new("");
        assert_eq!(lab.reload("# a comment").await, None);
        assert_eq!(lab.reload("read-only = false").await, None);
        let new = lab.reload("default-ttl = '1h'\nkeep-on-exit = true\nname = 'x'");
        let new = new.await.unwrap();
        assert_eq!(new.default_ttl, Some(Duration::from_secs(3600)));
        assert!(new.keep_on_exit);
        assert_eq!(
            lab.reload("default-ttl = '1h'\nkeep-on-exit = true").await,
            None
        );
        assert_eq!(lab.reload("read-only = 1").await, None);
        // The values before the error are those to which a later file is compared.
        let new = lab.reload("keep-on-exit = true").await.unwrap();
        assert_eq!(new.default_ttl, None);
    }

    #[tokio::test]
    async fn a_request_during_a_reading_is_not_lost() {
        let mut lab = Lab::new("");
        lab.reader.begin();
        lab.reader.begin();
        lab.reader.begin();
        assert_eq!(lab.reader.reading.len(), 1);
        lab.reader.next().await;
        // The reading that follows all requests has begun.
        assert_eq!(lab.reader.reading.len(), 1);
        lab.reader.next().await;
        assert!(lab.reader.reading.is_empty());
    }

    #[test]
    fn options_that_need_a_restart_are_named_until_then() {
        let loaded = |line: &[&str]| {
            let program = ["tcgui-backend", "--no-config"];
            let sources = Sources::new([&program, line].concat(), []);
            sources.load().unwrap().settings
        };
        let old = loaded(&[]);
        let new = loaded(&["--name", "x", "--allow", "a/b", "--sweep-interval", "1s"]);
        let differences = Differences {
            reloadable: vec!["allow".to_owned()],
            need_restart: vec!["name".to_owned(), "sweep-interval".to_owned()],
        };
        assert_eq!(compare(&old, &new), differences);
        let same = loaded(&["--name", "default"]);
        assert_eq!(compare(&old, &same), Differences::default());
        for option in RELOADABLE {
            assert!(old.iter().any(|it| it.option == option), "{option}");
        }
    }

    #[tokio::test]
    async fn a_reload_signal_during_the_start_is_handled_after_it() {
        let mut signals = Signals::open().unwrap();
        signal::raise(signal::Signal::SIGHUP).unwrap();
        let start = tokio::time::timeout(Duration::from_millis(500), signals.stop());
        start.await.unwrap_err();
        assert!(matches!(signals.next().await, Signal::Reload));
        let second = tokio::time::timeout(Duration::from_millis(50), signals.next());
        second.await.unwrap_err();
    }
}
