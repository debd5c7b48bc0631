//! Classify, Regress and MultiInference: examples in, classes and values out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::time::Instant;

use prost::Message;
use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Result};
use session_group_serving::signature::{default_input, proto_name, tensor_name};

use crate::predict::{CLASSIFY, REGRESS, ResponseFormat, answered_by};
use crate::proto::serving::input::Kind;
use crate::proto::serving::{
    Class, ClassificationRequest, ClassificationResponse, ClassificationResult, Classifications,
    InferenceResult, Input, MultiInferenceRequest, MultiInferenceResponse, Regression,
    RegressionRequest, RegressionResponse, RegressionResult, inference_result,
};
use crate::proto::tensorflow::{DataType, SignatureDef, TensorProto};
use crate::servable::Servable;

/// The aliases that signatures of these methods have.
const INPUTS: &str = "inputs";
const CLASSES: &str = "classes";
const SCORES: &str = "scores";
const OUTPUTS: &str = "outputs";

pub async fn classify(
    servable: impl Deref<Target = Servable>,
    request: ClassificationRequest,
    deadline: Option<Instant>,
    format: ResponseFormat,
) -> Result<ClassificationResponse> {
    let spec = request.model_spec.unwrap_or_default();
    let examples = examples(request.input)?;
    classify_serialised(&servable, &spec.signature_name, &examples, deadline, format).await
}

pub async fn classify_serialised(
    servable: &Servable,
    signature_name: &str,
    examples: &[Vec<u8>],
    deadline: Option<Instant>,
    format: ResponseFormat,
) -> Result<ClassificationResponse> {
    let (name, signature) = signature(servable, signature_name)?;
    let classifier = Classifier::of(signature, format)?;
    let feeds = feeds(&[&classifier.input], examples)?;
    let fetches = classifier.fetches();
    let outputs = servable.run(feeds, &fetches, classifier.input.has_defaults(), deadline).await?;
    Ok(ClassificationResponse {
        result: Some(classifier.result(examples.len(), &outputs.iter().collect::<Vec<_>>())?),
        model_spec: Some(answered_by(servable, name)),
    })
}

pub async fn regress(
    servable: impl Deref<Target = Servable>,
    request: RegressionRequest,
    deadline: Option<Instant>,
    format: ResponseFormat,
) -> Result<RegressionResponse> {
    let spec = request.model_spec.unwrap_or_default();
    let examples = examples(request.input)?;
    regress_serialised(&servable, &spec.signature_name, &examples, deadline, format).await
}

pub async fn regress_serialised(
    servable: &Servable,
    signature_name: &str,
    examples: &[Vec<u8>],
    deadline: Option<Instant>,
    format: ResponseFormat,
) -> Result<RegressionResponse> {
    let (name, signature) = signature(servable, signature_name)?;
    let regressor = Regressor::of(signature, format)?;
    let feeds = feeds(&[&regressor.input], examples)?;
    let outputs =
        servable.run(feeds, &[regressor.output], regressor.input.has_defaults(), deadline).await?;
    Ok(RegressionResponse {
        result: Some(regression(examples.len(), &outputs[0])?),
        model_spec: Some(answered_by(servable, name)),
    })
}

/// Several signatures of one model, computed in one run.
pub async fn multi_inference(
    servable: impl Deref<Target = Servable>,
    request: MultiInferenceRequest,
    deadline: Option<Instant>,
    format: ResponseFormat,
) -> Result<MultiInferenceResponse> {
    enum Task<'a> {
        Classify(Classifier<'a>),
        Regress(Regressor<'a>),
    }
    let mut seen = BTreeSet::new();
    let mut tasks = Vec::new();
    for task in &request.tasks {
        let spec = task.model_spec.clone().unwrap_or_default();
        if spec.name.is_empty() {
            return Err(Error::invalid("Found ModelSpec with an empty model name."));
        }
        if spec.name != servable.name {
            return Err(Error::invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
            ));
        }
        let name = servable.signature(&spec.signature_name).0.to_string();
        if !seen.insert(name.clone()) {
            return Err(Error::invalid(format!("Duplicate evaluation of signature: {name}")));
        }
        let signature = servable.signatures.get(&name).ok_or_else(|| {
            Error::invalid(format!("Requested signature not found in model graph: {name}"))
        })?;
        let what = match task.method_name.as_str() {
            CLASSIFY => Task::Classify(Classifier::of(signature, format)?),
            REGRESS => Task::Regress(Regressor::of(signature, format)?),
            other => {
                let message = format!("Unsupported signature method_name: {other}");
                return Err(Error::new(Code::Unimplemented, message));
            }
        };
        tasks.push((name, what));
    }
    let examples = examples(request.input)?;
    let inputs: Vec<_> = tasks
        .iter()
        .map(|(_, task)| match task {
            Task::Classify(classifier) => &classifier.input,
            Task::Regress(regressor) => &regressor.input,
        })
        .collect();
    let fetches: BTreeSet<&str> = tasks
        .iter()
        .flat_map(|(_, task)| match task {
            Task::Classify(classifier) => classifier.fetches(),
            Task::Regress(regressor) => vec![regressor.output],
        })
        .collect();
    let feeds = feeds(&inputs, &examples)?;
    let has_defaults = inputs.iter().any(|input| input.has_defaults());
    let fetches: Vec<_> = fetches.into_iter().collect();
    let outputs = servable.run(feeds, &fetches, has_defaults, deadline).await?;
    let outputs: BTreeMap<_, _> = fetches.into_iter().zip(outputs).collect();
    let results = tasks.into_iter().map(|(name, task)| {
        let result = match task {
            Task::Classify(classifier) => {
                let own: Vec<_> = classifier.fetches().iter().map(|name| &outputs[name]).collect();
                let result = classifier.result(examples.len(), &own)?;
                inference_result::Result::ClassificationResult(result)
            }
            Task::Regress(regressor) => {
                let result = regression(examples.len(), &outputs[regressor.output])?;
                inference_result::Result::RegressionResult(result)
            }
        };
        Ok(InferenceResult {
            model_spec: Some(answered_by(&servable, &name)),
            result: Some(result),
        })
    });
    Ok(MultiInferenceResponse { results: results.collect::<Result<_>>()? })
}

