//! Tests of hiding between layers and of invalid files, without a directory.

use proptest::prelude::*;

use super::*;

fn text(id: &str, name: &str, steps: usize) -> Vec<u8> {
    let steps = "{duration:'1s',description:''},".repeat(steps);
    format!("{{ id: '{id}', name: '{name}', steps: [{steps}] }}").into_bytes()
}

/// Reads layers of scenario files, each given as path and bytes.
fn read(memory: &mut Memory, layers: &[&[(&str, Vec<u8>)]]) -> Library {
    let mut reading = Reading::begin(memory, 7);
    reading.presets_done();
    for (index, layer) in layers.iter().enumerate() {
        if index > 0 {
            reading.next_layer();
        }
        for (path, bytes) in *layer {
            reading.scenario(Path::new(path), bytes);
        }
    }
    reading.finish()
}

fn names(library: &Library) -> Vec<&str> {
    library.scenarios.iter().map(|it| &*it.name).collect()
}

#[test]
fn the_first_layer_keeps_its_order_and_the_rest_is_sorted() {
    let first = [("f/z", text("z", "z0", 1)), ("f/a", text("a", "a0", 1))];
    let second = [("s/m", text("m", "m1", 1)), ("s/z", text("z", "z1", 1))];
    let third = [("t/c", text("c", "c2", 1)), ("t/m", text("m", "m2", 1))];
    let library = read(&mut Memory::default(), &[&first, &second, &third]);
    assert_eq!(names(&library), ["z1", "a0", "c2", "m2"]);
    assert_eq!(library.load_errors, []);
}

#[test]
fn the_first_file_of_an_id_counts_within_a_layer() {
    let layer = [("d/1", text("x", "one", 1)), ("d/2", text("x", "two", 1))];
    let library = read(&mut Memory::default(), &[&[], &layer]);
    assert_eq!(names(&library), ["one"]);
    let error = &library.load_errors[0];
    assert_eq!(error.file_path, "d/2");
    assert!(error.error.message.ends_with("already that of d/1"));
}

#[test]
fn an_invalid_file_keeps_its_last_valid_content() {
    let mut memory = Memory::default();
    let good = [
        ("d/1", text("x", "good", 1)),
        ("d/2", text("y", "other", 1)),
    ];
    read(&mut memory, &[&good]);
    let broken = [("d/1", b"{".to_vec()), ("d/2", text("y", "other", 1))];
    for _ in 0..3 {
        let library = read(&mut memory, &[&broken]);
        assert_eq!(names(&library), ["good", "other"]);
        assert_eq!(library.load_errors.len(), 1);
    }
    // A file that is not in the pass was deleted. A later file at the same path has no earlier content.
    assert_eq!(names(&read(&mut memory, &[&broken[1..]])), ["other"]);
    assert_eq!(names(&read(&mut memory, &[&broken])), ["other"]);
}

#[test]
fn steps_and_errors_are_bounded() {
    let large: Vec<_> = (0..11)
        .map(|index| format!("{index:02}"))
        .map(|id| (id.clone(), text(&id, &id, 10_000)))
        .collect();
    let layer: Vec<_> = large
        .iter()
        .map(|(path, text)| (&**path, text.clone()))
        .collect();
    let library = read(&mut Memory::default(), &[&layer]);
    assert_eq!(library.scenarios.len(), 10);
    assert!(
        library.load_errors[0]
            .error
            .message
            .contains("more than 100000 steps")
    );

    let paths: Vec<_> = (0..MAX_ERRORS + 3).map(|index| index.to_string()).collect();
    let layer: Vec<_> = paths.iter().map(|path| (&**path, b"{".to_vec())).collect();
    let library = read(&mut Memory::default(), &[&layer]);
    assert_eq!(library.load_errors.len(), MAX_ERRORS + 1);
    let last = library.load_errors.last().map(|it| &*it.error.message);
    assert_eq!(last, Some("3 more files are wrong"));
}

proptest! {
    /// A second pass returns the same as a first one, except for last valid content.
    #[test]
    fn a_second_pass_gives_the_same_library(ids in proptest::collection::vec(("[a-d]", "[a-z]{1,3}"), 0..8)) {
        let files: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(index, (id, name))| (index.to_string(), text(id, name, 1)))
            .collect();
        let layer: Vec<_> = files.iter().map(|(path, text)| (&**path, text.clone())).collect();
        let (one, other) = layer.split_at(layer.len() / 2);
        let mut memory = Memory::default();
        let once = read(&mut memory, &[one, other]);
        let twice = read(&mut memory, &[one, other]);
        prop_assert_eq!(&once, &twice);
        let distinct: HashSet<_> = ids.iter().map(|(id, _)| id).collect();
        prop_assert_eq!(once.scenarios.len(), distinct.len());
    }
}
