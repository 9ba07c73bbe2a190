//! The joint loss: `lm_weight · Σ CE over supervised tokens / tokens + class_weight · Σ CE over labelled samples / samples`.
//!
//! Both counts are those of the whole optimizer step (all micro-batches, all devices), so that a sum of shards'
//! gradients is the gradient of the step's mean, however the step is cut.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};
use limbic_model::Readout;

use crate::recipe::LossRecipe;

/// What the sums of a step are divided by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Supervised tokens.
    pub tokens: usize,
    /// Labelled samples.
    pub labelled: usize,
}

/// Sums over a shard, to be divided by the step's [`Counts`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossSums {
    /// Of the token cross-entropy.
    pub lm: f64,
    /// Of the class cross-entropy.
    pub class: f64,
}

impl LossSums {
    /// The terms' means, and their weighted sum.
    pub fn means(&self, counts: Counts, recipe: &LossRecipe) -> LossMeans {
        let lm = self.lm / counts.tokens.max(1) as f64;
        let class = self.class / counts.labelled.max(1) as f64;
        LossMeans {
            total: recipe.lm_weight * lm + recipe.class_weight * class,
            lm,
            class,
        }
    }
}

/// Mean losses of a step or a split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossMeans {
    /// The weighted sum.
    pub total: f64,
    /// Per supervised token, in nats.
    pub lm: f64,
    /// Per labelled sample, in nats.
    pub class: f64,
}

/// A shard's share of the step's loss, to run backward from, and its sums. `None` where it has nothing to learn.
pub(crate) fn joint_loss(
    readout: Readout,
    counts: Counts,
    recipe: &LossRecipe,
) -> (Option<Tensor<1>>, LossSums) {
    let mut sums = LossSums::default();
    let mut terms = Vec::new();
    if let Some((logits, targets)) = readout.tokens {
        let sum = cross_entropy_sum(logits, targets, 0.0);
        sums.lm = value(&sum);
        terms.push(sum * (recipe.lm_weight / counts.tokens as f64));
    }
    if let Some((logits, targets)) = readout.classes {
        let sum = cross_entropy_sum(logits, targets, recipe.label_smoothing);
        sums.class = value(&sum);
        terms.push(sum * (recipe.class_weight / counts.labelled as f64));
    }
    (terms.into_iter().reduce(|a, b| a + b), sums)
}

/// Cross-entropy summed over rows, each target smoothed over the classes as `torch.nn.CrossEntropyLoss` does it.
///
/// # Shapes
/// logits `[N, C]`, targets `[N]`, result `[1]`
pub fn cross_entropy_sum(logits: Tensor<2>, targets: Tensor<1, Int>, smoothing: f64) -> Tensor<1> {
    let log_probabilities = log_softmax(logits, 1);
    let chosen = log_probabilities
        .clone()
        .gather(1, targets.unsqueeze_dim(1));
    let hard = chosen.sum().neg();
    if smoothing == 0.0 {
        return hard;
    }
    let classes = log_probabilities.dims()[1] as f64;
    let spread = log_probabilities.sum().neg() / classes;
    hard * (1.0 - smoothing) + spread * smoothing
}

fn value(sum: &Tensor<1>) -> f64 {
    f64::from(sum.clone().without_autodiff().into_scalar::<f32>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn cross_entropy_is_torchs() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_data([[1.0f32, 2.0, 0.5], [0.0, -1.0, 3.0]], &device);
        let targets = || Tensor::<1, Int>::from_data([1i64, 0], &device);
        // torch.nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=s), by hand:
        // row 1: log(e^1 + e^2 + e^0.5) - 2 = 0.4643726; row 2: log(e^0 + e^-1 + e^3) - 0 = 3.0658874.
        let lse = [
            (1f64.exp() + 2f64.exp() + 0.5f64.exp()).ln(),
            (1.0 + (-1f64).exp() + 3f64.exp()).ln(),
        ];
        let hard = lse[0] - 2.0 + lse[1];
        let got = value(&cross_entropy_sum(logits.clone(), targets(), 0.0));
        assert!((got - hard).abs() < 1e-5, "{got} {hard}");
        let spread = (3.0 * lse[0] - 3.5 + 3.0 * lse[1] - 2.0) / 3.0;
        let got = value(&cross_entropy_sum(logits, targets(), 0.1));
        assert!((got - (0.9 * hard + 0.1 * spread)).abs() < 1e-5, "{got}");
    }
}
