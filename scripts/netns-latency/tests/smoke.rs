//! Tests of the complete program: labs, mounters, observers, daemon and bus. They need root and a built daemon.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use anyhow::{Context, ensure};
    use serde_json::Value;
    use tempfile::TempDir;

    /// Runs the program with these arguments. Returns its exit status, standard output and standard error.
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

    /// Measures with these arguments, and returns the rows and the table.
    fn measure(arguments: &[&str]) -> anyhow::Result<(Vec<Value>, String)> {
        let directory = TempDir::new()?;
        let path = directory.path().join("figures.json");
        let path = path.to_str().context("a temporary path")?;
        let (status, table, complaints) = run(&[arguments, &["--json", path]].concat())?;
        ensure!(status == Some(0), "{status:?}: {complaints}");
        let json: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
        let rows = json["rows"].as_array().context("no rows")?.clone();
        ensure!(table.lines().count() == 3 + rows.len(), "{table}");
        for row in &rows {
            ensure!(row["missed"] == 0, "{row}\n{table}");
        }
        Ok((rows, table))
    }

    fn nothing_was_seen_early(rows: &[Value]) -> anyhow::Result<()> {
        for row in rows {
            let first = row["samples_ns"][0].as_i64().context("no sample")?;
            ensure!(first > 0, "seen before it was done: {row}");
        }
        Ok(())
    }

    #[test]
    fn every_observer_sees_every_operation() -> anyhow::Result<()> {
        let (rows, table) = measure(&["--trials", "2", "--situations", "fresh,link"])?;
        // Add and del by three observers, and three link operations by two.
        ensure!(rows.len() == 12, "{table}");
        ensure!(rows.iter().all(|row| row["n"] == 2), "{table}");
        nothing_was_seen_early(&rows)
    }

    #[test]
    fn many_at_once_and_few_doorbells_are_measured() -> anyhow::Result<()> {
        let situations = "others1000,burst1000,degraded,silent";
        let arguments = ["--trials", "1", "--many", "50", "--situations", situations];
        let (rows, table) = measure(&arguments)?;
        // Add and del by three, two and three observers, and by one.
        ensure!(rows.len() == 18, "{table}");
        let lists = rows.iter().filter(|row| row["lists_per_s"].is_f64());
        ensure!(
            lists.clone().all(|row| row["situation"] == "burst1000"),
            "{table}"
        );
        ensure!(lists.count() > 0, "{table}");
        nothing_was_seen_early(&rows)
    }

    #[test]
    fn every_change_of_a_sequence_is_measured() -> anyhow::Result<()> {
        let (rows, table) = measure(&["--trials", "3", "--situations", "sequence"])?;
        // Add and del by two observers, five of each in a trial.
        ensure!(rows.len() == 4, "{table}");
        ensure!(rows.iter().all(|row| row["n"] == 15), "{table}");
        nothing_was_seen_early(&rows)
    }

    #[test]
    fn namespaces_without_a_name_are_measured() -> anyhow::Result<()> {
        let situations = "process,unannounced,moved,docker,podman";
        let arguments = ["--trials", "1", "--situations", situations];
        let (rows, table) = measure(&arguments)?;
        ensure!(rows.len() == 10, "{table}");
        ensure!(rows.iter().all(|row| row["n"] == 1), "{table}");
        Ok(())
    }

    #[test]
    fn an_earlier_run_is_drawn_and_compared() -> anyhow::Result<()> {
        let directory = TempDir::new()?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        let (then, svg, markdown) = (path("then.json"), path("p.svg"), path("t.md"));
        fs::write(&then, EARLIER)?;
        let (status, text, complaints) = run(&[
            "--from",
            &then,
            "--baseline",
            &then,
            "--svg",
            &svg,
            "--markdown",
            &markdown,
            "--check",
        ])?;
        // Exceeded limits cause the exit status, the comparison does not.
        ensure!(status == Some(1), "{status:?}: {complaints}");
        ensure!(
            complaints.contains("p50 (ms) is 3.000, limit 2"),
            "{complaints}"
        );
        ensure!(text.contains("   3.000    3.000   1.00"), "{text}");
        ensure!(fs::read_to_string(svg)?.contains("directory present"));
        ensure!(fs::read_to_string(markdown)?.contains("| 3.00 / 9.00 |"));
        Ok(())
    }

    /// A file in the form of an earlier version of this program.
    const EARLIER: &str = r#"{
        "schema": 1, "date_unix_s": 1795000000,
        "machine": {"kernel": "6.18", "cpus": 2, "cpu": null, "memory_kib": null, "load": null},
        "options": {"trials": 2, "situations": ["present"]},
        "rows": [{"situation": "present", "op": "add", "observer": "client", "n": 2, "missed": 0,
            "p50_ns": 3000000, "p90_ns": 9000000, "p99_ns": 9000000, "max_ns": 9000000, "ratio": 2.0,
            "samples_ns": [9000000, 3000000]}]
    }"#;

    #[test]
    fn an_invalid_baseline_is_refused_before_measuring() -> anyhow::Result<()> {
        let (status, table, complaints) = run(&["--baseline", "/absent.json"])?;
        ensure!(status == Some(2), "{status:?}");
        ensure!(table.is_empty(), "{table}");
        ensure!(complaints.contains("/absent.json"), "{complaints}");
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
