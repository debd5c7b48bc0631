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

/// Also those that C++ gets as pointers, and what the loader calls.
#[test]
fn every_function_that_others_call_is_guarded_and_exports_are_listed() {
    let mut exported = Vec::new();
    let mut others = 0;
    for entry in fs::read_dir(root().join("src/ffi")).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        let mut before = "";
        for function in text.split("extern \"C\" fn ") {
            let is_exported = before.trim_end().ends_with("#[unsafe(no_mangle)]\npub unsafe")
                || before.trim_end().ends_with("#[unsafe(no_mangle)]\npub");
            let is_definition =
                before.ends_with("unsafe ") || before.ends_with("pub ") || before.ends_with("\n");
            before = function;
            let name = function.split('(').next().unwrap();
            // The body begins after the signature and ends with a brace in the first column.
            let body = function.split("\n}\n").next().unwrap();
            if !is_definition || name.is_empty() || !body.contains('{') {
                continue;
            }
            let guards = ["guard(", "guard_infallible(", "reported("];
            // It only passes its arguments on.
            let forwards = name == "SessionGroup_Run" && body.contains("SessionGroup_RunOn(");
            let guarded = guards.iter().any(|guard| body.contains(guard)) || forwards;
            assert!(guarded, "{name} lets panics out");
            if is_exported {
                exported.push(name.to_string());
            } else {
                others += 1;
            }
        }
    }
    exported.sort();
    let listed = read("c_tests/exports.txt");
    assert_eq!(exported, listed.lines().collect::<Vec<_>>());
    assert!(others >= 12, "those of the table FUNCTIONS: {others}");
}
