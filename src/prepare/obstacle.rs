//! Why requests can't run as a program, in words for the log, and what the model's author can do about it.

use crate::prepare::signature::Names;

/// How many names a line for the log lists.
const MOST_NAMES: usize = 3;

/// One line, as it is logged when requests can't run as a program. `group` is as in names of threads, "sg0".
pub(crate) fn line(group: &str, names: &Names, why: &str) -> String {
    let [_, fetches, targets] = names.all();
    let wanted = match (&fetches[..], &targets[..]) {
        ([], targets) => format!("run {}", listed(targets)),
        (fetches, _) => format!("fetch {}", listed(fetches)),
    };
    let advice = advice(why).map_or(String::new(), |advice| format!("; {advice}"));
    let number = group.trim_start_matches("sg");
    format!(
        "session group {number}: requests that {wanted} run on TensorFlow's session, not as a program, because of \
         {why}{advice}"
    )
}

fn listed(names: &[&str]) -> String {
    let mut text = names[..names.len().min(MOST_NAMES)].join(", ");
    if names.len() > MOST_NAMES {
        text += &format!(" and {} more", names.len() - MOST_NAMES);
    }
    text
}

/// What the model's author can do about an obstacle, where there is something.
pub(crate) fn advice(why: &str) -> Option<&'static str> {
    const STATE: &str = "state in a kernel (";
    const CONTROL_FLOW: [&str; 5] = ["control flow", "loop", "Switch", "Merge", "predicate"];
    let what = why.split(" (").next().unwrap_or_default();
    if let Some(operation) = why.strip_prefix(STATE) {
        let operation = operation.split([',', ')']).next().unwrap_or_default();
        return advice_on_state(operation);
    }
    if why.starts_with("a ref variable") {
        return Some(
            "make the variables resource variables: use_resource=True, or \
             tf.compat.v1.enable_resource_variables() before the graph is built",
        );
    }
    if why.starts_with("a fed resource") {
        return Some("feed values, not a handle to a variable or a table");
    }
    if why.starts_with("several devices") {
        return Some("place all that the request needs on /device:CPU:0");
    }
    CONTROL_FLOW.iter().any(|part| what.contains(part)).then_some(
        "build the graph with tf.while_loop and tf.cond after tf.compat.v1.enable_control_flow_v2()",
    )
}

fn advice_on_state(operation: &str) -> Option<&'static str> {
    let has = |part| operation.contains(part);
    if has("Random") || has("Multinomial") || has("TruncatedNormal") {
        return Some(
            "use tf.random.stateless_*, or leave dropout and sampling out of what is served",
        );
    }
    if has("Iterator") || has("Queue") || has("Dataset") || has("Reader") {
        return Some("feed the tensors that the input pipeline makes");
    }
    if has("HashTable") {
        return Some("give the table a shared_name");
    }
    None
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::prepare::signature::Signature;

    fn names(fetches: &[&str], targets: &[&str]) -> Names {
        Names::of(&Signature { feeds: smallvec!["x:0"], fetches, targets })
    }

    #[test]
    fn a_line_names_what_is_asked_for_the_node_and_the_advice() {
        let why = "a ref variable (node weights)";
        let text = line("sg3", &names(&["y:0"], &[]), why);
        assert!(text.starts_with("session group 3: requests that fetch y:0 run on"), "{text}");
        assert!(text.contains("because of a ref variable (node weights); make the"), "{text}");
        let text = line("sg3", &names(&[], &["initialize"]), "the device /device:GPU:0");
        assert!(text.contains("that run initialize run on"), "{text}");
        assert!(text.ends_with("because of the device /device:GPU:0"), "{text}");
    }

    #[test]
    fn long_lists_of_names_are_shortened() {
        assert_eq!(listed(&["a", "b", "c"]), "a, b, c");
        assert_eq!(listed(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }

    #[test]
    fn advice_is_given_where_there_is_some() {
        for (why, expected) in [
            ("state in a kernel (RandomUniform, node dropout/random)", "tf.random.stateless_*"),
            ("state in a kernel (IteratorV2, node it)", "feed the tensors"),
            ("state in a kernel (FIFOQueueV2, node queue)", "feed the tensors"),
            ("state in a kernel (HashTableV2, node table)", "shared_name"),
            ("several devices (node Send)", "/device:CPU:0"),
            ("a loop with two tests (while/LoopCond)", "enable_control_flow_v2"),
            ("a fed resource (node x)", "feed values"),
        ] {
            let advice = advice(why).unwrap_or_else(|| panic!("none for {why}"));
            assert!(advice.contains(expected), "{why}: {advice}");
        }
        for why in ["state in a kernel (MyOp, node x)", "a collective operation (node loop/x)"] {
            assert_eq!(advice(why), None, "{why}");
        }
    }
}
