//! Formats namespaces and their interfaces as a table, as changes and as JSON. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use tcgui_shared::interface::{NamespaceType, NetworkInterface, NetworkNamespace};

/// Identifies a row. Rows are ordered as they are printed: by backend, then the host first, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamespaceRow {
    /// The backend that lists it. `None`: the row is from a standalone scan.
    backend: Option<String>,
    is_named: bool,
    name: String,
}

/// All rows at one moment.
pub type Picture = BTreeMap<NamespaceRow, NetworkNamespace>;

/// The kind of a change of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It existed at the start.
    Present,
    /// It appeared.
    Added,
    /// Its interfaces or their properties changed.
    Changed,
    /// It was deleted.
    Removed,
}

/// Inserts the namespaces of one backend.
pub fn put(picture: &mut Picture, backend: Option<&str>, namespaces: &[NetworkNamespace]) {
    for namespace in namespaces {
        let place = NamespaceRow {
            backend: backend.map(str::to_owned),
            is_named: namespace.namespace_type != NamespaceType::Default,
            name: namespace.name.clone(),
        };
        picture.insert(place, namespace.clone());
    }
}

/// Returns the differences between two pictures, removals first.
pub fn changes<'a>(
    old: &'a Picture,
    new: &'a Picture,
) -> Vec<(Change, &'a NamespaceRow, &'a NetworkNamespace)> {
    let gone = old.iter().filter(|(place, _)| !new.contains_key(place));
    let gone = gone.map(|(place, namespace)| (Change::Removed, place, namespace));
    let news = new
        .iter()
        .filter_map(|(place, namespace)| match old.get(place) {
            None => Some((Change::Added, place, namespace)),
            Some(known) if known != namespace => Some((Change::Changed, place, namespace)),
            Some(_) => None,
        });
    gone.chain(news).collect()
}

/// Returns the rows as a table with a heading.
pub fn table(picture: &Picture) -> String {
    let heading = ["BACKEND", "NAMESPACE", "TYPE", "INTERFACES"].map(str::to_owned);
    let rows = picture
        .iter()
        .map(|(place, namespace)| cells(place, namespace));
    let rows: Vec<_> = [heading].into_iter().chain(rows).collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let (backend, name, kind) = (width(0), width(1), width(2));
    rows.iter()
        .map(|[a, b, c, d]| format!("{a:backend$}  {b:name$}  {c:kind$}  {d}\n"))
        .collect()
}

/// Returns a change as a line of text.
pub fn line(change: Change, place: &NamespaceRow, namespace: &NetworkNamespace) -> String {
    let sign = match change {
        Change::Present => ' ',
        Change::Added => '+',
        Change::Changed => '~',
        Change::Removed => '-',
    };
    let [backend, name, kind, interfaces] = cells(place, namespace);
    format!("{sign} {backend}  {name}  {kind}  {interfaces}\n")
}

/// Returns a change as a line of JSON.
///
/// # Errors
/// None in practice: strings, numbers and booleans can always be serialized.
pub fn json(
    change: Change,
    place: &NamespaceRow,
    namespace: &NetworkNamespace,
) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        event: Change,
        backend: Option<&'a str>,
        namespace: &'a NetworkNamespace,
    }
    let line = Line {
        event: change,
        backend: place.backend.as_deref(),
        namespace,
    };
    serde_json::to_string(&line).map(|line| line + "\n")
}

/// Replaces control characters, which could move a terminal's cursor.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn cells(place: &NamespaceRow, namespace: &NetworkNamespace) -> [String; 4] {
    let kind = match &namespace.namespace_type {
        NamespaceType::Default => "host".to_owned(),
        NamespaceType::Traditional if place.name.starts_with("pid:") => "process".to_owned(),
        NamespaceType::Traditional => "named".to_owned(),
        NamespaceType::Container { runtime, .. } => runtime.to_lowercase(),
    };
    let interfaces: Vec<_> = namespace.interfaces.iter().map(interface).collect();
    let backend = place.backend.as_deref().unwrap_or("-");
    let interfaces = if interfaces.is_empty() {
        "-".to_owned()
    } else {
        interfaces.join(" ")
    };
    let mut name = place.name.clone();
    if !namespace.aliases.is_empty() {
        name = format!("{name} (also {})", namespace.aliases.join(", "));
    }
    [backend, &name, &kind, &interfaces].map(printable)
}

