use burn::tensor::Device;
use limbic_data::{Crop, FrameSampler};
use limbic_encoders::{EncoderConfig, FusionConfig, Modality, ProjectorConfig};
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
    /// The trainable projector; none where only fusions read the input, which then has no place in the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projector: Option<ProjectorConfig>,
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
        if let Some(projector) = &self.projector {
            projector.check()?;
        }
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

/// The name by which fusions and recipes call the spoken words.
pub const TRANSCRIPT: &str = "transcript";

/// LLM tokens made of several inputs together, which stand at a placeholder of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusedConfig {
    /// Name of the fusion, unique among the inputs and fusions of its model.
    pub name: String,
    /// The text that stands for it in the prompt template, for example `<multi>`.
    pub placeholder: String,
    /// Inputs whose features it reads, in this order; `transcript` for the embeddings of the spoken words.
    pub sources: Vec<String>,
    /// The trainable fusion.
    pub fusion: FusionConfig,
}

/// What a fusion reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The features of the input of this number.
    Input(usize),
    /// The transcript's embeddings.
    Transcript,
}

impl FusedConfig {
    /// What it reads, among `inputs`.
    ///
    /// # Errors
    /// A source that is no input, or is named twice; a fusion that cannot work with them.
    pub fn resolve(&self, inputs: &[InputConfig]) -> Result<Vec<Source>, ModelError> {
        let refuse = |problem| ModelError::Config(format!("fusion `{}`: {problem}", self.name));
        self.fusion
            .check(self.sources.len())
            .map_err(|error| refuse(error.to_string()))?;
        let mut sources = Vec::new();
        for name in &self.sources {
            let source = if name == TRANSCRIPT {
                Source::Transcript
            } else {
                let found = inputs.iter().position(|input| input.name == *name);
                Source::Input(found.ok_or_else(|| {
                    let known: Vec<&str> = inputs
                        .iter()
                        .map(|input| input.name.as_str())
                        .chain([TRANSCRIPT])
                        .collect();
                    refuse(format!(
                        "`sources` names `{name}`; the model has {}",
                        known.join(", ")
                    ))
                })?)
            };
            if sources.contains(&source) {
                return Err(refuse(format!("`sources` names `{name}` twice")));
            }
            if source == Source::Transcript && self.fusion.max_length().is_some() {
                return Err(refuse(
                    "it has a longest input, so `transcript`, which can have any length, cannot be among its `sources`"
                        .into(),
                ));
            }
            sources.push(source);
        }
        Ok(sources)
    }
}

