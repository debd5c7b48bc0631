//! The names in a request: its signature, and the order that they come in.

use smallvec::SmallVec;

use crate::tensorflow::program::Order;

/// The names in a request, in its order.
#[derive(Clone, Hash)]
pub(crate) struct Signature<'a> {
    pub feeds: SmallVec<[&'a str; 32]>,
    pub fetches: &'a [&'a str],
    pub targets: &'a [&'a str],
}

/// Names of feeds, fetches and targets that outlive the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Names([Box<[Box<str>]>; 3]);

impl Names {
    /// Those of a request, as they are.
    pub fn of(signature: &Signature<'_>) -> Self {
        Self(
            [&signature.feeds, signature.fetches, signature.targets]
                .map(|names: &[&str]| names.iter().map(|&name| name.into()).collect()),
        )
    }

    /// Those that a request shares with all that ask for the same in another order, or for a tensor
    /// several times.
    pub fn shared(signature: &Signature<'_>) -> (Self, Order) {
        let feeds: Vec<String> = signature.feeds.iter().map(|name| tensor(name)).collect();
        let mut places: Vec<u32> = (0..feeds.len() as u32).collect();
        // Stable, so that a feed that is there twice, which TensorFlow refuses, stays so.
        places.sort_by_key(|&place| &feeds[place as usize]);
        let sorted: Box<[Box<str>]> =
            places.iter().map(|&place| feeds[place as usize].as_str().into()).collect();

        let fetches: Vec<String> = signature.fetches.iter().map(|name| tensor(name)).collect();
        let unique = sorted_and_unique(fetches.iter().map(String::as_str));
        let among = |name: &String| {
            let found = unique.binary_search_by(|known| (**known).cmp(name.as_str()));
            found.expect("it is one of them") as u32
        };
        let order = Order {
            feeds: unless_in_order(places),
            fetches: unless_in_order(fetches.iter().map(among).collect()),
        };
        let targets = sorted_and_unique(signature.targets.iter().copied());
        (Self([sorted, unique, targets]), order)
    }

    pub fn are(&self, signature: &Signature<'_>) -> bool {
        let same = |own: &[Box<str>], names: &[&str]| {
            own.len() == names.len()
                && std::iter::zip(own, names).all(|(own, &name)| **own == *name)
        };
        same(&self.0[0], &signature.feeds)
            && same(&self.0[1], signature.fetches)
            && same(&self.0[2], signature.targets)
    }

    /// Feeds, fetches and targets.
    pub fn all(&self) -> [Vec<&str>; 3] {
        self.0.each_ref().map(|names| names.iter().map(|name| &**name).collect())
    }
}

/// "x" is "x:0".
fn tensor(name: &str) -> String {
    match name.contains(':') || name.starts_with('^') {
        true => name.to_string(),
        false => format!("{name}:0"),
    }
}

fn sorted_and_unique<'a>(names: impl Iterator<Item = &'a str>) -> Box<[Box<str>]> {
    let mut names: Vec<Box<str>> = names.map(Box::from).collect();
    names.sort();
    names.dedup();
    names.into()
}

fn unless_in_order(places: Vec<u32>) -> Option<Box<[u32]>> {
    let in_order = places.iter().enumerate().all(|(i, &place)| i == place as usize);
    (!in_order).then(|| places.into())
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    fn signature<'a>(feeds: &[&'a str], fetches: &'a [&'a str]) -> Signature<'a> {
        Signature { feeds: feeds.into(), fetches, targets: &[] }
    }

    #[test]
    fn orders_and_spellings_of_the_same_names_are_one() {
        let (names, order) = Names::shared(&signature(&["a:0", "b:1"], &["x:0", "y:0"]));
        assert_eq!(order, Order::default());
        let (others, order) = Names::shared(&signature(&["b:1", "a"], &["y", "x:0", "y:0"]));
        assert_eq!(others, names);
        // The shared feeds are a, b, and the fetches x, y.
        assert_eq!(order.feeds.as_deref(), Some(&[1, 0][..]));
        assert_eq!(order.fetches.as_deref(), Some(&[1, 0, 1][..]));
    }

    #[test]
    fn what_differs_is_different() {
        let all = [
            signature(&["a"], &["b"]),
            signature(&["a"], &["b", "c"]),
            signature(&["b"], &["a"]),
            signature(&["a", "b"], &[]),
            signature(&["a", "a"], &["b"]),
            signature(&["a:1"], &["b"]),
            Signature { feeds: smallvec!["a"], fetches: &[], targets: &["b"] },
            Signature { feeds: smallvec![], fetches: &["a"], targets: &["b"] },
        ];
        let mut seen: Vec<Names> = all.iter().map(|one| Names::shared(one).0).collect();
        let n = seen.len();
        seen.dedup();
        assert_eq!(seen.len(), n);
        for one in &all {
            assert!(Names::of(one).are(one));
            assert_eq!(all.iter().filter(|other| Names::of(one).are(other)).count(), 1);
        }
    }

    #[test]
    fn a_tensor_that_is_fetched_twice_in_order_is_given_twice() {
        let (names, order) = Names::shared(&signature(&[], &["x:0", "x"]));
        assert_eq!(names.all()[1], ["x:0"]);
        assert_eq!(order.fetches.as_deref(), Some(&[0, 0][..]));
    }
}
