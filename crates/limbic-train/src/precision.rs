//! In what the frozen decoder's weights are held: BF16 halves their memory and is what GPUs multiply fast, and CPUs
//! convert it back at every product.

use burn::tensor::{Device, FloatDType};
use limbic_model::Part;
use limbic_weights::Precision;
use serde::{Deserialize, Serialize};

use crate::{Recipe, RunError};

/// What a recipe asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrozenPrecision {
    /// What suits the device, and F32 for a decoder that is trained.
    #[default]
    Auto,
    /// F32.
    F32,
    /// BF16.
    Bf16,
}

impl Recipe {
    /// The precision of the decoder's weights on `devices`, which `suits` them.
    ///
    /// # Errors
    /// BF16 for a decoder that is trained, or on a device that does not compute in it.
    pub(crate) fn decoder_precision(
        &self,
        devices: &[Device],
        suits: Precision,
    ) -> anyhow::Result<Precision> {
        let trained = self.train.learning_rate.contains_key(&Part::Decoder);
        let able = |device: &Device| device.supports_dtype(FloatDType::BF16);
        match self.train.precision {
            FrozenPrecision::F32 => Ok(Precision::F32),
            FrozenPrecision::Auto if trained => Ok(Precision::F32),
            FrozenPrecision::Auto => Ok(suits),
            FrozenPrecision::Bf16 if trained => Err(RunError::recipe(
                "`train.precision` is bf16, but `train.learning_rate` names `decoder`, and trained weights are held in \
                 f32; freeze the decoder or leave `train.precision` out",
            )),
            FrozenPrecision::Bf16 if !devices.iter().all(able) => Err(RunError::recipe(
                "`train.precision` is bf16, in which a device of `--devices` does not compute; wanted f32 or auto there \
                 (`limbic doctor` lists what each device does)",
            )),
            FrozenPrecision::Bf16 => Ok(Precision::Bf16),
        }
    }
}
