//! Completions for shells, and manual pages, from the definition of the command line.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use tcgui_backend::cli::Args;

use super::failure::{Failure, Status};
use super::output::print;

/// Prints the completions for a shell.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "tcgui-backend", &mut text);
    print(&String::from_utf8_lossy(&text)).map(drop)
}

/// Writes a manual page for the program, and one for each verb.
pub(super) fn manual(directory: &Path) -> Result<(), Failure> {
    let written = std::fs::create_dir_all(directory).and_then(|()| write_pages(directory));
    written.map_err(|err| {
        let message = format!(
            "cannot write manual pages to {}: {err}",
            directory.display()
        );
        Failure::new(Status::Failed, message)
    })
}

fn write_pages(directory: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Args::command(), directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_manual_page() {
        let directory = tempfile::tempdir().unwrap();
        manual(directory.path()).unwrap();
        let page = |name: &str| {
            let path = directory.path().join(name);
            std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{name}: {err}"))
        };
        assert!(page("tcgui-backend.1").contains("apply"));
        for verb in [
            "apply",
            "clear",
            "confirm",
            "show",
            "run",
            "scenario",
            "wait-for",
            "namespaces",
        ] {
            let text = page(&format!("tcgui-backend-{verb}.1"));
            assert!(text.contains(".SH"), "{verb}: {text}");
        }
        assert!(page("tcgui-backend-apply.1").contains("confirm"));
    }
}
