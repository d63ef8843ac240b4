//! Data on standard output, everything else on standard error.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use tcgui_backend::cli::verbs::{ClientArgs, Format};
use tcgui_backend::listing::printable;

use super::failure::{Failure, Status};
use super::tell;

/// Where a verb prints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) format: Format,
    pub(super) quiet: bool,
}

impl Output {
    pub(super) fn of(args: &ClientArgs) -> Self {
        Self {
            format: args.format(),
            quiet: args.quiet,
        }
    }

    /// Returns whether people read the output.
    pub(super) fn is_table(self) -> bool {
        self.format == Format::Table
    }

    /// Prints a note that is not data.
    pub(super) fn note(self, text: &str) {
        if !self.quiet {
            tell(text);
        }
    }

    /// Prints a document, or with `ndjson` one line for each of its items, in the format of programs. Returns whether the
    /// reader is still there.
    pub(super) fn document<D: Serialize, I: Serialize>(
        self,
        document: &D,
        items: &[I],
    ) -> Result<bool, Failure> {
        let written = |err: serde_json::Error| Failure::new(Status::Failed, err.to_string());
        match self.format {
            Format::Table => Ok(true),
            Format::Json => {
                let text = serde_json::to_string_pretty(document).map_err(written)?;
                print(&(text + "\n"))
            }
            Format::Ndjson => {
                let mut text = String::new();
                for item in items {
                    let line = Line {
                        schema: super::documents::SCHEMA,
                        item,
                    };
                    text.push_str(&serde_json::to_string(&line).map_err(written)?);
                    text.push('\n');
                }
                print(&text)
            }
        }
    }
}

impl Output {
    /// Prints a document that has no items.
    pub(super) fn single<D: Serialize>(self, document: &D) -> Result<bool, Failure> {
        let text = match self.format {
            Format::Table => return Ok(true),
            Format::Json => serde_json::to_string_pretty(document),
            Format::Ndjson => serde_json::to_string(document),
        };
        let text = text.map_err(|err| Failure::new(Status::Failed, err.to_string()))?;
        print(&(text + "\n"))
    }
}

/// An item with the schema of its document.
#[derive(Serialize)]
struct Line<'a, I> {
    schema: &'static str,
    #[serde(flatten)]
    item: &'a I,
}

/// Writes data, and returns whether the reader is still there.
pub(super) fn print(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(err) => Err(Failure::new(
            Status::Failed,
            format!("cannot write to standard output: {err}"),
        )),
    }
}

/// Writes a line in which control characters cannot move the cursor of a terminal.
pub(super) fn print_line(text: &str) -> Result<bool, Failure> {
    print(&(printable(text) + "\n"))
}

/// Returns a table with a heading. Columns whose heading begins with `>` are aligned to the right.
pub(super) fn table(heading: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(heading.iter().map(|text| text.trim_start_matches('>')));
    for row in rows {
        let cells = row.into_iter().zip(heading).map(|(text, heading)| {
            let cell = Cell::new(printable(&text));
            if heading.starts_with('>') {
                cell.set_alignment(CellAlignment::Right)
            } else {
                cell
            }
        });
        table.add_row(cells);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

/// Returns whether colours and progress are wanted.
pub(super) fn is_interactive() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_columns_and_no_trailing_blanks() {
        let rows = vec![
            vec!["lab/eth0".to_owned(), "5".to_owned()],
            vec!["x\u{1b}[2J".to_owned(), "120".to_owned()],
        ];
        let text = table(&["INTERFACE", ">RATE"], rows);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "INTERFACE  RATE");
        assert_eq!(lines[1], "lab/eth0      5");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
