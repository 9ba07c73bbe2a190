//! A tensor that lies in a file: what it is, and how its values come out.

use std::fmt;
use std::sync::Arc;

use burn::tensor::{FloatDType, TensorData, bf16, f16};
use rayon::prelude::*;

use crate::source::{Access, SourceFile};
use crate::{NamedTensor, WeightsError};

/// The kinds of values that files hold. Only floats become parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are safetensors' own")]
pub enum StoredDtype {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    F8E8M0,
    C64,
    C128,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl StoredDtype {
    /// Bytes of one value.
    pub fn size(self) -> u64 {
        match self {
            Self::C128 => 16,
            Self::F64 | Self::I64 | Self::U64 | Self::C64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::F8E8M0 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether a parameter can be made of it.
    pub fn is_float(self) -> bool {
        self.float().is_some()
    }

    fn float(self) -> Option<FloatDType> {
        match self {
            Self::F64 => Some(FloatDType::F64),
            Self::F32 => Some(FloatDType::F32),
            Self::F16 => Some(FloatDType::F16),
            Self::BF16 => Some(FloatDType::BF16),
            _ => None,
        }
    }

    /// By its name in a safetensors header.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "F8_E4M3" => Self::F8E4M3,
            "F8_E5M2" => Self::F8E5M2,
            "F8_E8M0" => Self::F8E8M0,
            "C64" => Self::C64,
            "I64" => Self::I64,
            "I32" => Self::I32,
            "I16" => Self::I16,
            "I8" => Self::I8,
            "U64" => Self::U64,
            "U32" => Self::U32,
            "U16" => Self::U16,
            "U8" => Self::U8,
            "BOOL" => Self::Bool,
            _ => return None,
        })
    }
}

impl fmt::Display for StoredDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A tensor in a file, of which everything but the values is known.
///
/// Whoever makes one has checked that all its values lie inside the file.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) file: Arc<SourceFile>,
    pub(crate) dtype: StoredDtype,
    pub(crate) shape: Vec<usize>,
    /// Where the first value lies, in bytes from the start of the file.
    pub(crate) start: u64,
    /// Values from one index to the next, for each dimension; absent for row-major tensors.
    pub(crate) strides: Option<Vec<usize>>,
}

/// So many values are read and converted at a time and thread: they stay in the second-level cache between the two.
const WINDOW: usize = 1 << 16;

impl Stored {
    /// Number of values.
    pub(crate) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The values in `precision`, or as they are stored. `name` is for messages.
    pub(crate) fn data(
        &self,
        name: &str,
        precision: Option<FloatDType>,
    ) -> Result<TensorData, WeightsError> {
        let own = self.float(name)?;
        let shape = self.shape.clone();
        Ok(match precision.unwrap_or(own) {
            FloatDType::F64 => TensorData::new(self.values::<f64>()?, shape),
            FloatDType::F32 | FloatDType::Flex32 => TensorData::new(self.values::<f32>()?, shape),
            FloatDType::F16 => TensorData::new(self.values::<f16>()?, shape),
            FloatDType::BF16 => TensorData::new(self.values::<bf16>()?, shape),
        })
    }

    /// The values in F32.
    pub(crate) fn named(&self, name: &str) -> Result<NamedTensor, WeightsError> {
        self.float(name)?;
        Ok(NamedTensor {
            shape: self.shape.clone(),
            values: self.values()?,
        })
    }

    fn float(&self, name: &str) -> Result<FloatDType, WeightsError> {
        self.dtype.float().ok_or_else(|| {
            WeightsError::Mismatch(format!(
                "{}: `{name}` has dtype {}, wanted F64, F32, F16 or BF16",
                self.file.path().display(),
                self.dtype
            ))
        })
    }

    fn values<T: Float>(&self) -> Result<Vec<T>, WeightsError> {
        match self.dtype {
            StoredDtype::F64 => self.collect(|bytes| T::from_f64(f64::from_le_bytes(bytes))),
            StoredDtype::F32 => self.collect(|bytes| T::from_f32(f32::from_le_bytes(bytes))),
            StoredDtype::F16 => self.collect(|bytes| T::from_f16(u16::from_le_bytes(bytes))),
            StoredDtype::BF16 => self.collect(|bytes| T::from_bf16(u16::from_le_bytes(bytes))),
            other => panic!("values of {other} were asked for as floats"),
        }
    }

