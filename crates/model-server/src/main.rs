//! The program: reads the command line and serves.

use std::io::IsTerminal;
use std::process::ExitCode;

use session_group_server::flags::Flags;
use session_group_server::serve;

/// As the session groups' own: small pieces of memory are taken and given back by many threads. Without
/// the feature, it is the system's, which sanitizers watch.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = Flags::read();
    if flags.watching.version {
        println!("Session group model server: {}", env!("CARGO_PKG_VERSION"));
        println!("TensorFlow Library: {}", session_group::tensorflow::version::loaded());
        return ExitCode::SUCCESS;
    }
    start_log(&flags);
    ExitCode::from(serve::report(&serve::serve(flags)))
}

fn start_log(flags: &Flags) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match flags.limits.log_json {
        true => log.json().flatten_event(true).init(),
        false => log.init(),
    }
}
