//! Restoring with all CPUs gives what TensorFlow's own restoring gives, in variables and in errors.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::{one_thread, options, proc_bytes, proc_entries};
use session_group::affinity::on_thread;
use session_group::cpuset::CpuSet;
use session_group::optimization::Optimization;
use session_group::tensorflow::Tensor;
use session_group::{Code, Options, Result, SessionGroup};
use stock_session::{ON_CALLING_THREAD, StockSession};

/// What a thread reads at a time; a thread more is started for each of these.
const PART: u64 = 8 << 20;

/// 3 shapes of 15 types, 200 small ones, a text, and one of 40 MB.
const OUTPUTS: usize = 3 * 15 + 200 + 1 + 1;

fn outputs() -> Vec<String> {
    (0..OUTPUTS).map(|i| format!("StatefulPartitionedCall:{i}")).collect()
}

fn load(dir: &str, options: &Options) -> Result<SessionGroup> {
    SessionGroup::load(&one_thread(), None, dir, &["serve"], options, None)
}

/// With TensorFlow's own kernel.
fn serially() -> Options {
    let mut options = options(2);
    options.optimization(Optimization::ParallelRestore, false);
    options
}

fn values(group: &SessionGroup, outputs: &[String]) -> Vec<Tensor> {
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    group.run(&[], &outputs, &[]).unwrap()
}

fn stock_values(dir: &str, outputs: &[String]) -> Vec<Tensor> {
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let session = StockSession::load(&one_thread(), dir).0;
    session.run(&session.step(&[], &outputs), &[], &ON_CALLING_THREAD)
}

fn assert_same(got: &[Tensor], expected: &[Tensor]) {
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            common::same(std::slice::from_ref(got), std::slice::from_ref(expected)),
            "output {i}"
        );
    }
}

/// Of all but strings.
fn bytes(values: &[Tensor]) -> u64 {
    values.iter().filter(|v| v.to_strings().is_err()).map(|v| v.bytes().len() as u64).sum()
}

#[test]
fn variables_of_all_types_and_shapes_are_those_of_stock() {
    let (dir, outputs) = (common::dir("restored"), outputs());
    let expected = stock_values(&dir, &outputs);
    for sessions in [1, 8] {
        let group = load(&dir, &options(sessions)).unwrap();
        assert_same(&values(&group, &outputs), &expected);
        let restored = group.restored_bytes().unwrap();
        assert_eq!(restored.iter().sum::<u64>(), bytes(&expected), "{restored:?}");
    }
    let group = load(&dir, &serially()).unwrap();
    assert_same(&values(&group, &outputs), &expected);
    assert!(group.restored_bytes().unwrap().is_empty(), "TensorFlow's kernel has read them");
}

#[test]
fn ref_variables_and_slices_of_variables_are_those_of_stock() {
    let dir = common::dir("restored_tf1");
    let outputs: Vec<String> =
        (0..8).map(|i| format!("y{i}:0")).chain(["text_y:0".to_string()]).collect();
    let expected = stock_values(&dir, &outputs);
    let group = load(&dir, &options(2)).unwrap();
    assert_same(&values(&group, &outputs), &expected);
    assert_eq!(group.restored_bytes().unwrap().iter().sum::<u64>(), bytes(&expected));
}

#[test]
fn variables_that_were_saved_in_other_parts_are_those_of_stock() {
    let copy = Copy::of("restored_tf1_halves");
    copy.take_variables_of("restored_tf1");
    let dir = copy.0.to_str().unwrap();
    let outputs: Vec<String> = (0..8).map(|i| format!("y{i}:0")).collect();
    let expected = stock_values(dir, &outputs);
    let group = load(dir, &options(2)).unwrap();
    assert_same(&values(&group, &outputs), &expected);
    // Those that were saved whole are read in parallel, those in thirds by TensorFlow's reader.
    let restored: u64 = group.restored_bytes().unwrap().iter().sum();
    assert_eq!(restored, 2 * (1000 * 4 + 7) * 4);
}

#[test]
fn there_is_a_thread_for_each_cpu_and_not_more() {
    let dir = common::dir("restored");
    let allowed = session_group::topology::allowed().unwrap();
    let group = load(&dir, &options(1)).unwrap();
    let restored = group.restored_bytes().unwrap();
    let parts = restored.iter().sum::<u64>() / PART;
    assert_eq!(restored.len() as u64, parts.min(allowed.len() as u64), "{restored:?}");

    // A process inherits the CPUs of the thread that starts it.
    let one = CpuSet::one(allowed.cpus()[0]);
    let measured = on_thread("one", Some(&one), || Ok(measure("restored"))).unwrap();
    assert_eq!(measured.readers, 1, "of a process of one CPU");

    let group = common::load("control_flow", &options(1));
    assert_eq!(group.restored_bytes().unwrap(), [4], "4 bytes are worth no thread");
}

#[test]
fn a_restore_operation_that_is_run_by_its_name_reads_so_too() {
    let dir = common::dir("restored");
    let group = load(&dir, &options(2)).unwrap();
    let once: u64 = group.restored_bytes().unwrap().iter().sum();
    let prefix = format!("{dir}/variables/variables");
    let prefix = Tensor::from_strings(&[], &[prefix]).unwrap();
    let restore = (1..=3).find_map(|i| {
        let fetch = format!("StatefulPartitionedCall_{i}:0");
        group.run(&[("saver_filename:0", &prefix)], &[&fetch], &[]).ok()?;
        let read: u64 = group.restored_bytes().unwrap().iter().sum();
        (read > once).then_some(read)
    });
    assert_eq!(restore, Some(2 * once));
}

