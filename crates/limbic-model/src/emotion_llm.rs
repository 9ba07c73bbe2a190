//! The forward pass. Letters: B samples, R rows, L slots of a row, D decoder width, V vocabulary, C classes, N selected positions.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use limbic_encoders::{Fusion, Padded, Projector};
use limbic_llama::{Dropout, Llama, Pass};

use crate::batch::{PerSample, rows_of};
use crate::{Alignment, Batch, Head, Mask, Reads, Source};

/// Projectors, fusions, decoder and heads. Encoders stand outside: they are frozen, and their features are inputs.
#[derive(Module, Debug)]
pub struct EmotionLlm {
    /// The decoder, with or without adapters.
    pub llama: Llama,
    /// One projector an input; none where only fusions read it.
    pub projectors: Vec<Option<Projector>>,
    /// Each makes tokens of several inputs together.
    pub fusions: Vec<Fusion>,
    /// Classes from the last prompt position, or from a fusion.
    pub head: Option<Head>,
    /// Valence from the same.
    pub valence: Option<Head>,
    /// Clip and caption in one space.
    pub alignment: Option<Alignment>,
    /// What stands for hidden tokens of captions.
    pub mask: Option<Mask>,
    /// What each fusion reads.
    #[module(skip)]
    pub(crate) sources: Vec<Vec<Source>>,
    /// What each fusion is called.
    #[module(skip)]
    pub(crate) fusion_names: Vec<String>,
}

/// What a fusion makes of the samples that have all of its sources.
#[derive(Debug)]
pub struct Fused {
    /// Numbers of these samples, ascending.
    pub samples: Vec<usize>,
    /// `[samples, tokens, D]`
    pub tokens: Tensor<3>,
}

impl Fused {
    /// The tokens of `samples`, which are among these.
    fn only(self, samples: &[usize]) -> Tensor<3> {
        if self.samples == samples {
            return self.tokens;
        }
        let device = self.tokens.device().without_autodiff();
        self.tokens
            .select(0, rows_of(samples, &self.samples, &device))
    }
}

/// Which readings a forward pass is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Of the supervised tokens.
    pub tokens: bool,
    /// Of the class head.
    pub classes: bool,
    /// Of the valence head.
    pub valences: bool,
}

impl Asked {
    /// All three.
    pub const ALL: Self = Self {
        tokens: true,
        classes: true,
        valences: true,
    };
}

/// What losses of prompts are computed from: what the model says where it counts, and what it should have said.
#[derive(Debug, Default)]
pub struct Readout {
    /// What the decoder makes of the supervised positions.
    pub tokens: Option<TokenStates>,
    /// Class logits `[N, C]` of the labelled samples, and the classes `[N]`.
    pub classes: Option<(Tensor<2>, Tensor<1, Int>)>,
    /// The valence head's numbers `[N]` for the samples that have a valence, and the valences `[N]`.
    pub valences: Option<(Tensor<1>, Tensor<1>)>,
}

/// Where tokens are to be told: their loss is [`EmotionLlm::token_loss`].
#[derive(Debug)]
pub struct TokenStates {
    /// Decoder states before the final norm, `[N, D]`.
    pub states: Tensor<2>,
    /// The tokens, `[N]`.
    pub targets: Tensor<1, Int>,
}

/// Decoder states before the final norm at some positions of a batch.
pub(crate) struct States {
    /// Ascending.
    positions: Vec<usize>,
    /// `[N, D]`
    rows: Tensor<2>,
}

impl States {
    /// Those of `positions`, which are among these.
    fn at(&self, positions: &[usize]) -> Tensor<2> {
        if self.positions == positions {
            return self.rows.clone();
        }
        let device = self.rows.device().without_autodiff();
        let rows = rows_of(positions, &self.positions, &device);
        self.rows.clone().select(0, rows)
    }
}

/// What the heads say about a batch.
#[derive(Debug)]
pub struct Judgement {
    /// Class logits `[B, C]`; `None` without a class head.
    pub classes: Option<Tensor<2>>,
    /// Valences `[B]`; `None` without a valence head.
    pub valences: Option<Tensor<1>>,
}

