//! Which variable of a graph each tensor of a checkpoint is restored into, and nodes that read and assign
//! these variables.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use session_group_serving::tensorflow::{TensorProto, TensorShapeProto};

use crate::proto::model::attr::Value;
use crate::proto::model::{Attr, Function, Graph, Node};

/// A variable that a checkpoint has a value for.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    pub dtype: i32,
    /// Where they are known before it has a value.
    pub dims: Option<Vec<i64>>,
    /// Whether the checkpoint's tensor is larger, and the variable a slice of it.
    pub is_slice: bool,
    /// The tensor that has its value.
    pub read: String,
    /// The tensor to feed a new value to, and the operation that assigns it.
    pub value: String,
    pub assign: String,
}

/// Of our nodes.
const PREFIX: &str = "serving_processor";

/// What is restored.
#[derive(Default)]
pub struct Restored {
    /// By their names in checkpoints.
    pub variables: BTreeMap<String, Variable>,
    /// Whether there is anything else, such as a table.
    pub has_more: bool,
    /// The nodes to add to the graph.
    pub nodes: Graph,
}

/// Finds what `restore_op` restores.
pub fn restored(graph: &Graph, restore_op: &str) -> Restored {
    let main = Scope::new(&graph.node, HashMap::new());
    let reached = main.reachable(restore_op);
    let is_reached = |node: &Node| reached.contains(node.name.as_str());
    let mut found = main.assigned(&main, is_reached);
    let mut names = main.restored_names(is_reached);
    let functions: HashMap<&str, &Function> = graph
        .library
        .iter()
        .flat_map(|library| &library.function)
        .filter_map(|function| Some((function.signature.as_ref()?.name.as_str(), function)))
        .collect();
    for call in reached.iter().filter_map(|name| main.nodes.get(name)) {
        let Some(Value::Func(called)) = attr(call, "f") else { continue };
        let Some(function) = functions.get(called.name.as_str()) else { continue };
        let inputs = function.signature.iter().flat_map(|signature| &signature.input_arg);
        let arguments = inputs.map(|arg| arg.name.as_str()).zip(data_inputs(call)).collect();
        let scope = Scope::new(&function.node_def, arguments);
        found.extend(scope.assigned(&main, |_| true));
        names.extend(scope.restored_names(|_| true));
    }
    let mut restored = Restored::default();
    for (i, one) in found.into_iter().enumerate() {
        let variable = added_for(one.variable, one.is_slice, i, &mut restored.nodes.node);
        restored.variables.entry(one.key).or_insert(variable);
    }
    let others = names.iter().filter(|name| !restored.variables.contains_key(*name));
    restored.has_more = others.into_iter().any(|name| name != OBJECT_GRAPH);
    restored
}

/// What each checkpoint of TensorFlow 2 has.
const OBJECT_GRAPH: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";

struct Assigned<'a> {
    key: String,
    is_slice: bool,
    variable: &'a Node,
}

/// The nodes of the graph, or of a function with its arguments.
struct Scope<'a> {
    nodes: HashMap<&'a str, &'a Node>,
    /// What the caller gives for each.
    arguments: HashMap<&'a str, &'a str>,
}

impl<'a> Scope<'a> {
    fn new(nodes: &'a [Node], arguments: HashMap<&'a str, &'a str>) -> Self {
        Self { nodes: nodes.iter().map(|node| (node.name.as_str(), node)).collect(), arguments }
    }

    /// The names of all that a node depends on.
    fn reachable(&self, name: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut left = vec![producer(name).0];
        while let Some(name) = left.pop() {
            if let Some(node) = self.nodes.get(name).filter(|_| reached.insert(name)) {
                left.extend(node.input.iter().map(|input| producer(input).0));
            }
        }
        reached
    }

