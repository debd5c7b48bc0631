//! The model server in this process: with connections as it runs by itself, or without.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use clap::FromArgMatches;
use session_group_server::flags::Flags;
use session_group_server::fuzzing::Services;
use session_group_server::serve;

use crate::{folder, models};

/// How long any connection may take to be answered and ended.
pub const PATIENCE: Duration = Duration::from_secs(50);
/// How long one that may wait for more may say nothing.
pub const SILENCE: Duration = Duration::from_millis(10);

/// Models by the names that requests have for them. Those of "batched" are computed in batches.
const MODELS: [(&str, &str); 4] = [
    ("half", "half_plus"),
    ("batched", "half_plus"),
    ("types", "every_type"),
    ("strings", "strings"),
];
const BATCHING: &str = "max_batch_size { value: 8 } allowed_batch_sizes: 4 allowed_batch_sizes: 8 \
                        pad_variable_length_inputs: true";

/// Lays the models out as a server wants them. Gives the configuration that names them.
fn lay_out(base: &Path) -> PathBuf {
    let mut config = String::new();
    for (name, model) in MODELS {
        let (model, version) = (models::path(model), base.join(name).join("1"));
        std::fs::create_dir_all(&version).expect("a temporary folder");
        for file in ["saved_model.pb", "variables"].iter().filter(|file| model.join(file).exists())
        {
            symlink(model.join(file), version.join(file)).expect("a temporary link");
        }
        if name == "batched" {
            std::fs::write(version.join("batching_params.pbtxt"), BATCHING).expect("a file");
        }
        let path = base.join(name);
        config += &format!(
            "config {{ name: {name:?} base_path: {path:?} model_platform: 'tensorflow' }}\n"
        );
    }
    let file = base.join("models");
    std::fs::write(&file, format!("model_config_list {{ {config} }}")).expect("a temporary file");
    file
}

/// The flags of a server with the models, and these.
fn flags(base: &Path, more: &[String]) -> Flags {
    let fixed = [
        "server".to_string(),
        format!("--model_config_file={}", lay_out(base).display()),
        "--session_num_per_group=2".to_string(),
        "--tensorflow_session_parallelism=1".to_string(),
        "--enable_batching".to_string(),
        "--enable_per_model_batching_parameters".to_string(),
        "--max_request_bytes=1000000".to_string(),
    ];
    let matches = Flags::command_line().get_matches_from(fixed.iter().chain(more));
    Flags::from_arg_matches(&matches).expect("flags that are known")
}

/// Where a server listens.
pub struct Server {
    /// With HTTP/1.
    pub rest_port: u16,
    /// With HTTP/2.
    pub grpc_socket: PathBuf,
}

/// It ends with the process.
pub static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let base = folder("server");
    let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr());
    let rest_port = free.expect("a free port").port();
    let grpc_socket = base.join("grpc");
    let flags = flags(
        &base,
        &[
            "--port=0".to_string(),
            format!("--grpc_socket_path={}", grpc_socket.display()),
            format!("--rest_api_port={rest_port}"),
            "--enable_prometheus".to_string(),
            "--rest_api_enable_cors_support".to_string(),
        ],
    );
    std::thread::spawn(|| serve::serve(flags).expect("the server serves"));
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", rest_port)).is_err() {
        assert!(begun.elapsed() < PATIENCE, "the server does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    Server { rest_port, grpc_socket }
});

/// What answers, without connections.
pub static SERVICES: LazyLock<Services> = LazyLock::new(|| {
    let flags = flags(&folder("services"), &["--rest_api_port=1".to_string()]);
    Services::new(&flags).expect("the models serve")
});

/// A connection to it.
pub trait Connection: Read + Write {
    /// Reads wait for so long.
    fn wait_for(&self, time: Duration);
    /// The server sees the end of what is sent.
    fn end(&self);
}

macro_rules! connections {
    ($($stream:ty),*) => {
        $(impl Connection for $stream {
            fn wait_for(&self, time: Duration) {
                self.set_read_timeout(Some(time)).expect("a time is taken");
            }

            fn end(&self) {
                // The server may have ended it.
                let _ = self.shutdown(Shutdown::Write);
            }
        })*
    };
}
connections!(TcpStream, UnixStream);

/// What the server says to these bytes, up to the end of the connection, which has to come. `last` makes it answer all
/// that is whole, and end; a server that sees the client's end first answers nothing more. So that comes after this long
/// without a word: the server may wait for more.
pub fn ask(
    mut connection: impl Connection,
    bytes: &[u8],
    last: &[u8],
    silence: Duration,
) -> Vec<u8> {
    let _ = connection.write_all(&[bytes, last].concat());
    let mut answer = Vec::new();
    connection.wait_for(silence);
    if is_waiting(connection.read_to_end(&mut answer)) {
        connection.end();
        connection.wait_for(PATIENCE);
        assert!(!is_waiting(connection.read_to_end(&mut answer)), "the connection does not end");
    }
    answer
}

/// Otherwise it has ended. It may be reset, since the server need not read what comes after a mistake.
fn is_waiting(read: io::Result<usize>) -> bool {
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
