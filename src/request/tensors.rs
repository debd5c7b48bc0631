//! The tensors of a request, in the types of whichever API it came by.

use crate::error::Result;
use crate::tensorflow::program::ProgramRun;
use crate::tensorflow::run_options::RunOptions;
use crate::tensorflow::session::{NamedTensors, Session};
use crate::tensorflow::{Buffer, Tensor};

/// What a request brings and wants back. It is run on whichever thread, by one at a time.
pub(crate) trait RequestTensors: Send {
    /// Runs a program with them.
    fn run_program(&mut self, run: ProgramRun<'_>) -> Result<()>;
    /// Lets TensorFlow's session run them by their names.
    fn run_session(&mut self, session: &Session, options: &RunOptions) -> Result<()>;
    /// Drops what an earlier run gave, before another.
    fn clear_outputs(&mut self);
}

/// Those of a request of Rust or C.
pub(crate) struct Named<'a> {
    pub named: NamedTensors<'a>,
    pub outputs: &'a mut [Option<Tensor>],
    pub metadata: Option<&'a mut Buffer>,
}

impl RequestTensors for Named<'_> {
    fn run_program(&mut self, run: ProgramRun<'_>) -> Result<()> {
        run.with(self.named.inputs.iter().map(|&(_, tensor)| tensor), self.outputs)
    }

    fn run_session(&mut self, session: &Session, options: &RunOptions) -> Result<()> {
        session.run(options, &self.named, self.outputs, self.metadata.as_deref_mut())
    }

    fn clear_outputs(&mut self) {
        self.outputs.fill_with(|| None);
        if let Some(metadata) = self.metadata.as_deref_mut() {
            *metadata = Buffer::new();
        }
    }
}

/// Those of a callable, in the order of its feeds and fetches.
pub(crate) struct Ordered<'a> {
    pub inputs: &'a [&'a Tensor],
    pub outputs: &'a mut [Option<Tensor>],
}

impl RequestTensors for Ordered<'_> {
    fn run_program(&mut self, run: ProgramRun<'_>) -> Result<()> {
        run.with(self.inputs.iter().copied(), self.outputs)
    }

    fn run_session(&mut self, _: &Session, _: &RunOptions) -> Result<()> {
        unreachable!("what may wait under a timeout is not prepared, and nobody wants metadata")
    }

    fn clear_outputs(&mut self) {
        self.outputs.fill_with(|| None);
    }
}
