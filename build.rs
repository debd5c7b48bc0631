//! Finds TensorFlow with pkg-config and compiles the C++ shim against it.

use std::path::Path;

const SHIM: [&str; 22] = [
    "callable",
    "checkpoint",
    "constant_store",
    "control_flow",
    "effects",
    "graph_capture",
    "group_session",
    "hidden_constants",
    "host_allocator",
    "kernel_choice",
    "large_blocks",
    "layout",
    "lookups",
    "node_index",
    "program",
    "restore",
    "serial_executor",
    "session_device",
    "shim",
    "split_gathers",
    "variable_reads",
    "virtual_gpus",
];

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
    let dir = Path::new("src/tensorflow");
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
    for header in ["caught.h", "private_buffer.h", "shim_internal.h"] {
        println!("cargo:rerun-if-changed=src/tensorflow/{header}");
    }
    for name in SHIM {
        for extension in ["h", "cc"] {
            println!("cargo:rerun-if-changed=src/tensorflow/{name}.{extension}");
        }
        build.file(dir.join(name).with_extension("cc"));
    }
    build.compile("session_group_shim");
}

/// Ends the build with a message that is not wrapped in a panic's text.
fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    std::process::exit(1)
}
