//! The closed set of projectors: trainable modules from features to tokens of the language model.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::EncoderError;
use crate::attention_pool::{AttentionPool, AttentionPoolConfig, MeanConfig};
use crate::bert_qformer::{BertQFormer, BertQFormerConfig};
use crate::frame_pool::{FramePool, FramePoolConfig};
use crate::merge::{Merge, MergeConfig};
use crate::pooling::{LinearProjector, LinearProjectorConfig, MeanPool, MeanPoolConfig};
use crate::qformer::{QFormer, QFormerConfig};

/// Which projector, and how it is built. In YAML: `kind` and the keys of that kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProjectorConfig {
    /// A small query transformer, to be trained from nothing.
    #[serde(rename = "qformer")]
    QFormer(QFormerConfig),
    /// The query transformers of Video-LLaMA and AffectGPT.
    #[serde(rename = "bert_qformer")]
    BertQFormer(BertQFormerConfig),
    /// Segment means, or one chosen feature, and one linear layer.
    Linear(LinearProjectorConfig),
    /// Consecutive features side by side and one linear layer, as in Emotion-LLaMA.
    Merge(MergeConfig),
    /// A weighted sum over time and one linear layer, as in AffectGPT v2.
    Attention(AttentionPoolConfig),
    /// The mean over time and one linear layer, as in AffectGPT v2.
    Mean(MeanConfig),
    /// Means over frames and places and one linear layer, as in Video-ChatGPT and Valley.
    FramePool(FramePoolConfig),
    /// Clip statistics and a two-layer network.
    MeanPool(MeanPoolConfig),
}

