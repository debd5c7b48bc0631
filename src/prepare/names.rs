//! Whether a graph has what a request names, found out before TensorFlow is asked: that optimises the
//! whole graph first, for as long as this takes, and under a lock of the session.

use crate::error::{Code, Error, Result};
use crate::prepare::signature::Signature;

/// Fails where the request can't be run whatever its tensors are. `outputs` says how many outputs a node
/// has, and nothing of one that is not there.
pub(crate) fn check(
    signature: &Signature<'_>,
    outputs: impl Fn(&str) -> Option<i32>,
) -> Result<()> {
    let Signature { feeds, fetches, targets } = signature;
    if fetches.is_empty() && targets.is_empty() {
        return Err(Error::invalid(
            "the request names nothing to fetch and no target to run: name one at least",
        ));
    }
    let mut fed: Vec<(&str, i32)> = feeds.iter().map(|name| tensor(name)).collect();
    fed.sort_unstable();
    if let Some(twice) = fed.windows(2).find(|two| two[0] == two[1]) {
        let (node, output) = twice[0];
        return Err(Error::invalid(format!("the request feeds {node}:{output} twice")));
    }
    for name in feeds.iter().chain(*fetches) {
        let (node, output) = tensor(name);
        match outputs(node) {
            None => return Err(unknown_tensor(node, output)),
            Some(n) if output >= n => return Err(unknown_output(name, n)),
            Some(_) => {}
        }
    }
    let is_known = |target: &&&str| {
        let operation = operation(target);
        MADE_BY_TENSORFLOW.contains(&operation) || outputs(operation).is_some()
    };
    match targets.iter().find(|target| !is_known(target)) {
        Some(target) => Err(Error::new(
            Code::NotFound,
            format!("the graph has no operation {target:?} to run as a target"),
        )),
        None => Ok(()),
    }
}

/// Operations of every graph that are in no `GraphDef`.
const MADE_BY_TENSORFLOW: [&str; 2] = ["_SOURCE", "_SINK"];

/// The node of a tensor and the number of its output: "x" is "x:0". What a number means that is too large
/// is left to TensorFlow.
fn tensor(name: &str) -> (&str, i32) {
    match name.rsplit_once(':') {
        Some((node, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            (node, number.parse().unwrap_or(0))
        }
        _ => (name, 0),
    }
}

/// The operation of a target, which TensorFlow also takes as a tensor or as a control input.
fn operation(target: &str) -> &str {
    let (node, _) = tensor(target);
    node.strip_prefix('^').unwrap_or(node)
}

fn unknown_tensor(node: &str, output: i32) -> Error {
    Error::invalid(format!(
        "the graph has no tensor \"{node}:{output}\" to feed or fetch: these are names of the graph, not of a \
         signature (`saved_model_cli show --all --dir DIR` lists both)"
    ))
}

fn unknown_output(name: &str, outputs: i32) -> Error {
    let has = match outputs {
        0 => "no outputs".to_string(),
        1 => "only output 0".to_string(),
        n => format!("only outputs 0 to {}", n - 1),
    };
    Error::new(Code::OutOfRange, format!("the graph has no tensor {name:?}: the node has {has}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(node: &str) -> Option<i32> {
        match node {
            "x" => Some(1),
            "split" => Some(3),
            "odd:name" => Some(1),
            "custom" => Some(i32::MAX),
            "init" => Some(0),
            _ => None,
        }
    }

    fn code(feeds: &[&str], fetches: &[&str], targets: &[&str]) -> Option<Code> {
        let signature = Signature { feeds: feeds.into(), fetches, targets };
        check(&signature, outputs).err().map(|error| error.code)
    }

    #[test]
    fn what_is_there_passes() {
        assert_eq!(code(&["x"], &["split:2", "x:0", "custom:100"], &[]), None);
        assert_eq!(code(&["split:0", "split:1"], &["split"], &["x"]), None);
        assert_eq!(code(&[], &["odd:name"], &[]), None);
        assert_eq!(code(&[], &[], &["init"]), None);
        assert_eq!(code(&[], &["x:4294967296"], &[]), None);
        assert_eq!(code(&[], &[], &["^x", "x:7", "x:99999999999", "_SOURCE", "_SINK"]), None);
    }

    #[test]
    fn what_is_not_there_is_told() {
        let invalid = Some(Code::InvalidArgument);
        assert_eq!(code(&["x"], &[], &[]), invalid);
        assert_eq!(code(&["y"], &["x"], &[]), invalid);
        assert_eq!(code(&["x"], &["y:0"], &[]), invalid);
        assert_eq!(code(&["x", "split:1", "x:0"], &["split"], &[]), invalid);
        assert_eq!(code(&[], &["split:3"], &[]), Some(Code::OutOfRange));
        assert_eq!(code(&[], &["init"], &[]), Some(Code::OutOfRange));
        assert_eq!(code(&["x:1"], &["x"], &[]), Some(Code::OutOfRange));
        assert_eq!(code(&["x"], &["x"], &["start"]), Some(Code::NotFound));
    }
}