    /// What `decode` makes of the N bytes of each value.
    fn collect<T: Send, const N: usize>(
        &self,
        decode: impl Fn([u8; N]) -> T + Sync,
    ) -> Result<Vec<T>, WeightsError> {
        let count = self.count();
        let mut values = Vec::new();
        values.try_reserve_exact(count).map_err(|error| {
            WeightsError::io(self.file.path())(std::io::Error::other(format!(
                "no memory for a tensor of {count} values: {error}"
            )))
        })?;
        if count == 0 {
            return Ok(values);
        }
        match &self.strides {
            None => {
                let room = &mut values.spare_capacity_mut()[..count];
                let windows = room.par_chunks_mut(WINDOW).enumerate();
                windows.try_for_each_init(Vec::new, |bytes, (number, room)| {
                    let start = self.start + (number * WINDOW * N) as u64;
                    bytes.resize(room.len() * N, 0);
                    self.file.read(start, bytes)?;
                    let (bytes, _) = bytes.as_chunks();
                    for (place, bytes) in room.iter_mut().zip(bytes) {
                        place.write(decode(*bytes));
                    }
                    Ok::<(), WeightsError>(())
                })?;
                #[expect(
                    unsafe_code,
                    reason = "filling the room with zeros first would be a second pass over memory, which takes as long as \
                              the first; `decode` has written each of these values"
                )]
                // SAFETY: `count` values are reserved, and the windows, which cover them, are all written.
                unsafe {
                    values.set_len(count);
                }
            }
            Some(strides) => {
                let span = 1 + furthest(&self.shape, strides);
                let bytes = self.start..self.start + (span * N) as u64;
                let window = self.file.window(bytes, Access::Sparse)?;
                visit(&self.shape, strides, |at| {
                    let bytes = window[at * N..][..N].try_into();
                    values.push(decode(bytes.expect("cut to one value's length")));
                });
            }
        }
        Ok(values)
    }
}

/// An F32 is a BF16 with more fraction.
fn widen_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Without branches, so that many are widened at once. The exponent's bias is moved from 15 to 127, for infinities and
/// what is no number to the end of the range. A subnormal is a fraction of the smallest exponent's unit.
fn widen_f16(bits: u16) -> f32 {
    const BIAS: u32 = (127 - 15) << 23;
    /// 2^-14, the smallest exponent of an F16.
    const UNIT: u32 = BIAS + (1 << 23);
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let subnormal = (f32::from_bits(magnitude | UNIT) - f32::from_bits(UNIT)).to_bits();
    let value = if magnitude >= 0x7c00 << 13 {
        magnitude + 2 * BIAS
    } else if magnitude >= 0x0400 << 13 {
        magnitude + BIAS
    } else {
        subnormal
    };
    f32::from_bits(value | sign)
}

/// How far the last value lies from the first, in values.
fn furthest(shape: &[usize], strides: &[usize]) -> usize {
    shape.iter().zip(strides).map(|(n, s)| (n - 1) * s).sum()
}

/// Calls `value` with the place of each value, in row-major order.
fn visit(shape: &[usize], strides: &[usize], mut value: impl FnMut(usize)) {
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    loop {
        value(at);
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= index[axis] * strides[axis];
            index[axis] = 0;
        }
    }
}

/// A float that can be made of what files hold; of its own kind to the bit.
trait Float: Send + Sized {
    fn from_f32(value: f32) -> Self;

    fn from_f64(value: f64) -> Self {
        Self::from_f32(value as f32)
    }

    fn from_f16(bits: u16) -> Self {
        Self::from_f32(widen_f16(bits))
    }

    fn from_bf16(bits: u16) -> Self {
        Self::from_f32(widen_bf16(bits))
    }
}

impl Float for f64 {
    fn from_f32(value: f32) -> Self {
        value.into()
    }

    fn from_f64(value: f64) -> Self {
        value
    }
}

impl Float for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Float for f16 {
    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn from_f16(bits: u16) -> Self {
        Self::from_bits(bits)
    }
}

impl Float for bf16 {
    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn from_bf16(bits: u16) -> Self {
        Self::from_bits(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_to_its_bits() {
        for bits in 0..=u16::MAX {
            let (got, wanted) = (widen_f16(bits), f16::from_bits(bits).to_f32());
            assert!(
                got.is_nan() && wanted.is_nan() || got.to_bits() == wanted.to_bits(),
                "{bits:x}"
            );
            let (got, wanted) = (widen_bf16(bits), bf16::from_bits(bits).to_f32());
            assert!(
                got.is_nan() && wanted.is_nan() || got.to_bits() == wanted.to_bits(),
                "{bits:x}"
            );
        }
    }
}
