//! Which variable of a graph each tensor of a checkpoint is restored into, and nodes that read and assign
//! these variables.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use session_group_serving::tensorflow::TensorProto;

use crate::proto::model::attr::Value;
use crate::proto::model::{Attr, Function, Graph, Node};

/// A variable that a checkpoint has a value for.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// Of a resource variable, its container and shared_name.
    pub resource: Option<(String, String)>,
    /// The tensor that has its value.
    pub read: String,
    /// The tensor to feed a new value to, and the operation that assigns it.
    pub value: String,
    pub assign: String,
}

/// What is restored.
#[derive(Default)]
pub struct Restored {
    /// By their names in checkpoints.
    pub variables: BTreeMap<String, Variable>,
    /// Names of what else is, such as tables, slices of variables, and variables that are not
    /// simply assigned what the checkpoint has.
    pub others: BTreeSet<String>,
    /// The nodes to add to the graph.
    pub nodes: Graph,
}

/// Of our nodes.
const PREFIX: &str = "serving_processor";
/// What each checkpoint of TensorFlow 2 has.
const OBJECT_GRAPH: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";
/// Of functions that call functions.
const MOST_NESTED: usize = 16;

/// Finds what `restore_op` restores.
pub fn restored(graph: &Graph, restore_op: &str) -> Restored {
    let functions: HashMap<&str, &Function> = graph
        .library
        .iter()
        .flat_map(|library| &library.function)
        .filter_map(|function| Some((function.signature.as_ref()?.name.as_str(), function)))
        .collect();
    let main = Scope::new(&graph.node, HashMap::new());
    let mut finder =
        Finder { functions, main: &main, found: BTreeMap::new(), names: BTreeSet::new() };
    let reached = main.reachable(restore_op);
    finder.look(&main, &|node| reached.contains(node.name.as_str()), 0);
    let mut restored = Restored { others: finder.names, ..Restored::default() };
    restored.others.remove(OBJECT_GRAPH);
    for (i, (key, variables)) in finder.found.into_iter().enumerate() {
        // One that is restored twice, or into a slice, is one of the others.
        if let [(variable, false)] = variables[..] {
            restored.others.remove(&key);
            let variable = added_for(variable, i, &mut restored.nodes.node);
            restored.variables.insert(key, variable);
        }
    }
    restored
}

struct Finder<'a, 'm> {
    functions: HashMap<&'a str, &'a Function>,
    main: &'m Scope<'a>,
    /// Variables, and whether they are slices, by the checkpoint's names.
    found: BTreeMap<String, Vec<(&'a Node, bool)>>,
    /// All of these names.
    names: BTreeSet<String>,
}

impl<'a> Finder<'a, '_> {
    fn look(&mut self, scope: &Scope<'a>, is_wanted: &dyn Fn(&Node) -> bool, depth: usize) {
        for node in scope.nodes.values().filter(|node| is_wanted(node)) {
            if node.op == "RestoreV2" {
                let names = node.input.get(1).and_then(|names| scope.strings(names));
                self.names.extend(names.iter().flat_map(|names| names.iter().cloned()));
            }
            if let Some((key, variable, is_slice)) = scope.assigned(node, self.main) {
                self.found.entry(key).or_default().push((variable, is_slice));
            }
            let Some(Value::Func(called)) = attr(node, "f") else { continue };
            let Some(function) = self.functions.get(called.name.as_str()).copied() else {
                continue;
            };
            if depth == MOST_NESTED {
                continue;
            }
            let names = function.signature.iter().flat_map(|signature| &signature.input_arg);
            let given = data_inputs(node).map(|input| scope.given(input));
            let arguments = names.map(|arg| arg.name.as_str()).zip(given).collect();
            self.look(&Scope::new(&function.node_def, arguments), &|_| true, depth + 1);
        }
    }
}

/// The nodes of the graph, or of a function with its arguments.
struct Scope<'a> {
    nodes: HashMap<&'a str, &'a Node>,
    /// The main graph's tensor for each.
    arguments: HashMap<&'a str, &'a str>,
    /// Of constants.
    strings: RefCell<HashMap<&'a str, Rc<Vec<String>>>>,
}

impl<'a> Scope<'a> {
    fn new(nodes: &'a [Node], arguments: HashMap<&'a str, &'a str>) -> Self {
        let nodes = nodes.iter().map(|node| (node.name.as_str(), node)).collect();
        Self { nodes, arguments, strings: RefCell::default() }
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

    /// Where a node assigns a restored tensor to a variable of the main graph: the tensor's name, the
    /// variable, and whether that is a slice of it.
    fn assigned(&self, node: &Node, main: &Scope<'a>) -> Option<(String, &'a Node, bool)> {
        if !matches!(node.op.as_str(), "AssignVariableOp" | "Assign") {
            return None;
        }
        let [variable, value] = node.input.as_slice() else { return None };
        let (restore, output) = self.behind(value)?;
        if restore.op != "RestoreV2" {
            return None;
        }
        let [_, names, slices] = restore.input.as_slice() else { return None };
        let key = self.strings(names)?.get(output)?.clone();
        let is_slice = !self.strings(slices)?.get(output)?.is_empty();
        let (variable, _) = main.behind(self.given(variable))?;
        let is_variable = matches!(variable.op.as_str(), "VarHandleOp" | "VariableV2" | "Variable");
        is_variable.then_some((key, variable, is_slice))
    }

    /// What the main graph gives for an argument; else the input itself.
    fn given<'b>(&self, input: &'b str) -> &'b str
    where
        'a: 'b,
    {
        self.arguments.get(producer(input).0).copied().unwrap_or(input)
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

    /// The strings of the constant that gives an input.
    fn strings(&self, input: &str) -> Option<Rc<Vec<String>>> {
        let (node, _) = self.behind(input)?;
        if let Some(known) = self.strings.borrow().get(node.name.as_str()) {
            return Some(known.clone());
        }
        let strings = Rc::new(strings(node)?);
        self.strings.borrow_mut().insert(&node.name, strings.clone());
        Some(strings)
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

/// Adds nodes that read and assign a variable.
fn added_for(variable: &Node, i: usize, nodes: &mut Vec<Node>) -> Variable {
    let dtype = match attr(variable, "dtype") {
        Some(&Value::Type(dtype)) => dtype,
        _ => 0,
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
    let is_resource = variable.op == "VarHandleOp";
    if is_resource {
        add("read", "ReadVariableOp", &[&variable.name], "dtype");
        add("assign", "AssignVariableOp", &[&variable.name, &value], "dtype");
    } else {
        add("read", "Identity", &[&variable.name], "T");
        add("assign", "Assign", &[&variable.name, &value], "T");
    }
    let text = |name: &str| match attr(variable, name) {
        Some(Value::S(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    };
    Variable {
        resource: is_resource.then(|| (text("container"), text("shared_name"))),
        read: format!("{}:0", name("read")),
        value: format!("{value}:0"),
        assign: name("assign"),
    }
}
