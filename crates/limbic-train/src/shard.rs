//! A shard as tensors, and what the model reads from it.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use limbic_data::Segment;
use limbic_encoders::Features;
use limbic_llama::{Dropout, Pass, Tape};
use limbic_model::{
    Batch, ClipMedia, EmotionLlm, Example, Layout, MaskedBatch, MaskedCaption, PairBatch, Readout,
};
use limbic_weights::CounterRng;

use crate::dataset::{Drawn, with_examples};
use crate::gathered::Pairs;
use crate::objectives::Objectives;
use crate::terms::Term;

/// The samples of a shard, laid out for the terms it was built for.
pub(crate) struct ShardBatch {
    prompts: Option<Batch>,
    masked: Option<MaskedBatch>,
    pairs: Option<PairBatch>,
    /// The captions' tokens of each pair.
    texts: Vec<Vec<u32>>,
    terms: Vec<Term>,
}

/// What the model says about a shard, where a loss reads it.
pub(crate) struct Reading {
    /// Cross-entropy of the answers' tokens, summed, `[1]`.
    pub(crate) tokens: Option<Tensor<1>>,
    /// What the heads say of prompts.
    pub(crate) prompts: Readout,
    /// Cross-entropy of hidden tokens of captions, summed, `[1]`.
    pub(crate) masked: Option<Tensor<1>>,
    /// Clips and captions in their common space.
    pub(crate) pairs: Option<Pairs>,
    /// Logarithm of the factor there.
    pub(crate) log_scale: Option<Tensor<1>>,
}

impl ShardBatch {
    /// Lays out `drawn`, of which `masked` are the captions with hidden tokens, on `device`. Captions are padded
    /// whatever the `layout` of prompts: they are read both ways, or are means over rows.
    pub(crate) fn new(
        drawn: &[Drawn],
        masked: &[Option<MaskedCaption>],
        terms: &[Term],
        objectives: &Objectives,
        layout: Layout,
        device: &Device,
    ) -> Self {
        let reads_prompts = [Term::Lm, Term::Class, Term::Valence];
        let prompts = terms.iter().any(|term| reads_prompts.contains(term));
        let held: Vec<Vec<Option<Arc<Features>>>> = drawn.iter().map(Drawn::held).collect();
        let features: Vec<Vec<Option<&Features>>> = held
            .iter()
            .map(|features| features.iter().map(Option::as_deref).collect())
            .collect();
        let slots: Vec<Vec<Segment>> = drawn
            .iter()
            .map(|drawn| objectives.slots(drawn.sample))
            .collect();
        let media = |row: usize| ClipMedia {
            features: &features[row],
            slots: &slots[row],
        };
        let rows = 0..drawn.len();
        let captions: Vec<(ClipMedia, &MaskedCaption)> = rows
            .clone()
            .filter(|_| terms.contains(&Term::Masked))
            .filter_map(|row| Some((media(row), masked[row].as_ref()?)))
            .collect();
        let pairs: Vec<(ClipMedia, &[u32])> = rows
            .filter(|_| terms.contains(&Term::Contrastive))
            .filter(|row| objectives.is_pair(drawn[*row].sample))
            .map(|row| (media(row), drawn[row].sample.caption.as_slice()))
            .collect();
        let bos = objectives.bos;
        Self {
            prompts: prompts.then(|| {
                with_examples(drawn, |examples: &[Example]| {
                    Batch::new(examples, layout, device)
                })
            }),
            masked: (!captions.is_empty()).then(|| MaskedBatch::new(&captions, bos, device)),
            pairs: (!pairs.is_empty()).then(|| PairBatch::new(&pairs, bos, device)),
            texts: pairs.iter().map(|(_, text)| text.to_vec()).collect(),
            terms: terms.to_vec(),
        }
    }

    /// What `model` says. Each of its passes has a dropout of its own, under `dropout`; with a `tape` they can be gone back
    /// through.
    pub(crate) fn read(
        &self,
        model: &EmotionLlm,
        dropout: Option<CounterRng>,
        tape: Option<&Tape>,
    ) -> Reading {
        let with = |key: Option<CounterRng>| Pass {
            dropout: key.map_or(Dropout::OFF, Dropout::keyed),
            tape,
        };
        let of = |site: &str| with(dropout.map(|key| key.site(site)));
        let mut prompts = match &self.prompts {
            Some(batch) => model.forward(batch, Objectives::asked(&self.terms), with(dropout)),
            None => Readout::default(),
        };
        let tokens = prompts.tokens.take();
        let alignment = model.alignment.as_ref().filter(|_| self.pairs.is_some());
        Reading {
            tokens: tokens.map(|tokens| model.token_loss(tokens, with(dropout).dropout)),
            prompts,
            masked: self.masked.as_ref().map(|batch| {
                let pass = of("masked");
                model.token_loss(model.tell_masked(batch, pass), pass.dropout)
            }),
            pairs: self.pairs.as_ref().map(|batch| {
                let (clips, captions) = model.pair(batch, of("pairs"));
                Pairs {
                    clips,
                    captions,
                    texts: self.texts.clone(),
                }
            }),
            log_scale: alignment.map(|alignment| alignment.log_scale.val()),
        }
    }

    /// Positions processed, padding left out.
    pub(crate) fn num_positions(&self) -> usize {
        self.prompts.as_ref().map_or(0, |batch| batch.num_positions)
            + self.masked.as_ref().map_or(0, |batch| batch.num_positions)
            + self.pairs.as_ref().map_or(0, |batch| batch.num_positions)
    }

    /// Positions computed, padding included.
    pub(crate) fn num_slots(&self) -> usize {
        self.prompts.as_ref().map_or(0, Batch::num_slots)
            + self.masked.as_ref().map_or(0, |batch| batch.num_slots)
            + self.pairs.as_ref().map_or(0, |batch| batch.num_slots)
    }
}
