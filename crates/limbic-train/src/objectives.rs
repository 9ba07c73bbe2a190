//! The objectives of a run: its `loss`, with what follows from model and data filled in.

use limbic_data::{LabelSet, Segment, TextTokenizer};
use limbic_model::{ArtifactConfig, Asked, MaskedCaption, Reads};
use limbic_weights::CounterRng;

use crate::RunError;
use crate::dataset::{Dataset, Drawn, Sample};
use crate::loss_recipe::{LabelWeights, LossRecipe};
use crate::terms::{Divisors, PerTerm, Term};

/// Which losses are computed, and everything that they need to know beside the model.
#[derive(Debug, Clone)]
pub struct Objectives {
    pub(crate) recipe: LossRecipe,
    active: Vec<Term>,
    /// One a class.
    pub(crate) label_weights: Option<Vec<f32>>,
    config: ArtifactConfig,
    /// Tokens of each slot: the inputs' first, then the fusions'.
    tokens: Vec<usize>,
    /// The token that sequences begin with.
    pub(crate) bos: u32,
    vocabulary: usize,
    seed: u64,
}

impl Objectives {
    /// Of a model of this config that learns from `train`. A loss without the head it needs is none, except where a head
    /// is made for the loss alone: that is an error.
    ///
    /// # Errors
    /// Nothing to learn; label weights that are not those of the labels; captions that are asked for and are not there.
    pub fn new(
        recipe: &LossRecipe,
        config: &ArtifactConfig,
        tokenizer: &TextTokenizer,
        train: &Dataset,
        seed: u64,
    ) -> anyhow::Result<Self> {
        // A tokenizer may know tokens that the decoder has no row for, and the other way round.
        let vocabulary = tokenizer.vocab_size().min(train.vocabulary());
        let bos = tokenizer.bos;
        Self::over(recipe, config, bos, vocabulary, train.samples(), seed)
    }

    /// The same for texts with this begin token, hidden tokens of which may become any of the first `vocabulary` ones.
    pub(crate) fn over(
        recipe: &LossRecipe,
        config: &ArtifactConfig,
        bos: u32,
        vocabulary: usize,
        samples: &[Sample],
        seed: u64,
    ) -> anyhow::Result<Self> {
        let active: Vec<Term> = active(recipe, config).collect();
        if active.is_empty() {
            return Err(RunError::recipe(
                "`train.loss` weighs only heads that the model has not, so nothing would be learnt; \
                 add `model.head` or `model.valence`, or give another loss a weight",
            ));
        }
        let objectives = Self {
            label_weights: label_weights(recipe, config.labels.as_ref(), samples)?,
            recipe: recipe.clone(),
            active,
            config: config.clone(),
            tokens: config
                .compiler()?
                .slots()
                .iter()
                .map(|slot| slot.tokens)
                .collect(),
            bos,
            vocabulary,
            seed,
        };
        let is_weighed = |sample: &Sample| {
            let label = sample.label;
            label.is_some_and(|label| objectives.label_weight(label) > 0.0)
        };
        let has = |term: Term| match term {
            Term::Lm => true,
            // Beside another loss, labels may be there or not.
            Term::Class => objectives.active.len() > 1 || samples.iter().any(is_weighed),
            Term::Valence => samples.iter().any(|sample| sample.valence().is_some()),
            Term::Contrastive => {
                let mut pairs = samples.iter().filter(|sample| objectives.is_pair(sample));
                let first = pairs.next();
                first.is_some_and(|first| pairs.any(|other| other.caption != first.caption))
            }
            Term::Masked => samples.iter().any(|sample| !sample.caption.is_empty()),
        };
        let wanted = |term: Term| match term {
            Term::Lm => "",
            Term::Class => "clips with a known label of a weight above 0",
            Term::Valence => "clips with a `valence`",
            Term::Contrastive => {
                "clips with media that the model perceives and captions of them (`seen`, `heard`) that differ"
            }
            Term::Masked => "clips with a caption (`seen`, `heard`) of what the model perceives",
        };
        match objectives.active.iter().find(|term| !has(**term)) {
            None => Ok(objectives),
            Some(term) => Err(RunError::Data(format!(
                "`train.loss.{}_weight` asks for {}, of which the training split has none; add some, or set it to 0",
                term.name(),
                wanted(*term)
            ))
            .into()),
        }
    }

