//! The program: reads the command line and serves.

use std::ffi::{c_char, c_int};
use std::process::ExitCode;

use session_group_server::flags::Flags;
use session_group_server::{log, serve};

/// As the session groups' own: small pieces of memory are taken and given back by many threads. Without
/// the feature, it is the system's, which sanitizers watch.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The dynamic linker calls this before it initialises libraries, when TensorFlow begins to log.
#[used]
#[unsafe(link_section = ".preinit_array")]
static BEFORE_LIBRARIES: unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char) =
    log::hold;

fn main() -> ExitCode {
    let flags = Flags::read().unwrap_or_else(|error| {
        log::discard();
        error.exit()
    });
    if flags.watching.version {
        log::discard();
        println!("Session group model server: {}", env!("CARGO_PKG_VERSION"));
        println!("TensorFlow Library: {}", session_group::tensorflow::version::loaded());
        return ExitCode::SUCCESS;
    }
    log::start(flags.limits.log_json);
    let status = serve::report(&serve::serve(flags));
    log::finish();
    ExitCode::from(status)
}
