//! From values to a tensor: they are read one by one, and are bytes of the tensor from then on.

use half::{bf16, f16};
use jiter::{Jiter, JsonValue, Peek};
use session_group::tensorflow::Tensor;
use session_group::{Code, Error, Result};

use super::read::{Json, Kind, Leaf, leaf, wrong};
use crate::proto::tensorflow::DataType;
use crate::tensor;

/// The values of an input, as far as they have been read.
pub struct Column {
    dtype: i32,
    pub items: usize,
    /// Of each item.
    dims: Vec<usize>,
    /// How many values each item has.
    size: usize,
    bytes: Vec<u8>,
    strings: Strings,
}

/// Strings in one piece of memory: few bytes of a request are very many short ones.
#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// The shape of an item, as far as it is known, which is as deep as the first elements are lists.
#[derive(Default)]
struct Shape {
    dims: Vec<Option<usize>>,
    is_deep: bool,
    /// How many values there are.
    size: usize,
}

impl Shape {
    fn begin_list(&mut self, level: usize) -> Result<()> {
        if level < self.dims.len() {
            return Ok(());
        }
        if self.is_deep {
            let depth = self.dims.len();
            return Err(Error::invalid(format!(
                "Encountered list at unexpected level: {level} expected < {depth}"
            )));
        }
        self.dims.push(None);
        Ok(())
    }

    fn end_list(&mut self, level: usize, size: usize) -> Result<()> {
        self.is_deep = true;
        match self.dims[level].replace(size) {
            Some(expected) if expected != size => Err(Error::invalid(format!(
                "Encountered list at unexpected size: {size} at level: {level} expected size: {expected}"
            ))),
            _ => Ok(()),
        }
    }

    fn value(&mut self, level: usize, leaf: &Leaf<'_>) -> Result<()> {
        self.is_deep = true;
        self.size += 1;
        if level != self.dims.len() {
            return Err(Error::invalid(format!(
                "JSON Value: {} found at incorrect level: {} in the JSON DOM. Expected at level: {}",
                leaf.json.dump(),
                level + 1,
                self.dims.len()
            )));
        }
        Ok(())
    }
}

impl Column {
    pub fn new(dtype: i32) -> Self {
        let (bytes, strings) = (Vec::new(), Strings::default());
        Self { dtype, items: 0, dims: Vec::new(), size: 0, bytes, strings }
    }

    /// Adds the values of an item, which has the shape of the first.
    pub fn add(&mut self, json: Json<'_>) -> Result<()> {
        let mut reader = json.reader();
        let peek = reader.peek().map_err(wrong)?;
        self.add_next(&mut reader, peek)
    }

    /// The same for one that a reader reads next.
    pub fn add_next(&mut self, reader: &mut Jiter<'_>, peek: Peek) -> Result<()> {
        let mut shape = Shape::default();
        self.walk(reader, peek, 0, &mut shape)?;
        let size = shape.size;
        let dims: Vec<usize> = shape.dims.into_iter().map(Option::unwrap_or_default).collect();
        if self.items == 0 {
            (self.dims, self.size) = (dims, size);
        } else if size != self.size {
            return Err(Error::invalid(format!(
                "Expecting tensor size: {} but got: {size}",
                self.size
            )));
        } else if dims != self.dims {
            let text = |dims: &[usize]| {
                let dims: Vec<_> = dims.iter().map(usize::to_string).collect();
                format!("[{}]", dims.join(","))
            };
            return Err(Error::invalid(format!(
                "Expecting shape {} but got: {}",
                text(&self.dims),
                text(&dims)
            )));
        }
        self.items += 1;
        Ok(())
    }

    fn walk(
        &mut self,
        reader: &mut Jiter<'_>,
        peek: Peek,
        level: usize,
        shape: &mut Shape,
    ) -> Result<()> {
        if peek != Peek::Array {
            let leaf = leaf(reader, peek)?;
            shape.value(level, &leaf)?;
            return self.push(&leaf);
        }
        shape.begin_list(level)?;
        let mut size = 0;
        let mut next = reader.known_array().map_err(wrong)?;
        while let Some(peek) = next {
            self.walk(reader, peek, level + 1, shape)?;
            size += 1;
            next = reader.array_step().map_err(wrong)?;
        }
        shape.end_list(level, size)
    }

