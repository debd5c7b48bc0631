//! What the integration tests share: the models, feeds for them, and stock TensorFlow to compare
//! with.
#![allow(dead_code)] // Each test file uses a part.

use std::path::{Path, PathBuf};

use session_group::kernels::Kernels;
use session_group::policy::Policy;
use session_group::tensorflow::{SessionOptions, Tensor};
use session_group::{Options, Request, Result, SessionGroup};
use stock_session::{ON_CALLING_THREAD, StockSession};

pub fn model(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/build").join(name);
    assert!(path.exists(), "{} is missing: run `make models`", path.display());
    path
}

pub fn dir(name: &str) -> String {
    model(name).to_str().expect("UTF-8").to_string()
}

pub fn graph_def(name: &str) -> Vec<u8> {
    std::fs::read(model(&format!("{name}.pb"))).unwrap()
}

pub fn options(session_num: usize) -> Options {
    let mut options = Options::new();
    // Answers are compared with those of a session of this process; each session gets requests.
    options.session_num(session_num).kernels(Kernels::Stock).policy(Policy::RoundRobin);
    options
}

pub fn load(name: &str, options: &Options) -> SessionGroup {
    SessionGroup::load(&one_thread(), None, dir(name), &["serve"], options, None).unwrap()
}

pub fn create(name: &str, options: &Options) -> SessionGroup {
    let group = SessionGroup::new(&one_thread(), options).unwrap();
    group.create(&graph_def(name)).unwrap();
    group
}

pub fn run_on(
    group: &SessionGroup,
    session: usize,
    inputs: &[(&str, &Tensor)],
    outputs: &[&str],
    targets: &[&str],
) -> Result<Vec<Tensor>> {
    let request =
        Request { inputs, outputs, targets, session: Some(session), ..Request::default() };
    group.run_request(&request, None)
}

/// A ConfigProto with one intra-op and one inter-op thread: more intra-op threads may cut sums into
/// other parts and so round differently, in stock TensorFlow as here.
pub fn one_thread() -> SessionOptions {
    // Fields 2 and 5, varints.
    config(&[0x10, 1, 0x28, 1])
}

pub fn config(config_proto: &[u8]) -> SessionOptions {
    let mut options = SessionOptions::new();
    options.set_config(config_proto).unwrap();
    options
}

/// One kind of model with requests for it.
pub struct Case {
    pub name: &'static str,
    pub outputs: &'static [&'static str],
    pub requests: Vec<Vec<(&'static str, Tensor)>>,
}

impl Case {
    pub fn group(&self, options: &Options) -> SessionGroup {
        if self.name == "mlp_frozen" {
            create(self.name, options)
        } else {
            load(self.name, options)
        }
    }

    /// What stock TensorFlow answers to each request, on one thread.
    pub fn stock_answers(&self) -> Vec<Vec<Tensor>> {
        let options = one_thread();
        let session = match self.name {
            "mlp_frozen" => StockSession::create(&options, &graph_def(self.name)),
            _ => StockSession::load(&options, &dir(self.name)).0,
        };
        let answer = |request: &Vec<(&'static str, Tensor)>| {
            let (names, tensors): (Vec<_>, Vec<_>) = feeds(request).into_iter().unzip();
            session.run(&session.step(&names, self.outputs), &tensors, &ON_CALLING_THREAD)
        };
        self.requests.iter().map(answer).collect()
    }

    pub fn run(&self, group: &SessionGroup, request: usize) -> Vec<Tensor> {
        group.run(&feeds(&self.requests[request]), self.outputs, &[]).unwrap()
    }
}

pub fn feeds<'a>(request: &'a [(&'static str, Tensor)]) -> Vec<(&'static str, &'a Tensor)> {
    request.iter().map(|(name, tensor)| (*name, tensor)).collect()
}

/// The same numbers on every run: a small linear congruential generator.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub fn float(&mut self) -> f32 {
        (self.next() % 2001) as f32 / 1000. - 1.
    }
}

pub fn wide_deep_request(numbers: &mut Numbers, batch: usize) -> Vec<(&'static str, Tensor)> {
    let b = batch as i64;
    let ids: Vec<i64> = (0..batch * 26).map(|_| numbers.next() as i64).collect();
    let dense: Vec<f32> = (0..batch * 13).map(|_| numbers.float()).collect();
    let known = ["at", "de", "nowhere", "us", ""];
    let country: Vec<&str> =
        (0..batch).map(|_| known[numbers.next() as usize % known.len()]).collect();
    vec![
        ("serving_default_ids:0", Tensor::from_slice(&[b, 26], &ids).unwrap()),
        ("serving_default_dense:0", Tensor::from_slice(&[b, 13], &dense).unwrap()),
        ("serving_default_country:0", Tensor::from_strings(&[b], &country).unwrap()),
    ]
}

