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

#[test]
fn every_exported_function_is_guarded_and_listed() {
    let mut exported = Vec::new();
    for entry in fs::read_dir(root().join("src/ffi")).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        for function in text.split("#[unsafe(no_mangle)]").skip(1) {
            let name = function.split("extern \"C\" fn ").nth(1).expect("a plain extern fn");
            let name = name.split('(').next().unwrap().to_string();
            // The body begins after the signature and ends with a brace in the first column.
            let body = function.split("\n}\n").next().unwrap();
            let guarded = body.contains("guard(") || body.contains("guard_infallible(");
            // It only passes its arguments on.
            let forwards = name == "SessionGroup_Run" && body.contains("SessionGroup_RunOn(");
            assert!(guarded || forwards, "{name} lets panics out");
            exported.push(name);
        }
    }
    exported.sort();
    let listed = read("c_tests/exports.txt");
    assert_eq!(exported, listed.lines().collect::<Vec<_>>());
}
