//! Replays the commands of `docs/command-line.md` in their order, and compares what they print.
//!
//! The blocks of the language `console` are replayed. A line after `$ ` is a command, the lines below are its output. `…`
//! stands for any text within a line, and alone for any number of lines. Times of the day are not compared.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use anyhow::ensure;
use tcgui_tests::process::bound_to_parent;
use tcgui_tests::{daemon, lab_test};

const PAGE: &str = include_str!("../../../docs/command-line.md");

/// How many commands the page has at least.
const COMMANDS: usize = 40;

/// A command of the page, and the lines that it prints there.
#[derive(Debug, PartialEq)]
struct Example<'a> {
    command: &'a str,
    printed: Vec<&'a str>,
}

fn examples(page: &str) -> Vec<Example<'_>> {
    let mut examples: Vec<Example<'_>> = Vec::new();
    let mut is_console = false;
    for line in page.lines() {
        if let Some(language) = line.strip_prefix("```") {
            is_console = language == "console";
            continue;
        }
        if !is_console {
            continue;
        }
        if let Some(command) = line.strip_prefix("$ ") {
            let printed = Vec::new();
            examples.push(Example { command, printed });
        } else if let Some(example) = examples.last_mut() {
            example.printed.push(line);
        }
    }
    examples
}

/// Replaces the digits of times such as `14:32:10`.
fn without_times(line: &str) -> String {
    let is_time = |text: &str| {
        let mut parts = text.split(':');
        let two = |part: Option<&str>| {
            part.is_some_and(|part| part.len() == 2 && part.bytes().all(|it| it.is_ascii_digit()))
        };
        two(parts.next()) && two(parts.next()) && two(parts.next()) && parts.next().is_none()
    };
    let mut text = line.trim_end().to_owned();
    for at in 0..text.len() {
        if text.get(at..at + 8).is_some_and(is_time) {
            text.replace_range(at..at + 8, "HH:MM:SS");
        }
    }
    text
}

/// Returns whether a line is as expected, where `…` is any text.
fn is_line(expected: &str, line: &str) -> bool {
    let Some((before, after)) = expected.split_once('…') else {
        return expected == line;
    };
    let Some(rest) = line.strip_prefix(before) else {
        return false;
    };
    let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    starts
        .filter_map(|at| rest.get(at..))
        .any(|rest| is_line(after, rest))
}

/// Returns whether lines are as expected, where the line `…` is any number of lines.
fn are_lines(expected: &[&str], lines: &[String]) -> bool {
    match (expected.split_first(), lines.split_first()) {
        (None, first) => first.is_none(),
        (Some((&"…", rest)), None) => are_lines(rest, &[]),
        (Some((&"…", rest)), Some((_, others))) => {
            are_lines(rest, lines) || are_lines(expected, others)
        }
        (Some(_), None) => false,
        (Some((line, rest)), Some((first, others))) => {
            is_line(&without_times(line), first) && are_lines(rest, others)
        }
    }
}

/// Runs a command in a shell as the user `alice`, and returns the lines that a terminal would show.
fn printed(command: &str, directory: &Path) -> anyhow::Result<Vec<String>> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = bound_to_parent("bash")
        .args(["-c", &format!("exec 2>&1; {command}")])
        .current_dir(directory)
        .env("PATH", format!("{}/bin:{path}", directory.display()))
        .env("USER", "alice")
        .env_remove("SUDO_USER")
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().map(without_times).collect())
}

lab_test!(
    #[ignore = "needs netem"]
    the_commands_of_the_documentation_print_what_it_shows,
    |scene| {
        scene.start()?;
        let directory = tempfile::tempdir()?;
        std::fs::create_dir(directory.path().join("bin"))?;
        symlink(
            daemon::binary()?,
            directory.path().join("bin/tcgui-backend"),
        )?;
        let examples = examples(PAGE);
        ensure!(
            examples.len() >= COMMANDS,
            "only {} commands",
            examples.len()
        );
        let mut wrong = Vec::new();
        for example in &examples {
            let printed = printed(example.command, directory.path())?;
            if !are_lines(&example.printed, &printed) {
                wrong.push(format!("$ {}\n{}", example.command, printed.join("\n")));
            }
        }
        ensure!(
            wrong.is_empty(),
            "docs/command-line.md shows other outputs than these:\n{}",
            wrong.join("\n")
        );
        Ok(())
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_compared_without_times_and_where_the_page_has_an_ellipsis() {
        let page =
            "```console\n$ a b\nends at 14:32:10\n…\nlast … one\n$ c\n```\n```sh\n$ d\n```\n";
        let examples = examples(page);
        assert_eq!(examples.len(), 2);
        assert_eq!((examples[0].command, examples[1].command), ("a b", "c"));
        let compare = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().copied().map(without_times).collect();
            are_lines(&examples[0].printed, &lines)
        };
        assert!(compare(&["ends at 01:02:03", "last x one"]));
        assert!(compare(&["ends at 01:02:03  ", "more", "last  one"]));
        assert!(!compare(&["ends at 1:02:03", "last x one"]));
        assert!(!compare(&["ends at 01:02:03", "last x two"]));
        assert!(!compare(&["ends at 01:02:03", "last x one", "more"]));
        assert!(are_lines(&examples[1].printed, &[]));
    }
}
