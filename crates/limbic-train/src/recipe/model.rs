//! The model's part of a recipe.

use std::path::PathBuf;

use limbic_data::{Crop, FrameSampler};
use limbic_encoders::{EncoderConfig, FusionConfig, ProjectorConfig};
use limbic_llama::{LlamaConfig, LoraConfig};
use limbic_model::{AlignmentConfig, HeadConfig};
use serde::{Deserialize, Serialize};

use crate::reference::Reference;

/// The model: a decoder, what it perceives, what is added to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// The decoder: a file of configs/backbones, or its content. Absent with `init_from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<Reference<DecoderRecipe>>,
    /// Adapters to put beside the decoder's layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// What is perceived. Absent with `init_from`: the inputs of that artifact.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputRecipe>,
    /// What is made of several inputs together. Absent with `init_from`: the fusions of that artifact.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fusions: Vec<FusionRecipe>,
    /// A class head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadConfig>,
    /// A valence head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valence: Option<HeadConfig>,
    /// The common space of clips and captions, for the contrastive loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<AlignmentConfig>,
}

/// Where the decoder comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DecoderRecipe {
    /// A folder of Hugging Face's layout.
    Pretrained(PretrainedDecoder),
    /// A new LLaMA with a byte-level BPE tokenizer trained on the recipe's texts.
    Scratch(ScratchDecoder),
}

/// A decoder from disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainedDecoder {
    /// Folder with `config.json`, `tokenizer.json` and safetensors weights.
    pub folder: PathBuf,
    /// What `config.json` must say, in its own keys: counts of parameters are known before the weights are there, and
    /// another model in the folder is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<LlamaConfig>,
}

impl PretrainedDecoder {
    /// The decoder's shape: that of the folder, which must be the one asked for.
    ///
    /// # Errors
    /// An unusable `config.json`, or one that says something else than [`shape`](Self::shape).
    pub fn config(&self) -> Result<LlamaConfig, String> {
        let path = self.folder.join("config.json");
        let found = LlamaConfig::read(&path).map_err(|error| error.to_string())?;
        match self
            .shape
            .as_ref()
            .and_then(|shape| shape.difference(&found))
        {
            None => Ok(found),
            Some(difference) => Err(format!(
                "{difference} in the recipe's `shape` and in {}; put the right model there, or correct `shape`",
                path.display()
            )),
        }
    }
}

/// A decoder to be trained from nothing. Names are those of Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScratchDecoder {
    /// Number of tokens, at least 258.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads.
    pub num_key_value_heads: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
}

/// One perceived input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRecipe {
    /// Name of the input.
    pub name: String,
    /// What stands for it in the prompt template; `<name>` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
    /// The frozen encoder: a file of configs/encoders, or its content.
    pub encoder: Reference<EncoderConfig>,
    /// The trainable projector. Without one only fusions read the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projector: Option<ProjectorConfig>,
    /// Which frames are read; for video only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<FrameSampler>,
    /// What is cut out of each frame; for video only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
}

/// Tokens made of several inputs together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusionRecipe {
    /// Name of the fusion.
    pub name: String,
    /// What stands for it in the prompt template; `<name>` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
    /// Names of the inputs whose features it reads; `transcript` for the embeddings of the spoken words.
    pub sources: Vec<String>,
    /// The trainable fusion.
    pub fusion: FusionConfig,
}
