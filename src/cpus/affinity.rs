//! On which CPUs a thread runs: reading it, setting it, and starting threads that inherit it.

use std::io;
use std::thread;

use crate::cpus::cpuset::CpuSet;
use crate::error::{Code, Error, Result};

/// The CPUs that the calling thread may use: its affinity mask, which Linux keeps within the
/// cgroup's cpuset and the CPUs that are online.
pub fn allowed() -> Result<CpuSet> {
    allowed_to(0)
}

/// The same for another thread of this process.
pub fn allowed_to(thread: u32) -> Result<CpuSet> {
    // The kernel refuses a mask that is shorter than its own, whose size no call tells.
    let mut words = 16;
    loop {
        let mut mask = vec![0u64; words];
        // SAFETY: the mask has the size that is given with it.
        let rc = unsafe {
            libc::sched_getaffinity(
                thread as libc::pid_t,
                size_of_val(mask.as_slice()),
                mask.as_mut_ptr().cast(),
            )
        };
        if rc == 0 {
            return CpuSet::new(bits(&mask))
                .ok_or_else(|| Error::new(Code::Internal, "the affinity mask is empty"));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) || words > 4096 {
            return Err(failed("read the affinity mask", &error));
        }
        words *= 2;
    }
}

fn bits(mask: &[u64]) -> impl Iterator<Item = u32> + '_ {
    (0..mask.len() as u32 * 64).filter(|cpu| mask[*cpu as usize / 64] >> (cpu % 64) & 1 == 1)
}

/// The set as the system takes it: a bit for each CPU.
pub(crate) fn mask(cpus: &CpuSet) -> Vec<u64> {
    let highest = *cpus.cpus().last().expect("a CpuSet is never empty");
    let mut mask = vec![0u64; highest as usize / 64 + 1];
    for &cpu in cpus.cpus() {
        mask[cpu as usize / 64] |= 1 << (cpu % 64);
    }
    mask
}

/// Restricts the calling thread, and the threads that it starts from now on, to these CPUs. Reads
/// the mask back: where Linux took only part of it, that is an error.
pub fn pin(cpus: &CpuSet) -> Result<()> {
    let mask = mask(cpus);
    // SAFETY: the mask has the size that is given with it.
    let rc =
        unsafe { libc::sched_setaffinity(0, size_of_val(mask.as_slice()), mask.as_ptr().cast()) };
    if rc != 0 {
        return Err(failed(&format!("pin a thread to CPUs {cpus}"), &io::Error::last_os_error()));
    }
    let got = allowed()?;
    if got != *cpus {
        return Err(Error::new(
            Code::Internal,
            format!("a thread was to be pinned to CPUs {cpus}, but may use {got}"),
        ));
    }
    Ok(())
}

/// Renames the calling thread, and with it the threads that it starts from now on. Linux keeps 15
/// bytes.
pub fn rename(name: &str) {
    let mut bytes = [0u8; 16];
    let n = name.len().min(15);
    bytes[..n].copy_from_slice(&name.as_bytes()[..n]);
    // SAFETY: PR_SET_NAME reads a zero-terminated string of at most 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

/// Room for what goes deeper with a graph's size, as optimising does. Takes memory only as far as it is
/// used.
const DEEP_STACK: usize = 64 << 20;

/// Calls `f` on a new thread that is pinned to `cpus`, if any, and waits for it. What `f` starts
/// inherits the mask; the mask of the calling thread is never touched. The thread has a large stack,
/// whatever the caller's.
pub fn on_thread<T: Send>(
    name: &str,
    cpus: Option<&CpuSet>,
    f: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let handle = thread::Builder::new()
            .name(name.to_string())
            .stack_size(DEEP_STACK)
            .spawn_scoped(scope, || {
                cpus.map_or(Ok(()), pin)?;
                f()
            })
            .map_err(|error| failed("start a thread", &error))?;
        handle.join().unwrap_or_else(|panic| {
            Err(Error::panicked("a thread of a session group", panic.as_ref()))
        })
    })
}

/// Fails where the system would not let this many more threads start. TensorFlow ends the process where
/// it is refused one, so as many are started, and ended, before it is asked for any.
pub(crate) fn check_room_for(threads: usize) -> Result<()> {
    let (end, ended) = crossbeam_channel::bounded::<()>(0);
    let mut started = Vec::with_capacity(threads);
    let refused = (0..threads).find_map(|_| {
        let ended = ended.clone();
        let wait = move || {
            let _ = ended.recv();
        };
        let builder = thread::Builder::new().stack_size(default_stack_size());
        builder.spawn(wait).map(|thread| started.push(thread)).err()
    });
    let room = started.len();
    drop(end);
    for thread in started {
        // They do nothing that panics.
        let _ = thread.join();
    }
    match refused {
        None => Ok(()),
        Some(error) => Err(Error::new(
            Code::ResourceExhausted,
            format!(
                "the group needs {threads} threads, but the system has let only {room} start ({error}): \
                 make fewer sessions, set smaller pools in the ConfigProto, or raise the limits (ulimit \
                 -u and -v, pids.max of the cgroup, memory)"
            ),
        )),
    }
}

/// That of threads which TensorFlow starts.
fn default_stack_size() -> usize {
    let mut size = 0;
    // SAFETY: the attributes are used between their making and their end.
    unsafe {
        let mut attributes = std::mem::zeroed();
        if libc::pthread_attr_init(&raw mut attributes) == 0 {
            libc::pthread_attr_getstacksize(&raw const attributes, &raw mut size);
            libc::pthread_attr_destroy(&raw mut attributes);
        }
    }
    size
}

/// What an operating system error becomes.
pub(crate) fn failed(what: &str, error: &io::Error) -> Error {
    Error::new(Code::Internal, format!("can't {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_says_so_itself_and_to_its_children() {
        let allowed_here = allowed().unwrap();
        for &cpu in allowed_here.cpus() {
            let one = CpuSet::new([cpu]).unwrap();
            let (own, child) = on_thread("test", Some(&one), || {
                let child = thread::spawn(|| allowed().unwrap()).join().unwrap();
                Ok((allowed()?, child))
            })
            .unwrap();
            assert_eq!((&own, &child), (&one, &one));
        }
        assert_eq!(allowed().unwrap(), allowed_here, "the caller's mask is untouched");
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_an_error() {
        let none = CpuSet::new([crate::cpus::cpuset::MAX_CPU]).unwrap();
        assert!(on_thread("test", Some(&none), || Ok(())).is_err());
        let some =
            CpuSet::new([allowed().unwrap().cpus()[0], crate::cpus::cpuset::MAX_CPU]).unwrap();
        let error = on_thread("test", Some(&some), || Ok(())).unwrap_err();
        assert!(error.message.contains("may use"), "{error}");
    }

    #[test]
    fn a_panic_on_the_thread_is_an_error() {
        let error = on_thread::<()>("test", None, || panic!("on purpose")).unwrap_err();
        assert_eq!(error.code, Code::Internal);
        assert!(error.message.contains("on purpose"), "{error}");
    }
}
