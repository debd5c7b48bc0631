//! The functions of `shim.h`, which documents them.

use std::ffi::{c_char, c_void};
use std::marker::{PhantomData, PhantomPinned};

use tensorflow_sys as tf;

macro_rules! opaque {
    ($($name:ident),*) => {$(
        #[allow(non_camel_case_types)]
        #[repr(C)]
        pub struct $name {
            _data: [u8; 0],
            _marker: PhantomData<(*mut u8, PhantomPinned)>,
        }
    )*};
}

opaque!(
    sg_devices,
    sg_graph,
    sg_saved_model,
    sg_run_options,
    sg_intra_op_pool,
    sg_session,
    sg_program,
    sg_instance,
    sg_group,
    sg_group_callable,
    sg_tensors,
    sg_visit
);

/// A `&str` as the shim takes it, or what C++ gives, which need not be UTF-8.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct sg_str<'a> {
    data: *const u8,
    size: usize,
    _lifetime: PhantomData<&'a str>,
}

impl<'a> From<&'a str> for sg_str<'a> {
    fn from(s: &'a str) -> Self {
        Self { data: s.as_ptr(), size: s.len(), _lifetime: PhantomData }
    }
}

impl<'a> sg_str<'a> {
    /// # Safety
    ///
    /// It must have been made of a `&str`, or point to as many bytes as it says for as long as `'a`.
    pub unsafe fn bytes(&self) -> &'a [u8] {
        if self.size == 0 {
            return &[];
        }
        // SAFETY: the caller vouches for it.
        unsafe { std::slice::from_raw_parts(self.data, self.size) }
    }
}

#[allow(non_camel_case_types)]
#[derive(Default)]
#[repr(C)]
pub struct sg_config {
    pub intra_op_threads: i32,
    pub inter_op_threads: i32,
    pub operation_timeout_ms: i64,
    pub has_target: i32,
    pub has_named_pool: i32,
    pub fills_metadata: i32,
    pub pools: i64,
    pub pools_of_default_size: i64,
    pub pool_threads: i64,
    pub has_negative_pool: i32,
}

#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct sg_stream_slot {
    pub gpu: i32,
    pub stream: i32,
}

/// How a request runs a program.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct sg_run {
    /// Where its tensors are among those of the program; NULL where they are in the same order.
    pub feeds: *const u32,
    pub fetches: *const u32,
    /// 0 for none.
    pub timeout_ms: i64,
    /// Of the calling thread.
    pub stripe: u32,
}

/// What an instance does.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct sg_instance_facts {
    /// Those of loops counted once.
    pub steps: i64,
    /// How many there are.
    pub loops: i64,
    /// Those that are read in the resolved way.
    pub variables: i64,
    /// The same.
    pub tables: i64,
    /// Those that are done together.
    pub gathers: i64,
    /// Of the program, shared with others that have the same.
    pub constant_bytes: i64,
}

/// What was unusual about a run: 1 where it was.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct sg_run_notes {
    /// A variable was read in TensorFlow's way.
    pub unresolved: i32,
    /// Gathers were done one by one.
    pub unfused: i32,
}

#[allow(non_camel_case_types)]
#[derive(Default)]
#[repr(C)]
pub struct sg_large_blocks {
    pub in_use_bytes: u64,
    pub kept_bytes: u64,
    pub limit_bytes: u64,
    pub hits: u64,
    pub misses: u64,
    pub moved: u64,
}

/// The names in a request of C++.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct sg_names<'a> {
    pub feeds: *const sg_str<'a>,
    pub nfeeds: usize,
    pub fetches: *const sg_str<'a>,
    pub nfetches: usize,
    pub targets: *const sg_str<'a>,
    pub ntargets: usize,
}

