//! The committed header is what cbindgen makes of src/ffi.rs, and its example is c_tests/example.c.

#[path = "../../../tests/common/header.rs"]
mod header;

use std::path::Path;

const HEADER: &str = "include/serving_processor.h";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let source = cbindgen::Builder::new().with_src(root().join("src/ffi.rs"));
    header::check_committed(root(), HEADER, source);
}

#[test]
fn the_example_in_the_header_is_the_one_that_is_run() {
    header::check_example(root(), HEADER);
}
