//! Checkpoints, of a model or not, with right checksums or not: read as a delta, and taken by the model that serves, or
//! refused with a message. What was taken is what the model has.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::SystemTime;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serving_processor::bundle::Bundle;
use serving_processor::config::{Config, Sessions};
use serving_processor::delta::Delta;
use serving_processor::served::Served;
use serving_processor::template::Template;
use serving_processor::versions::{Checkpoint, digest};
use session_group::Request;
use session_group_fuzz::checkpoint::{Files, Item, variables};
use session_group_fuzz::index::Entry;
use session_group_fuzz::{folder, models};

#[derive(Arbitrary, Debug)]
struct Input {
    /// Whose checkpoint it is.
    model: u8,
    tensors: Vec<Item>,
    /// More blocks of the index.
    blocks: Vec<Vec<Entry>>,
    /// What of the index is changed after its checksums were made.
    damage: Option<(u16, u8)>,
}

struct Model {
    template: Template,
    variables: Vec<(String, i32, Vec<i64>)>,
    served: Served,
}

static PREFIX: LazyLock<PathBuf> = LazyLock::new(|| folder("checkpoint").join("delta-1"));
/// With variables that are assigned, that are written where they are, and of which there are parts.
static MODELS: LazyLock<[Model; 3]> = LazyLock::new(|| {
    ["half_plus", "lookups", "restored_tf1"].map(|name| {
        let template = Template::read(&models::path(name)).expect("the model is read");
        let own = template.own_checkpoint();
        let group = template.load(&sessions(), own.as_deref()).expect("the model is loaded");
        Model { variables: variables(&template), template, served: Served::new(group) }
    })
});

fn sessions() -> Sessions {
    let config = "{\"savedmodel_dir\": \"/\", \"inter_op_parallelism_threads\": 1, \"intra_op_parallelism_threads\": 1}";
    Config::parse(config, None).expect("a configuration").sessions
}

impl Model {
    /// A variable's value, if it is one whole variable in the model, too.
    fn value(&self, name: &str) -> Option<Vec<u8>> {
        let [part] = &self.template.variables[name][..] else { return None };
        let request = Request { outputs: &[&part.variable.read], ..Request::default() };
        let values = self.served.group().run_request(&request, None).expect("it can be read");
        Some(values[0].bytes().to_vec())
    }
}

fuzz_target!(|input: Input| {
    let model = &MODELS[usize::from(input.model) % MODELS.len()];
    let mut files = Files::default();
    for item in &input.tensors {
        files.add(item, &model.variables);
    }
    let index = files.write(&PREFIX, &input.blocks, input.damage);
    match Bundle::open(&PREFIX) {
        Err(error) => assert!(!error.message.is_empty()),
        Ok(bundle) => {
            for key in bundle.keys() {
                if let Err(error) = bundle.tensor(key) {
                    assert!(error.message.contains(key.as_str()), "{error}");
                }
            }
        }
    }
    let (prefix, digest) = (PREFIX.clone(), digest(&index));
    let checkpoint = Checkpoint { prefix, step: 1, digest, written: SystemTime::UNIX_EPOCH };
    let applied =
        Delta::read(&model.template, &checkpoint).and_then(|delta| delta.apply(&model.served));
    assert!(!model.served.is_half_written());
    match applied {
        Err(error) => assert!(!error.message.is_empty()),
        Ok(_) if input.blocks.is_empty() => {
            for (name, expected) in &files.values {
                if let Some(value) = model.value(name) {
                    assert_eq!(value, *expected, "{name}");
                }
            }
        }
        Ok(_) => {}
    }
});