fn signature<'a>(servable: &'a Servable, name: &'a str) -> Result<(&'a str, &'a SignatureDef)> {
    match servable.signature(name) {
        (name, Some(signature)) => Ok((name, signature)),
        (name, None) => {
            Err(Error::invalid(format!("No signature was found with the name: {name}")))
        }
    }
}

/// Serialised examples. What a context says holds for all that do not say otherwise: the later of two
/// messages, one after the other, wins.
pub fn examples(input: Option<Input>) -> Result<Vec<Vec<u8>>> {
    let serialised: Vec<_> = match input.and_then(|input| input.kind) {
        None => Vec::new(),
        Some(Kind::ExampleList(list)) => list.examples.iter().map(Message::encode_to_vec).collect(),
        Some(Kind::ExampleListWithContext(list)) => {
            let context = list.context.unwrap_or_default().encode_to_vec();
            let with = |example: &_| [context.clone(), Message::encode_to_vec(example)].concat();
            list.examples.iter().map(with).collect::<Vec<Vec<u8>>>()
        }
    };
    if serialised.is_empty() {
        return Err(Error::invalid("Input is empty."));
    }
    Ok(serialised)
}

/// What a signature takes that takes examples.
struct Examples<'a> {
    signature: &'a SignatureDef,
    /// The tensor to feed them to.
    tensor: &'a str,
}

impl<'a> Examples<'a> {
    /// All inputs but one must have defaults.
    fn of(signature: &'a SignatureDef, what: &str) -> Result<Self> {
        let is_given =
            |alias: &&String| *alias == INPUTS || !signature.defaults.contains_key(*alias);
        if signature.inputs.keys().filter(is_given).count() != 1 {
            return Err(Error::invalid("Expected one input Tensor."));
        }
        let input = signature.inputs.get(INPUTS).ok_or_else(|| {
            Error::invalid(format!("No {what} inputs found in SignatureDef: {signature:?}"))
        })?;
        Ok(Self { signature, tensor: tensor_name(input)? })
    }

    /// Whether inputs of the signature's own are fed, too.
    fn has_defaults(&self) -> bool {
        self.signature.inputs.len() > 1
    }
}

/// Feeds for signatures that are computed in one run.
fn feeds<'a>(of: &[&Examples<'a>], examples: &[Vec<u8>]) -> Result<Vec<(&'a str, Tensor)>> {
    let mut feeds: BTreeMap<&str, Tensor> = BTreeMap::new();
    let mut defaults: BTreeMap<&str, &TensorProto> = BTreeMap::new();
    for &&Examples { signature, tensor } in of {
        let strings = Tensor::from_strings(&[examples.len() as i64], examples)?;
        feeds.insert(tensor, strings);
        for (alias, info) in signature.inputs.iter().filter(|(alias, _)| *alias != INPUTS) {
            let (name, default) = (tensor_name(info)?, &signature.defaults[alias]);
            if *defaults.entry(name).or_insert(default) != default {
                return Err(Error::invalid(format!(
                    "the signatures have different defaults for {name:?}: ask for them one by one"
                )));
            }
            if let Some(default) = default_input(signature, alias) {
                feeds.insert(name, default?);
            }
        }
    }
    Ok(feeds.into_iter().collect())
}

/// What is to be fed and fetched to classify.
struct Classifier<'a> {
    input: Examples<'a>,
    classes: Option<&'a str>,
    scores: Option<&'a str>,
}