/// What stands around the decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EmotionLlmConfig {
    /// The perceived inputs, in the order of their projectors.
    pub inputs: Vec<InputConfig>,
    /// What is made of several of them.
    pub fusions: Vec<FusedConfig>,
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
    /// Puts seeded projectors, fusions and heads around `llama`.
    ///
    /// # Errors
    /// A fusion whose sources the model does not have.
    pub fn init(&self, llama: Llama, seed: u64, device: &Device) -> Result<EmotionLlm, ModelError> {
        let model = self.init_blank(llama, device)?;
        let seeded = |name: &str| site(seed, name);
        let named = |index: usize| seeded(&self.inputs[index].name);
        Ok(EmotionLlm {
            projectors: model
                .projectors
                .into_iter()
                .enumerate()
                .map(|(index, projector)| {
                    projector.map(|projector| limbic_weights::seed(projector, named(index)))
                })
                .collect(),
            fusions: model
                .fusions
                .into_iter()
                .zip(&self.fusions)
                .map(|(fusion, config)| limbic_weights::seed(fusion, seeded(&config.name)))
                .collect(),
            head: model
                .head
                .map(|head| limbic_weights::seed(head, seeded("head"))),
            valence: model
                .valence
                .map(|head| limbic_weights::seed(head, seeded("valence"))),
            alignment: model
                .alignment
                .map(|alignment| limbic_weights::seed(alignment, seeded("alignment"))),
            mask: model
                .mask
                .map(|mask| limbic_weights::seed(mask, seeded("mask"))),
            ..model
        })
    }

    /// The same with weights that are not there yet: shapes are known and nothing is allocated for them, until
    /// something is loaded into them.
    ///
    /// # Errors
    /// A fusion whose sources the model does not have.
    pub fn init_blank(&self, llama: Llama, device: &Device) -> Result<EmotionLlm, ModelError> {
        let dim = llama.config().hidden_size;
        let projectors = self
            .inputs
            .iter()
            .map(|input| {
                let projector = input.projector.as_ref()?;
                Some(projector.init(input.encoder.feature_dim(), dim, device))
            })
            .collect();
        let sources = self
            .fusions
            .iter()
            .map(|fused| fused.resolve(&self.inputs))
            .collect::<Result<Vec<_>, _>>()?;
        let fusions = self
            .fusions
            .iter()
            .zip(&sources)
            .map(|(fused, sources)| {
                let dims: Vec<usize> = sources
                    .iter()
                    .map(|source| match source {
                        Source::Input(index) => self.inputs[*index].encoder.feature_dim(),
                        Source::Transcript => dim,
                    })
                    .collect();
                fused.fusion.init(&dims, dim, device)
            })
            .collect();
        Ok(EmotionLlm {
            projectors,
            fusions,
            head: self
                .head
                .as_ref()
                .map(|(head, classes)| head.init(dim, *classes, device)),
            valence: self.valence.as_ref().map(|head| head.init(dim, 1, device)),
            alignment: self
                .alignment
                .as_ref()
                .map(|alignment| alignment.init(dim, device)),
            mask: self.mask.then(|| Mask::new(dim, device)),
            fusion_names: self
                .fusions
                .iter()
                .map(|fused| fused.name.clone())
                .collect(),
            sources,
            llama,
        })
    }
}

/// Inputs are seeded by name, so that a model with fewer of them starts from the same weights in the others.
fn site(seed: u64, name: &str) -> u64 {
    limbic_weights::CounterRng::new(seed).site(name).bits(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fusions_are_checked_against_the_inputs() {
        let inputs: Vec<InputConfig> = serde_json::from_str(
            r#"[{"name": "voice", "placeholder": "<voice>", "encoder": {"kind": "log_mel", "mel": {}}},
                {"name": "pitch", "placeholder": "<pitch>", "encoder": {"kind": "mfcc", "mel": {}}}]"#,
        )
        .unwrap();
        let resolve = |sources: &[&str], fusion: &str| {
            FusedConfig {
                name: "multi".into(),
                placeholder: "<multi>".into(),
                sources: sources.iter().map(|source| source.to_string()).collect(),
                fusion: serde_json::from_str(fusion).unwrap(),
            }
            .resolve(&inputs)
            .map_err(|error| error.to_string())
        };
        const ATTENTION: &str = r#"{"kind": "attention"}"#;
        assert_eq!(
            resolve(&["pitch", TRANSCRIPT], ATTENTION).unwrap(),
            [Source::Input(1), Source::Transcript]
        );
        for (sources, fusion, part) in [
            (&["voice"][..], ATTENTION, "wanted at least 2"),
            (
                &["voice", "face"],
                ATTENTION,
                "the model has voice, pitch, transcript",
            ),
            (&["voice", "voice"], ATTENTION, "`voice` twice"),
            (
                &["voice", TRANSCRIPT],
                r#"{"kind": "qformer"}"#,
                "any length",
            ),
            (
                &["voice", "pitch"],
                r#"{"kind": "attention", "tokens": 0}"#,
                "`tokens`",
            ),
            (
                &["voice", "pitch"],
                r#"{"kind": "cross_modal", "dim": 8, "heads": 3}"#,
                "`heads`",
            ),
            (
                &["voice", "pitch"],
                r#"{"kind": "cross_modal", "dim": 8, "heads": 2, "kernel": 2}"#,
                "`kernel`",
            ),
            (
                &["voice", "pitch"],
                r#"{"kind": "conv_attention", "inner": 0}"#,
                "`inner`",
            ),
        ] {
            let message = resolve(sources, fusion).unwrap_err();
            assert!(
                message.contains("`multi`") && message.contains(part),
                "{message}"
            );
        }
    }
}
