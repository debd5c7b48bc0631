//! The committed header is what cbindgen makes of src/ffi, and its example is c_tests/example.c.

use std::fs;
use std::path::Path;

const HEADER: &str = "include/session_group.h";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let config = cbindgen::Config::from_root_or_default(root());
    let mut generated = Vec::new();
    cbindgen::Builder::new()
        .with_crate(root())
        .with_config(config)
        .generate()
        .expect("cbindgen reads the crate")
        .write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        fs::write(root().join(HEADER), &generated).unwrap();
    }
    assert!(read(HEADER) == generated, "{HEADER} is out of date: run `make header` and commit it");
}

#[test]
fn the_example_in_the_header_is_the_one_that_is_run() {
    let header = read(HEADER);
    let (_, after) = header.split_once(" * A complete program:\n *\n").expect("an example");
    let (example, _) = after.split_once(" */\n").expect("the end of the comment");
    let example: String = example
        .lines()
        .map(|line| line.strip_prefix(" *     ").unwrap_or("").to_string() + "\n")
        .collect();
    assert_eq!(example, read("c_tests/example.c"));
}