    fn push(&mut self, leaf: &Leaf<'_>) -> Result<()> {
        let dtype = DataType::try_from(self.dtype).unwrap_or(DataType::DtInvalid);
        let wrong = || {
            Error::invalid(format!(
                "JSON Value: {} Type: {} is not of expected type: {}",
                leaf.json.dump(),
                leaf.kind.name(),
                tensor::type_name(self.dtype)
            ))
        };
        let within = |least: i128, most: i128| {
            leaf.integer().filter(|value| (least..=most).contains(value)).ok_or_else(wrong)
        };
        let number = || leaf.number().ok_or_else(wrong);
        // What JSON has as a finite number stays one.
        let finite = |number: f64, becomes: f64| match number.is_finite() && !becomes.is_finite() {
            true => Err(wrong()),
            false => Ok(()),
        };
        match dtype {
            DataType::DtFloat => {
                let number = number()?;
                finite(number, (number as f32).into())?;
                self.bytes.extend((number as f32).to_ne_bytes());
            }
            DataType::DtHalf => {
                let number = number()?;
                let half = f16::from_f64(number);
                finite(number, half.to_f64())?;
                self.bytes.extend(half.to_ne_bytes());
            }
            DataType::DtBfloat16 => {
                let number = number()?;
                let half = bf16::from_f64(number);
                finite(number, half.to_f64())?;
                self.bytes.extend(half.to_ne_bytes());
            }
            DataType::DtDouble => {
                let number = number()?;
                // As an integer of 400 digits, which is read as infinite.
                if matches!(leaf.value, Some(JsonValue::Int(_) | JsonValue::BigInt(_))) {
                    finite(0.0, number)?;
                }
                self.bytes.extend(number.to_ne_bytes());
            }
            DataType::DtInt32 => {
                let value = within(i32::MIN.into(), i32::MAX.into())?;
                self.bytes.extend((value as i32).to_ne_bytes());
            }
            DataType::DtInt16 => {
                let value = within(i16::MIN.into(), i16::MAX.into())?;
                self.bytes.extend((value as i16).to_ne_bytes());
            }
            DataType::DtUint16 => {
                self.bytes.extend((within(0, u16::MAX.into())? as u16).to_ne_bytes());
            }
            DataType::DtInt8 => self.bytes.push(within(i8::MIN.into(), i8::MAX.into())? as u8),
            DataType::DtUint8 => self.bytes.push(within(0, u8::MAX.into())? as u8),
            DataType::DtInt64 => {
                let value = within(i64::MIN.into(), i64::MAX.into())?;
                self.bytes.extend((value as i64).to_ne_bytes());
            }
            DataType::DtUint32 => {
                self.bytes.extend((within(0, u32::MAX.into())? as u32).to_ne_bytes());
            }
            DataType::DtUint64 => {
                self.bytes.extend((within(0, u64::MAX.into())? as u64).to_ne_bytes());
            }
            DataType::DtBool => match leaf.value {
                Some(JsonValue::Bool(value)) => self.bytes.push(u8::from(value)),
                _ => return Err(wrong()),
            },
            DataType::DtString => match leaf.kind {
                Kind::String | Kind::Object => self.strings.push(&leaf.bytes()?),
                _ => return Err(wrong()),
            },
            _ => {
                return Err(Error::new(
                    Code::Unimplemented,
                    format!(
                        "Conversion of JSON Value: {} to type: {}",
                        leaf.json.dump(),
                        tensor::type_name(self.dtype)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The sizes of all items, or of the only one.
    pub fn dims(&self, with_items: bool) -> Vec<i64> {
        let items = with_items.then_some(self.items);
        items.into_iter().chain(self.dims.iter().copied()).map(|size| size as i64).collect()
    }

    /// The tensor of these sizes.
    pub fn tensor(self, dims: &[i64]) -> Result<Tensor> {
        match self.dtype == DataType::DtString as i32 {
            true => Tensor::from_strings(dims, &self.strings.all()),
            false => Tensor::from_bytes(self.dtype, dims, &self.bytes),
        }
    }
}

impl Strings {
    fn push(&mut self, string: &[u8]) {
        self.bytes.extend(string);
        self.ends.push(self.bytes.len());
    }

    fn all(&self) -> Vec<&[u8]> {
        let begins = std::iter::once(&0).chain(&self.ends);
        begins.zip(&self.ends).map(|(&begin, &end)| &self.bytes[begin..end]).collect()
    }
}