    /// The assignments of restored tensors to variables of the main graph.
    fn assigned(&self, main: &Scope<'a>, is_wanted: impl Fn(&Node) -> bool) -> Vec<Assigned<'a>> {
        let mut all = Vec::new();
        for node in self.nodes.values().filter(|node| is_wanted(node)) {
            let is_assignment = matches!(node.op.as_str(), "AssignVariableOp" | "Assign");
            let [variable, value] = node.input.as_slice() else { continue };
            if !is_assignment {
                continue;
            }
            let Some((restore, output)) = self.behind(value) else { continue };
            let [_, names, slices] = restore.input.as_slice() else { continue };
            let text = |input| {
                self.behind(input).and_then(|(node, _)| strings(node)?.get(output).cloned())
            };
            let (Some(key), Some(slice)) = (text(names), text(slices)) else { continue };
            // In a function, variables are arguments.
            let name = self.arguments.get(producer(variable).0).copied().unwrap_or(variable);
            let Some((variable, _)) = main.behind(name) else { continue };
            let is_variable =
                matches!(variable.op.as_str(), "VarHandleOp" | "VariableV2" | "Variable");
            if restore.op == "RestoreV2" && is_variable {
                all.push(Assigned { key, is_slice: !slice.is_empty(), variable });
            }
        }
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    /// The names of all tensors that are restored.
    fn restored_names(&self, is_wanted: impl Fn(&Node) -> bool) -> BTreeSet<String> {
        let restores = self.nodes.values().filter(|node| node.op == "RestoreV2" && is_wanted(node));
        restores
            .filter_map(|restore| strings(self.behind(restore.input.get(1)?)?.0))
            .flatten()
            .collect()
    }

    /// The node, and which of its outputs, that gives an input, beyond nodes that only pass it on.
    fn behind(&self, input: &str) -> Option<(&'a Node, usize)> {
        let (mut name, mut output) = producer(input);
        loop {
            let node = self.nodes.get(name)?;
            if node.op != "Identity" {
                return Some((node, output));
            }
            (name, output) = producer(node.input.first()?);
        }
    }
}

/// The node of an input, and which of its outputs: `node:1`, in a function `node:name:1`.
fn producer(input: &str) -> (&str, usize) {
    let input = input.trim_start_matches('^');
    let name = input.split(':').next().unwrap_or(input);
    let output = input.rsplit_once(':').and_then(|(_, output)| output.parse().ok());
    (name, output.unwrap_or(0))
}

fn data_inputs(node: &Node) -> impl Iterator<Item = &str> {
    node.input.iter().map(String::as_str).filter(|input| !input.starts_with('^'))
}

fn attr<'a>(node: &'a Node, name: &str) -> Option<&'a Value> {
    node.attr.get(name)?.value.as_ref()
}

/// The strings of a constant.
fn strings(node: &Node) -> Option<Vec<String>> {
    let Some(Value::Tensor(TensorProto { string_val, tensor_shape, .. })) = attr(node, "value")
    else {
        return None;
    };
    let dims = tensor_shape.iter().flat_map(|shape| &shape.dim).map(|dim| dim.size);
    let count = usize::try_from(dims.product::<i64>()).ok()?;
    let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
    // The last of them may stand for the rest.
    let last = string_val.last().map(text)?;
    Some(
        string_val
            .iter()
            .map(text)
            .chain(std::iter::repeat(last))
            .take(count.min(1 << 24))
            .collect(),
    )
}

fn added_for(variable: &Node, is_slice: bool, i: usize, nodes: &mut Vec<Node>) -> Variable {
    let dtype = match attr(variable, "dtype") {
        Some(&Value::Type(dtype)) => dtype,
        _ => 0,
    };
    let dims = match attr(variable, "shape") {
        Some(Value::Shape(shape)) => known(shape),
        _ => None,
    };
    let name = |what: &str| format!("{PREFIX}/{i}/{what}");
    let mut add = |what, op: &str, inputs: &[&str], dtype_attr: &str| {
        let value = Some(Value::Type(dtype));
        nodes.push(Node {
            name: name(what),
            op: op.to_string(),
            input: inputs.iter().map(|input| input.to_string()).collect(),
            device: variable.device.clone(),
            attr: [(dtype_attr.to_string(), Attr { value })].into(),
        });
    };
    let value = name("value");
    add("value", "Placeholder", &[], "dtype");
    if variable.op == "VarHandleOp" {
        add("read", "ReadVariableOp", &[&variable.name], "dtype");
        add("assign", "AssignVariableOp", &[&variable.name, &value], "dtype");
    } else {
        add("read", "Identity", &[&variable.name], "T");
        add("assign", "Assign", &[&variable.name, &value], "T");
    }
    Variable {
        dtype,
        dims,
        is_slice,
        read: format!("{}:0", name("read")),
        value: format!("{value}:0"),
        assign: name("assign"),
    }
}

/// The dimensions, if all are known.
fn known(shape: &TensorShapeProto) -> Option<Vec<i64>> {
    let dims: Vec<i64> = shape.dim.iter().map(|dim| dim.size).collect();
    (!shape.unknown_rank && dims.iter().all(|&dim| dim >= 0)).then_some(dims)
}
