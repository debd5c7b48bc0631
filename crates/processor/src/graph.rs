//! Which variable of a graph each tensor of a checkpoint is restored into, and nodes that read and assign
//! these variables.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use session_group::{Error, Result};
use session_group_serving::tensorflow::TensorProto;

use crate::proto::model::attr::Value;
use crate::proto::model::{Attr, Function, Graph, Node};
use crate::slices::Slice;

/// A variable that a checkpoint has a value for.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// In the graph.
    pub name: String,
    /// Of a resource variable, its container and shared_name.
    pub resource: Option<(String, String)>,
    /// The tensor that has its value.
    pub read: String,
    /// The tensor to feed a new value to, and the operation that assigns it.
    pub value: String,
    pub assign: String,
}

/// Where a checkpoint's tensor goes: into a variable, or, of a partitioned one, slices into one each.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub variable: Variable,
    /// All of it where there is none.
    pub slice: Option<Slice>,
}

/// What is restored.
#[derive(Default)]
pub struct Restored {
    /// By their names in checkpoints, and the parts of partitioned ones by their own names, too.
    pub variables: BTreeMap<String, Vec<Part>>,
    /// Names of what else is, such as tables, and variables that are not simply assigned what the checkpoint
    /// has.
    pub others: BTreeSet<String>,
    /// The nodes to add to the graph.
    pub nodes: Graph,
}

/// Of our nodes.
const PREFIX: &str = "serving_processor";
/// What each checkpoint of TensorFlow 2 has.
const OBJECT_GRAPH: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";
/// Nodes that a graph may have once each call is replaced by what the function has.
const MOST_NODES: usize = 1 << 20;
/// Of functions that call functions.
const MOST_NESTED: usize = 64;

/// Finds what `restore_op` restores. A graph of any shape is looked at in bounded time.
pub fn restored(graph: &Graph, restore_op: &str) -> Result<Restored> {
    let functions: HashMap<&str, &Function> = graph
        .library
        .iter()
        .flat_map(|library| &library.function)
        .filter_map(|function| Some((function.signature.as_ref()?.name.as_str(), function)))
        .collect();
    let main = Scope::new(&graph.node, None);
    let mut finder = Finder {
        functions,
        main: &main,
        found: BTreeMap::new(),
        names: BTreeSet::new(),
        calls: Vec::new(),
    };
    let reached = main.reachable(restore_op);
    let wanted = graph.node.iter().filter(|node| reached.contains(node.name.as_str()));
    finder.check_calls(wanted)?;
    finder.look(&main, &|node| reached.contains(node.name.as_str()))?;
    while let Some(Call { function, arguments }) = finder.calls.pop() {
        finder.look(&Scope::new(&function.node_def, Some(arguments)), &|_| true)?;
    }
    let mut restored = Restored { others: finder.names, ..Restored::default() };
    restored.others.remove(OBJECT_GRAPH);
    let mut of_parts = Vec::new();
    for (i, (key, found)) in finder.found.into_iter().enumerate() {
        let Some(found) = parts(found) else { continue };
        restored.others.remove(&key);
        let mut parts = Vec::new();
        for (variable, slice) in found {
            let name = &variable.name;
            let variable =
                added_for(variable, &format!("{i}_{}", parts.len()), &mut restored.nodes.node);
            if slice.is_some() && *name != key {
                let part = Part { variable: variable.clone(), slice: None };
                of_parts.push((name.clone(), part));
            }
            parts.push(Part { variable, slice });
        }
        restored.variables.insert(key, parts);
    }
    for (name, part) in of_parts {
        if !restored.others.contains(&name) {
            restored.variables.entry(name).or_insert_with(|| vec![part]);
        }
    }
    Ok(restored)
}

/// The variables that get a tensor, and their slices. One that several variables get is none that can be told
/// apart, and neither is what is no slice that we know.
fn parts(found: Vec<(&Node, String)>) -> Option<Vec<(&Node, Option<Slice>)>> {
    if let [(variable, slice)] = &found[..]
        && slice.is_empty()
    {
        return Some(vec![(*variable, None)]);
    }
    let mut names = HashSet::new();
    let parts = found.into_iter().map(|(variable, slice)| {
        let is_first = names.insert(&variable.name);
        is_first.then_some((variable, Some(Slice::parse(&slice)?)))
    });
    let mut parts: Vec<_> = parts.collect::<Option<_>>()?;
    // Nodes are found in no order, and messages should have one.
    parts.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    let full = |part: &(_, Option<Slice>)| part.1.as_ref().map(|slice| slice.full.clone());
    let first = full(parts.first()?);
    parts.iter().all(|part| full(part) == first).then_some(parts)
}