/// A copy of a model, to be damaged.
struct Copy(PathBuf);

impl Copy {
    fn of(name: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let to = std::env::temp_dir()
            .join(format!("session_group_restore.{}.{number}", std::process::id()));
        fs::create_dir_all(to.join("variables")).unwrap();
        for file in ["saved_model.pb", "fingerprint.pb"] {
            let _ = fs::copy(common::model(name).join(file), to.join(file));
        }
        let copy = Self(to);
        copy.take_variables_of(name);
        copy
    }

    fn take_variables_of(&self, name: &str) {
        for file in ["variables.index", "variables.data-00000-of-00001"] {
            let from = common::model(name).join("variables").join(file);
            fs::copy(from, self.0.join("variables").join(file)).unwrap();
        }
    }

    fn data(&self) -> PathBuf {
        self.0.join("variables/variables.data-00000-of-00001")
    }

    /// The errors of both ways, which must be the same.
    fn refused(&self) -> session_group::Error {
        let dir = self.0.to_str().unwrap();
        let [parallel, serial] =
            [options(2), serially()].map(|options| match load(dir, &options) {
                Ok(_) => panic!("{dir} was loaded"),
                Err(error) => error,
            });
        assert_eq!(parallel.code, serial.code, "{parallel}\n{serial}");
        assert_eq!(parallel.message, serial.message);
        parallel
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Changes the bit of a file's byte.
fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn damaged_data_are_refused_as_stock_refuses_them() {
    let copy = Copy::of("restored");
    let size = fs::metadata(copy.data()).unwrap().len();
    // In small tensors, and in the first, a middle and the last part of the large one.
    for offset in [10, size / 2, size - 1] {
        flip(&copy.data(), offset);
        let error = copy.refused();
        assert!(error.message.contains("Checksum"), "at {offset}: {error}");
        flip(&copy.data(), offset);
    }
    for left in [0, size - 1] {
        let whole = fs::read(copy.data()).unwrap();
        fs::write(copy.data(), &whole[..left as usize]).unwrap();
        copy.refused();
        fs::write(copy.data(), &whole).unwrap();
    }
    fs::remove_file(copy.data()).unwrap();
    copy.refused();
}

/// As of a folder that is being copied. TensorFlow's own loader takes it for a model without variables,
/// whose requests fail later.
#[test]
fn a_model_whose_checkpoint_is_missing_is_refused() {
    for name in ["restored", "restored_tf1", "wide_deep", "lookups", "tf1_saved_model", "half_plus"]
    {
        let copy = Copy::of(name);
        fs::remove_file(copy.0.join("variables/variables.index")).unwrap();
        for whole in [true, false] {
            let error = copy.refused();
            assert_eq!(error.code, Code::NotFound, "{name}: {error}");
            assert!(error.message.contains("variables.index is missing"), "{name}: {error}");
            if whole {
                fs::remove_dir_all(copy.0.join("variables")).unwrap();
            }
        }
    }
    // A model that has none needs none.
    let copy = Copy::of("strings");
    fs::remove_dir_all(copy.0.join("variables")).unwrap();
    assert!(load(copy.0.to_str().unwrap(), &options(2)).is_ok());
}

#[test]
fn variables_of_another_model_are_refused_as_stock_refuses_them() {
    let copy = Copy::of("restored");
    copy.take_variables_of("restored_other_type");
    assert!(copy.refused().message.contains("dtype"));
    copy.take_variables_of("wide_deep");
    assert!(copy.refused().message.contains("not found in checkpoint"));
    copy.take_variables_of("restored_other_shape");
    let dir = copy.0.to_str().unwrap();
    // Both take what is there, or both refuse it.
    let [parallel, serial] = [options(2), serially()]
        .map(|options| load(dir, &options).map(drop).map_err(|error| error.to_string()));
    assert_eq!(parallel, serial);
}

/// Makes this test program a process that loads a model, or nothing, and measures itself.
const MODEL: &str = "TEST_RESTORE_MODEL";

struct Measured {
    /// The most memory that it had.
    peak: u64,
    /// Its threads, and those that restored.
    threads: usize,
    readers: usize,
}

fn measure(model: &str) -> Measured {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--exact", "no_thread_stays_and_little_memory_is_needed"])
        .env(MODEL, model)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.split_once("measured="));
    let numbers: Vec<u64> = line
        .map(|(_, numbers)| numbers.split(',').map(|number| number.parse().unwrap()).collect())
        .unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    Measured { peak: numbers[0], threads: numbers[1] as usize, readers: numbers[2] as usize }
}

#[test]
fn no_thread_stays_and_little_memory_is_needed() {
    if let Ok(name) = std::env::var(MODEL) {
        let group = common::load(&name, &options(2));
        let (peak, threads) = (proc_bytes("status", "VmHWM:"), proc_entries("task"));
        println!("measured={peak},{threads},{}", group.restored_bytes().unwrap().len());
        return;
    }
    const VARIABLES: u64 = 26 * 192_000 * 17 * 4;
    let small = measure("control_flow");
    let large = measure("wide_deep_large");
    let more = large.peak - small.peak;
    println!("{VARIABLES} bytes of variables make the most that is resident {more} bytes larger");
    assert!(more < VARIABLES * 11 / 10);
    assert_eq!((small.readers, large.threads), (1, small.threads));
    assert!(large.readers >= 1);
}