impl<'a> Classifier<'a> {
    fn of(signature: &'a SignatureDef, format: ResponseFormat) -> Result<Self> {
        let method = &signature.method_name;
        if format.checks_method && method != CLASSIFY {
            return Err(Error::invalid(format!(
                "Expected classification signature method_name to be {CLASSIFY}. Was: {method}"
            )));
        }
        let input = Examples::of(signature, "classification")?;
        let outputs = signature.outputs.len();
        if !(1..=2).contains(&outputs) {
            let message = format!("Expected one or two output Tensors, found {outputs}");
            return Err(Error::invalid(message));
        }
        let output = |alias| signature.outputs.get(alias).map(tensor_name).transpose();
        let (classes, scores) = (output(CLASSES)?, output(SCORES)?);
        if classes.is_none() && scores.is_none() {
            return Err(Error::invalid(format!(
                "Expected classification signature outputs to contain at least one of \"{CLASSES}\" or \
                 \"{SCORES}\". Signature was: {signature:?}"
            )));
        }
        Ok(Self { input, classes, scores })
    }

    fn fetches(&self) -> Vec<&'a str> {
        self.classes.into_iter().chain(self.scores).collect()
    }

    fn result(&self, examples: usize, outputs: &[&Tensor]) -> Result<ClassificationResult> {
        let mut outputs = outputs.iter().copied();
        let classes = self.classes.and_then(|_| outputs.next());
        let scores = self.scores.and_then(|_| outputs.next());
        let columns = |tensor: &Tensor, what: &str, dtype: DataType| {
            let dims = tensor.dims();
            let &[rows, columns] = dims.as_slice() else {
                return Err(Error::invalid(format!(
                    "Expected Tensor shape: [batch_size num_classes] but got {}",
                    shape(&dims)
                )));
            };
            if tensor.dtype().number() != dtype as i32 {
                return Err(Error::invalid(format!(
                    "Expected {what} Tensor of {}. Got: {}",
                    dtype.as_str_name(),
                    proto_name(tensor.dtype().number())
                )));
            }
            if rows != examples as i64 {
                return Err(Error::invalid(format!(
                    "Expected {what} output batch size of {examples}. Got: {rows}"
                )));
            }
            Ok(columns as usize)
        };
        let labels =
            classes.map(|tensor| columns(tensor, CLASSES, DataType::DtString)).transpose()?;
        let numbers =
            scores.map(|tensor| columns(tensor, SCORES, DataType::DtFloat)).transpose()?;
        if let (Some(labels), Some(numbers)) = (labels, numbers)
            && labels != numbers
        {
            return Err(Error::invalid(format!(
                "Tensors class and score should match in dim_size(1). Got {labels} vs. {numbers}"
            )));
        }
        let columns = labels.or(numbers).unwrap_or(0);
        let texts = classes.map(Tensor::strings).transpose()?;
        let values = scores.map(Tensor::to_vec::<f32>).transpose()?;
        let class = |i: usize| {
            let label = texts.as_ref().map(|texts| std::str::from_utf8(texts[i])).transpose();
            let label = label.map_err(|_| {
                Error::precondition(
                    "a class has a label that is not UTF-8, which this call has no form for: ask by Predict",
                )
            })?;
            let score = values.as_ref().map_or(0.0, |values| values[i]);
            Ok(Class { label: label.unwrap_or_default().to_string(), score })
        };
        let row = |row| {
            let classes = (row * columns..(row + 1) * columns).map(class).collect::<Result<_>>();
            classes.map(|classes| Classifications { classes })
        };
        Ok(ClassificationResult { classifications: (0..examples).map(row).collect::<Result<_>>()? })
    }
}

/// What is to be fed and fetched to regress.
struct Regressor<'a> {
    input: Examples<'a>,
    output: &'a str,
}

impl<'a> Regressor<'a> {
    fn of(signature: &'a SignatureDef, format: ResponseFormat) -> Result<Self> {
        let method = &signature.method_name;
        if format.checks_method && method != REGRESS {
            return Err(Error::invalid(format!(
                "Expected regression signature method_name to be {REGRESS}. Was: {method}"
            )));
        }
        let input = Examples::of(signature, "regression")?;
        if signature.outputs.len() != 1 {
            return Err(Error::invalid("Expected one output Tensor."));
        }
        let output = signature.outputs.get(OUTPUTS).ok_or_else(|| {
            Error::invalid(format!("No regression outputs found in SignatureDef: {signature:?}"))
        })?;
        Ok(Self { input, output: tensor_name(output)? })
    }
}

fn regression(examples: usize, output: &Tensor) -> Result<RegressionResult> {
    let dims = output.dims();
    let (&[rows] | &[rows, 1]) = dims.as_slice() else {
        return Err(Error::invalid(format!(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {}",
            shape(&dims)
        )));
    };
    if rows != examples as i64 {
        return Err(Error::invalid(format!(
            "Input batch size did not match output batch size: {examples} vs. {rows}"
        )));
    }
    if output.dtype().number() != DataType::DtFloat as i32 {
        return Err(Error::invalid(format!(
            "Expected output Tensor of DT_FLOAT.  Got: {}",
            proto_name(output.dtype().number())
        )));
    }
    let regressions = output.to_vec::<f32>()?.into_iter().map(|value| Regression { value });
    Ok(RegressionResult { regressions: regressions.collect() })
}

/// As TensorFlow prints a shape.
fn shape(dims: &[i64]) -> String {
    let dims: Vec<String> = dims.iter().map(i64::to_string).collect();
    format!("[{}]", dims.join(","))
}