pub fn lookups_request(numbers: &mut Numbers, batch: usize) -> Vec<(&'static str, Tensor)> {
    let b = batch as i64;
    let ids: Vec<i64> = (0..batch * 3).map(|_| numbers.next() as i64 % 10).collect();
    let words: Vec<i32> = (0..batch * 4).map(|_| numbers.next() as i32 % 10).collect();
    let x: Vec<f32> = (0..batch * 2).map(|_| numbers.float()).collect();
    vec![
        ("serving_default_ids:0", Tensor::from_slice(&[b, 3], &ids).unwrap()),
        ("serving_default_words:0", Tensor::from_slice(&[b, 2, 2], &words).unwrap()),
        ("serving_default_x:0", Tensor::from_slice(&[b, 2], &x).unwrap()),
    ]
}

pub fn cases() -> Vec<Case> {
    let mut numbers = Numbers(1);
    let n = &mut numbers;
    let floats = |n: &mut Numbers, k: usize| (0..k).map(|_| n.float()).collect::<Vec<f32>>();
    vec![
        Case {
            name: "wide_deep",
            outputs: &["StatefulPartitionedCall:0"],
            requests: [1, 2, 7, 32].map(|batch| wide_deep_request(n, batch)).into(),
        },
        Case {
            name: "mlp_frozen",
            outputs: &["y:0", "layer0:0"],
            requests: [1, 5, 33]
                .map(|b| {
                    let x = floats(n, b * 64);
                    vec![("x:0", Tensor::from_slice(&[b as i64, 64], &x).unwrap())]
                })
                .into(),
        },
        Case {
            name: "control_flow",
            outputs: &["StatefulPartitionedCall:0"],
            requests: [(0, 1), (3, 4), (10, 0), (101, 9)]
                .map(|(rounds, b)| {
                    vec![
                        ("serving_default_n:0", Tensor::from_slice(&[], &[rounds]).unwrap()),
                        (
                            "serving_default_x:0",
                            Tensor::from_slice(&[b as i64], &floats(n, b)).unwrap(),
                        ),
                    ]
                })
                .into(),
        },
        Case {
            name: "lookups",
            outputs: &[
                "StatefulPartitionedCall:0",
                "StatefulPartitionedCall:1",
                "StatefulPartitionedCall:2",
                "StatefulPartitionedCall:3",
                "StatefulPartitionedCall:4",
                "StatefulPartitionedCall:5",
                "StatefulPartitionedCall:6",
            ],
            requests: [1, 2, 40].map(|batch| lookups_request(n, batch)).into(),
        },
        Case {
            name: "strings",
            outputs: &["PartitionedCall:0", "PartitionedCall:1"],
            requests: [
                &["to be or not to be", "that is the question"][..],
                &["", "  "],
                &["Ein Wort, das laenger ist als jede kurze Zeichenkette", "EIN wort"],
                &[],
            ]
            .map(|text| {
                let text = Tensor::from_strings(&[text.len() as i64], text).unwrap();
                vec![("serving_default_text:0", text)]
            })
            .into(),
        },
        Case {
            name: "tf1_saved_model",
            outputs: &["y:0"],
            requests: [(&["a", "b", "c"][..], 2), (&["b"], 9)]
                .map(|(word, rounds)| {
                    vec![
                        ("word:0", Tensor::from_strings(&[word.len() as i64], word).unwrap()),
                        ("n:0", Tensor::from_slice(&[], &[rounds]).unwrap()),
                    ]
                })
                .into(),
        },
    ]
}

/// Whether two results are the same to the last bit.
pub fn same(a: &[Tensor], b: &[Tensor]) -> bool {
    a.len() == b.len()
        && std::iter::zip(a, b).all(|(a, b)| {
            a.dtype() == b.dtype()
                && a.dims() == b.dims()
                && match a.to_strings() {
                    Ok(strings) => strings == b.to_strings().unwrap(),
                    Err(_) => a.bytes() == b.bytes(),
                }
        })
}

/// The value of a line such as `Rss:  12 kB` of a file in /proc/self, in bytes.
pub fn proc_bytes(file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    let kib: u64 = line[key.len()..].trim().trim_end_matches(" kB").trim().parse().unwrap();
    kib * 1024
}

pub fn resident() -> u64 {
    proc_bytes("smaps_rollup", "Rss:")
}

/// How many entries a folder of /proc/self has: `task` for threads, `fd` for descriptors.
pub fn proc_entries(folder: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{folder}")).unwrap().count()
}