impl EmotionLlm {
    /// Text embeddings with the projected and fused media in their slots.
    ///
    /// # Shapes
    /// `[R, L, D]`; positions after a sample's end hold whatever row comes first, which no one looks at.
    pub(crate) fn embed(&self, batch: &Batch) -> Tensor<3> {
        let text = self.llama.embed(batch.text.clone());
        let dim = text.dims()[2];
        let rows = |tokens: Tensor<3>| tokens.reshape([-1, dim as i32]);
        let mut table = vec![rows(text)];
        let inputs = self.projectors.len();
        for (index, holders) in batch.holders.iter().enumerate() {
            if holders.is_empty() {
                continue;
            }
            if index < inputs {
                let projector = self.projectors[index]
                    .as_ref()
                    .expect("the compiler gives no slot to an input without a projector");
                let media = batch.media[index]
                    .clone()
                    .expect("a sample whose prompt has a slot has the features for it");
                let Padded { values, lengths } = media.only(holders);
                table.push(rows(projector.forward(values, &lengths)));
            } else {
                let fused = self
                    .fuse(batch, index - inputs)
                    .expect("a sample whose prompt has a fusion's slot has all of its sources");
                table.push(rows(fused.only(holders)));
            }
        }
        Tensor::cat(table, 0)
            .select(0, batch.places.clone())
            .reshape([batch.rows, batch.length, dim])
    }

    /// What fusion number `index` makes of the samples that have all of its sources; `None` where none has.
    pub fn fuse(&self, batch: &Batch, index: usize) -> Option<Fused> {
        let sources: Vec<PerSample> = self.sources[index]
            .iter()
            .map(|source| match source {
                Source::Input(input) => batch.media[*input].clone(),
                Source::Transcript => batch.transcripts.as_ref().map(|(ids, words)| PerSample {
                    samples: words.samples.clone(),
                    padded: Padded {
                        values: self.llama.embed(ids.clone()),
                        lengths: words.lengths.clone(),
                    },
                }),
            })
            .collect::<Option<_>>()?;
        let has = |sample: &usize| sources.iter().all(|source| source.samples.contains(sample));
        let samples: Vec<usize> = (0..batch.size).filter(has).collect();
        if samples.is_empty() {
            return None;
        }
        let sources = sources
            .into_iter()
            .map(|source| source.only(&samples))
            .collect();
        Some(Fused {
            tokens: self.fusions[index].forward(sources),
            samples,
        })
    }

    /// Decoder states at `positions`, in any order and some of them more than once.
    fn states(&self, batch: &Batch, mut positions: Vec<usize>, pass: Pass) -> States {
        positions.sort_unstable();
        positions.dedup();
        let embeddings = self.embed(batch);
        States {
            rows: self
                .llama
                .hidden_at(embeddings, batch.padding(), &positions, pass),
            positions,
        }
    }

    /// The cross-entropy of tokens, summed, `[1]`.
    pub fn token_loss(&self, tokens: TokenStates, dropout: Dropout) -> Tensor<1> {
        self.llama
            .cross_entropy_sum(tokens.states, tokens.targets, dropout)
    }

    /// What was asked for, where there is something to learn: final norm, output layer and heads run on those positions
    /// only, and the decoder's blocks only where someone reads their states.
    pub fn forward(&self, batch: &Batch, asked: Asked, pass: Pass) -> Readout {
        let supervised = batch.supervised.as_ref().filter(|_| asked.tokens);
        let head = self.head.as_ref().filter(|_| asked.classes);
        let classes = head.zip(batch.labelled.as_ref());
        let head = self.valence.as_ref().filter(|_| asked.valences);
        let valences = head.zip(batch.valued.as_ref());

        let mut positions = Vec::new();
        positions.extend(supervised.iter().flat_map(|(at, _)| at));
        let judged = [
            classes.map(|(head, (samples, _))| (head, samples)),
            valences.map(|(head, (samples, _))| (head, samples)),
        ];
        for (head, samples) in judged.into_iter().flatten() {
            if head.reads().is_decoder() {
                positions.extend(samples.iter().map(|sample| batch.prompt_ends[*sample]));
            }
        }
        let states = (!positions.is_empty()).then(|| self.states(batch, positions, pass));
        Readout {
            tokens: supervised
                .zip(states.as_ref())
                .map(|((at, targets), states)| TokenStates {
                    states: states.at(at),
                    targets: targets.clone(),
                }),
            classes: classes.map(|(head, (samples, labels))| {
                let state = self.state(head, batch, samples, states.as_ref());
                (head.forward(state), labels.clone())
            }),
            valences: valences.map(|(head, (samples, valences))| {
                let state = self.state(head, batch, samples, states.as_ref());
                (head.forward(state).squeeze_dim(1), valences.clone())
            }),
        }
    }

