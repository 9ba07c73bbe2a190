use std::fmt;
use std::str::FromStr;

use burn::tensor::{FloatDType, bf16, f16};

use crate::StoredDtype;

/// How a number is written to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits, as numbers are in memory.
    F32,
    /// IEEE half precision: 11 significant bits, at most 65 504.
    F16,
    /// The upper half of an F32: 8 significant bits.
    Bf16,
}

impl Precision {
    /// The one that loses nothing of a stored float, except that F64 becomes F32, as when it is read.
    pub fn of(stored: StoredDtype) -> Self {
        match stored {
            StoredDtype::F16 => Self::F16,
            StoredDtype::BF16 => Self::Bf16,
            _ => Self::F32,
        }
    }

    /// What burn calls it.
    pub fn float_dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
        }
    }

    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// What safetensors calls it.
    pub fn safetensors_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// What `torch_dtype` of a `config.json` calls it.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// The nearest number that can be written; of two equally near ones the even one, as PyTorch rounds.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::F16 => f16::from_f32(value).to_f32(),
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// Little-endian bytes of the rounded values.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => values
                .iter()
                .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                .collect(),
            Self::Bf16 => values
                .iter()
                .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
                .collect(),
        }
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            _ => Err("wanted f32, f16 or bf16".into()),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_to_the_even_neighbour() {
        // BF16 has 7 bits after the point: 1 + 1/256 lies between 1 and 1 + 2/256, 1 + 3/256 between 1 + 2/256 and 1 + 4/256.
        assert_eq!(Precision::Bf16.round(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(Precision::Bf16.round(1.0 + 3.0 / 256.0), 1.0 + 4.0 / 256.0);
        // F16 has 10.
        assert_eq!(Precision::F16.round(1.0 + 1.0 / 2048.0), 1.0);
        assert_eq!(Precision::F16.round(1.0 + 3.0 / 2048.0), 1.0 + 4.0 / 2048.0);
        assert_eq!(Precision::F32.round(0.1), 0.1);
        assert_eq!(Precision::Bf16.encode(&[1.0, -2.0]), [0x80, 0x3f, 0, 0xc0]);
        assert_eq!(Precision::F16.encode(&[1.0]), [0x00, 0x3c]);
    }
}