impl ProjectorConfig {
    fn kind(&self) -> &'static str {
        match self {
            Self::QFormer(_) => "qformer",
            Self::BertQFormer(_) => "bert_qformer",
            Self::Linear(_) => "linear",
            Self::Merge(_) => "merge",
            Self::Attention(_) => "attention",
            Self::Mean(_) => "mean",
            Self::FramePool(_) => "frame_pool",
            Self::MeanPool(_) => "mean_pool",
        }
    }

    /// Whether features are first standardised by statistics measured on the training clips.
    pub fn standardise(&self) -> bool {
        match self {
            Self::QFormer(config) => config.standardise,
            Self::BertQFormer(config) => config.standardise,
            Self::Linear(config) => config.standardise,
            Self::Merge(config) => config.standardise,
            Self::Attention(config) => config.standardise,
            Self::Mean(config) => config.standardise,
            Self::FramePool(config) => config.standardise,
            Self::MeanPool(config) => config.standardise,
        }
    }

    /// Tokens it makes of a clip.
    pub fn num_tokens(&self) -> usize {
        match self {
            Self::QFormer(config) => config.queries,
            Self::BertQFormer(config) => config.queries,
            Self::Linear(config) => config.tokens,
            Self::Merge(config) => config.tokens,
            Self::Attention(config) => config.tokens,
            Self::Mean(config) => config.tokens,
            Self::FramePool(config) => config.num_tokens(),
            Self::MeanPool(_) => 1,
        }
    }

    /// How many features it can read.
    pub fn accepts(&self) -> InputLength {
        match self {
            Self::QFormer(config) => InputLength::AtMost(config.max_length),
            Self::BertQFormer(config) => InputLength::AtMost(config.max_length()),
            Self::Merge(config) => InputLength::Exactly(config.length()),
            Self::FramePool(config) => InputLength::Exactly(config.length()),
            Self::Linear(_) | Self::Attention(_) | Self::Mean(_) | Self::MeanPool(_) => {
                InputLength::Any
            }
        }
    }

    /// Refuses sizes that cannot work; to be called on what a user wrote, before `init`.
    ///
    /// # Errors
    /// [`EncoderError::Config`] with the key.
    pub fn check(&self) -> Result<(), EncoderError> {
        let zero =
            |key, value: usize| (value == 0).then(|| (key, "got 0, wanted at least 1".to_string()));
        let problem = match self {
            Self::QFormer(config) => config.problem(),
            Self::BertQFormer(config) => config.problem(),
            Self::Linear(config) => config.problem(),
            Self::Merge(config) => config.problem(),
            Self::Attention(config) => zero("tokens", config.tokens),
            Self::Mean(config) => zero("tokens", config.tokens),
            Self::FramePool(config) => config.problem(),
            Self::MeanPool(config) => zero("hidden", config.hidden),
        };
        let kind = self.kind();
        match problem {
            Some((key, problem)) => Err(EncoderError::Config { kind, key, problem }),
            None => Ok(()),
        }
    }

    /// Builds the projector. Its weights are zeros (norms ones) until `limbic_weights::seed` or
    /// `load` fills them: burn's random stream is global, and a run must not depend on it.
    ///
    /// # Panics
    /// If [`ProjectorConfig::check`] would refuse the sizes.
    pub fn init(&self, feature_dim: usize, output_dim: usize, device: &Device) -> Projector {
        if let Err(error) = self.check() {
            panic!("{error}");
        }
        let frozen = |value: f32| {
            let plain = device.clone().without_autodiff();
            // Unlike `Param::from_tensor`, this leaves the parameter inactive: `train()` cannot wake it.
            Param::initialized(ParamId::new(), Tensor::full([feature_dim], value, &plain))
        };
        Projector {
            input_mean: self.standardise().then(|| frozen(0.0)),
            input_std: self.standardise().then(|| frozen(1.0)),
            accepts: self.accepts(),
            tokens: self.num_tokens(),
            body: match self {
                Self::QFormer(config) => {
                    Body::QFormer(config.init(feature_dim, output_dim, device))
                }
                Self::BertQFormer(config) => {
                    Body::BertQFormer(config.init(feature_dim, output_dim, device))
                }
                Self::Linear(config) => Body::Linear(config.init(feature_dim, output_dim, device)),
                Self::Merge(config) => Body::Merge(config.init(feature_dim, output_dim, device)),
                Self::Attention(config) => {
                    Body::Attention(config.init(feature_dim, output_dim, device))
                }
                Self::Mean(config) => Body::Attention(config.init(feature_dim, output_dim, device)),
                Self::FramePool(config) => {
                    Body::FramePool(config.init(feature_dim, output_dim, device))
                }
                Self::MeanPool(config) => {
                    Body::MeanPool(config.init(feature_dim, output_dim, device))
                }
            },
        }
    }
}

/// A trainable projector, behind frozen statistics of its input where the config asks for them.
#[derive(Module, Debug)]
pub struct Projector {
    /// `[Din]`; frozen.
    input_mean: Option<Param<Tensor<1>>>,
    /// `[Din]`; frozen.
    input_std: Option<Param<Tensor<1>>>,
    body: Body,
    #[module(skip)]
    accepts: InputLength,
    tokens: usize,
}

/// How many features a projector can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputLength {
    /// Any number.
    Any,
    /// So many or fewer.
    AtMost(usize),
    /// Neither more nor fewer.
    Exactly(usize),
}

impl InputLength {
    /// Whether `length` features are fine.
    pub fn allows(self, length: usize) -> bool {
        match self {
            Self::Any => true,
            Self::AtMost(longest) => length <= longest,
            Self::Exactly(wanted) => length == wanted,
        }
    }
}

impl std::fmt::Display for InputLength {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => write!(formatter, "any number"),
            Self::AtMost(longest) => write!(formatter, "at most {longest}"),
            Self::Exactly(wanted) => write!(formatter, "exactly {wanted}"),
        }
    }
}

#[derive(Module, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "built once an input: a box would save nothing"
)]
enum Body {
    QFormer(QFormer),
    BertQFormer(BertQFormer),
    Linear(LinearProjector),
    Merge(Merge),
    Attention(AttentionPool),
    FramePool(FramePool),
    MeanPool(MeanPool),
}

