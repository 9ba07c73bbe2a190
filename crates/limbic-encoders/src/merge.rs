//! MiniGPT-v2's way from patches to tokens, which Emotion-LLaMA keeps (`minigpt_v2.py`, `encode_img`): the class token
//! goes, consecutive patches are laid side by side, and one linear layer follows.
//!
//! Letters in shapes: B batch, N features, E their width, K tokens, G patches in a token. Consecutive means along a row
//! of the picture: four in a row make a token, not two by two.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::transformer::linear;

/// Consecutive features laid side by side, then one linear layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeConfig {
    /// Tokens the language model is given: 256 for a picture of 32 x 32 patches.
    pub tokens: usize,
    /// Features laid side by side in each token.
    #[serde(default = "four")]
    pub group: usize,
    /// Features before the first patch, which are left out: 1 for a class token.
    #[serde(default)]
    pub skip: usize,
    /// Whether features are first standardised by statistics measured on the training clips.
    #[serde(default)]
    pub standardise: bool,
}

fn four() -> usize {
    4
}

impl MergeConfig {
    pub(crate) fn problem(&self) -> Option<(&'static str, String)> {
        let keys = [("tokens", self.tokens), ("group", self.group)];
        let (key, _) = keys.into_iter().find(|(_, value)| *value == 0)?;
        Some((key, "got 0, wanted at least 1".into()))
    }

    /// The only length of input it can read, in features.
    pub(crate) fn length(&self) -> usize {
        self.skip + self.tokens * self.group
    }

    pub(crate) fn init(&self, feature_dim: usize, output_dim: usize, device: &Device) -> Merge {
        Merge {
            linear: linear(self.group * feature_dim, output_dim, device),
            tokens: self.tokens,
            skip: self.skip,
        }
    }
}

/// A built merging projector.
#[derive(Module, Debug)]
pub(crate) struct Merge {
    /// `llama_proj` of the published models.
    linear: Linear,
    tokens: usize,
    skip: usize,
}

impl Merge {
    /// # Shapes
    /// features `[B, skip + K G, E]`, result `[B, K, Dout]`
    pub(crate) fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        let [batch, length, dim] = features.dims();
        let (patches, tokens) = (length - self.skip, self.tokens);
        self.linear
            .forward(features.narrow(1, self.skip, patches).reshape([
                batch,
                tokens,
                patches / tokens * dim,
            ]))
    }
}