fn interface(interface: &NetworkInterface) -> String {
    let notes = [
        (!interface.is_up, "down"),
        (interface.has_tc_qdisc, "netem"),
    ];
    let notes: Vec<_> = notes
        .iter()
        .filter(|(so, _)| *so)
        .map(|note| note.1)
        .collect();
    if notes.is_empty() {
        interface.name.clone()
    } else {
        format!("{}({})", interface.name, notes.join(","))
    }
}

#[cfg(test)]
mod tests {
    use tcgui_shared::interface::InterfaceType;

    use super::*;

    fn namespace(name: &str, up: &[(&str, bool)]) -> NetworkNamespace {
        let interfaces = up.iter().map(|(ifname, is_up)| NetworkInterface {
            name: (*ifname).to_owned(),
            index: 1,
            namespace: name.to_owned(),
            is_up: *is_up,
            is_oper_up: true,
            has_tc_qdisc: *ifname == "v0",
            interface_type: InterfaceType::Veth,
        });
        NetworkNamespace {
            name: name.to_owned(),
            aliases: Vec::new(),
            id: None,
            is_active: true,
            namespace_type: if name == "default" {
                NamespaceType::Default
            } else {
                NamespaceType::Traditional
            },
            interfaces: interfaces.collect(),
        }
    }

    fn picture(backend: Option<&str>, namespaces: &[NetworkNamespace]) -> Picture {
        let mut picture = Picture::new();
        put(&mut picture, backend, namespaces);
        picture
    }

    #[test]
    fn the_host_comes_first_and_columns_are_aligned() {
        let shown = [
            namespace("a-long-name", &[("lo", false), ("v0", true)]),
            namespace("default", &[("lo", true)]),
            namespace("e\u{1b}[2J", &[]),
        ];
        let expected = "\
BACKEND  NAMESPACE    TYPE   INTERFACES
edge1    default      host   lo
edge1    a-long-name  named  lo(down) v0(netem)
edge1    e\u{fffd}[2J        named  -
";
        assert_eq!(table(&picture(Some("edge1"), &shown)), expected);
    }

    #[test]
    fn pictures_differ_by_added_removed_and_changed_namespaces() {
        let old = picture(
            None,
            &[
                namespace("default", &[("lo", true)]),
                namespace("gone", &[]),
                namespace("lab", &[("lo", false)]),
            ],
        );
        let new = picture(
            None,
            &[
                namespace("default", &[("lo", true)]),
                namespace("lab", &[("lo", true)]),
                namespace("new", &[("lo", true)]),
            ],
        );
        let lines: Vec<_> = changes(&old, &new)
            .into_iter()
            .map(|(change, place, namespace)| line(change, place, namespace))
            .collect();
        assert_eq!(
            lines,
            [
                "- -  gone  named  -\n",
                "~ -  lab  named  lo\n",
                "+ -  new  named  lo\n"
            ]
        );
        assert!(changes(&new, &new).is_empty());
    }

    #[test]
    fn json_is_a_line_with_the_namespace_as_on_the_wire() {
        let picture = picture(Some("edge1"), &[namespace("lab", &[("lo", true)])]);
        let (place, lab) = picture.first_key_value().unwrap();
        let line = json(Change::Present, place, lab).unwrap();
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&value["event"], &value["backend"]),
            (&"present".into(), &"edge1".into())
        );
        assert_eq!(value["namespace"], serde_json::json!(lab));
    }
}