struct Finder<'a, 'm> {
    functions: HashMap<&'a str, &'a Function>,
    main: &'m Scope<'a>,
    /// Variables, and their slices, by the checkpoint's names.
    found: BTreeMap<String, Vec<(&'a Node, String)>>,
    /// All of these names.
    names: BTreeSet<String>,
    /// Still to be looked at.
    calls: Vec<Call<'a>>,
}

/// A function to be looked at, and the main graph's tensor for each of its arguments.
struct Call<'a> {
    function: &'a Function,
    arguments: HashMap<&'a str, &'a str>,
}

/// A function that is being counted.
struct Counted<'a> {
    name: &'a str,
    /// The node that calls it.
    caller: &'a Node,
    nodes: std::slice::Iter<'a, Node>,
    /// How many nodes those before make.
    count: usize,
}

impl<'a> Finder<'a, '_> {
    /// The function that a node calls.
    fn called(&self, node: &'a Node) -> Option<(&'a str, &'a Function)> {
        let Value::Func(called) = attr(node, "f")? else { return None };
        self.functions.get_key_value(called.name.as_str()).map(|(name, called)| (*name, *called))
    }

    /// Refuses calls that would have no end, or nearly none, for us and for TensorFlow, which replaces them by
    /// what the functions have. Each function is counted once.
    fn check_calls(&self, nodes: impl Iterator<Item = &'a Node>) -> Result<()> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for node in nodes {
            let counted = |caller: &'a Node| {
                let (name, function) = self.called(caller)?;
                Some(Counted { name, caller, nodes: function.node_def.iter(), count: 0 })
            };
            let mut stack: Vec<_> = counted(node).into_iter().collect();
            while let Some(top) = stack.last_mut() {
                let (name, caller) = (top.name, top.caller);
                let refused = |what: String| {
                    Error::invalid(format!(
                        "node {} calls the function {name}, {what}: save the model with a restore function that \
                         calls fewer others",
                        caller.name
                    ))
                };
                let Some(node) = top.nodes.next() else {
                    let count = top.count;
                    counts.insert(name, count);
                    stack.pop();
                    if let Some(caller) = stack.last_mut() {
                        caller.count += count;
                    }
                    continue;
                };
                let called = counted(node);
                let known = called.as_ref().and_then(|called| counts.get(called.name));
                top.count += 1 + known.copied().unwrap_or(0);
                if top.count > MOST_NODES {
                    return Err(refused(format!("which makes more than {MOST_NODES} nodes")));
                }
                let Some(called) = called.filter(|_| known.is_none()) else { continue };
                if stack.iter().any(|open| open.name == called.name) {
                    return Err(Error::invalid(format!(
                        "node {} calls the function {}, within which it is: save the model without this \
                         recursion",
                        node.name, called.name
                    )));
                }
                if stack.len() == MOST_NESTED {
                    return Err(refused(format!("the last of {MOST_NESTED} that call each other")));
                }
                stack.push(called);
            }
        }
        Ok(())
    }

    fn look(&mut self, scope: &Scope<'a>, is_wanted: &dyn Fn(&Node) -> bool) -> Result<()> {
        for node in scope.nodes.values().copied().filter(|node| is_wanted(node)) {
            if node.op == "RestoreV2"
                && let Some(names) = node.input.get(1)
                && let Some(names) = scope.strings(names)?
            {
                self.names.extend(names.values.iter().cloned());
            }
            if let Some((key, variable, slice)) = scope.assigned(node, self.main)? {
                self.found.entry(key).or_default().push((variable, slice));
            }
            let Some((_, function)) = self.called(node) else { continue };
            let given: Vec<_> =
                data_inputs(node).map(|input| scope.given(input)).collect::<Result<_>>()?;
            let names = function.signature.iter().flat_map(|signature| &signature.input_arg);
            let names = names.map(|arg| arg.name.as_str());
            let arguments = names.zip(given).filter_map(|(name, given)| Some((name, given?)));
            self.calls.push(Call { function, arguments: arguments.collect() });
        }
        Ok(())
    }
}

/// The nodes of the graph, or of a function with its arguments.
struct Scope<'a> {
    nodes: HashMap<&'a str, &'a Node>,
    /// The main graph's tensor for each; of the main graph, none.
    arguments: Option<HashMap<&'a str, &'a str>>,
    /// Of constants.
    strings: RefCell<HashMap<&'a str, Rc<Strings>>>,
    /// For nodes that only pass something on: whose output, and which.
    passed_on: RefCell<HashMap<&'a str, (&'a str, usize)>>,
}

