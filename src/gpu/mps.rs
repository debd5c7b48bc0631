//! Whether CUDA's Multi-Process Service is there.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::options::environment::MPS_VARIABLE;

/// Where CUDA's processes find the control daemon, unless the environment says otherwise.
const DEFAULT_DIRECTORY: &str = "/tmp/nvidia-mps";
const DIRECTORY_VARIABLE: &str = "CUDA_MPS_PIPE_DIRECTORY";

/// Fails where no control daemon can be reached. CUDA itself would go on without it.
pub(crate) fn check() -> Result<()> {
    let directory = std::env::var_os(DIRECTORY_VARIABLE).filter(|value| !value.is_empty());
    check_in(&directory.map_or_else(|| DEFAULT_DIRECTORY.into(), PathBuf::from))
}

fn check_in(directory: &Path) -> Result<()> {
    let control = directory.join("control");
    knock(&control).map_err(|error| {
        Error::precondition(format!(
            "{MPS_VARIABLE} is 1, but no MPS control daemon answers at {} ({error}): start \
             `nvidia-cuda-mps-control -d` on the host, give a container --ipc=host and the daemon's \
             folder, name that by {DIRECTORY_VARIABLE} where it is another, or unset {MPS_VARIABLE}",
            control.display()
        ))
    })
}

/// CUDA's documentation says that the daemon listens on named pipes and sockets, and not which is what.
fn knock(control: &Path) -> io::Result<()> {
    let kind = control.metadata()?.file_type();
    if kind.is_fifo() {
        // Fails with ENXIO where nobody reads.
        return OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(control)
            .map(drop);
    }
    match UnixStream::connect(control) {
        // A live socket of another type than ours.
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => Ok(()),
        result => result.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn a_daemon_answers_or_not() {
        let directory =
            std::env::temp_dir().join(format!("session_group_mps_{}", std::process::id()));
        let control = directory.join("control");
        let says = |part: &str| {
            let message = check_in(&directory).unwrap_err().message;
            assert!(message.contains(part), "{message}");
        };
        says("No such file");
        std::fs::create_dir_all(&directory).unwrap();
        says("control");

        let listener = UnixListener::bind(&control).unwrap();
        check_in(&directory).unwrap();
        drop(listener);
        says("refused");
        std::fs::remove_file(&control).unwrap();
        let datagram = UnixDatagram::bind(&control).unwrap();
        check_in(&directory).unwrap();
        drop(datagram);
        std::fs::remove_file(&control).unwrap();

        let status = std::process::Command::new("mkfifo").arg(&control).status().unwrap();
        assert!(status.success());
        says("No such device");
        let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&control);
        check_in(&directory).unwrap();
        drop(reader);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
