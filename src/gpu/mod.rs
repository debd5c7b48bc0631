//! Multi-stream: several sessions on a GPU, each on a stream of its own, with one copy of the GPU's
//! variables.

pub(crate) mod mps;

use std::sync::{PoisonError, RwLock};

use crate::error::{Error, Result};
use crate::options::environment::{CONTEXTS_VARIABLE, Environment, MPS_VARIABLE, is_on};
use crate::options::{MAX_SESSIONS, Options};
use crate::tensorflow::devices::{Devices, StreamSlot};

/// As in DeepRec.
const DEFAULT_CONTEXTS: i32 = 4;

/// Where a session of a multi-stream group computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// TensorFlow's number of the GPU.
    pub gpu: i32,
    /// TensorFlow's number of the virtual device, whose stream it is.
    pub virtual_device: i32,
    /// Which of the GPU's streams, from 0.
    pub stream_group: i32,
    /// Whether variables of this GPU are restored and initialised on this session.
    pub leader: bool,
}

/// The GPUs of a multi-stream group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gpus {
    pub ids: Vec<i32>,
    pub mps: Option<Mps>,
}

/// What is asked of CUDA's Multi-Process Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mps {
    /// `CONTEXTS_COUNT_PER_GPU`, if it is set. TensorFlow has one context for each GPU and process,
    /// whatever it says.
    pub contexts: Option<i32>,
}

impl Gpus {
    /// Decides; `visible` tells how many GPUs TensorFlow sees. `None` for a group without streams.
    pub fn plan(
        options: &Options,
        environment: &Environment,
        visible: &Result<i32>,
    ) -> Result<Option<Self>> {
        if !options.multi_stream {
            if options.gpu_ids.is_empty() {
                return Ok(None);
            }
            return Err(Error::invalid(
                "gpu_ids are set without multi_stream: set that, too, or choose GPUs by \
                 visible_device_list of the ConfigProto",
            ));
        }
        let visible = visible.clone()?;
        if let Some(id) = options.gpu_ids.iter().find(|&&id| id >= visible) {
            return Err(Error::invalid(format!(
                "gpu_ids has {id}, but TensorFlow sees {visible} GPUs here, from 0"
            )));
        }
        let ids = match options.gpu_ids.as_slice() {
            [] => (0..visible).collect(),
            ids => ids.to_vec(),
        };
        Ok(Some(Self { ids, mps: Mps::read(environment)? }))
    }

    /// How many sessions each GPU has where nothing else says it.
    pub fn default_sessions(&self) -> Option<i32> {
        self.mps.map(|mps| mps.contexts.unwrap_or(DEFAULT_CONTEXTS))
    }

    /// The stream_slots of `n` sessions, one GPU after the other, so that requests in turn go to different
    /// ones and the first sessions are the leaders.
    pub fn stream_slots(&self, n: usize) -> impl Iterator<Item = StreamSlot> {
        let gpus = self.ids.len();
        (0..n).map(move |i| StreamSlot { gpu: (i % gpus) as i32, stream: (i / gpus) as i32 })
    }
}

impl Mps {
    fn read(environment: &Environment) -> Result<Option<Self>> {
        if !is_on(MPS_VARIABLE, environment.mps.as_deref())? {
            return Ok(None);
        }
        let number = |text: &String| {
            text.trim().parse().ok().filter(|n| (1..=MAX_SESSIONS as i32).contains(n)).ok_or_else(
                || {
                    Error::invalid(format!(
                        "{CONTEXTS_VARIABLE} is {text:?}: set 1 to {MAX_SESSIONS}"
                    ))
                },
            )
        };
        Ok(Some(Self { contexts: environment.contexts.as_ref().map(number).transpose()? }))
    }
}

/// The streams of a multi-stream group.
pub(crate) struct Streams {
    /// By session.
    pub all: Box<[Stream]>,
    /// The first so many sessions, one for each GPU.
    pub leaders: usize,
    writing: RwLock<()>,
}

