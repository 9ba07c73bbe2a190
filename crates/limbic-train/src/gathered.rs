//! The losses that look at all samples of a step at once, however it is cut into shards and whatever device computes
//! them: the contrast of every clip with every caption, and the concordance of valences.
//!
//! They are computed in two phases, as GradCache does it (Gao et al. 2021). All shards run forward without a tape; from
//! what they give, the loss and its slope at every number are found on a small tape. Then each shard runs again with a
//! tape and backward from the product of its numbers with those slopes, which has the very gradient that one tape over
//! all shards would give.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

use crate::loss::value;
use crate::loss_recipe::ValenceRecipe;
use crate::objectives::Objectives;
use crate::shard::Reading;
use crate::terms::{LossSums, PerTerm, Term};

/// What a shard gives to gathered losses, without a tape.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gathered {
    /// Clips beside their captions.
    pub(crate) pairs: Option<Pairs>,
    /// Predicted and wanted valences, `[N]` each.
    pub(crate) valences: Option<(Tensor<1>, Tensor<1>)>,
}

/// Clips beside their captions in the common space.
#[derive(Debug, Clone)]
pub(crate) struct Pairs {
    /// `[P, E]`
    pub(crate) clips: Tensor<2>,
    /// `[P, E]`
    pub(crate) captions: Tensor<2>,
    /// The captions' tokens, P lists.
    pub(crate) texts: Vec<Vec<u32>>,
}

impl Pairs {
    fn map(&self, of: impl Fn(&Tensor<2>) -> Tensor<2>) -> Self {
        Self {
            clips: of(&self.clips),
            captions: of(&self.captions),
            texts: self.texts.clone(),
        }
    }
}

/// The slopes of gathered losses at the numbers of one shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pull {
    pairs: Option<(Tensor<2>, Tensor<2>)>,
    log_scale: Option<Tensor<1>>,
    valences: Option<Tensor<1>>,
}

impl Gathered {
    /// Of a shard's reading.
    pub(crate) fn of(reading: &Reading, device: &Device) -> Self {
        let one = |x: &Tensor<1>| x.clone().without_autodiff().to_device(device);
        let two = |x: &Tensor<2>| x.clone().without_autodiff().to_device(device);
        let valences = reading.prompts.valences.as_ref();
        Self {
            pairs: reading.pairs.as_ref().map(|pairs| pairs.map(two)),
            valences: valences.map(|(a, b)| (one(a), one(b))),
        }
    }

    /// Those of all shards, one after the other.
    pub(crate) fn all(shards: &[Self]) -> Self {
        Self {
            pairs: every_pair(shards.iter().filter_map(|shard| shard.pairs.as_ref())),
            valences: both(shards.iter().filter_map(|shard| shard.valences.clone())),
        }
    }

    /// The sums that can be formed.
    pub(crate) fn sums(
        &self,
        log_scale: Option<&Tensor<1>>,
        valence: &ValenceRecipe,
    ) -> Vec<(Term, Tensor<1>)> {
        let contrastive = self.pairs.clone().zip(log_scale.cloned());
        let contrastive = contrastive
            .map(|(pairs, scale)| info_nce_sum(pairs.clips, pairs.captions, scale, &pairs.texts))
            .map(|sum| (Term::Contrastive, sum));
        let valence = self
            .valences
            .clone()
            .map(|(predicted, wanted)| valence_sum(predicted, wanted, valence))
            .map(|sum| (Term::Valence, sum));
        contrastive.into_iter().chain(valence).collect()
    }
}

impl Pull {
    /// The slopes at the numbers of each of `shards`, and the sums of the gathered losses. `shares` are the terms'
    /// weights over their divisors.
    pub(crate) fn of(
        shards: &[Gathered],
        log_scale: Option<Tensor<1>>,
        objectives: &Objectives,
        shares: &PerTerm<f64>,
    ) -> (Vec<Self>, LossSums) {
        let all = Gathered::all(shards);
        let leaves = Gathered {
            pairs: all.pairs.map(|pairs| pairs.map(|x| leaf(x.clone()))),
            valences: all
                .valences
                .map(|(predicted, wanted)| (leaf(predicted), wanted)),
        };
        let log_scale = log_scale.map(leaf);
        let terms = leaves.sums(log_scale.as_ref(), &objectives.recipe.valence);
        let mut sums = LossSums::default();
        for (term, sum) in &terms {
            sums[*term] = value(sum);
        }
        let total = terms
            .into_iter()
            .map(|(term, sum)| sum * shares[term])
            .reduce(|a, b| a + b);
        let Some(total) = total else {
            return (vec![Self::default(); shards.len()], sums);
        };
        let slopes = total.backward();
        let at = |leaf: &Tensor<2>| leaf.grad(&slopes).expect("the loss reads every leaf");
        let pairs = leaves.pairs.as_ref();
        let pairs = pairs.map(|pairs| (at(&pairs.clips), at(&pairs.captions)));
        let valences = leaves.valences.as_ref().and_then(|(a, _)| a.grad(&slopes));
        let scale = log_scale.as_ref().and_then(|scale| scale.grad(&slopes));
        let carrier = shards.iter().position(|shard| shard.pairs.is_some());
        let (mut pair, mut valence) = (0, 0);
        let pulls =
            shards
                .iter()
                .enumerate()
                .map(|(number, shard)| Self {
                    pairs: shard.pairs.as_ref().zip(pairs.as_ref()).map(
                        |(own, (clips, captions))| {
                            let rows = pair..pair + own.texts.len();
                            pair = rows.end;
                            (
                                clips.clone().slice([rows.clone()]),
                                captions.clone().slice([rows]),
                            )
                        },
                    ),
                    valences: shard.valences.as_ref().zip(valences.as_ref()).map(
                        |((own, _), valences)| {
                            let rows = valence..valence + own.dims()[0];
                            valence = rows.end;
                            valences.clone().slice([rows])
                        },
                    ),
                    // The temperature is one number of the step: one shard carries its slope.
                    log_scale: scale.clone().filter(|_| Some(number) == carrier),
                })
                .collect();
        (pulls, sums)
    }

