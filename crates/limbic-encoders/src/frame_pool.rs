//! Pooling of the patches of all frames of a clip, then one linear layer: Video-ChatGPT (Maaz et al. 2023,
//! `get_spatio_temporal_features`) keeps a mean for each frame and a mean for each place; Valley (Luo et al. 2023,
//! `get_average_feature`) keeps a mean for each place and the frames' class tokens.
//!
//! Letters in shapes: B batch, T frames, P patches of a frame, E width of the features.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::transformer::linear;

/// Means over the frames and inside them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FramePoolConfig {
    /// T: frames of a clip.
    pub frames: usize,
    /// P: patches of a frame, its class token not counted.
    pub patches: usize,
    /// Whether each frame's first feature is a class token.
    #[serde(default)]
    pub class_token: bool,
    /// What is kept of each frame.
    #[serde(default)]
    pub temporal: Temporal,
    /// Whether a mean over the frames is kept of each place: P tokens.
    #[serde(default = "yes")]
    pub spatial: bool,
    /// Which tokens come first.
    #[serde(default)]
    pub order: TokenOrder,
    /// Whether features are first standardised by statistics measured on the training clips.
    #[serde(default)]
    pub standardise: bool,
}

/// What is kept of each frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Temporal {
    /// The mean of its patches: T tokens.
    #[default]
    Mean,
    /// Its class token: T tokens.
    Class,
    /// Nothing.
    None,
}

/// Which tokens come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenOrder {
    /// Those of the frames, then those of the places, as in Video-ChatGPT.
    #[default]
    TemporalFirst,
    /// Those of the places, then those of the frames, as in Valley.
    SpatialFirst,
}

fn yes() -> bool {
    true
}

impl FramePoolConfig {
    pub(crate) fn problem(&self) -> Option<(&'static str, String)> {
        let keys = [("frames", self.frames), ("patches", self.patches)];
        if let Some((key, _)) = keys.into_iter().find(|(_, value)| *value == 0) {
            Some((key, "got 0, wanted at least 1".into()))
        } else if self.temporal == Temporal::Class && !self.class_token {
            Some((
                "temporal",
                "got `class` without `class_token: true`, wanted features that begin with one"
                    .into(),
            ))
        } else if self.temporal == Temporal::None && !self.spatial {
            Some((
                "spatial",
                "got false beside `temporal: none`, so that nothing is kept".into(),
            ))
        } else {
            None
        }
    }

    /// The only length of input it can read, in features.
    pub(crate) fn length(&self) -> usize {
        self.frames * (self.patches + usize::from(self.class_token))
    }

    pub(crate) fn num_tokens(&self) -> usize {
        let temporal = if self.temporal == Temporal::None {
            0
        } else {
            self.frames
        };
        temporal + if self.spatial { self.patches } else { 0 }
    }

    pub(crate) fn init(&self, feature_dim: usize, output_dim: usize, device: &Device) -> FramePool {
        FramePool {
            linear: linear(feature_dim, output_dim, device),
            config: self.clone(),
        }
    }
}

/// A built pooling projector.
#[derive(Module, Debug)]
pub(crate) struct FramePool {
    /// `mm_projector` of the published models.
    linear: Linear,
    #[module(skip)]
    config: FramePoolConfig,
}

impl FramePool {
    /// # Shapes
    /// features `[B, T (P or P + 1), E]`, result `[B, tokens, Dout]`
    pub(crate) fn forward(&self, features: Tensor<3>) -> Tensor<3> {
        let FramePoolConfig {
            frames,
            patches,
            class_token,
            temporal,
            spatial,
            order,
            ..
        } = self.config;
        let [batch, _, dim] = features.dims();
        let first = usize::from(class_token);
        let of_frames = features.reshape([batch, frames, first + patches, dim]);
        let patches = of_frames.clone().narrow(2, first, patches);
        let temporal = match temporal {
            Temporal::Mean => Some(patches.clone().mean_dim(2).squeeze_dim::<3>(2)),
            Temporal::Class => Some(of_frames.narrow(2, 0, 1).squeeze_dim::<3>(2)),
            Temporal::None => None,
        };
        let spatial = spatial.then(|| patches.mean_dim(1).squeeze_dim::<3>(1));
        let tokens = match order {
            TokenOrder::TemporalFirst => [temporal, spatial],
            TokenOrder::SpatialFirst => [spatial, temporal],
        };
        self.linear
            .forward(Tensor::cat(tokens.into_iter().flatten().collect(), 1))
    }
}
