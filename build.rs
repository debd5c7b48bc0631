//! Finds TensorFlow with pkg-config and compiles the C++ shim against it.

use std::path::{Path, PathBuf};

/// Where the C++ is, by room.
const CPP: &str = "src/tensorflow/cpp";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=third_party/tensorflow/lib/pkgconfig/tensorflow.pc");

    let tensorflow =
        pkg_config::Config::new().atleast_version("2.0").probe("tensorflow").unwrap_or_else(|_| {
            fail(
                "TensorFlow was not found. Run `make tensorflow` to install the pinned one into \
                 this checkout, or put the folder of your own tensorflow.pc (2.x, with C++ \
                 headers) in PKG_CONFIG_PATH",
            )
        });
    let header = "tensorflow/core/common_runtime/direct_session.h";
    if !tensorflow.include_paths.iter().any(|dir| dir.join(header).exists()) {
        fail(&format!(
            "TensorFlow {} was found, but not its C++ header {header}, in {:?}. Run `make \
             tensorflow` and unset PKG_CONFIG_PATH, or install TensorFlow's C++ headers",
            tensorflow.version, tensorflow.include_paths
        ));
    }
    println!("cargo:rustc-env=SESSION_GROUP_TENSORFLOW_VERSION={}", tensorflow.version);

    compile_shim(&tensorflow);

    // Not as an argument of cdylibs alone, which other packages' libraries would get, too. Linkers ignore it
    // in programs.
    println!("cargo:rustc-link-arg=-Wl,-soname,libsession_group.so.0");
    // TensorFlow keeps the session target that is registered with it until the process ends.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // Where session-group-tensorflow links to it.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-rpath,$ORIGIN/session_group/tensorflow");
    // A library, test or program of this package finds the TensorFlow it was linked with. Programs
    // of other packages get the folder as DEP_SESSION_GROUP_TENSORFLOW_LIBDIR.
    for dir in &tensorflow.link_paths {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", dir.display());
        println!("cargo:tensorflow_libdir={}", dir.display());
    }
}

fn compile_shim(tensorflow: &pkg_config::Library) {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        // As the stock wheel was compiled: NDEBUG changes the layout of TensorFlow's classes.
        .define("NDEBUG", None)
        .flag("-fvisibility=hidden");
    // Those of sanitizers, fuzzing and coverage, for the shim alone.
    println!("cargo:rerun-if-env-changed=SESSION_GROUP_CXXFLAGS");
    for flag in std::env::var("SESSION_GROUP_CXXFLAGS").unwrap_or_default().split_whitespace() {
        build.flag(flag);
    }
    for path in &tensorflow.include_paths {
        build.flag("-isystem").flag(path.to_str().expect("an include path is not UTF-8"));
    }
    for (name, value) in &tensorflow.defines {
        build.define(name, value.as_deref());
    }
    println!("cargo:rerun-if-changed={CPP}");
    build.include(CPP);
    for file in sources(Path::new(CPP)) {
        build.file(file);
    }
    build.compile("session_group_shim");
}

/// All of them, in an order that does not depend on the file system.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = |dir: &Path| -> Vec<PathBuf> {
        let mut paths: Vec<_> = std::fs::read_dir(dir)
            .unwrap_or_else(|error| fail(&format!("can't read {}: {error}", dir.display())))
            .flatten()
            .map(|entry| entry.path())
            .collect();
        paths.sort();
        paths
    };
    let rooms = entries(dir).into_iter().filter(|path| path.is_dir());
    let files = rooms.flat_map(|room| entries(&room));
    files.filter(|file| file.extension().is_some_and(|extension| extension == "cc")).collect()
}

/// Ends the build with a message that is not wrapped in a panic's text.
fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    std::process::exit(1)
}
