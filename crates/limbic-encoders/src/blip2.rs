//! BLIP-2's first stage as a frozen encoder (Li et al. 2023; LAVIS `blip2.py`, transformers' `Blip2Model`): a vision
//! transformer, its norm, and a Q-Former of 12 layers whose 32 queries tell what each frame shows.
//!
//! Letters in shapes: B pictures, N tokens of a picture, E their width, Q queries, D width of the queries.

use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use limbic_weights::{Checkpoint, WeightsError};
use serde::{Deserialize, Serialize};

use crate::bert::{Bert, BertShape};
use crate::bert_qformer::{dim, heads, intermediate};
use crate::vision::{PretrainedVision, PretrainedVisionConfig, VisionKind, VisionOutput};
use crate::{EncoderError, Features, HiddenStates, Keep};

/// A vision encoder, and the Q-Former that reads what it sees in each frame: `[T * 32, 768]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blip2Config {
    /// The vision encoder, with its norm and with `output: tokens`.
    pub vision: PretrainedVisionConfig,
    /// `blip2_pretrained_*.pth` in LAVIS' names, or a Hugging Face BLIP-2 folder or file.
    pub weights: PathBuf,
    /// Sizes of the Q-Former; those of all published ones if absent.
    #[serde(default)]
    pub qformer: Blip2QFormerConfig,
}

/// Sizes of BLIP-2's Q-Former.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Blip2QFormerConfig {
    /// Q
    pub queries: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads in each layer.
    pub heads: usize,
    /// D
    pub dim: usize,
    /// Width inside each layer's network.
    pub intermediate: usize,
    /// 2: the first, third, fifth layer and so on look at the picture.
    pub cross_attention_every: usize,
}

impl Default for Blip2QFormerConfig {
    fn default() -> Self {
        Self {
            queries: 32,
            layers: 12,
            heads: heads(),
            dim: dim(),
            intermediate: intermediate(),
            cross_attention_every: 2,
        }
    }
}

const KIND: &str = "blip2";

impl Blip2Config {
    /// What can be known to be wrong without the weights.
    pub(crate) fn check(&self) -> Result<(), EncoderError> {
        let refuse = |key, problem: &str| {
            Err(EncoderError::Config {
                kind: KIND,
                key,
                problem: problem.into(),
            })
        };
        if self.vision.output != VisionOutput::Tokens {
            return refuse(
                "vision.output",
                "wanted `tokens`: the Q-Former reads class token and patches",
            );
        }
        let normed = self.vision.weights.is_dir() || self.vision.ln_vision_weights.is_some();
        if self.vision.model == VisionKind::EvaClipG && !normed {
            return refuse(
                "vision.ln_vision_weights",
                "absent; the Q-Former reads what `ln_vision` of its own checkpoint has normed: name that file",
            );
        }
        self.vision.check()
    }

    pub(crate) fn init(&self, device: &Device) -> Result<Blip2, EncoderError> {
        self.check()?;
        // The smaller of the two first: what is wrong with it shows at once.
        let qformer = self.qformer.load(&self.weights, self.vision.dim, device)?;
        Ok(Blip2 {
            image_size: self.vision.image_size,
            vision: self.vision.init(device)?,
            qformer,
            device: device.clone(),
        })
    }
}

impl Blip2QFormerConfig {
    fn shape(&self, feature_dim: usize) -> BertShape {
        BertShape {
            dim: self.dim,
            layers: self.layers,
            heads: self.heads,
            intermediate: self.intermediate,
            cross_attention_every: self.cross_attention_every,
            feature_dim,
        }
    }

    /// The Q-Former without values, for pictures' tokens of width `feature_dim`.
    ///
    /// # Errors
    /// Sizes that cannot work.
    pub fn init(&self, feature_dim: usize, device: &Device) -> Result<Blip2QFormer, EncoderError> {
        let shape = self.shape(feature_dim);
        let none = (self.queries == 0).then(|| ("queries", "got 0, wanted at least 1".into()));
        if let Some((key, problem)) = none.or_else(|| shape.problem()) {
            return Err(EncoderError::Config {
                kind: KIND,
                key,
                problem,
            });
        }
        Ok(Blip2QFormer {
            query_tokens: Initializer::Zeros.init([1, self.queries, self.dim], device),
            qformer: shape.init(device),
        })
    }

    /// The Q-Former of a published checkpoint.
    ///
    /// # Errors
    /// Weights that are missing, unexpected or of the wrong shape.
    pub fn load(
        &self,
        path: &Path,
        feature_dim: usize,
        device: &Device,
    ) -> Result<Blip2QFormer, EncoderError> {
        let module = self.init(feature_dim, device)?;
        let load = || ours(Checkpoint::open(path)?)?.load(module, Some(FloatDType::F32));
        load().map_err(|source| EncoderError::Weights {
            kind: KIND,
            path: path.to_path_buf(),
            source,
        })
    }
}