/// What C++ calls.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct sg_group_functions {
    pub make: unsafe extern "C" fn(
        target: sg_str<'_>,
        options: *const tf::TF_SessionOptions,
        status: *mut tf::TF_Status,
    ) -> *mut sg_group,
    pub session_num: unsafe extern "C" fn(group: *const sg_group) -> i32,
    pub add_graph: unsafe extern "C" fn(
        group: *mut sg_group,
        graph: *mut sg_graph,
        extend: i32,
    ) -> *mut tf::TF_Status,
    pub run: unsafe extern "C" fn(
        group: *mut sg_group,
        session: i32,
        names: *const sg_names<'_>,
        options: *const sg_run_options,
        wants_metadata: i32,
        call: *mut sg_tensors,
    ) -> *mut tf::TF_Status,
    pub make_callable: unsafe extern "C" fn(
        group: *mut sg_group,
        names: *const sg_names<'_>,
        status: *mut tf::TF_Status,
    ) -> *mut sg_group_callable,
    pub run_callable: unsafe extern "C" fn(
        callable: *mut sg_group_callable,
        session: i32,
        wants_metadata: i32,
        call: *mut sg_tensors,
    ) -> *mut tf::TF_Status,
    pub delete_callable: unsafe extern "C" fn(callable: *mut sg_group_callable),
    pub run_on_session: unsafe extern "C" fn(
        group: *mut sg_group,
        session: i32,
        visit: *mut sg_visit,
    ) -> *mut tf::TF_Status,
    pub with_session: unsafe extern "C" fn(
        group: *mut sg_group,
        session: i32,
        visit: *mut sg_visit,
    ) -> *mut tf::TF_Status,
    pub untrack: unsafe extern "C" fn(group: *mut sg_group) -> *mut tf::TF_Status,
    pub close: unsafe extern "C" fn(group: *mut sg_group) -> *mut tf::TF_Status,
    pub remove: unsafe extern "C" fn(group: *mut sg_group),
}