    /// The losses that are computed, in the order of [`Term::ALL`].
    pub fn active(&self) -> &[Term] {
        &self.active
    }

    /// Whether `term` is computed.
    pub fn is_active(&self, term: Term) -> bool {
        self.active.contains(&term)
    }

    /// The weights in step `step`; 0 for what is not computed.
    pub fn weights(&self, step: u64) -> PerTerm<f64> {
        PerTerm::from_fn(|term| {
            if self.is_active(term) {
                weight(&self.recipe, term).at(step)
            } else {
                0.0
            }
        })
    }

    /// Whether `term` looks at all samples of a step at once, so that it is no sum over them.
    pub(crate) fn is_gathered(&self, term: Term) -> bool {
        self.is_active(term)
            && match term {
                Term::Lm | Term::Class | Term::Masked => false,
                Term::Valence => self.recipe.valence.ccc > 0.0,
                Term::Contrastive => true,
            }
    }

    /// What of `terms` a forward pass over prompts is to read.
    pub(crate) fn asked(terms: &[Term]) -> Asked {
        Asked {
            tokens: terms.contains(&Term::Lm),
            classes: terms.contains(&Term::Class),
            valences: terms.contains(&Term::Valence),
        }
    }

    /// Whether a sample has both sides of a pair.
    pub(crate) fn is_pair(&self, sample: &Sample) -> bool {
        !sample.caption.is_empty() && !self.slots(sample).is_empty()
    }

    /// The slots that a clip fills with what is seen and heard; not with its words.
    pub(crate) fn slots(&self, sample: &Sample) -> Vec<Segment> {
        let features = sample.encoded.features.iter();
        let inputs: Vec<bool> = features.map(Option::is_some).collect();
        let present = self.config.present(&inputs, false);
        (0..present.len())
            .filter(|slot| present[*slot] && self.tokens[*slot] > 0)
            .map(|slot| Segment::Media {
                input: slot,
                tokens: self.tokens[slot],
            })
            .collect()
    }

    /// The captions of `drawn` with tokens hidden, as seed, `at` and the sample's place there decide; `None` without a caption, and where nothing is to be told.
    pub(crate) fn masked(
        &self,
        drawn: &[Drawn],
        places: &[usize],
        at: MaskKey,
    ) -> Vec<Option<MaskedCaption>> {
        let rng = CounterRng::new(self.seed).site("mask");
        let rng = match at {
            MaskKey::Step(step) => rng.site("step").index(step),
            MaskKey::Evaluation => rng.site("evaluation"),
        };
        let wanted = self.is_active(Term::Masked);
        drawn
            .iter()
            .zip(places)
            .map(|(drawn, place)| {
                let caption = &drawn.sample.caption;
                (wanted && !caption.is_empty()).then(|| {
                    let rng = rng.index(*place as u64);
                    MaskedCaption::draw(caption, self.recipe.mask_share, self.vocabulary, rng)
                })
            })
            .collect()
    }

    /// What the sums over `drawn` are divided by.
    pub(crate) fn divisors(&self, drawn: &[Drawn], masked: &[Option<MaskedCaption>]) -> Divisors {
        let mut divisors = Divisors::default();
        for (drawn, masked) in drawn.iter().zip(masked) {
            let sample = drawn.sample;
            divisors[Term::Lm] += drawn.compiled.answer.len() as f64;
            divisors[Term::Class] += sample.label.map_or(0.0, |label| self.label_weight(label));
            divisors[Term::Valence] += f64::from(u8::from(sample.valence().is_some()));
            divisors[Term::Contrastive] += f64::from(u8::from(self.is_pair(sample)));
            divisors[Term::Masked] += masked.as_ref().map_or(0, MaskedCaption::num_wanted) as f64;
        }
        divisors
    }

    fn label_weight(&self, label: usize) -> f64 {
        let weights = self.label_weights.as_ref();
        weights.map_or(1.0, |weights| f64::from(weights[label]))
    }
}

/// What the hidden tokens of a caption are drawn for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MaskKey {
    /// The step of this number.
    Step(u64),
    /// Evaluations, which all hide the same tokens.
    Evaluation,
}

