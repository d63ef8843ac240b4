//! The program itself: labs, mounters, observers, daemon and bus. Needs root and a built daemon.

#[cfg(test)]
mod tests {
    use std::process::Command;

    use anyhow::{Context, ensure};
    use serde_json::Value;

    /// The program with these arguments: its exit status, what it printed, and its complaints.
    fn run(arguments: &[&str]) -> anyhow::Result<(Option<i32>, String, String)> {
        let output = Command::new(env!("CARGO_BIN_EXE_netns-latency"))
            .args(arguments)
            .output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        ))
    }

    #[test]
    fn every_observer_sees_every_operation() -> anyhow::Result<()> {
        let directory = std::env::temp_dir().join(format!("netns-latency-{}", std::process::id()));
        let path = directory.to_str().context("a temporary path")?;
        let (status, table, complaints) = run(&[
            "--trials",
            "2",
            "--situations",
            "fresh,link",
            "--json",
            path,
        ])?;
        ensure!(status == Some(0), "{status:?}: {complaints}");
        let json = std::fs::read_to_string(&directory)?;
        std::fs::remove_file(&directory)?;

        let json: Value = serde_json::from_str(&json)?;
        let rows = json["rows"].as_array().context("no rows")?;
        // Add and del by three observers; three operations on links by two.
        ensure!(rows.len() == 12, "{table}");
        ensure!(table.lines().count() == 3 + rows.len(), "{table}");
        for row in rows {
            ensure!(row["n"] == 2 && row["missed"] == 0, "{row}\n{table}");
            let first = row["samples_ns"][0].as_i64().context("no sample")?;
            ensure!(first > 0, "seen before it was done: {row}");
        }
        Ok(())
    }

    #[test]
    fn a_wrong_command_line_measures_nothing() -> anyhow::Result<()> {
        let (status, table, complaints) = run(&["--situations", "absent"])?;
        ensure!(status == Some(2), "{status:?}");
        ensure!(table.is_empty(), "{table}");
        ensure!(complaints.contains("absent"), "{complaints}");
        Ok(())
    }
}
