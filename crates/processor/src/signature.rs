//! What a signature takes and gives.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use session_group::tensorflow::Tensor;
use session_group::{Error, Result};
use session_group_serving::signature::{default_input, proto_name, tensor_name, zeros_of};
use session_group_serving::tensorflow::{SignatureDef, TensorInfo};
use session_group_serving::text::beginning;

/// One signature of a model.
pub struct Signature {
    pub name: String,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

/// An input or output.
pub struct Port {
    pub alias: String,
    /// The graph's name.
    pub tensor: String,
    pub dtype: i32,
    /// -1 for what is not known; `None` where not even the rank is.
    pub dims: Option<Vec<i64>>,
    /// Of an input: what it is where a request leaves it out.
    pub default: Option<Tensor>,
}

impl Signature {
    pub fn new(name: &str, def: &SignatureDef) -> Result<Self> {
        let ports = |infos: &BTreeMap<String, TensorInfo>| {
            infos.iter().map(|(alias, info)| Port::new(alias, info)).collect::<Result<Vec<_>>>()
        };
        let mut inputs: Vec<Port> = ports(&def.inputs)?;
        for port in &mut inputs {
            port.default = default_input(def, &port.alias).transpose()?;
            if let Some(default) = &port.default {
                port.check(default)?;
            }
        }
        Ok(Self { name: name.to_string(), inputs, outputs: ports(&def.outputs)? })
    }

    /// As JSON, in DeepRec's form.
    pub fn json(&self) -> String {
        let ports = |ports: &[Port]| -> Value {
            let port = |port: &Port| {
                json!({
                    "name": port.alias,
                    "shape": port.dims.as_deref().unwrap_or_default(),
                    "type": proto_name(port.dtype),
                })
            };
            ports.iter().map(port).collect()
        };
        json!({
            "signature_name": self.name,
            "inputs": ports(&self.inputs),
            "outputs": ports(&self.outputs),
        })
        .to_string()
    }
}

/// Bytes of a client's text in a message.
const MOST_QUOTED: usize = 200;

/// The beginning of a client's text.
pub fn shortened(text: &str) -> &str {
    beginning(text, MOST_QUOTED)
}

/// The one that a request means, by its alias or by the name of its tensor.
pub fn find<'a>(ports: &'a [Port], name: &str, what: &str, signature: &str) -> Result<&'a Port> {
    let found = ports.iter().find(|port| port.alias == name);
    found.or_else(|| ports.iter().find(|port| port.tensor == name)).ok_or_else(|| {
        let known: Vec<_> = ports.iter().map(|port| port.alias.as_str()).collect();
        Error::invalid(format!(
            "signature {signature:?} has no {what} {:?}: it has {}",
            shortened(name),
            known.join(", ")
        ))
    })
}

impl Port {
    fn new(alias: &str, info: &TensorInfo) -> Result<Self> {
        let shape = info.tensor_shape.as_ref().filter(|shape| !shape.unknown_rank);
        Ok(Self {
            alias: alias.to_string(),
            tensor: tensor_name(info)
                .map_err(|error| Error::new(error.code, format!("{alias}: {}", error.message)))?
                .to_string(),
            dtype: info.dtype,
            dims: shape.map(|shape| shape.dim.iter().map(|dim| dim.size).collect()),
            default: None,
        })
    }

    /// Whether a tensor may be fed here.
    pub fn check(&self, tensor: &Tensor) -> Result<()> {
        let (dtype, dims) = (tensor.dtype().number(), tensor.dims());
        if dtype != self.dtype {
            return Err(Error::invalid(format!(
                "input {:?} is {}, and has to be {}",
                self.alias,
                proto_name(dtype),
                proto_name(self.dtype)
            )));
        }
        let fits = |own: &Vec<i64>| {
            own.len() == dims.len()
                && own.iter().zip(&dims).all(|(&own, &dim)| own < 0 || own == dim)
        };
        match &self.dims {
            Some(own) if !fits(own) => Err(Error::invalid(format!(
                "input {:?} has shape {dims:?}, and has to have {own:?}, where -1 is any size",
                self.alias
            ))),
            _ => Ok(()),
        }
    }

    /// A tensor of zeros, of a shape that is not out of proportion, or of empty strings, with one where a size is not known.
    pub fn zeros(&self) -> Result<Tensor> {
        zeros_of(self.dtype, self.dims.as_deref())
    }
}