// sg_str borrows through raw pointers and a lifetime marker only, which C can't misread.
#[allow(improper_ctypes)]
unsafe extern "C" {
    pub fn sg_choose(
        choose: unsafe extern "C" fn(context: *mut c_void, load: *const c_void) -> i32,
        context: *mut c_void,
        load: *const c_void,
        session: *mut i32,
    ) -> *mut tf::TF_Status;
    pub fn sg_log_info(line: sg_str<'_>);

    pub fn sg_session_options_copy(
        options: *const tf::TF_SessionOptions,
        status: *mut tf::TF_Status,
    ) -> *mut tf::TF_SessionOptions;
    pub fn sg_session_options_config(options: *const tf::TF_SessionOptions, config: *mut sg_config);

    pub fn sg_count_gpus(options: *const tf::TF_SessionOptions, status: *mut tf::TF_Status) -> i32;
    pub fn sg_devices_new(
        options: *const tf::TF_SessionOptions,
        fast_memory: i32,
        gpu_ids: *const i32,
        ngpu_ids: usize,
        streams: i32,
        status: *mut tf::TF_Status,
    ) -> *mut sg_devices;
    pub fn sg_devices_virtual_device(
        devices: *const sg_devices,
        stream_slot: *const sg_stream_slot,
    ) -> i32;
    pub fn sg_devices_sync(devices: *const sg_devices, status: *mut tf::TF_Status);
    pub fn sg_graph_check(
        graph: *const sg_graph,
        devices: *const sg_devices,
        status: *mut tf::TF_Status,
    );
    pub fn sg_devices_clear(devices: *mut sg_devices, status: *mut tf::TF_Status);
    pub fn sg_devices_begin_write(devices: *mut sg_devices);
    pub fn sg_devices_end_write(devices: *mut sg_devices);
    pub fn sg_devices_restore_with(
        devices: *mut sg_devices,
        cpus: usize,
        mask: *const u64,
        words: usize,
        status: *mut tf::TF_Status,
    );
    pub fn sg_devices_spread_over(
        devices: *mut sg_devices,
        nodes: *const u32,
        n: usize,
        status: *mut tf::TF_Status,
    );
    pub fn sg_devices_set_loading(devices: *mut sg_devices, is_loading: i32);
    pub fn sg_devices_spread_error(devices: *const sg_devices) -> i32;
    pub fn sg_devices_restored_bytes(
        devices: *const sg_devices,
        bytes: *mut u64,
        threads: usize,
    ) -> usize;
    pub fn sg_devices_write_variable(
        devices: *mut sg_devices,
        container: sg_str<'_>,
        name: sg_str<'_>,
        dtype: i32,
        dims: *const i64,
        ndims: usize,
        write: unsafe extern "C" fn(context: *mut c_void, data: *mut c_void, size: usize),
        context: *mut c_void,
        status: *mut tf::TF_Status,
    ) -> i32;
    pub fn sg_devices_untrack(devices: *mut sg_devices);
    pub fn sg_devices_delete(devices: *mut sg_devices);

    pub fn sg_large_blocks_read(stats: *mut sg_large_blocks);
    pub fn sg_large_blocks_set_limit(bytes: u64);
    pub fn sg_large_blocks_release_unused();

    pub fn sg_graph_parse(
        graph_def: *const c_void,
        size: usize,
        status: *mut tf::TF_Status,
    ) -> *mut sg_graph;
    pub fn sg_graph_convert_variables(
        graph: *mut sg_graph,
        earlier: *const *const sg_graph,
        nearlier: usize,
        status: *mut tf::TF_Status,
    );
    pub fn sg_graph_hide_constants(
        graph: *mut sg_graph,
        devices: *mut sg_devices,
        status: *mut tf::TF_Status,
    );
    pub fn sg_graph_can_reveal(graph: *const sg_graph) -> i32;
    pub fn sg_graph_outputs(graph: *const sg_graph, node: sg_str<'_>) -> i32;
    pub fn sg_graph_delete(graph: *mut sg_graph);

    pub fn sg_saved_model_read(
        export_dir: sg_str<'_>,
        tags: *const sg_str<'_>,
        ntags: usize,
        meta_graph_def: *mut tf::TF_Buffer,
        status: *mut tf::TF_Status,
    ) -> *mut sg_saved_model;
    pub fn sg_saved_model_take_graph(model: *mut sg_saved_model) -> *mut sg_graph;
    pub fn sg_saved_model_delete(model: *mut sg_saved_model);

    pub fn sg_run_options_parse(
        data: *const c_void,
        size: usize,
        status: *mut tf::TF_Status,
    ) -> *mut sg_run_options;
    pub fn sg_run_options_copy(
        options: *const sg_run_options,
        status: *mut tf::TF_Status,
    ) -> *mut sg_run_options;
    pub fn sg_run_options_delete(options: *mut sg_run_options);
    pub fn sg_run_options_timeout_ms(options: *const sg_run_options) -> i64;
    pub fn sg_run_options_set_timeout_ms(options: *mut sg_run_options, timeout_ms: i64);
    pub fn sg_run_options_is_plain(options: *const sg_run_options) -> i32;
    pub fn sg_run_options_inter_op_pool(options: *const sg_run_options) -> i32;
    pub fn sg_run_options_set_inter_op_pool(options: *mut sg_run_options, pool: i32);

    pub fn sg_intra_op_pool_new(
        options: *const tf::TF_SessionOptions,
        threads: i32,
        status: *mut tf::TF_Status,
    ) -> *mut sg_intra_op_pool;
    pub fn sg_intra_op_pool_delete(pool: *mut sg_intra_op_pool);
    pub fn sg_session_new(
        devices: *mut sg_devices,
        options: *const tf::TF_SessionOptions,
        stream_slot: *const sg_stream_slot,
        pool: *mut sg_intra_op_pool,
        inter_op_threads: i32,
        status: *mut tf::TF_Status,
    ) -> *mut sg_session;
    pub fn sg_compiler_new(
        devices: *mut sg_devices,
        options: *const tf::TF_SessionOptions,
        stream_slot: *const sg_stream_slot,
        pool: *mut sg_intra_op_pool,
        status: *mut tf::TF_Status,
    ) -> *mut sg_session;
    pub fn sg_session_close(session: *mut sg_session, status: *mut tf::TF_Status);
    pub fn sg_session_is_broken(session: *const sg_session) -> i32;
    pub fn sg_session_delete(session: *mut sg_session);

    pub fn sg_session_create(
        session: *mut sg_session,
        graph: *const sg_graph,
        status: *mut tf::TF_Status,
    );
    pub fn sg_session_extend(
        session: *mut sg_session,
        graph: *const sg_graph,
        status: *mut tf::TF_Status,
    );
    pub fn sg_session_add_revealed(
        session: *mut sg_session,
        graph: *const sg_graph,
        extend: i32,
        status: *mut tf::TF_Status,
    );
    pub fn sg_session_restore(
        session: *mut sg_session,
        model: *const sg_saved_model,
        options: *const sg_run_options,
        status: *mut tf::TF_Status,
    );
    pub fn sg_session_run(
        session: *mut sg_session,
        options: *const sg_run_options,
        input_names: *const sg_str<'_>,
        inputs: *const *mut tf::TF_Tensor,
        ninputs: usize,
        output_names: *const sg_str<'_>,
        outputs: *mut *mut tf::TF_Tensor,
        noutputs: usize,
        targets: *const sg_str<'_>,
        ntargets: usize,
        run_metadata: *mut tf::TF_Buffer,
        status: *mut tf::TF_Status,
    );
    pub fn sg_program_compile(
        compiler: *mut sg_session,
        graphs: *const *const sg_graph,
        ngraphs: usize,
        feeds: *const sg_str<'_>,
        nfeeds: usize,
        fetches: *const sg_str<'_>,
        nfetches: usize,
        targets: *const sg_str<'_>,
        ntargets: usize,
        fuse_lookups: i32,
        status: *mut tf::TF_Status,
    ) -> *mut sg_program;
    pub fn sg_program_choices(
        program: *const sg_program,
        choice: unsafe extern "C" fn(*mut c_void, sg_str<'_>, i64, i32),
        context: *mut c_void,
        status: *mut tf::TF_Status,
    );
    pub fn sg_program_obstacle(program: *const sg_program) -> *const c_char;
    pub fn sg_program_writes(program: *const sg_program) -> i32;
    pub fn sg_program_writes_elsewhere(program: *const sg_program) -> i32;
    pub fn sg_program_recurses(program: *const sg_program) -> i32;
    pub fn sg_program_delete(program: *mut sg_program);
    pub fn sg_instance_new(
        session: *mut sg_session,
        program: *mut sg_program,
        stripes: u32,
        resolve_reads: i32,
        fuse_lookups: i32,
        choose_kernels: i32,
        status: *mut tf::TF_Status,
    ) -> *mut sg_instance;
    pub fn sg_instance_may_wait(instance: *const sg_instance) -> i32;
    pub fn sg_instance_facts_get(instance: *const sg_instance, facts: *mut sg_instance_facts);
    pub fn sg_instance_run(
        instance: *mut sg_instance,
        inputs: *const *mut tf::TF_Tensor,
        ninputs: usize,
        run: *const sg_run,
        outputs: *mut *mut tf::TF_Tensor,
        noutputs: usize,
        notes: *mut sg_run_notes,
    ) -> *mut tf::TF_Status;
    pub fn sg_instance_delete(instance: *mut sg_instance);
    pub fn sg_tensor_dtype(tensor: *const tf::TF_Tensor) -> i32;
    pub fn sg_session_list_devices(
        session: *mut sg_session,
        status: *mut tf::TF_Status,
    ) -> *mut tf::TF_DeviceList;
    pub fn sg_register_target(functions: *const sg_group_functions, status: *mut tf::TF_Status);
    pub fn sg_group_session_new(
        group: *mut sg_group,
        session: i32,
        status: *mut tf::TF_Status,
    ) -> *mut c_void;
    pub fn sg_group_of_session(session: *mut c_void) -> *mut sg_group;
    pub fn sg_tensors_run_program(
        call: *mut sg_tensors,
        instance: *mut sg_instance,
        run: *const sg_run,
        notes: *mut sg_run_notes,
    ) -> *mut tf::TF_Status;
    pub fn sg_tensors_run_session(
        call: *mut sg_tensors,
        session: *mut sg_session,
        options: *const sg_run_options,
    ) -> *mut tf::TF_Status;
    pub fn sg_tensors_clear_outputs(call: *mut sg_tensors);
    pub fn sg_visit_session(
        visit: *mut sg_visit,
        session: *mut sg_session,
        number: i32,
    ) -> *mut tf::TF_Status;
}
