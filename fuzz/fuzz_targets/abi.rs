//! The C ABI: any function, with any argument that a C program can pass by mistake, in any order, from
//! several threads. Each answers with a status that says something; what succeeds is right.
#![no_main]

use std::ffi::{CString, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::{LazyLock, RwLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use session_group::callable::Callable;
use session_group::fuzzing::abi::*;
use session_group::tensorflow::SessionOptions;
use session_group::{Options, SessionGroup};
use session_group_fuzz::models;
use session_group_fuzz::status::call;
use tensorflow_sys as tf;

const GRAPHS: [&str; 5] = ["trivial.pb", "init_op.pb", "slow.pb", "waits.pb", "writes.pb"];
const SAVED_MODELS: [&str; 3] = ["strings", "tf1_saved_model", "nowhere"];
const NAMES: [&str; 24] = [
    "x",
    "x:0",
    "y",
    "y:0",
    "y:1",
    "word",
    "delta",
    "increase",
    "initialize",
    "slow/n",
    "slow/x:0",
    "slow/y",
    "put",
    "got",
    "end",
    "ids",
    "v",
    "rows",
    "assign",
    "scatter",
    "word:0",
    "serving_default_text:0",
    "PartitionedCall:1",
    "",
];

#[derive(Arbitrary, Debug)]
struct Input {
    threads: [Vec<Call>; 3],
}

#[derive(Arbitrary, Debug)]
enum Text {
    Null,
    BadUtf8,
    Known(u8),
    Any(String),
}

#[derive(Arbitrary, Debug)]
enum Value {
    Null,
    Float(f32),
    Floats(Vec<f32>),
    /// Small, since some are numbers of rounds.
    Int(u8),
    Ints(Vec<i32>),
    Strings(u8),
    Matrix(u8),
}

#[derive(Arbitrary, Debug)]
enum RunOptions {
    Null,
    Empty,
    Timeout(u8),
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Run {
    feeds: Vec<(Text, Value)>,
    fetches: Vec<Text>,
    targets: Vec<Text>,
    options: RunOptions,
    /// Instead of a length that is right.
    length: Option<i8>,
    has_null_array: bool,
    wants_metadata: bool,
}

#[derive(Arbitrary, Debug)]
enum Setter {
    SessionNum(i32),
    Cpuset(Text),
    Affinity(bool),
    Policy(Text),
    PolicyFn(i32),
    Execution(Text),
    Optimization(Text, bool),
    Workers(i32),
    Queue(i32, bool),
    DrainTimeout(u8),
    MultiStream(bool),
    GpuIds(Vec<i32>, Option<i8>),
}

#[derive(Arbitrary, Debug)]
enum Call {
    New { at: u8, session_num: i32, null: bool },
    NewWithOptions { at: u8, setters: Vec<Setter>, null: bool },
    Load { at: u8, dir: u8, tag: Text, setters: Vec<Setter>, wants_meta_graph: bool },
    Target { target: String },
    Create { at: u8, graph: u8 },
    CreateBytes { at: u8, bytes: Vec<u8> },
    Extend { at: u8, graph: u8 },
    Run { at: u8, run: Run },
    RunOn { at: u8, session: i32, run: Run },
    SessionRun { at: u8, index: i32, null: bool },
    Plus { at: u8, x: Vec<f32> },
    WarmUp { at: u8, run: Run },
    MakeCallable { at: u8, callable: u8, run: Run },
    RunCallable { callable: u8, values: Vec<Value>, noutputs: i8 },
    DeleteCallable { callable: u8 },
    Stats { at: u8, session: i32, size: u16 },
    Quantile { at: u8, session: i32, quantile: f64 },
    Texts { at: u8, full: bool },
    Devices { at: u8 },
    CppOfNothing,
    Close { at: u8 },
    Delete { at: u8 },
}

/// What threads share: groups and callables, which may be NULL. Deleting is for one thread at a time, as
/// the header says.
struct World {
    groups: [RwLock<Pointer<SessionGroup>>; 3],
    callables: [RwLock<Pointer<Callable>>; 3],
}

struct Pointer<T>(*mut T);

// SAFETY: what it points to may be used by many threads.
unsafe impl<T> Send for Pointer<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Pointer<T> {}

impl<T> Default for Pointer<T> {
    fn default() -> Self {
        Self(null_mut())
    }
}

fuzz_target!(|input: Input| {
    let world = World { groups: Default::default(), callables: Default::default() };
    std::thread::scope(|scope| {
        let world = &world;
        let threads = input.threads.each_ref().map(|calls| {
            scope.spawn(move || calls.iter().take(24).for_each(|call| make(call, world)))
        });
        // Else what a thread frees at its end would look leaked.
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
    for callable in world.callables {
        // SAFETY: no longer in use.
        unsafe { SessionGroupCallable_Delete(callable.into_inner().unwrap().0) };
    }
    for group in world.groups {
        // SAFETY: no longer in use.
        unsafe { SessionGroup_Delete(group.into_inner().unwrap().0) };
    }
});

/// Names as C has them; the strings live as long as this.
struct Names {
    _owned: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Names {
    fn new<'a>(texts: impl Iterator<Item = &'a Text>) -> Self {
        let mut owned = Vec::new();
        let mut pointers = Vec::new();
        for text in texts {
            let bytes = match text {
                Text::Null => {
                    pointers.push(null());
                    continue;
                }
                Text::BadUtf8 => b"\xff\xfe".to_vec(),
                Text::Known(i) => NAMES[*i as usize % NAMES.len()].into(),
                Text::Any(text) => text.replace('\0', "").into(),
            };
            owned.push(CString::new(bytes).expect("no zero byte"));
            pointers.push(owned[owned.len() - 1].as_ptr());
        }
        Self { _owned: owned, pointers }
    }

    fn one(text: &Text) -> Self {
        Self::new(std::iter::once(text))
    }

    fn len(&self) -> i32 {
        self.pointers.len() as i32
    }
}

/// Tensors that are deleted with it.
struct Tensors(Vec<*mut tf::TF_Tensor>);

impl Tensors {
    fn new<'a>(values: impl Iterator<Item = &'a Value>) -> Self {
        Self(values.map(tensor).collect())
    }
}

impl Drop for Tensors {
    fn drop(&mut self) {
        for &tensor in &self.0 {
            // SAFETY: owned; NULL is allowed.
            unsafe { tf::TF_DeleteTensor(tensor) };
        }
    }
}

fn tensor(value: &Value) -> *mut tf::TF_Tensor {
    use session_group::tensorflow::Tensor;
    const WORDS: [&str; 3] = ["a", "", "a word that is longer than a short string"];
    let tensor = match value {
        Value::Null => return null_mut(),
        Value::Float(x) => Tensor::from_slice(&[], &[*x]),
        Value::Floats(x) => Tensor::from_slice(&[x.len() as i64], x),
        Value::Int(n) => Tensor::from_slice(&[], &[i32::from(*n)]),
        Value::Ints(x) => Tensor::from_slice(&[x.len() as i64], x),
        Value::Strings(n) => {
            let n = usize::from(n % 4);
            Tensor::from_strings(&[n as i64], &WORDS.map(str::as_bytes).repeat(2)[..n])
        }
        Value::Matrix(n) => {
            Tensor::from_slice(&[2, (n % 9).into()], &vec![1f32; 2 * (n % 9) as usize])
        }
    };
    tensor.expect("a tensor that fits").into_raw()
}

struct Buffer(*mut tf::TF_Buffer);

impl Buffer {
    fn empty() -> Self {
        // SAFETY: no precondition.
        Self(unsafe { tf::TF_NewBuffer() })
    }

    fn of(bytes: &[u8]) -> Self {
        // SAFETY: the bytes outlive the call, which copies them.
        Self(unsafe { tf::TF_NewBufferFromString(bytes.as_ptr().cast(), bytes.len()) })
    }

    fn options(options: &RunOptions) -> Self {
        match options {
            RunOptions::Null => Self(null_mut()),
            RunOptions::Empty => Self::empty(),
            // timeout_in_ms (field 2)
            RunOptions::Timeout(ms) => Self::of(&[0x10, ms % 128]),
            RunOptions::Bytes(bytes) => Self::of(bytes),
        }
    }

    fn has_data(&self) -> bool {
        // SAFETY: live, and not in use.
        !self.0.is_null() && unsafe { !(*self.0).data.is_null() }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: owned.
            unsafe { tf::TF_DeleteBuffer(self.0) };
        }
    }
}

/// The session options that groups are made with: nothing waits for ever.
static SESSION_OPTIONS: LazyLock<SessionOptions> = LazyLock::new(session_options);
static GRAPH_DEFS: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| GRAPHS.iter().map(|name| models::bytes(name)).collect());

fn session_options() -> SessionOptions {
    let mut options = SessionOptions::new();
    options.set_config(&models::CONFIG).expect("a ConfigProto");
    options
}

/// As many sessions as are not worth their threads become few.
fn few(session_num: i32) -> i32 {
    match session_num {
        4..=1024 => session_num % 3 + 1,
        n => n,
    }
}

unsafe extern "C" fn policy(context: *mut c_void, load: *const SessionGroupLoad) -> i32 {
    // SAFETY: valid during the call.
    let load = unsafe { &*load };
    assert!(load.session_num > 0);
    context as usize as i32
}

unsafe extern "C" fn release(_: *mut c_void) {}

fn options(setters: &[Setter]) -> *mut Options {
    let options = NewSessionGroupOptions();
    for setter in setters.iter().take(8) {
        // SAFETY: the options are live, strings are zero-terminated, and arrays as long as said.
        unsafe {
            match setter {
                Setter::SessionNum(n) => SessionGroupOptions_SetSessionNum(options, few(*n)),
                Setter::Cpuset(text) => {
                    let name = Names::one(text);
                    call(|status| SessionGroupOptions_SetCpuset(options, name.pointers[0], status));
                }
                Setter::Affinity(on) => SessionGroupOptions_SetThreadPoolAffinity(options, *on),
                Setter::Policy(text) => {
                    let name = Names::one(text);
                    call(|status| SessionGroupOptions_SetPolicy(options, name.pointers[0], status));
                }
                Setter::PolicyFn(chosen) => SessionGroupOptions_SetPolicyFn(
                    options,
                    (*chosen != 7).then_some(policy),
                    *chosen as usize as *mut c_void,
                    Some(release),
                ),
                Setter::Execution(text) => {
                    let name = Names::one(text);
                    call(|status| {
                        SessionGroupOptions_SetExecution(options, name.pointers[0], status)
                    });
                }
                Setter::Optimization(text, on) => {
                    let name = Names::one(text);
                    call(|status| {
                        SessionGroupOptions_SetOptimization(options, name.pointers[0], *on, status)
                    });
                }
                Setter::Workers(n) => SessionGroupOptions_SetWorkerThreads(options, few(*n)),
                Setter::Queue(n, wait) => SessionGroupOptions_SetQueue(options, *n, *wait),
                // Not so long that an input that hangs looks like one that is slow.
                Setter::DrainTimeout(ms) => {
                    SessionGroupOptions_SetDrainTimeout(options, i64::from(*ms) - 1)
                }
                Setter::MultiStream(on) => SessionGroupOptions_SetMultiStream(options, *on),
                Setter::GpuIds(ids, length) => {
                    let n = length.map_or(ids.len() as i32, i32::from).min(ids.len() as i32);
                    call(|status| SessionGroupOptions_SetGpuIds(options, ids.as_ptr(), n, status));
                }
            }
        }
    }
    options
}

fn put(world: &World, at: u8, make: impl FnOnce() -> (*mut SessionGroup, Option<String>)) {
    let (group, error) = make();
    assert_eq!(group.is_null(), error.is_some());
    let old = std::mem::replace(&mut world.groups[at as usize % 3].write().unwrap().0, group);
    // SAFETY: nobody holds it any more.
    unsafe { SessionGroup_Delete(old) };
}

/// What a run is called with, the other parameters aside.
struct Arguments {
    feeds: Names,
    fetches: Names,
    targets: Names,
    values: Tensors,
    options: Buffer,
    metadata: Buffer,
    ninputs: i32,
    noutputs: i32,
    has_null_array: bool,
}

impl Arguments {
    fn new(run: &Run) -> Self {
        let feeds = Names::new(run.feeds.iter().map(|(name, _)| name));
        let fetches = Names::new(run.fetches.iter());
        // Fewer than there are, or a number that is none.
        let length = |right: i32| run.length.map_or(right, i32::from).min(right);
        Self {
            ninputs: length(feeds.len()),
            noutputs: length(fetches.len()),
            feeds,
            fetches,
            targets: Names::new(run.targets.iter()),
            values: Tensors::new(run.feeds.iter().map(|(_, value)| value)),
            options: Buffer::options(&run.options),
            metadata: if run.wants_metadata { Buffer::empty() } else { Buffer(null_mut()) },
            has_null_array: run.has_null_array,
        }
    }

    fn inputs(&self) -> *const *mut tf::TF_Tensor {
        if self.has_null_array { null() } else { self.values.0.as_ptr() }
    }

    /// Calls with room for outputs; what was fetched is deleted.
    fn run(&self, f: impl FnOnce(*mut *mut tf::TF_Tensor, *mut tf::TF_Status)) {
        let marker: *mut tf::TF_Tensor = std::ptr::dangling_mut();
        let n = self.noutputs.max(0) as usize;
        let mut outputs = vec![marker; n];
        let ((), error) = call(|status| f(outputs.as_mut_ptr(), status));
        match error {
            None => drop(Tensors(outputs)),
            Some(_) => {
                assert_eq!(outputs, vec![marker; n], "outputs are written on success only");
                assert!(!self.metadata.has_data());
            }
        }
    }
}

fn make(call_: &Call, world: &World) {
    let group = |at: u8| world.groups[at as usize % 3].read().unwrap();
    let options_of = |is_null: bool| if is_null { null() } else { SESSION_OPTIONS.as_ptr() };
    // SAFETY: what is not NULL is live, as guards see to; strings are zero-terminated, arrays have as many
    // elements as are said, or more.
    unsafe {
        match call_ {
            Call::New { at, session_num, null } => put(world, *at, || {
                call(|status| NewSessionGroup(options_of(*null), few(*session_num), status))
            }),
            Call::NewWithOptions { at, setters, null } => put(world, *at, || {
                let options = options(setters);
                let made =
                    call(|status| NewSessionGroupWithOptions(options_of(*null), options, status));
                SessionGroupOptions_Delete(options);
                made
            }),
            Call::Load { at, dir, tag, setters, wants_meta_graph } => put(world, *at, || {
                let dir = models::path("").join(SAVED_MODELS[*dir as usize % SAVED_MODELS.len()]);
                let dir = CString::new(dir.to_str().expect("UTF-8")).expect("no zero byte");
                let tags = Names::one(match tag {
                    Text::Known(i) if *i > 50 => &Text::Null,
                    tag => tag,
                });
                let serve = [c"serve".as_ptr()];
                let tags = match tag {
                    Text::Known(_) => &serve[..],
                    _ => &tags.pointers,
                };
                let options = options(setters);
                let meta_graph =
                    if *wants_meta_graph { Buffer::empty() } else { Buffer(null_mut()) };
                let made = call(|status| {
                    LoadSessionGroupFromSavedModel(
                        SESSION_OPTIONS.as_ptr(),
                        null(),
                        dir.as_ptr(),
                        tags.as_ptr(),
                        tags.len() as i32,
                        options,
                        meta_graph.0,
                        status,
                    )
                });
                assert_eq!(meta_graph.has_data(), made.1.is_none() && *wants_meta_graph);
                SessionGroupOptions_Delete(options);
                made
            }),
            Call::Target { target } => {
                assert_eq!(call(|status| SessionGroup_RegisterTarget(status)).1, None);
                let target = target.replace('\0', "");
                // Few sessions and threads are enough.
                if target.bytes().filter(u8::is_ascii_digit).count() > 2 {
                    return;
                }
                let target = CString::new(format!("session_group{target}")).expect("no zero byte");
                let options = session_options();
                tf::TF_SetTarget(options.as_ptr().cast_mut(), target.as_ptr());
                let graph = tf::TF_NewGraph();
                let (session, error) =
                    call(|status| tf::TF_NewSession(graph, options.as_ptr(), status));
                assert_eq!(session.is_null(), error.is_some());
                if !session.is_null() {
                    assert_eq!(call(|status| tf::TF_CloseSession(session, status)).1, None);
                    assert_eq!(call(|status| tf::TF_DeleteSession(session, status)).1, None);
                }
                tf::TF_DeleteGraph(graph);
            }
            Call::Create { at, graph } => {
                let bytes = &GRAPH_DEFS[*graph as usize % GRAPHS.len()];
                let group = group(*at);
                call(|status| {
                    SessionGroup_Create(group.0, bytes.as_ptr().cast(), bytes.len(), status)
                });
            }
            Call::CreateBytes { at, bytes } => {
                let group = group(*at);
                call(|status| {
                    SessionGroup_Create(group.0, bytes.as_ptr().cast(), bytes.len(), status)
                });
            }
            Call::Extend { at, graph } => {
                let bytes = &GRAPH_DEFS[*graph as usize % GRAPHS.len()];
                let group = group(*at);
                call(|status| {
                    SessionGroup_Extend(group.0, bytes.as_ptr().cast(), bytes.len(), status)
                });
            }
            Call::Run { at, run } => {
                let (a, group) = (Arguments::new(run), group(*at));
                a.run(|outputs, status| {
                    SessionGroup_Run(
                        group.0,
                        a.options.0,
                        a.feeds.pointers.as_ptr(),
                        a.inputs(),
                        a.ninputs,
                        a.fetches.pointers.as_ptr(),
                        outputs,
                        a.noutputs,
                        a.targets.pointers.as_ptr(),
                        a.targets.len(),
                        a.metadata.0,
                        status,
                    )
                });
            }
            Call::RunOn { at, session, run } => {
                let (a, group) = (Arguments::new(run), group(*at));
                a.run(|outputs, status| {
                    SessionGroup_RunOn(
                        group.0,
                        *session,
                        a.options.0,
                        a.feeds.pointers.as_ptr(),
                        a.inputs(),
                        a.ninputs,
                        a.fetches.pointers.as_ptr(),
                        outputs,
                        a.noutputs,
                        a.targets.pointers.as_ptr(),
                        a.targets.len(),
                        a.metadata.0,
                        status,
                    )
                });
            }
            Call::SessionRun { at, index, null } => session_run(group(*at).0, *index, *null),
            Call::Plus { at, x } => plus_one(group(*at).0, x),
            Call::WarmUp { at, run } => {
                let (a, group) = (Arguments::new(run), group(*at));
                call(|status| {
                    SessionGroup_WarmUp(
                        group.0,
                        a.feeds.pointers.as_ptr(),
                        a.inputs(),
                        a.ninputs,
                        a.fetches.pointers.as_ptr(),
                        a.noutputs,
                        a.targets.pointers.as_ptr(),
                        a.targets.len(),
                        status,
                    )
                });
            }
            Call::MakeCallable { at, callable, run } => {
                let (a, group) = (Arguments::new(run), group(*at));
                let (made, error) = call(|status| {
                    SessionGroup_MakeCallable(
                        group.0,
                        a.feeds.pointers.as_ptr(),
                        a.ninputs,
                        a.fetches.pointers.as_ptr(),
                        a.noutputs,
                        a.targets.pointers.as_ptr(),
                        a.targets.len(),
                        status,
                    )
                });
                assert_eq!(made.is_null(), error.is_some());
                let mut slot = world.callables[*callable as usize % 3].write().unwrap();
                SessionGroupCallable_Delete(std::mem::replace(&mut slot.0, made));
            }
            Call::RunCallable { callable, values, noutputs } => {
                let callable = world.callables[*callable as usize % 3].read().unwrap();
                let values = Tensors::new(values.iter());
                // As many as a callable can have fetches here.
                let mut outputs = vec![null_mut(); 128];
                let ((), error) = call(|status| {
                    SessionGroupCallable_Run(
                        callable.0,
                        values.0.as_ptr(),
                        values.0.len() as i32,
                        outputs.as_mut_ptr(),
                        (*noutputs).into(),
                        status,
                    )
                });
                assert!(error.is_none() || outputs.iter().all(|output| output.is_null()));
                drop(Tensors(outputs));
            }
            Call::DeleteCallable { callable } => {
                let mut slot = world.callables[*callable as usize % 3].write().unwrap();
                SessionGroupCallable_Delete(std::mem::replace(&mut slot.0, null_mut()));
            }
            Call::Stats { at, session, size } => {
                let mut stats = std::mem::zeroed::<SessionGroupStats>();
                stats.struct_size = (*size as usize).min(size_of::<SessionGroupStats>());
                let group = group(*at);
                call(|status| SessionGroup_GetStats(group.0, *session, &raw mut stats, status));
                let mut memory = std::mem::zeroed::<SessionGroupMemoryStats>();
                memory.struct_size = (*size as usize).min(size_of::<SessionGroupMemoryStats>());
                call(|status| SessionGroup_GetMemoryStats(&raw mut memory, status));
            }
            Call::Quantile { at, session, quantile } => {
                let group = group(*at);
                call(|status| SessionGroup_LatencyQuantile(group.0, *session, *quantile, status));
            }
            Call::Texts { at, full } => {
                let group = group(*at);
                let new = || if *full { Buffer::of(b"full") } else { Buffer::empty() };
                assert!(SessionGroup_SessionNum(group.0) >= 0);
                let [a, b, c, d, e, f] = std::array::from_fn(|_| new());
                call(|status| SessionGroup_MetricsText(group.0, a.0, status));
                call(|status| SessionGroup_Describe(group.0, b.0, status));
                let (_, metrics) = call(|status| SessionGroup_AllMetricsText(c.0, status));
                let (_, describe) = call(|status| SessionGroup_DescribeAll(d.0, status));
                assert_eq!((metrics.is_some(), describe.is_some()), (*full, *full));
                call(|status| SessionGroup_Explain(group.0, e.0, status));
                let (_, explain) = call(|status| SessionGroup_ExplainAll(f.0, status));
                assert_eq!(explain.is_some(), *full);
            }
            Call::Devices { at } => {
                let group = group(*at);
                let (list, error) = call(|status| SessionGroup_ListDevices(group.0, status));
                assert_eq!(list.is_null(), error.is_some());
                if !list.is_null() {
                    tf::TF_DeleteDeviceList(list);
                }
            }
            Call::CppOfNothing => {
                assert!(
                    call(|status| SessionGroup_NewCppSession(null_mut(), 0, status)).0.is_null()
                );
                assert!(call(|status| SessionGroup_NewCppPart(null_mut(), 0, status)).0.is_null());
                assert!(call(|status| SessionGroup_FromCppSession(null_mut(), status)).0.is_null());
            }
            Call::Close { at } => {
                let group = group(*at);
                let ((), error) = call(|status| SessionGroup_Close(group.0, status));
                assert_eq!(error.is_some(), group.0.is_null());
            }
            Call::Delete { at } => {
                let mut slot = world.groups[*at as usize % 3].write().unwrap();
                SessionGroup_Delete(std::mem::replace(&mut slot.0, null_mut()));
            }
        }
    }
}

/// By TF_Outputs of a graph of the caller's own.
fn session_run(group: *mut SessionGroup, index: i32, is_null: bool) {
    // SAFETY: the group is NULL or live, the graph is live until the end.
    unsafe {
        let graph = tf::TF_NewGraph();
        let bytes = Buffer::of(&GRAPH_DEFS[0]);
        let import = tf::TF_NewImportGraphDefOptions();
        let imported = call(|status| tf::TF_GraphImportGraphDef(graph, bytes.0, import, status));
        assert_eq!(imported.1, None);
        tf::TF_DeleteImportGraphDefOptions(import);
        let find = |name: &std::ffi::CStr| tf::TF_GraphOperationByName(graph, name.as_ptr());
        let feed = tf::TF_Output { oper: find(c"x"), index: 0 };
        let fetch = tf::TF_Output { oper: if is_null { null_mut() } else { find(c"y") }, index };
        let value = Tensors(vec![tensor(&Value::Floats(vec![1.0]))]);
        let mut output = null_mut();
        let ((), error) = call(|status| {
            SessionGroup_SessionRun(
                group,
                null(),
                &raw const feed,
                value.0.as_ptr(),
                1,
                &raw const fetch,
                &raw mut output,
                1,
                null(),
                0,
                null_mut(),
                status,
            )
        });
        assert_eq!(output.is_null(), error.is_some());
        drop(Tensors(vec![output]));
        tf::TF_DeleteGraph(graph);
    }
}

/// What succeeds is right, where the graph is trivial.pb. (Others that have an x and a y: none.)
fn plus_one(group: *mut SessionGroup, x: &[f32]) {
    let inputs = Tensors(vec![tensor(&Value::Floats(x.to_vec()))]);
    let mut y = null_mut();
    let (feeds, fetches) = ([c"x".as_ptr()], [c"y".as_ptr()]);
    // SAFETY: the group is NULL or live, arrays have one element each.
    let ((), error) = call(|status| unsafe {
        SessionGroup_Run(
            group,
            null(),
            feeds.as_ptr(),
            inputs.0.as_ptr(),
            1,
            fetches.as_ptr(),
            &raw mut y,
            1,
            null(),
            0,
            null_mut(),
            status,
        )
    });
    if error.is_none() {
        let y = std::ptr::NonNull::new(y).expect("a tensor on success");
        // SAFETY: the tensor is ours since the run succeeded.
        let y = unsafe { session_group::tensorflow::Tensor::from_raw(y) };
        let expected: Vec<u32> = x.iter().map(|x| flushed(flushed(*x) + 1.0).to_bits()).collect();
        let got: Vec<u32> =
            y.to_vec::<f32>().expect("floats").iter().map(|y| y.to_bits()).collect();
        let is_nan = |bits: &u32| f32::from_bits(*bits).is_nan();
        let right = |(a, b): (&u32, &u32)| a == b || (is_nan(a) && is_nan(b));
        assert!(
            got.len() == x.len() && std::iter::zip(&got, &expected).all(right),
            "{x:?}: {got:?}"
        );
    }
}

/// TensorFlow flushes numbers too small for the normal form to zero.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0 } else { x }
}