fn weight(recipe: &LossRecipe, term: Term) -> &crate::Weight {
    match term {
        Term::Lm => &recipe.lm_weight,
        Term::Class => &recipe.class_weight,
        Term::Valence => &recipe.valence_weight,
        Term::Contrastive => &recipe.contrastive_weight,
        Term::Masked => &recipe.masked_weight,
    }
}

/// The losses that have a weight, and the head they need.
pub(crate) fn active<'a>(
    recipe: &'a LossRecipe,
    config: &'a ArtifactConfig,
) -> impl Iterator<Item = Term> + 'a {
    Term::ALL.into_iter().filter(|term| {
        weight(recipe, *term).is_used()
            && match term {
                Term::Lm => true,
                Term::Class => config.head.is_some(),
                Term::Valence => config.valence.is_some(),
                Term::Contrastive => config.alignment.is_some(),
                Term::Masked => config.mask,
            }
    })
}

/// Whether nothing teaches the model to answer in words, nor has taught the one that it starts from, while all the heads
/// it has do without the decoder.
pub(crate) fn is_mute(
    recipe: &LossRecipe,
    config: &ArtifactConfig,
    init: Option<&ArtifactConfig>,
) -> bool {
    let mut heads = config.head.iter().chain(&config.valence).peekable();
    !recipe.lm_weight.is_used()
        && init.is_none_or(|init| init.mute)
        && heads.peek().is_some()
        && heads.all(|head| matches!(head.reads, Reads::Fusion(_)))
}

fn label_weights(
    recipe: &LossRecipe,
    labels: Option<&LabelSet>,
    samples: &[Sample],
) -> anyhow::Result<Option<Vec<f32>>> {
    let Some(weights) = &recipe.label_weights else {
        return Ok(None);
    };
    let names = labels.map(LabelSet::names).unwrap_or_default();
    match weights {
        LabelWeights::Each(weights) => {
            let known = |name: &str| names.contains(&name);
            let missing = names.iter().find(|name| !weights.contains_key(**name));
            let problem = match (weights.keys().find(|name| !known(name)), missing) {
                (Some(name), _) => format!("names `{name}`, which is no label"),
                (None, Some(name)) => format!("lacks `{name}`"),
                (None, None) => {
                    return Ok(Some(
                        names.iter().map(|name| weights[*name] as f32).collect(),
                    ));
                }
            };
            Err(RunError::recipe(format!(
                "`train.loss.label_weights` {problem}; wanted a weight for each of: {}",
                names.join(", ")
            )))
        }
        LabelWeights::Counted(_) => {
            let mut counts = vec![0usize; names.len()];
            let labelled = samples.iter().filter_map(|sample| sample.label);
            labelled.for_each(|label| counts[label] += 1);
            let all: usize = counts.iter().sum();
            let weight = |count: &usize| match *count {
                0 => 0.0,
                count => (all as f64 / (names.len() * count) as f64) as f32,
            };
            Ok(Some(counts.iter().map(weight).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use limbic_model::HeadConfig;

    use super::*;

    #[test]
    fn mute_is_who_never_learnt_to_speak_and_whose_heads_all_read_fusions() {
        let mut config: ArtifactConfig = serde_yaml::from_str(
            "{format: 1, run: r, decoder: own, inputs: [], transcript: true, prompt: {template: [], instructions: {}}, \
             labels: null, head: null, valence: {reads: multi}}",
        )
        .unwrap();
        let silent: LossRecipe = serde_yaml::from_str("{lm_weight: 0}").unwrap();
        let speaker = config.clone();
        let mute = ArtifactConfig {
            mute: true,
            ..config.clone()
        };
        assert!(is_mute(&silent, &config, None));
        assert!(is_mute(&silent, &config, Some(&mute)));
        assert!(!is_mute(&silent, &config, Some(&speaker)));
        assert!(!is_mute(&LossRecipe::default(), &config, None));
        config.head = Some(HeadConfig::default());
        assert!(!is_mute(&silent, &config, None));
        (config.head, config.valence) = (None, None);
        assert!(!is_mute(&silent, &config, None));
    }
}
