//! The types of tensors' elements.

use std::fmt;

use tensorflow_sys as tf;

macro_rules! data_types {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $size:expr;)*) => {
        /// The type of a tensor's elements: TensorFlow's `DataType`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum DataType {
            $($(#[$doc])* $name,)*
            /// One that this crate has no name for, by its number.
            Other(i32),
        }

        impl DataType {
            /// The size of an element in bytes. `None` where elements differ in size or where this crate
            /// does not know the type.
            pub const fn size(self) -> Option<usize> {
                match self {
                    $(Self::$name => $size,)*
                    Self::Other(_) => None,
                }
            }

            /// The number that TensorFlow's `DataType` gives it.
            pub const fn number(self) -> i32 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Other(number) => number,
                }
            }
        }

        impl From<i32> for DataType {
            fn from(number: i32) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Other(other),
                }
            }
        }

        /// TensorFlow's name, as in `tf.int64`.
        impl fmt::Display for DataType {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)*
                    Self::Other(number) => return write!(f, "number {number}"),
                })
            }
        }
    };
}

data_types! {
    /// 32-bit floats.
    Float = 1, "float32", Some(4);
    /// 64-bit floats.
    Double = 2, "float64", Some(8);
    /// Signed 32-bit integers.
    Int32 = 3, "int32", Some(4);
    /// Unsigned 8-bit integers.
    Uint8 = 4, "uint8", Some(1);
    /// Signed 16-bit integers.
    Int16 = 5, "int16", Some(2);
    /// Signed 8-bit integers.
    Int8 = 6, "int8", Some(1);
    /// Strings of bytes.
    String = 7, "string", None;
    /// Pairs of 32-bit floats.
    Complex64 = 8, "complex64", Some(8);
    /// Signed 64-bit integers.
    Int64 = 9, "int64", Some(8);
    /// A byte each, 0 or 1.
    Bool = 10, "bool", Some(1);
    /// Quantised, signed 8 bits.
    Qint8 = 11, "qint8", Some(1);
    /// Quantised, unsigned 8 bits.
    Quint8 = 12, "quint8", Some(1);
    /// Quantised, signed 32 bits.
    Qint32 = 13, "qint32", Some(4);
    /// 16-bit floats with the exponent of 32-bit ones.
    Bfloat16 = 14, "bfloat16", Some(2);
    /// Quantised, signed 16 bits.
    Qint16 = 15, "qint16", Some(2);
    /// Quantised, unsigned 16 bits.
    Quint16 = 16, "quint16", Some(2);
    /// Unsigned 16-bit integers.
    Uint16 = 17, "uint16", Some(2);
    /// Pairs of 64-bit floats.
    Complex128 = 18, "complex128", Some(16);
    /// 16-bit floats as of IEEE 754.
    Half = 19, "float16", Some(2);
    /// Handles of variables, tables and the like.
    Resource = 20, "resource", None;
    /// Values of any type.
    Variant = 21, "variant", None;
    /// Unsigned 32-bit integers.
    Uint32 = 22, "uint32", Some(4);
    /// Unsigned 64-bit integers.
    Uint64 = 23, "uint64", Some(8);
}

impl From<tf::TF_DataType> for DataType {
    fn from(dtype: tf::TF_DataType) -> Self {
        Self::from(dtype as i32)
    }
}

impl From<DataType> for i32 {
    fn from(dtype: DataType) -> Self {
        dtype.number()
    }
}

impl DataType {
    /// For TensorFlow's C API, where elements have a fixed size.
    pub(super) fn with_fixed_size(self) -> Option<(tf::TF_DataType, usize)> {
        use tf::*;
        const C: [tf::TF_DataType; 20] = [
            TF_FLOAT,
            TF_DOUBLE,
            TF_INT32,
            TF_UINT8,
            TF_INT16,
            TF_INT8,
            TF_COMPLEX64,
            TF_INT64,
            TF_BOOL,
            TF_QINT8,
            TF_QUINT8,
            TF_QINT32,
            TF_BFLOAT16,
            TF_QINT16,
            TF_QUINT16,
            TF_UINT16,
            TF_COMPLEX128,
            TF_HALF,
            TF_UINT32,
            TF_UINT64,
        ];
        let dtype = C.into_iter().find(|&dtype| Self::from(dtype) == self)?;
        Some((dtype, self.size()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes_are_tensorflows() {
        for number in 1..=23 {
            let dtype = DataType::from(number);
            assert_eq!(dtype.number(), number);
            assert!(!matches!(dtype, DataType::Other(_)));
            if let Some((of_c, size)) = dtype.with_fixed_size() {
                // SAFETY: no precondition.
                assert_eq!(unsafe { tf::TF_DataTypeSize(of_c) }, size, "{dtype}");
            } else {
                assert_eq!(dtype.size(), None, "{dtype}");
            }
        }
        assert_eq!(DataType::from(99), DataType::Other(99));
        assert_eq!(DataType::from(tf::TF_HALF).to_string(), "float16");
    }
}
