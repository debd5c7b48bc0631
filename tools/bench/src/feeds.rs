//! The requests, which are the same for all contenders.
//!
//! Ids are drawn from a Zipf distribution, as items are popular: some rows stay in the CPU's caches
//! and many don't. Popular rows are spread over the table, and are others in each of its columns.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::model::{Features, Input, Model, Values};

/// How steeply popularity falls.
pub const ZIPF_EXPONENT: f64 = 1.05;

/// The values of one input.
pub enum Feed {
    Ids { dims: Vec<i64>, values: Vec<i64> },
    Floats { dims: Vec<i64>, values: Vec<f32> },
    Strings { dims: Vec<i64>, values: Vec<Vec<u8>> },
}

impl Feed {
    /// Numbers as they lie in memory; `None` of strings.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Ids { values, .. } => Some(bytes(values)),
            Self::Floats { values, .. } => Some(bytes(values)),
            Self::Strings { .. } => None,
        }
    }
}

fn bytes<T: Number>(values: &[T]) -> &[u8] {
    // SAFETY: numbers have no padding, so that all bytes of the slice are initialised.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

trait Number {}
impl Number for i64 {}
impl Number for f32 {}

/// A pool of requests that clients send over and over; each has a value for every input.
pub fn requests(model: &Model, batch: u32) -> Vec<Vec<Feed>> {
    let mut rng = StdRng::seed_from_u64(1);
    let elements = |input: &Input| input.dims(batch).iter().product::<i64>() as usize;
    let count = count(batch, model.inputs.iter().map(elements).sum());
    let request = |_| model.inputs.iter().map(|input| feed(input, batch, &mut rng)).collect();
    (0..count).map(request).collect()
}

/// How many elements a pool of large requests has, about. There are more where [`LEAST`] have more.
const ELEMENTS: usize = 4 << 20;

/// The least requests of a pool, of which that many are compared between contenders.
pub const LEAST: usize = 8;

/// Many rows in all, but no less than 256 requests. Fewer of those that are large, such as images: many
/// processes have the pool in memory at the same time.
fn count(batch: u32, elements: usize) -> usize {
    let many = (4096 / batch as usize).max(256);
    many.min((ELEMENTS / elements.max(1)).max(LEAST))
}

fn feed(input: &Input, batch: u32, rng: &mut StdRng) -> Feed {
    let dims = input.dims(batch);
    let n: i64 = dims.iter().product();
    match input.values {
        Values::Floats => Feed::Floats { dims, values: (0..n).map(|_| rng.random()).collect() },
        Values::Ids(rows) => {
            let columns = dims.iter().skip(1).product::<i64>() as u64;
            let zipf = zipf(rows);
            let id = |i: i64| spread(zipf.sample(rng) as u64 - 1, i as u64 % columns, rows) as i64;
            Feed::Ids { dims, values: (0..n).map(id).collect() }
        }
        Values::Examples(ref features) => {
            let zipf = zipf(features.ids);
            Feed::Strings { dims, values: (0..n).map(|_| example(features, &zipf, rng)).collect() }
        }
    }
}

fn zipf(rows: u64) -> Zipf<f64> {
    Zipf::new(rows as f64, ZIPF_EXPONENT).expect("a table has rows")
}

fn example(features: &Features, zipf: &Zipf<f64>, rng: &mut StdRng) -> Vec<u8> {
    let strings = (0..features.fields).map(|column| {
        let id = spread(zipf.sample(rng) as u64 - 1, column, features.ids);
        // Feature.bytes_list = 1, BytesList.value = 1
        feature(&format!("c{column}"), 1, &message(1, format!("{id:08x}").as_bytes()))
    });
    let mut map: Vec<u8> = strings.flatten().collect();
    for column in 0..features.floats {
        // Feature.float_list = 2, FloatList.value = 1, packed
        let value = message(1, &rng.random::<f32>().to_le_bytes());
        map.extend(feature(&format!("d{column}"), 2, &value));
    }
    // Example.features = 1
    message(1, &map)
}

/// An entry of Features.feature = 1: key = 1, value = 2.
fn feature(name: &str, kind: u8, list: &[u8]) -> Vec<u8> {
    let entry = [message(1, name.as_bytes()), message(2, &message(kind, list))].concat();
    message(1, &entry)
}

/// A field of protobuf's wire format that has a length.
fn message(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        field.push(length as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend(bytes);
    field
}

/// The row of the nth most popular item, n from 0, in a column of ids.
fn spread(n: u64, column: u64, rows: u64) -> u64 {
    // A prime that divides no table's size, so that no two items get the same row.
    const PRIME: u64 = 2_654_435_761;
    (n * PRIME + column * (PRIME >> 8)) % rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_of_large_requests_are_small() {
        assert_eq!([1, 8, 32].map(|batch| count(batch, 39 * batch as usize)), [4096, 512, 256]);
        let image = 96 * 96 * 3;
        assert_eq!([1, 8, 32].map(|batch| count(batch, image * batch as usize)), [151, 18, 8]);
    }

    #[test]
    fn every_item_has_a_row_of_its_own() {
        for (rows, column) in [(1, 0), (7, 3), (192_000, 25), (100_000, 1)] {
            let mut seen = vec![false; rows as usize];
            (0..rows).for_each(|n| seen[spread(n, column, rows) as usize] = true);
            assert!(seen.iter().all(|&seen| seen), "{rows} rows, column {column}");
        }
    }

    #[test]
    fn popular_rows_differ_between_columns() {
        assert_ne!(spread(0, 0, 192_000), spread(0, 1, 192_000));
    }

    #[test]
    fn ids_are_rows_and_some_are_popular() {
        let text =
            r#"{"name": "ids", "tensorflow": "ids:0", "dims": [-1, 2], "values": {"ids": 1000}}"#;
        let input: Input = serde_json::from_str(text).unwrap();
        let Feed::Ids { dims, values } = feed(&input, 5000, &mut StdRng::seed_from_u64(1)) else {
            panic!("not ids");
        };
        assert_eq!(dims, [5000, 2]);
        assert!(values.iter().all(|id| (0..1000).contains(id)));
        let most_popular = spread(0, 0, 1000) as i64;
        let often = values.iter().step_by(2).filter(|&&id| id == most_popular).count();
        // One in the sum of n^-1.05 for n to 1000, which is about 6.
        assert!((600..1100).contains(&often), "{often}");
    }
}
