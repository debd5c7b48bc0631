//! The committed header is what cbindgen makes of src/ffi.rs.

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
