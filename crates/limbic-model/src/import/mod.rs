//! Checkpoints of whole models that others have published, read into a model of ours.
//!
//! Each file of this folder knows one layout: which of its names is which parameter of ours, and what it holds beside
//! them. All is strict: a parameter without a tensor, or a tensor that nothing is known of, is an error with its name.

mod affectgpt_v1;
mod affectgpt_v2;
mod emotion_llama;
mod minigpt_v2;
mod names;

use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{FloatDType, Tensor};
use limbic_weights::{Checkpoint, ModulePath, Report};
use serde::Deserialize;

use crate::{EmotionLlm, EmotionLlmConfig, ModelError, Part};

/// A published layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Published {
    /// Emotion-LLaMA's `.pth` of LoRA and five projections.
    EmotionLlama,
    /// `minigptv2_checkpoint.pth`: LoRA and the projection of patches, with which Emotion-LLaMA starts.
    MinigptV2,
    /// AffectGPT v1 and Video-LLaMA: two branches of query transformers.
    AffectgptV1,
    /// AffectGPT v2: LoRA, projectors and pre-fusion.
    AffectgptV2,
}

/// A model with published weights.
#[derive(Debug)]
pub struct Imported {
    /// The model.
    pub model: EmotionLlm,
    /// What was in the file, and where it went.
    pub report: Report,
    /// Parameters around the decoder that the layout does not have, and that are still as they were seeded.
    pub left: Vec<String>,
}

impl Published {
    /// The layout called `name`.
    ///
    /// # Errors
    /// Lists the names there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        let name = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name);
        Self::deserialize(name).map_err(|error| error.to_string())
    }

    /// Reads `checkpoint` into `model`, whose decoder and adapters are built and which stands around `config`.
    ///
    /// # Errors
    /// An unreadable file, a model without the inputs that the layout is for, tensors that are missing, unexpected or
    /// of another shape.
    pub fn import(
        self,
        checkpoint: &Path,
        config: &EmotionLlmConfig,
        model: EmotionLlm,
    ) -> Result<Imported, ModelError> {
        let names = match self {
            Self::EmotionLlama => emotion_llama::names(config)?,
            Self::MinigptV2 => minigpt_v2::names(config)?,
            Self::AffectgptV1 => affectgpt_v1::names(config)?,
            Self::AffectgptV2 => affectgpt_v2::names(config)?,
        };
        let opened = weights_of(Checkpoint::open(checkpoint)?)?;
        let opened = match self {
            Self::EmotionLlama => emotion_llama::without_unused(opened)?,
            _ => opened,
        };
        let opened = opened
            .ignore(is_buffer, "follows from the model's configuration")
            .ignore(
                is_encoder_buffer,
                "buffers of frozen encoders, which follow from their configuration",
            )
            .rename(|name| names.ours(name))?;
        let wanted = |name: &str| match Part::of(name) {
            Some(Part::Lora) => true,
            Some(Part::Projectors | Part::Fusions) => self != Self::MinigptV2 || names.has(name),
            _ => false,
        };
        let report = opened.report_only(&model, wanted);
        let mut survey = Left {
            path: ModulePath::default(),
            wanted,
            names: Vec::new(),
        };
        model.visit(&mut survey);
        let left = survey.names;
        // What is trained is F32, however it was published.
        let model = opened.load_only(model, Some(FloatDType::F32), wanted)?;
        Ok(Imported {
            model,
            report,
            left,
        })
    }
}

/// The tensors of the model in what a training script saved: below `model.` beside an optimizer, or alone; with the
/// `module.` of a model that several processes trained, or without.
fn weights_of(checkpoint: Checkpoint) -> Result<Checkpoint, ModelError> {
    let wrapped = checkpoint.names().any(|name| name.starts_with("model."));
    let checkpoint = if wrapped {
        checkpoint
            .ignore(
                |name| !name.starts_with("model."),
                "state of the training beside the weights",
            )
            .strip_prefix("model.")?
    } else {
        checkpoint
    };
    Ok(checkpoint.strip_prefix("module.")?)
}

fn is_buffer(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".position_ids")
}

/// What PyTorch saves of an encoder whose parameters are frozen, and so left out. Other tensors of an encoder were trained,
/// and are unexpected.
fn is_encoder_buffer(name: &str) -> bool {
    let encoders = ["visual_encoder.", "acoustic_encoder.", "audio_encoder."];
    let buffers = [
        "relative_position_index",
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "inv_freq",
        "position_ids",
        "buffer",
        "mean",
        "std",
    ];
    let last = name.rsplit('.').next().unwrap_or(name);
    encoders.iter().any(|encoder| name.starts_with(encoder)) && buffers.contains(&last)
}

/// Lists the parameters that are around the decoder and not wanted.
struct Left<F> {
    path: ModulePath,
    wanted: F,
    names: Vec<String>,
}

impl<F: Fn(&str) -> bool> ModuleVisitor for Left<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        let name = self.path.name();
        if Part::of(&name) != Some(Part::Decoder) && !(self.wanted)(&name) {
            self.names.push(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trained_encoders_are_not_taken_for_buffers() {
        assert!(is_encoder_buffer(
            "visual_encoder.blocks.0.attn.relative_position_index"
        ));
        for trained in [
            "visual_encoder.blocks.0.attn.qkv.weight",
            "acoustic_encoder.proj.bias",
        ] {
            assert!(!is_encoder_buffer(trained), "{trained}");
        }
    }
}
