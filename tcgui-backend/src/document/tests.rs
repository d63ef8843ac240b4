//! Tests of the limits, and of the positions in error messages.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Numbers = BTreeMap<String, Vec<u8>>;

fn read(text: &str) -> Result<Numbers, DocumentError> {
    Document::new(text.as_bytes())?.read()
}

fn refusal(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn mistakes_have_a_line_and_a_column() {
    let cases = [
        ("", "line 1, column 1: EOF parsing object"),
        (
            "{\n  a: [1, 2],\n  b: [1 2],\n}",
            "line 3, column 9: b: expected",
        ),
        (
            "{\n  a: [1, 'x'],\n}",
            "line 2, column 10: a[1]: expected number",
        ),
        ("{ a: [1] } b", "line 1, column 12: nothing may follow"),
        ("{ a: [1]", "line 1, column 9: EOF parsing object"),
        (
            "/* ü */ { a: [300] }",
            "line 1, column 15: a[0]: invalid value",
        ),
    ];
    for (text, expected) in cases {
        let message = refusal(text);
        assert!(message.starts_with(expected), "{text:?}: {message}");
    }
    assert_eq!(
        read("// fine\n{ 'a': [0x10, +1,], }").unwrap()["a"],
        [16, 1]
    );
}

#[test]
fn values_are_found_whatever_the_text_looks_like() {
    let text = "{ // { not: this }\n  'first': \"}:,\\\"\",\n  steps: [\n    {a: 1}, /* ] */\n    {b: {c: 7}},\n  ],\n}";
    let document = Document::new(text.as_bytes()).unwrap();
    let at = |place: JsonPath| {
        let Position { line, column } = document.error(place, &"wrong").position();
        (line, column)
    };
    assert_eq!(at(JsonPath::member("first")), (2, 12));
    assert_eq!(at(JsonPath::member("steps").at(0).then("a")), (4, 9));
    assert_eq!(at(JsonPath::member("steps").at(1).then("b.c")), (5, 13));
    let enclosing = at(JsonPath::member("steps").at(1).then("b.d"));
    assert_eq!(enclosing, (5, 9), "the innermost that there is");
    assert_eq!(at(JsonPath::member("steps").at(2)), (3, 10));
    assert!(document.has_member("steps") && !document.has_member("not"));
    let message = document.error(JsonPath::member("steps").at(1), &"wrong");
    assert_eq!(message.to_string(), "line 5, column 5: steps[1]: wrong");
    assert_eq!(
        (message.step(), message.without_position().as_str()),
        (Some(1), "steps[1]: wrong")
    );
}

#[test]
fn size_depth_and_encoding_are_bounded() {
    let deep = format!("{{ a: {}", "[".repeat(200_000));
    assert_eq!(
        refusal(&deep),
        "line 1, column 69: nested deeper than 64 levels"
    );
    let hidden = format!("{{ '\\'': 1, /* \" */ a: {}", "[{x:".repeat(100_000));
    assert!(refusal(&hidden).contains("nested deeper"));
    let quoted = format!("{{ \"{}\": [1] }}", "[".repeat(200));
    assert_eq!(read(&quoted).unwrap().len(), 1);
    assert_eq!(read(&" ".repeat(MAX_SIZE + 1)), Err(DocumentError::Size));
    let error = Document::new(b"{\n \xff}").unwrap_err();
    assert_eq!(error.to_string(), "line 2, column 2: not UTF-8 text");
}

#[test]
fn explanations_are_short_and_on_one_line() {
    let long = format!("{{ a: [\"{}\\n\"] }}", "ä".repeat(9000));
    let message = refusal(&long);
    assert!(
        message.len() < MAX_EXPLANATION + 80 && !message.contains('\n'),
        "{message}"
    );
}

proptest! {
    #[test]
    fn no_text_causes_a_panic(text in "[{}\\[\\]:,'\"/*\\\\ \n\u{2028}a0ä]{0,200}") {
        let place = JsonPath::member("a").at(0).then("a");
        if let Ok(document) = Document::new(text.as_bytes()) {
            document.read::<Numbers>().ok();
            document.error(place, &"");
        }
    }

    #[test]
    fn no_bytes_cause_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(document) = Document::new(&bytes) {
            document.read::<Numbers>().ok();
        }
    }

    #[test]
    fn what_the_parser_reads_is_within_the_depth(levels in 0_usize..200) {
        let text = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        prop_assert_eq!(Document::new(text.as_bytes()).is_ok(), levels <= MAX_DEPTH);
    }
}
