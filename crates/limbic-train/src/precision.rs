//! In what the frozen decoder's weights are held: BF16 halves their memory and is what GPUs multiply fast, and CPUs
//! convert it back at every product.

use burn::tensor::{Device, FloatDType};
use limbic_model::{Artifact, DecoderSource, Part};
use limbic_weights::Precision;
use serde::{Deserialize, Serialize};

use crate::recipe::DecoderRecipe;
use crate::reference::Reference;
use crate::run_dir::RunFile;
use crate::{Recipe, RunError};

/// What a recipe asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrozenPrecision {
    /// What suits the device, and F32 for a decoder that the run writes.
    #[default]
    Auto,
    /// F32.
    F32,
    /// BF16.
    Bf16,
}

impl Recipe {
    /// Whether the run, which starts from `init` if from any, writes a decoder of its own: one that it trains, draws, or
    /// adds earlier adapters to.
    pub(crate) fn writes_decoder(&self, init: Option<&Artifact>) -> bool {
        let model = self.model.get();
        let decoder = model.decoder.as_ref().map(Reference::get);
        let merges = model.lora.is_some() && init.is_some_and(|it| it.model.llama.lora().is_some());
        merges
            || self.train.learning_rate.contains_key(&Part::Decoder)
            || matches!(decoder, Some(DecoderRecipe::Scratch(_)))
    }

    /// The precision of the decoder's weights on `devices`, which `suits` them. What the run writes is not rounded unasked.
    ///
    /// # Errors
    /// BF16 for a decoder that is trained, or on a device that does not compute in it.
    pub(crate) fn decoder_precision(
        &self,
        init: Option<&Artifact>,
        devices: &[Device],
        suits: Precision,
    ) -> anyhow::Result<Precision> {
        let trained = self.train.learning_rate.contains_key(&Part::Decoder);
        match self.train.precision {
            FrozenPrecision::F32 => Ok(Precision::F32),
            FrozenPrecision::Auto if self.writes_decoder(init) => Ok(Precision::F32),
            FrozenPrecision::Auto => Ok(suits),
            FrozenPrecision::Bf16 if trained => Err(RunError::recipe(
                "`train.precision` is bf16, but `train.learning_rate` names `decoder`, and trained weights are held in \
                 f32; freeze the decoder or leave `train.precision` out",
            )),
            FrozenPrecision::Bf16 if !all_compute_bf16(devices) => Err(RunError::recipe(
                "`train.precision` is bf16, in which a device of `--devices` does not compute; wanted f32 or auto there \
                 (`limbic doctor` lists what each device does)",
            )),
            FrozenPrecision::Bf16 => Ok(Precision::Bf16),
        }
    }
}

/// The precision of a finished model's decoder on `devices`, which `suits` them: that of its run, where that is known.
/// A decoder that the model brings along is not rounded.
///
/// # Errors
/// BF16 on a device that does not compute in it.
pub(crate) fn finished_precision(
    run: Option<&RunFile>,
    decoder: &DecoderSource,
    devices: &[Device],
    suits: Precision,
) -> anyhow::Result<Precision> {
    let precision = match (run.and_then(|run| run.precision.as_deref()), decoder) {
        (Some(text), _) => text.parse().map_err(|wanted: String| {
            RunError::recipe(format!("`precision` of run.json is `{text}`: {wanted}"))
        })?,
        (None, DecoderSource::Own) => Precision::F32,
        (None, DecoderSource::Base { .. }) => suits,
    };
    if precision == Precision::Bf16 && !all_compute_bf16(devices) {
        return Err(RunError::recipe(
            "the run's decoder is held in bf16, in which a device of `--devices` does not compute; take another \
             (`limbic doctor` lists what each device does)",
        ));
    }
    Ok(precision)
}

fn all_compute_bf16(devices: &[Device]) -> bool {
    let able = |device: &Device| device.supports_dtype(FloatDType::BF16);
    devices.iter().all(able)
}
