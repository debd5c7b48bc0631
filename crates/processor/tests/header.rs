//! The committed header is what cbindgen makes of src/ffi.rs, and its example is c_tests/example.c.

use std::fs;
use std::path::Path;

#[test]
fn the_committed_header_is_the_generated_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_root_or_default(root);
    let mut generated = Vec::new();
    cbindgen::Builder::new()
        .with_src(root.join("src/ffi.rs"))
        .with_config(config)
        .generate()
        .expect("cbindgen reads the file")
        .write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();
    let header = root.join("include/serving_processor.h");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&header, &generated).unwrap();
    }
    let committed = fs::read_to_string(&header).unwrap();
    assert!(committed == generated, "the header is out of date: run `make header` and commit it");
}

#[test]
fn the_example_in_the_header_is_the_one_that_is_run() {
    let read = |path| {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file")
    };
    let header = read("include/serving_processor.h");
    let (_, after) = header.split_once(" * A complete program:\n *\n").expect("an example");
    let (example, _) = after.split_once(" */\n").expect("the end of the comment");
    let example: String = example
        .lines()
        .map(|line| line.strip_prefix(" *     ").unwrap_or("").to_string() + "\n")
        .collect();
    assert_eq!(example, read("c_tests/example.c"));
}
