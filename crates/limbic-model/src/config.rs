use burn::tensor::Device;
use limbic_data::{Crop, FrameSampler};
use limbic_encoders::{EncoderConfig, Modality, ProjectorConfig};
use limbic_llama::Llama;
use serde::{Deserialize, Serialize};

use crate::{AlignmentConfig, EmotionLlm, HeadConfig, Mask, ModelError};

/// One perceived input: which medium is read how, what encodes it, what makes LLM tokens of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputConfig {
    /// Name of the input, unique in its model; `inputs:` of a recipe lists these.
    pub name: String,
    /// The text that stands for it in the prompt template, for example `<video>`.
    pub placeholder: String,
    /// The frozen encoder.
    pub encoder: EncoderConfig,
    /// The trainable projector.
    pub projector: ProjectorConfig,
    /// Which frames are read; for video only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<FrameSampler>,
    /// What is cut out of each frame; for video only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
}

impl InputConfig {
    /// Checks the parts against each other.
    ///
    /// # Errors
    /// Frames or crop for sound, none for video, a projector with impossible sizes.
    pub fn check(&self) -> Result<(), ModelError> {
        self.projector.check()?;
        let video = self.encoder.modality() == Modality::Video;
        for (key, given) in [
            ("frames", self.frames.is_some()),
            ("crop", self.crop.is_some()),
        ] {
            if given != video {
                let (reads, fix) = if video {
                    ("video", "add it")
                } else {
                    ("audio", "remove it")
                };
                return Err(ModelError::Config(format!(
                    "input `{}` reads {reads}, so `{key}` is {}; {fix}",
                    self.name,
                    if video { "needed" } else { "of no use" }
                )));
            }
        }
        Ok(())
    }
}

/// What stands around the decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EmotionLlmConfig {
    /// The perceived inputs, in the order of their projectors.
    pub inputs: Vec<InputConfig>,
    /// The class head and its number of classes, if there is one.
    pub head: Option<(HeadConfig, usize)>,
    /// The valence head, if there is one.
    pub valence: Option<HeadConfig>,
    /// The common space of clips and captions, if there is one.
    pub alignment: Option<AlignmentConfig>,
    /// Whether tokens of captions can be hidden.
    pub mask: bool,
}

impl EmotionLlmConfig {
    /// Puts seeded projectors and heads around `llama`.
    pub fn init(&self, llama: Llama, seed: u64, device: &Device) -> EmotionLlm {
        let dim = llama.config().hidden_size;
        let projectors = self
            .inputs
            .iter()
            .map(|input| {
                let projector = input
                    .projector
                    .init(input.encoder.feature_dim(), dim, device);
                limbic_weights::seed(projector, site(seed, &input.name))
            })
            .collect();
        let head = self.head.as_ref().map(|(head, classes)| {
            limbic_weights::seed(head.init(dim, *classes, device), site(seed, "head"))
        });
        let valence = self
            .valence
            .as_ref()
            .map(|head| limbic_weights::seed(head.init(dim, 1, device), site(seed, "valence")));
        let alignment = self.alignment.as_ref().map(|alignment| {
            limbic_weights::seed(alignment.init(dim, device), site(seed, "alignment"))
        });
        let mask = self
            .mask
            .then(|| limbic_weights::seed(Mask::new(dim, device), site(seed, "mask")));
        EmotionLlm {
            llama,
            projectors,
            head,
            valence,
            alignment,
            mask,
        }
    }
}

/// Inputs are seeded by name, so that a model with fewer of them starts from the same weights in the others.
fn site(seed: u64, name: &str) -> u64 {
    limbic_weights::CounterRng::new(seed).site(name).bits(0)
}