    /// What both heads say about every sample.
    pub fn judge(&self, batch: &Batch) -> Judgement {
        let heads = [&self.head, &self.valence];
        let ends = heads
            .into_iter()
            .flatten()
            .any(|head| head.reads().is_decoder())
            .then(|| self.states(batch, batch.prompt_ends.clone(), Pass::PLAIN))
            .map(|states| states.at(&batch.prompt_ends));
        self.judge_ends(batch, ends.as_ref())
    }

    /// The state that `head` reads for some samples of the batch, `[N, D]`.
    pub(crate) fn state(
        &self,
        head: &Head,
        batch: &Batch,
        samples: &[usize],
        states: Option<&States>,
    ) -> Tensor<2> {
        match head.reads() {
            Reads::Decoder => {
                let states = states.expect("the decoder ran, since a head reads it");
                let ends: Vec<usize> = samples
                    .iter()
                    .map(|sample| batch.prompt_ends[*sample])
                    .collect();
                self.llama.norm(states.at(&ends))
            }
            Reads::Fusion(name) => {
                let index = self.fusion_names.iter().position(|other| other == name);
                let index = index.unwrap_or_else(|| panic!("no fusion is called `{name}`"));
                let fused = self.fuse(batch, index);
                let fused = fused.filter(|fused| fused.samples.len() == batch.size);
                let Fused { tokens, .. } =
                    fused.expect("a data set holds only clips that have what the heads read");
                let all: Vec<usize> = (0..batch.size).collect();
                let device = tokens.device().without_autodiff();
                let rows = rows_of(samples, &all, &device);
                tokens.mean_dim(1).squeeze_dim::<2>(1).select(0, rows)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorData};
    use limbic_data::Segment;

    use crate::tests::{Fixture, device, distance, host};

    #[test]
    fn media_stand_in_their_slots_and_text_around_them() {
        let fixture = Fixture::new(1);
        let model = &fixture.artifact.model;
        let compiled = fixture.two();
        let batch = fixture.batch(&compiled, &[0, 1]);
        let rows = host(model.embed(&batch));
        let dim = rows.len() / batch.num_slots();
        let text = |ids: &[u32]| {
            let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
            let shape = [1, ids.len()];
            host(
                model
                    .llama
                    .embed(Tensor::from_data(TensorData::new(ids, shape), &device())),
            )
        };
        let mut slots = 0;
        for (row, sample) in compiled.iter().enumerate() {
            let mut place = row * batch.length * dim;
            let mut next = |length: usize| {
                place += length;
                &rows[place - length..place]
            };
            for segment in &sample.prompt {
                match segment {
                    Segment::Text(ids) => {
                        let wanted = text(ids);
                        assert_eq!(next(wanted.len()), wanted);
                    }
                    Segment::Media { input, tokens } if *input < 2 => {
                        let of_input = [&fixture.voices, &fixture.pitches][*input];
                        let features = &of_input[row];
                        let shape = [1, features.length, features.dim];
                        let data = TensorData::new(features.data.clone(), shape);
                        let projector = model.projectors[*input].as_ref().unwrap();
                        let wanted = projector
                            .forward(Tensor::from_data(data, &device()), &[features.length]);
                        assert_eq!(wanted.dims(), [1, *tokens, dim]);
                        let got = next(tokens * dim);
                        assert!(
                            distance(got, &host(wanted)) < 1e-6,
                            "sample {row}, input {input}"
                        );
                        slots += 1;
                    }
                    Segment::Media { input, tokens } => {
                        let alone = fixture.batch(&compiled, &[row]);
                        let wanted = model.fuse(&alone, input - 2).unwrap().tokens;
                        assert_eq!(wanted.dims(), [1, *tokens, dim]);
                        let got = next(tokens * dim);
                        assert!(distance(got, &host(wanted)) < 1e-6, "sample {row}");
                        slots += 1;
                    }
                }
            }
            let wanted = text(&sample.answer);
            assert_eq!(next(wanted.len()), wanted);
        }
        assert_eq!(
            slots, 6,
            "two media and two fusions of the first clip, one of each of the second"
        );
    }
}