impl Projector {
    /// Projects a batch of zero-padded features; padding does not influence the result.
    ///
    /// # Shapes
    /// features `[B, N, Din]`, lengths B valid features of each row, result `[B, tokens, Dout]`
    ///
    /// # Panics
    /// If a length is 0 or above N, if there is not one a row, or if it is not one that
    /// [`Projector::accepts`]: the caller knows the clip and refuses it by name.
    pub fn forward(&self, features: Tensor<3>, lengths: &[usize]) -> Tensor<3> {
        let [batch, length, _] = features.dims();
        assert_eq!(
            lengths.len(),
            batch,
            "{} lengths for {batch} rows of features",
            lengths.len()
        );
        assert!(
            lengths.iter().all(|valid| (1..=length).contains(valid)),
            "lengths {lengths:?}, wanted 1 to {length}"
        );
        for valid in lengths {
            let accepts = self.accepts;
            assert!(accepts.allows(*valid), "{valid} features, wanted {accepts}");
        }
        let features = self.standardised(features);
        match &self.body {
            Body::QFormer(qformer) => {
                let hidden = padding_bias(lengths, length, &features.device());
                qformer.forward(features, hidden)
            }
            Body::BertQFormer(qformer) => {
                let hidden = padding_bias(lengths, length, &features.device());
                qformer.forward(features, hidden)
            }
            Body::Linear(projector) => projector.forward(features, lengths),
            Body::Merge(merge) => merge.forward(features),
            Body::Attention(pool) => pool.forward(features, lengths),
            Body::FramePool(pool) => pool.forward(features),
            Body::MeanPool(pool) => pool.forward(features, lengths),
        }
    }

    fn standardised(&self, features: Tensor<3>) -> Tensor<3> {
        match (&self.input_mean, &self.input_std) {
            (Some(mean), Some(std)) => (features - mean.val().unsqueeze()) / std.val().unsqueeze(),
            _ => features,
        }
    }

    /// Sets the statistics that inputs are standardised by, measured on the training clips.
    ///
    /// # Panics
    /// If the config has `standardise: false`, the sizes differ from the features', or a deviation
    /// is not above 0 (floor it first).
    pub fn with_statistics(mut self, mean: Vec<f32>, std: Vec<f32>) -> Self {
        assert!(
            std.iter().all(|std| *std > 0.0 && std.is_finite()),
            "a deviation that cannot divide: {std:?}"
        );
        for (slot, values) in [(&mut self.input_mean, mean), (&mut self.input_std, std)] {
            let param = slot
                .take()
                .expect("statistics belong to a projector built with `standardise: true`");
            let [wanted] = param.dims();
            assert_eq!(
                values.len(),
                wanted,
                "statistics of {} dimensions, wanted {wanted}",
                values.len()
            );
            let value = Tensor::from_data(TensorData::new(values, [wanted]), &param.device());
            *slot = Some(Param::initialized(param.id, value));
        }
        self
    }

    /// Tokens it makes of a clip.
    pub fn num_tokens(&self) -> usize {
        self.tokens
    }

    /// How many features it can read.
    pub fn accepts(&self) -> InputLength {
        self.accepts
    }
}

/// `[B, 1, 1, N]`: minus infinity on padding, 0 elsewhere; nothing where no row is padded.
pub(crate) fn padding_bias(lengths: &[usize], length: usize, device: &Device) -> Option<Tensor<4>> {
    if lengths.iter().all(|valid| *valid == length) {
        return None;
    }
    let row = |valid: &usize| {
        let valid = *valid;
        (0..length).map(move |position| {
            if position < valid {
                0.0
            } else {
                f32::NEG_INFINITY
            }
        })
    };
    let bias: Vec<f32> = lengths.iter().flat_map(row).collect();
    Some(Tensor::from_data(
        TensorData::new(bias, [lengths.len(), 1, 1, length]),
        &device.clone().without_autodiff(),
    ))
}