impl Streams {
    /// `stream_slots` has one for each session.
    pub fn new(
        gpus: &Gpus,
        stream_slots: impl Iterator<Item = StreamSlot>,
        devices: &Devices,
    ) -> Self {
        let stream = |stream_slot: StreamSlot| Stream {
            gpu: gpus.ids[stream_slot.gpu as usize],
            virtual_device: devices.virtual_device(stream_slot),
            stream_group: stream_slot.stream,
            leader: stream_slot.stream == 0,
        };
        Self {
            all: stream_slots.map(stream).collect(),
            leaders: gpus.ids.len(),
            writing: RwLock::new(()),
        }
    }

    /// Runs what writes no variable of a GPU.
    pub fn with_others<T>(&self, f: impl FnOnce() -> T) -> T {
        let _reading = self.writing.read().unwrap_or_else(PoisonError::into_inner);
        f()
    }

    /// Runs what may write a variable of a GPU, while nothing else runs. Kernels are not done when
    /// they have been launched, and streams don't wait for each other: memory that one frees it may
    /// use again at once, while a kernel on another one still reads it.
    pub fn alone(&self, devices: &Devices, f: impl FnOnce() -> Result<()>) -> Result<()> {
        let _writing = self.writing.write().unwrap_or_else(PoisonError::into_inner);
        devices.sync()?;
        let done = f();
        // Also what has failed may have launched something.
        let synced = devices.sync();
        done.and(synced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(ids: &[usize]) -> Options {
        let mut options = Options::new();
        options.multi_stream(true).gpu_ids(ids).unwrap();
        options
    }

    fn plan(ids: &[usize], visible: i32) -> Result<Vec<i32>> {
        let gpus = Gpus::plan(&options(ids), &Environment::default(), &Ok(visible))?;
        Ok(gpus.unwrap().ids)
    }

    #[test]
    fn all_gpus_or_those_that_are_asked_for() {
        assert_eq!(plan(&[], 3).unwrap(), [0, 1, 2]);
        assert_eq!(plan(&[2, 0], 3).unwrap(), [2, 0]);
        assert!(plan(&[3], 3).unwrap_err().message.contains("has 3"));
        let mut options = options(&[0]);
        options.multi_stream(false);
        let error = Gpus::plan(&options, &Environment::default(), &Ok(1)).unwrap_err();
        assert!(error.message.contains("without multi_stream"), "{error}");
    }

    #[test]
    fn seats_take_turns_on_the_gpus() {
        let stream_slots: Vec<_> = Gpus { ids: vec![5, 3], mps: None }.stream_slots(4).collect();
        let stream_slot = |gpu, stream| StreamSlot { gpu, stream };
        assert_eq!(
            stream_slots,
            [stream_slot(0, 0), stream_slot(1, 0), stream_slot(0, 1), stream_slot(1, 1)]
        );
    }

    #[test]
    fn contexts_are_sessions_where_nothing_else_says_how_many() {
        let with = |mps: &str, contexts: Option<&str>| {
            let environment = Environment {
                mps: Some(mps.to_string()),
                contexts: contexts.map(ToString::to_string),
                ..Environment::default()
            };
            let gpus = Gpus::plan(&options(&[]), &environment, &Ok(1))?.unwrap();
            Ok(gpus.default_sessions()) as Result<_>
        };
        assert_eq!(with("0", Some("2")).unwrap(), None);
        assert_eq!(with("1", None).unwrap(), Some(4));
        assert_eq!(with("1", Some("2")).unwrap(), Some(2));
        for (mps, contexts, quoted) in
            [("yes", None, "\"yes\""), ("1", Some("0"), "\"0\""), ("1", Some("many"), "\"many\"")]
        {
            let error = with(mps, contexts).unwrap_err();
            assert!(error.message.contains(quoted), "{error}");
        }
    }
}