    /// A number whose gradient is what gathered losses do to this shard.
    pub(crate) fn on(&self, reading: &Reading) -> Option<Tensor<1>> {
        let to = |x: &Tensor<2>, slope: &Tensor<2>| {
            (x.clone() * slope.clone().to_device(&x.device().without_autodiff())).sum()
        };
        let pairs = self.pairs.as_ref().zip(reading.pairs.as_ref());
        let pairs = pairs.map(|((a, b), pairs)| to(&pairs.clips, a) + to(&pairs.captions, b));
        let valences = self
            .valences
            .as_ref()
            .zip(reading.prompts.valences.as_ref());
        let valences = valences.map(|(slope, (predicted, _))| {
            let device = predicted.device().without_autodiff();
            (predicted.clone() * slope.clone().to_device(&device)).sum()
        });
        let scale = self.log_scale.as_ref().zip(reading.log_scale.as_ref());
        let scale = scale.map(|(slope, scale)| {
            let device = scale.device().without_autodiff();
            (scale.clone() * slope.clone().to_device(&device)).sum()
        });
        [pairs, valences, scale]
            .into_iter()
            .flatten()
            .reduce(|a, b| a + b)
    }
}

fn leaf<const D: usize>(value: Tensor<D>) -> Tensor<D> {
    value.autodiff().require_grad()
}

fn both<const D: usize>(
    parts: impl Iterator<Item = (Tensor<D>, Tensor<D>)>,
) -> Option<(Tensor<D>, Tensor<D>)> {
    let (a, b): (Vec<_>, Vec<_>) = parts.unzip();
    (!a.is_empty()).then(|| (Tensor::cat(a, 0), Tensor::cat(b, 0)))
}

fn every_pair<'a>(parts: impl Iterator<Item = &'a Pairs> + Clone) -> Option<Pairs> {
    let tensors = parts.clone();
    let (clips, captions) = both(tensors.map(|it| (it.clips.clone(), it.captions.clone())))?;
    Some(Pairs {
        clips,
        captions,
        texts: parts.flat_map(|it| it.texts.clone()).collect(),
    })
}

/// The symmetric contrast of Radford et al. (2021) summed over pairs: the cross-entropy of each clip's own caption among
/// all captions and of each caption's own clip among all clips, half of each. Pairs with equal `texts`, be it that one
/// clip was drawn twice, are no negatives of each other: each is left out where the other is told from the rest.
///
/// # Shapes
/// clips and captions `[P, E]` of length one, log_scale `[1]`, texts P, result `[1]`
pub fn info_nce_sum(
    clips: Tensor<2>,
    captions: Tensor<2>,
    log_scale: Tensor<1>,
    texts: &[Vec<u32>],
) -> Tensor<1> {
    let pairs = clips.dims()[0];
    assert_eq!(pairs, texts.len(), "pairs and their texts");
    let device = clips.device().without_autodiff();
    let own = Tensor::<2>::eye(pairs, &device);
    // Finite, since its product with a zero of `own` is formed; below any cosine times any factor.
    let apart = |row: usize, column: usize| match row != column && texts[row] == texts[column] {
        true => -1e9f32,
        false => 0.0,
    };
    let twins: Vec<f32> = (0..pairs * pairs)
        .map(|place| apart(place / pairs, place % pairs))
        .collect();
    let twins = Tensor::<2>::from_data(TensorData::new(twins, [pairs, pairs]), &device);
    let scores = clips.matmul(captions.transpose()) * log_scale.exp().unsqueeze() + twins;
    let one_way = |scores: Tensor<2>| (log_softmax(scores, 1) * own.clone()).sum();
    (one_way(scores.clone()) + one_way(scores.transpose())) * -0.5
}

/// The valence loss times the number of samples: their squared errors, and one less the concordance of all.
///
/// # Shapes
/// predicted and wanted `[N]`, result `[1]`
pub fn valence_sum(predicted: Tensor<1>, wanted: Tensor<1>, recipe: &ValenceRecipe) -> Tensor<1> {
    let samples = predicted.dims()[0] as f64;
    let errors = (predicted.clone() - wanted.clone()).square().sum() * recipe.mse;
    if recipe.ccc == 0.0 {
        return errors;
    }
    errors + (concordance(predicted, wanted).neg() + 1.0) * (samples * recipe.ccc)
}

/// Lin's concordance correlation coefficient (1989): `2 cov / (var + var + (difference of means)²)`.
fn concordance(a: Tensor<1>, b: Tensor<1>) -> Tensor<1> {
    let (mean_a, mean_b) = (a.clone().mean(), b.clone().mean());
    let (a, b) = (a - mean_a.clone(), b - mean_b.clone());
    let covariance = (a.clone() * b.clone()).mean();
    let spread = a.square().mean() + b.square().mean() + (mean_a - mean_b).square();
    covariance * 2.0 / (spread + 1e-8)
}