impl<'a> Scope<'a> {
    fn new(nodes: &'a [Node], arguments: Option<HashMap<&'a str, &'a str>>) -> Self {
        let nodes = nodes.iter().map(|node| (node.name.as_str(), node)).collect();
        Self { nodes, arguments, strings: RefCell::default(), passed_on: RefCell::default() }
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
    /// variable, and the slice of the tensor; for all of it, an empty text.
    fn assigned(
        &self,
        node: &'a Node,
        main: &Scope<'a>,
    ) -> Result<Option<(String, &'a Node, String)>> {
        if !matches!(node.op.as_str(), "AssignVariableOp" | "Assign") {
            return Ok(None);
        }
        let [variable, value] = node.input.as_slice() else { return Ok(None) };
        let Some((restore, output)) = self.behind(value)? else { return Ok(None) };
        if restore.op != "RestoreV2" {
            return Ok(None);
        }
        let [_, names, slices] = restore.input.as_slice() else { return Ok(None) };
        let (Some(names), Some(slices)) = (self.strings(names)?, self.strings(slices)?) else {
            return Ok(None);
        };
        let (Some(key), Some(slice)) = (names.get(output), slices.get(output)) else {
            return Ok(None);
        };
        let Some(variable) = self.given(variable)? else { return Ok(None) };
        let Some((variable, _)) = main.behind(variable)? else { return Ok(None) };
        let is_variable = matches!(variable.op.as_str(), "VarHandleOp" | "VariableV2" | "Variable");
        Ok(is_variable.then(|| (key.to_string(), variable, slice.to_string())))
    }

    /// The main graph's tensor that an input is; `None` for what a function makes itself.
    fn given(&self, input: &'a str) -> Result<Option<&'a str>> {
        let Some(arguments) = &self.arguments else { return Ok(Some(input)) };
        Ok(arguments.get(self.source(input)?.0).copied())
    }

    /// The node, and which of its outputs, that gives an input, beyond nodes that only pass it on.
    fn behind(&self, input: &'a str) -> Result<Option<(&'a Node, usize)>> {
        let (name, output) = self.source(input)?;
        Ok(self.nodes.get(name).map(|node| (*node, output)))
    }

    /// The name of the node or argument, and which of its outputs, that gives an input, beyond nodes that
    /// only pass it on. Each of these is passed only once.
    fn source(&self, input: &'a str) -> Result<(&'a str, usize)> {
        let (mut name, mut output) = producer(input);
        let mut known = self.passed_on.borrow_mut();
        let mut passed = HashSet::new();
        while let Some(node) = self.nodes.get(name).filter(|node| node.op == "Identity") {
            if let Some(&source) = known.get(name) {
                (name, output) = source;
                break;
            }
            if !passed.insert(name) {
                return Err(Error::invalid(format!(
                    "node {name} gets its own output, by Identity nodes that form a circle: save the model \
                     without it"
                )));
            }
            let Some(input) = node.input.first() else { break };
            (name, output) = producer(input);
        }
        known.extend(passed.into_iter().map(|passed| (passed, (name, output))));
        Ok((name, output))
    }

    /// The strings of the constant that gives an input.
    fn strings(&self, input: &'a str) -> Result<Option<Rc<Strings>>> {
        let Some((node, _)) = self.behind(input)? else { return Ok(None) };
        if let Some(known) = self.strings.borrow().get(node.name.as_str()) {
            return Ok(Some(known.clone()));
        }
        let Some(strings) = Strings::of(node).map(Rc::new) else { return Ok(None) };
        self.strings.borrow_mut().insert(&node.name, strings.clone());
        Ok(Some(strings))
    }
}

/// The strings of a constant.
struct Strings {
    /// The last of them stands for the rest.
    values: Vec<String>,
    count: usize,
}

impl Strings {
    fn of(node: &Node) -> Option<Self> {
        let Some(Value::Tensor(TensorProto { string_val, tensor_shape, .. })) = attr(node, "value")
        else {
            return None;
        };
        let mut dims = tensor_shape.iter().flat_map(|shape| &shape.dim).map(|dim| dim.size);
        let count = dims.try_fold(1i64, |count, dim| count.checked_mul(dim))?;
        let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
        let values: Vec<_> = string_val.iter().map(text).collect();
        Some(Self { values, count: usize::try_from(count).ok()? })
    }

    fn get(&self, index: usize) -> Option<&str> {
        let index = (index < self.count).then(|| index.min(self.values.len().saturating_sub(1)))?;
        self.values.get(index).map(String::as_str)
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

/// Adds nodes that read and assign a variable.
fn added_for(variable: &Node, place: &str, nodes: &mut Vec<Node>) -> Variable {
    let dtype = match attr(variable, "dtype") {
        Some(&Value::Type(dtype)) => dtype,
        _ => 0,
    };
    let name = |what: &str| format!("{PREFIX}/{place}/{what}");
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
        name: variable.name.clone(),
        resource: is_resource.then(|| (text("container"), text("shared_name"))),
        read: format!("{}:0", name("read")),
        value: format!("{value}:0"),
        assign: name("assign"),
    }
}