/// A published checkpoint in our names, which are transformers', without what the Q-Former does not need.
fn ours(checkpoint: Checkpoint) -> Result<Checkpoint, WeightsError> {
    const RENAMED: [(&str, &str); 4] = [
        ("Qformer.bert.", "qformer."),
        (".attention.self.", ".attention.attention."),
        (".crossattention.self.", ".crossattention.attention."),
        ("embeddings.LayerNorm.", "layernorm."),
    ];
    let starts = |names: &'static [&'static str]| {
        move |name: &str| names.iter().any(|start| name.starts_with(start))
    };
    checkpoint
        .ignore(
            starts(&["optimizer.", "scaler."]),
            "the state of the optimizer",
        )
        .strip_prefix("model.")?
        .ignore(
            starts(&["visual_encoder.", "vision_model.", "ln_vision."]),
            "the vision encoder and its norm are read by the vision encoder",
        )
        .ignore(
            starts(&[
                "t5_proj.",
                "opt_proj.",
                "llama_proj.",
                "t5_model.",
                "opt_model.",
                "language_model.",
                "language_projection.",
            ]),
            "BLIP-2's own language model, and the way to it",
        )
        .ignore(
            starts(&[
                "vision_proj.",
                "text_proj.",
                "itm_head.",
                "vision_projection.",
                "text_projection.",
                "temp",
            ]),
            "heads of the contrastive and matching losses of BLIP-2's first stage",
        )
        .rename(|name| {
            RENAMED
                .iter()
                .fold(name.to_string(), |name, (theirs, ours)| {
                    name.replacen(theirs, ours, 1)
                })
        })?
        .ignore(is_text, "the Q-Former's text branch")
        .rename(|name| match name {
            "qformer.query_tokens" => "query_tokens".into(),
            name => name.into(),
        })
}

/// Whether a parameter belongs to the text branch: embeddings of words, the language-modelling head, and the networks
/// that text passes where queries pass `intermediate_query` and `output_query`.
fn is_text(name: &str) -> bool {
    let of_layer = name
        .strip_prefix("qformer.encoder.layer.")
        .and_then(|rest| rest.split_once('.'))
        .map(|(_, part)| part);
    of_layer.is_some_and(|part| part.starts_with("intermediate.") || part.starts_with("output."))
        || ["qformer.embeddings.", "embeddings.", "Qformer.cls."]
            .iter()
            .any(|start| name.starts_with(start))
}

/// BLIP-2's Q-Former with its queries.
#[derive(Module, Debug)]
pub struct Blip2QFormer {
    /// `[1, Q, D]`
    query_tokens: Param<Tensor<3>>,
    qformer: Bert,
}

impl Blip2QFormer {
    /// What the queries learn of each picture.
    ///
    /// # Shapes
    /// tokens `[B, N, E]`, after `ln_vision`; `last_hidden_state` `[B, Q, D]`
    pub fn forward(&self, tokens: &Tensor<3>, keep: Keep) -> HiddenStates {
        let [_, queries, dim] = self.query_tokens.dims();
        let queries = self
            .query_tokens
            .val()
            .expand([tokens.dims()[0], queries, dim]);
        let mut hidden = Vec::new();
        let last_hidden_state = self
            .qformer
            .forward(queries, tokens, None, keep, &mut hidden);
        HiddenStates {
            hidden,
            last_hidden_state,
            pooled: None,
        }
    }
}

/// A built vision encoder with its Q-Former.
#[derive(Debug, Clone)]
pub struct Blip2 {
    image_size: usize,
    vision: PretrainedVision,
    qformer: Blip2QFormer,
    device: Device,
}

impl Blip2 {
    /// The queries of all frames, in order: `[T * Q, D]`.
    pub(crate) fn encode(
        &self,
        data: &[u8],
        count: usize,
        size: usize,
    ) -> Result<Features, EncoderError> {
        let (mut read, mut length, mut dim) = (Vec::new(), 0, 0);
        // One frame after the other: a frame's 1025 tokens of width 1408 need not wait for the next one's.
        let frame_bytes = size * size * 3;
        if size != self.image_size || count == 0 || data.len() != count * frame_bytes {
            return Err(EncoderError::Frames {
                bytes: data.len(),
                count,
                got: size,
                wanted: self.image_size,
            });
        }
        for frame in data.chunks(frame_bytes) {
            let tokens = self.vision.encode(frame, 1, size)?;
            let shape = [1, tokens.length, tokens.dim];
            let tokens = Tensor::from_data(TensorData::new(tokens.data, shape), &self.device);
            let queries = self
                .qformer
                .forward(&tokens, Keep::Last(0))
                .last_hidden_state;
            let [_, of_frame, width] = queries.dims();
            length += of_frame;
            dim = width;
            read.extend(queries.into_data().iter::<f32>());
        }
        Ok(Features {
            length,
            dim,
            data: read,
        })
    }
}
