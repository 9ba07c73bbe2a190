//! The losses that are sums over samples, and their weighted sum. [`gathered`](crate::gathered) has those that look at
//! all samples of a step at once.
//!
//! Each sum is divided by the count of the whole optimizer step (all micro-batches, all devices), so that a sum of
//! shards' gradients is the gradient of the step's mean, however the step is cut.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::gathered::{Pull, valence_sum};
use crate::objectives::Objectives;
use crate::shard::Reading;
use crate::terms::{PerTerm, Term};

/// Sums that may still be on their way: reading them waits for the device.
#[derive(Clone)]
pub(crate) struct PendingSums(Vec<(Term, Tensor<1>)>);

impl PendingSums {
    /// The same, where shards' results are put together.
    pub(crate) fn moved_to(self, home: &Device) -> Self {
        let moved = |(term, sum): (Term, Tensor<1>)| (term, sum.to_device(home));
        Self(self.0.into_iter().map(moved).collect())
    }

    /// The term and the value of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Term, Tensor<1>)> {
        self.0.iter().cloned()
    }
}

/// A shard's share of the step's loss, to run backward from, and its sums. `None` where it has nothing to learn.
///
/// `shares` are the terms' weights over their divisors; `pull` is what gathered losses do to this shard.
pub(crate) fn joint_loss(
    reading: Reading,
    objectives: &Objectives,
    shares: &PerTerm<f64>,
    pull: Option<&Pull>,
) -> (Option<Tensor<1>>, PendingSums) {
    let pulled = pull.and_then(|pull| pull.on(&reading));
    let mut pending = Vec::new();
    let mut terms = Vec::new();
    for (term, sum) in own_sums(reading, objectives) {
        pending.push((term, sum.clone().without_autodiff()));
        terms.push(sum * shares[term]);
    }
    let total = terms.into_iter().chain(pulled).reduce(|a, b| a + b);
    (total, PendingSums(pending))
}

/// The sums over a shard's own samples, of each term that it has some of.
pub(crate) fn own_sums(reading: Reading, objectives: &Objectives) -> Vec<(Term, Tensor<1>)> {
    let mut sums = Vec::new();
    sums.extend(reading.tokens.map(|sum| (Term::Lm, sum)));
    if let Some((logits, targets)) = reading.prompts.classes {
        sums.push((Term::Class, class_sum(logits, targets, objectives)));
    }
    if let Some((predicted, wanted)) = reading.prompts.valences
        && !objectives.is_gathered(Term::Valence)
    {
        let sum = valence_sum(predicted, wanted, &objectives.recipe.valence);
        sums.push((Term::Valence, sum));
    }
    sums.extend(reading.masked.map(|sum| (Term::Masked, sum)));
    sums
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

/// The same with a weight a class, as `torch.nn.CrossEntropyLoss(weight)` has it before its division, and each row times
/// `(1 - p)^gamma`, p being its target's probability (Lin et al. 2017).
///
/// # Shapes
/// logits `[N, C]`, targets `[N]`, weights C, result `[1]`
pub fn weighted_cross_entropy_sum(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    smoothing: f64,
    weights: &[f32],
    gamma: f64,
) -> Tensor<1> {
    let classes = weights.len();
    let device = logits.device().without_autodiff();
    let weights = Tensor::<2>::from_data(TensorData::new(weights.to_vec(), [1, classes]), &device);
    let log_probabilities = log_softmax(logits, 1);
    let targets = targets.unsqueeze_dim(1);
    let weighted = log_probabilities.clone() * weights;
    let hard = weighted.clone().gather(1, targets.clone()).neg();
    let spread = weighted.sum_dim(1).neg() / classes as f64;
    let rows = hard * (1.0 - smoothing) + spread * smoothing;
    if gamma == 0.0 {
        return rows.sum();
    }
    // Held away from 0, where a power below 1 has no finite slope.
    let missed = log_probabilities.gather(1, targets).exp().neg() + 1.0;
    (rows * missed.clamp_min(1e-7).powf_scalar(gamma)).sum()
}

fn class_sum(logits: Tensor<2>, targets: Tensor<1, Int>, objectives: &Objectives) -> Tensor<1> {
    let smoothing = objectives.recipe.label_smoothing;
    let gamma = objectives.recipe.focal_gamma;
    match &objectives.label_weights {
        None if gamma == 0.0 => cross_entropy_sum(logits, targets, smoothing),
        None => {
            let alike = vec![1.0; logits.dims()[1]];
            weighted_cross_entropy_sum(logits, targets, smoothing, &alike, gamma)
        }
        Some(weights) => weighted_cross_entropy_sum(logits, targets, smoothing, weights, gamma),
    }
}

pub(crate) fn value(sum: &Tensor<1>) -> f64 {
    f64::from(sum.clone().without_autodiff().into_scalar::<f32>())
}

#[cfg(test)]
mod tests {
    use super::*;

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
