//! The closed set of fusions: trainable modules that read several sequences at once and make tokens of the language
//! model from what they say together.
//!
//! A fusion reads the features of its sources as the encoders gave them, not as their projectors changed them, so that a
//! projector learns for itself alone.

mod attention;
mod conv_attention;
mod cross_modal;
mod qformer;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use self::attention::AttentionFusion;
pub use self::attention::AttentionFusionConfig;
use self::conv_attention::ConvAttention;
pub use self::conv_attention::ConvAttentionConfig;
use self::cross_modal::CrossModal;
pub use self::cross_modal::CrossModalConfig;
use self::qformer::QFormerFusion;
pub use self::qformer::QFormerFusionConfig;
use crate::EncoderError;

/// Sequences of different lengths, zero-padded to the longest.
#[derive(Debug, Clone)]
pub struct Padded {
    /// `[B, N, D]`
    pub values: Tensor<3>,
    /// Of each row, how much of N is not padding: at least 1.
    pub lengths: Vec<usize>,
}

/// Which fusion, and how it is built. In YAML: `kind` and the keys of that kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FusionConfig {
    /// A weighted sum of the sources' means, as AffectGPT v2 fuses.
    Attention(AttentionFusionConfig),
    /// A query transformer over all sources, as AffectGPT v2 has it too.
    #[serde(rename = "qformer")]
    QFormer(QFormerFusionConfig),
    /// Attention between every pair of sources, after MulT.
    CrossModal(CrossModalConfig),
    /// A weighted sum beside convolutions, as Emotion-LLaMA v2 fuses.
    ConvAttention(ConvAttentionConfig),
}

impl FusionConfig {
    fn kind(&self) -> &'static str {
        match self {
            Self::Attention(_) => "attention",
            Self::QFormer(_) => "qformer",
            Self::CrossModal(_) => "cross_modal",
            Self::ConvAttention(_) => "conv_attention",
        }
    }

    /// Tokens it makes of a clip.
    pub fn num_tokens(&self) -> usize {
        match self {
            Self::Attention(config) => config.tokens,
            Self::QFormer(config) => config.queries,
            Self::CrossModal(config) => config.tokens,
            Self::ConvAttention(config) => config.tokens,
        }
    }

    /// Whether each source is first standardised by statistics measured on the training clips.
    pub fn standardise(&self) -> bool {
        match self {
            Self::Attention(config) => config.standardise,
            Self::QFormer(config) => config.standardise,
            Self::CrossModal(config) => config.standardise,
            Self::ConvAttention(config) => config.standardise,
        }
    }

    /// The longest input it can read, in features of all sources together; `None` where any length will do.
    pub fn max_length(&self) -> Option<usize> {
        match self {
            Self::QFormer(config) => Some(config.positions),
            Self::Attention(_) | Self::CrossModal(_) | Self::ConvAttention(_) => None,
        }
    }

    /// Refuses sizes that cannot work for so many sources; to be called on what a user wrote, before `init`.
    ///
    /// # Errors
    /// [`EncoderError::Config`] with the key.
    pub fn check(&self, sources: usize) -> Result<(), EncoderError> {
        let refuse = |key, problem| {
            Err(EncoderError::Config {
                kind: self.kind(),
                key,
                problem,
            })
        };
        if sources < 2 {
            return refuse("sources", format!("got {sources}, wanted at least 2"));
        }
        if self.num_tokens() == 0 {
            let key = match self {
                Self::QFormer(_) => "queries",
                _ => "tokens",
            };
            return refuse(key, "got 0, wanted at least 1".into());
        }
        let problem = match self {
            Self::Attention(_) => None,
            Self::QFormer(config) => config.problem(),
            Self::CrossModal(config) => config.problem(),
            Self::ConvAttention(config) => config.problem(),
        };
        match problem {
            Some((key, problem)) => refuse(key, problem),
            None => Ok(()),
        }
    }

    /// Builds the fusion for sources of widths `dims`. Its weights are zeros (norms ones) until
    /// `limbic_weights::seed` or `load` fills them.
    ///
    /// # Panics
    /// If [`FusionConfig::check`] would refuse the sizes.
    pub fn init(&self, dims: &[usize], output_dim: usize, device: &Device) -> Fusion {
        if let Err(error) = self.check(dims.len()) {
            panic!("{error}");
        }
        Fusion {
            statistics: dims
                .iter()
                .map(|dim| self.standardise().then(|| Statistics::new(*dim, device)))
                .collect(),
            body: match self {
                Self::Attention(config) => Body::Attention(config.init(dims, output_dim, device)),
                Self::QFormer(config) => Body::QFormer(config.init(dims, output_dim, device)),
                Self::CrossModal(config) => Body::CrossModal(config.init(dims, output_dim, device)),
                Self::ConvAttention(config) => {
                    Body::ConvAttention(config.init(dims, output_dim, device))
                }
            },
        }
    }
}

