//! The closed set of projectors: trainable modules from features to tokens of the language model.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::EncoderError;
use crate::pooling::{LinearProjector, LinearProjectorConfig, MeanPool, MeanPoolConfig};
use crate::qformer::{QFormer, QFormerConfig};

/// Which projector, and how it is built. In YAML: `kind` and the keys of that kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProjectorConfig {
    /// A query transformer.
    #[serde(rename = "qformer")]
    QFormer(QFormerConfig),
    /// Segment means and one linear layer.
    Linear(LinearProjectorConfig),
    /// Clip statistics and a two-layer network.
    MeanPool(MeanPoolConfig),
}

impl ProjectorConfig {
    /// Whether features are first standardised by statistics measured on the training clips.
    pub fn standardise(&self) -> bool {
        match self {
            Self::QFormer(config) => config.standardise,
            Self::Linear(config) => config.standardise,
            Self::MeanPool(config) => config.standardise,
        }
    }

    /// Tokens it makes of a clip.
    pub fn num_tokens(&self) -> usize {
        match self {
            Self::QFormer(config) => config.queries,
            Self::Linear(config) => config.tokens,
            Self::MeanPool(_) => 1,
        }
    }

    /// The longest input it can read, in features; `None` where any length will do.
    pub fn max_length(&self) -> Option<usize> {
        match self {
            Self::QFormer(config) => Some(config.max_length),
            Self::Linear(_) | Self::MeanPool(_) => None,
        }
    }

    /// Refuses sizes that cannot work; to be called on what a user wrote, before `init`.
    ///
    /// # Errors
    /// [`EncoderError::Config`] with the key.
    pub fn check(&self) -> Result<(), EncoderError> {
        let zero = |key| Some((key, "got 0, wanted at least 1".to_string()));
        let (kind, problem) = match self {
            Self::QFormer(config) => ("qformer", config.problem()),
            Self::Linear(config) => (
                "linear",
                if config.tokens == 0 {
                    zero("tokens")
                } else {
                    None
                },
            ),
            Self::MeanPool(config) => (
                "mean_pool",
                if config.hidden == 0 {
                    zero("hidden")
                } else {
                    None
                },
            ),
        };
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
            body: match self {
                Self::QFormer(config) => {
                    Body::QFormer(config.init(feature_dim, output_dim, device))
                }
                Self::Linear(config) => Body::Linear(config.init(feature_dim, output_dim, device)),
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
}

#[derive(Module, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "built once an input: a box would save nothing"
)]
enum Body {
    QFormer(QFormer),
    Linear(LinearProjector),
    MeanPool(MeanPool),
}

impl Projector {
    /// Projects a batch of zero-padded features; padding does not influence the result.
    ///
    /// # Shapes
    /// features `[B, N, Din]`, lengths B valid features of each row, result `[B, tokens, Dout]`
    ///
    /// # Panics
    /// If a length is 0 or above N, if there is not one a row, or if N is above
    /// [`Projector::max_length`]: the caller knows the clip and refuses it by name.
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
        if let Some(longest) = self.max_length() {
            assert!(
                length <= longest,
                "{length} features, wanted at most {longest}"
            );
        }
        let features = self.standardised(features);
        match &self.body {
            Body::QFormer(qformer) => {
                let hidden = padding_bias(lengths, length, &features.device());
                qformer.forward(features, hidden)
            }
            Body::Linear(projector) => projector.forward(features, lengths),
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
        match &self.body {
            Body::QFormer(qformer) => qformer.num_queries(),
            Body::Linear(projector) => projector.num_tokens(),
            Body::MeanPool(_) => 1,
        }
    }

    /// The longest input it can read, in features; `None` where any length will do.
    pub fn max_length(&self) -> Option<usize> {
        match &self.body {
            Body::QFormer(qformer) => Some(qformer.max_length()),
            Body::Linear(_) | Body::MeanPool(_) => None,
        }
    }
}

/// `[B, 1, 1, N]`: minus infinity on padding, 0 elsewhere; nothing where no row is padded.
fn padding_bias(lengths: &[usize], length: usize, device: &Device) -> Option<Tensor<4>> {
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
        device,
    ))
}
