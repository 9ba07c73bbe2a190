//! In what the frozen decoder's weights are held: BF16 halves their memory and is what GPUs multiply fast, and CPUs
//! convert it back at every product.

use burn::tensor::{Device, FloatDType};
use limbic_model::{DecoderSource, Part};
use limbic_weights::Precision;
use serde::{Deserialize, Serialize};

use crate::origin::Origin;
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
    pub(crate) fn writes_decoder(&self, init: Option<&Origin>) -> bool {
        let model = self.model.get();
        let decoder = model.decoder.as_ref().map(Reference::get);
        self.merges(init)
            || self.train.learning_rate.contains_key(&Part::Decoder)
            || matches!(decoder, Some(DecoderRecipe::Scratch(_)))
    }

    /// Whether new adapters stand on the sum of those of `init` and its decoder.
    pub(crate) fn merges(&self, init: Option<&Origin>) -> bool {
        self.model.get().lora.is_some() && init.is_some_and(|it| it.is_adapted)
    }

    /// What the decoder of `init` is read in, to be held in `held`. A sum with adapters is rounded once.
    pub(crate) fn origin_precision(&self, init: Option<&Origin>, held: Precision) -> Precision {
        match self.merges(init) {
            true => Precision::F32,
            false => held,
        }
    }

    /// The precision of the decoder's weights on `devices`, which `suits` them. What the run writes is not rounded unasked.
    ///
    /// # Errors
    /// BF16 for a decoder that is trained, or on a device that does not compute in it.
    pub(crate) fn decoder_precision(
        &self,
        init: Option<&Origin>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_writes_is_not_rounded_unasked() {
        let precision = |decoder: &str, part: &str, precision: &str| {
            let text = format!(
                "{{name: it, model: {{decoder: {decoder}}}, data: {{manifest: m.jsonl, tasks: {{describe: 1}}}}, \
                 train: {{steps: 1, batch_size: 1, learning_rate: {{{part}: 0.1}}, precision: {precision}}}}}"
            );
            let recipe: Recipe = serde_yaml::from_str(&text).unwrap();
            recipe.decoder_precision(None, &[Device::flex()], Precision::Bf16)
        };
        let drawn = "{kind: scratch, vocab_size: 270, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 2, \
                     num_attention_heads: 2, num_key_value_heads: 2, max_position_embeddings: 64}";
        let read = "{kind: pretrained, folder: decoder}";
        for (decoder, part, asked, wanted) in [
            (read, "projectors", "auto", Precision::Bf16),
            (read, "projectors", "f32", Precision::F32),
            (read, "decoder", "auto", Precision::F32),
            (drawn, "projectors", "auto", Precision::F32),
            (drawn, "projectors", "bf16", Precision::Bf16),
        ] {
            let got = precision(decoder, part, asked).unwrap();
            assert_eq!(got, wanted, "{decoder} {part} {asked}");
        }
        assert!(precision(read, "decoder", "bf16").is_err());
    }

    #[test]
    fn a_start_is_read_as_it_is_held_unless_adapters_are_added_into_it() {
        let precision = |model: &str, is_adapted: bool, held: Precision| {
            let text = format!(
                "{{name: it, model: {model}, data: {{manifest: m.jsonl, tasks: {{describe: 1}}}}, \
                 train: {{steps: 1, batch_size: 1, learning_rate: {{lora: 0.1}}}}}}"
            );
            let recipe: Recipe = serde_yaml::from_str(&text).unwrap();
            let config = serde_json::json!({
                "format": 1, "run": "before", "decoder": "own", "transcript": true, "inputs": [],
                "prompt": {"template": ["{instruction}"], "instructions": {}}, "labels": null, "head": null,
            });
            let config = serde_json::from_value(config).unwrap();
            let origin = Origin::known("before".into(), config, is_adapted);
            recipe.origin_precision(Some(&origin), held)
        };
        let lora = "{lora: {r: 2, lora_alpha: 2, target_modules: [q_proj]}}";
        assert_eq!(precision(lora, false, Precision::Bf16), Precision::Bf16);
        assert_eq!(precision("{}", true, Precision::Bf16), Precision::Bf16);
        assert_eq!(precision(lora, true, Precision::Bf16), Precision::F32);
        assert_eq!(precision("{}", true, Precision::F32), Precision::F32);
    }

    #[test]
    fn an_artifact_outside_a_run_is_held_as_suits_what_it_is() {
        let base = DecoderSource::Base {
            path: "decoder".into(),
            tensors_sha256: String::new(),
        };
        let precision = |decoder: &DecoderSource| {
            finished_precision(None, decoder, &[Device::flex()], Precision::Bf16).unwrap()
        };
        assert_eq!(precision(&base), Precision::Bf16);
        assert_eq!(precision(&DecoderSource::Own), Precision::F32);
    }
}