/// A trainable fusion, behind frozen statistics of its sources where the config asks for them.
#[derive(Module, Debug)]
pub struct Fusion {
    statistics: Vec<Option<Statistics>>,
    body: Body,
}

#[derive(Module, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "built once a fusion: a box would save nothing"
)]
enum Body {
    Attention(AttentionFusion),
    QFormer(QFormerFusion),
    CrossModal(CrossModal),
    ConvAttention(ConvAttention),
}

/// What a source is standardised by; frozen.
#[derive(Module, Debug)]
struct Statistics {
    /// `[Din]`
    input_mean: Param<Tensor<1>>,
    /// `[Din]`
    input_std: Param<Tensor<1>>,
}

impl Statistics {
    fn new(dim: usize, device: &Device) -> Self {
        let plain = device.clone().without_autodiff();
        // Unlike `Param::from_tensor`, this leaves the parameter inactive: `train()` cannot wake it.
        let frozen =
            |value: f32| Param::initialized(ParamId::new(), Tensor::full([dim], value, &plain));
        Self {
            input_mean: frozen(0.0),
            input_std: frozen(1.0),
        }
    }
}

impl Fusion {
    /// Fuses the sources of a batch; padding does not influence the result.
    ///
    /// # Shapes
    /// one `[B, N, Din]` a source, N and Din its own; result `[B, tokens, Dout]`
    ///
    /// # Panics
    /// If there is another number of sources than it was built for, or of rows in one of them; if a length is 0 or
    /// above N, or all together are longer than [`FusionConfig::max_length`].
    pub fn forward(&self, sources: Vec<Padded>) -> Tensor<3> {
        assert_eq!(
            sources.len(),
            self.statistics.len(),
            "another number of sources"
        );
        let rows = sources[0].lengths.len();
        let sources: Vec<Padded> = sources
            .into_iter()
            .zip(&self.statistics)
            .map(|(Padded { values, lengths }, statistics)| {
                let [batch, length, _] = values.dims();
                assert_eq!((batch, lengths.len()), (rows, rows), "rows of the sources");
                assert!(
                    lengths.iter().all(|valid| (1..=length).contains(valid)),
                    "lengths {lengths:?}, wanted 1 to {length}"
                );
                let values = match statistics {
                    Some(statistics) => {
                        (values - statistics.input_mean.val().unsqueeze())
                            / statistics.input_std.val().unsqueeze()
                    }
                    None => values,
                };
                Padded { values, lengths }
            })
            .collect();
        match &self.body {
            Body::Attention(fusion) => fusion.forward(&sources),
            Body::QFormer(fusion) => fusion.forward(&sources),
            Body::CrossModal(fusion) => fusion.forward(&sources),
            Body::ConvAttention(fusion) => fusion.forward(&sources),
        }
    }

    /// Sets the statistics that source number `source` is standardised by, measured on the training clips.
    ///
    /// # Panics
    /// If the config has `standardise: false`, the sizes differ from the features', or a deviation is not above 0.
    pub fn with_statistics(mut self, source: usize, mean: Vec<f32>, std: Vec<f32>) -> Self {
        assert!(
            std.iter().all(|std| *std > 0.0 && std.is_finite()),
            "a deviation that cannot divide: {std:?}"
        );
        let statistics = self.statistics[source]
            .as_mut()
            .expect("statistics belong to a fusion built with `standardise: true`");
        for (param, values) in [
            (&mut statistics.input_mean, mean),
            (&mut statistics.input_std, std),
        ] {
            let [wanted] = param.dims();
            assert_eq!(
                values.len(),
                wanted,
                "statistics of {} dimensions, wanted {wanted}",
                values.len()
            );
            let value = Tensor::from_data(TensorData::new(values, [wanted]), &param.device());
            *param = Param::initialized(param.id, value);
        }
        self
    }
}

/// `[B, 1, D]` to `[B, tokens, D]`: the same vector as often as the language model is given it.
pub(crate) fn repeated(token: Tensor<3>, tokens: usize) -> Tensor<3> {
    let [batch, _, dim] = token.dims();
    token.expand([batch, tokens, dim])
}
