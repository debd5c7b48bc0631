//! From a tensor to the text of its values.

use half::{bf16, f16};
use session_group::tensorflow::Tensor;
use session_group::{Error, Result};

use super::write::Writer;
use crate::proto::tensorflow::DataType;
use crate::tensor;

/// The values of a tensor, one after the other.
pub enum Values<'a> {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Strings(Vec<&'a [u8]>),
    /// Those whose text needs no quotes.
    Plain(Box<dyn Fn(usize) -> String + 'a>),
}

impl<'a> Values<'a> {
    pub fn of(tensor: &'a Tensor) -> Result<Self> {
        fn plain<T: session_group::tensorflow::Element + ToString + 'static>(
            tensor: &Tensor,
        ) -> Result<Values<'static>> {
            let values = tensor.to_vec::<T>()?;
            Ok(Values::Plain(Box::new(move |i| values[i].to_string())))
        }
        let dtype = DataType::try_from(tensor.dtype().number()).unwrap_or(DataType::DtInvalid);
        let values = match dtype {
            DataType::DtFloat => Values::F32(tensor.to_vec()?),
            DataType::DtDouble => Values::F64(tensor.to_vec()?),
            DataType::DtHalf => {
                let halves = tensor.bytes().chunks_exact(2);
                let value = |bits: &[u8]| f16::from_ne_bytes([bits[0], bits[1]]).to_f32();
                Values::F32(halves.map(value).collect())
            }
            DataType::DtBfloat16 => {
                let halves = tensor.bytes().chunks_exact(2);
                let value = |bits: &[u8]| bf16::from_ne_bytes([bits[0], bits[1]]).to_f32();
                Values::F32(halves.map(value).collect())
            }
            DataType::DtInt32 => plain::<i32>(tensor)?,
            DataType::DtInt16 => plain::<i16>(tensor)?,
            DataType::DtInt8 => plain::<i8>(tensor)?,
            DataType::DtUint8 => plain::<u8>(tensor)?,
            DataType::DtInt64 => plain::<i64>(tensor)?,
            DataType::DtUint16 => plain::<u16>(tensor)?,
            DataType::DtUint32 => plain::<u32>(tensor)?,
            DataType::DtUint64 => plain::<u64>(tensor)?,
            DataType::DtBool => {
                let bytes = tensor.bytes();
                Values::Plain(Box::new(|i| (bytes[i] != 0).to_string()))
            }
            DataType::DtString => Values::Strings(tensor.strings()?),
            _ => {
                return Err(Error::invalid(format!(
                    "Failed to write JSON value for tensor type: {}",
                    tensor::type_name(tensor.dtype().number())
                )));
            }
        };
        Ok(values)
    }

    /// A value of a tensor of strings.
    pub fn string(&self, i: usize) -> Option<&'a [u8]> {
        match self {
            Values::Strings(values) => Some(values[i]),
            _ => None,
        }
    }

    pub fn write(&self, writer: &mut Writer, i: usize) {
        match self {
            Values::F32(values) => writer.f32(values[i]),
            Values::F64(values) => writer.f64(values[i]),
            Values::Strings(values) => writer.string(values[i]),
            Values::Plain(text) => writer.raw(&text(i)),
        }
    }
}
