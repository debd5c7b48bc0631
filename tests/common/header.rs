//! A header of C that cbindgen generates and that is committed.

use std::fs;
use std::path::Path;

/// Fails where the committed header differs from what `source` generates; with UPDATE_HEADER set, replaces it.
pub fn check_committed(root: &Path, header: &str, source: cbindgen::Builder) {
    let mut generated = Vec::new();
    source
        .with_config(cbindgen::Config::from_root_or_default(root))
        .generate()
        .expect("cbindgen reads the sources")
        .write(&mut generated);
    let generated = String::from_utf8(generated).expect("a header is text");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        fs::write(root.join(header), &generated).expect("the header can be written");
    }
    let committed = read(root, header);
    assert!(committed == generated, "{header} is out of date: run `make header` and commit it");
}

/// Fails where the program in the header's first comment is not c_tests/example.c, which the tests of C run.
pub fn check_example(root: &Path, header: &str) {
    let header = read(root, header);
    let (_, after) = header.split_once(" * A complete program:\n *\n").expect("an example");
    let (example, _) = after.split_once(" */\n").expect("the end of the comment");
    let example: String = example
        .lines()
        .map(|line| line.strip_prefix(" *     ").unwrap_or("").to_string() + "\n")
        .collect();
    assert_eq!(example, read(root, "c_tests/example.c"));
}

/// A file of the crate.
pub fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
