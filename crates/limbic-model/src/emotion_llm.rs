//! The forward pass. Letters: B samples, L positions, D decoder width, V vocabulary, C classes, N selected positions.

use burn::module::Module;
use burn::tensor::{FloatDType, Int, Tensor};
use limbic_encoders::{Fusion, Padded, Projector};
use limbic_llama::{Dropout, Generation, Llama, Padding, Prompt, Sampling};

use crate::batch::PerSample;
use crate::{Batch, ClassHead, ModelError, Source};

/// Projectors, fusions, decoder and class head. Encoders stand outside: they are frozen, and their features are inputs.
#[derive(Module, Debug)]
pub struct EmotionLlm {
    /// The decoder, with or without adapters.
    pub llama: Llama,
    /// One projector an input; none where only fusions read it.
    pub projectors: Vec<Option<Projector>>,
    /// Each makes tokens of several inputs together.
    pub fusions: Vec<Fusion>,
    /// Classes from the last prompt position.
    pub head: Option<ClassHead>,
    /// What each fusion reads.
    #[module(skip)]
    pub(crate) sources: Vec<Vec<Source>>,
}

/// What a fusion makes of the samples that have all of its sources.
#[derive(Debug)]
pub struct Fused {
    /// Numbers of these samples, ascending.
    pub samples: Vec<usize>,
    /// `[samples, tokens, D]`
    pub tokens: Tensor<3>,
}

/// What the losses are computed from: logits at the positions that count, and what they should have said.
#[derive(Debug)]
pub struct Readout {
    /// Token logits `[N, V]` of the supervised positions, and the tokens `[N]`.
    pub tokens: Option<(Tensor<2>, Tensor<1, Int>)>,
    /// Class logits `[N, C]` of the labelled samples, and the classes `[N]`.
    pub classes: Option<(Tensor<2>, Tensor<1, Int>)>,
}

impl EmotionLlm {
    /// Text embeddings with the projected and fused media in their slots.
    ///
    /// # Shapes
    /// `[B, L, D]`; positions after a sample's end hold whatever row comes first, which no one looks at.
    fn embed(&self, batch: &Batch) -> Tensor<3> {
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
                let PerSample { samples, padded } = batch.media[index]
                    .as_ref()
                    .expect("a sample whose prompt has a slot has the features for it");
                assert_eq!(samples, holders, "samples with input {index}");
                table.push(rows(
                    projector.forward(padded.values.clone(), &padded.lengths),
                ));
            } else {
                let fused = self
                    .fuse(batch, index - inputs)
                    .expect("a sample whose prompt has a fusion's slot has all of its sources");
                assert_eq!(&fused.samples, holders, "samples with all sources");
                table.push(rows(fused.tokens));
            }
        }
        Tensor::cat(table, 0)
            .select(0, batch.places.clone())
            .reshape([batch.size, batch.length, dim])
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
                        values: self.llama.embed(ids.clone()).cast(FloatDType::F32),
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

    /// Decoder states before the final norm, one row a position: `[B·L, D]`.
    fn states(&self, batch: &Batch, dropout: Dropout) -> Tensor<2> {
        let hidden = self
            .llama
            .hidden(self.embed(batch), &Padding::Right, None, dropout);
        let dim = hidden.dims()[2];
        hidden.reshape([batch.size * batch.length, dim])
    }

    /// Logits where there is something to learn: final norm, output layer and head run on those positions only.
    pub fn forward(&self, batch: &Batch, dropout: Dropout) -> Readout {
        let states = self.states(batch, dropout);
        let tokens = batch.supervised.as_ref().map(|(at, targets)| {
            let logits = self
                .llama
                .logits(states.clone().select(0, at.clone()), dropout);
            (logits, targets.clone())
        });
        let classes =
            batch
                .labelled
                .as_ref()
                .zip(self.head.as_ref())
                .map(|((at, labels), head)| {
                    let states = self.llama.norm(states.clone().select(0, at.clone()));
                    (head.forward(states), labels.clone())
                });
        Readout { tokens, classes }
    }

    /// Class logits `[B, C]` of every sample; `None` without a head.
    pub fn classify(&self, batch: &Batch) -> Option<Tensor<2>> {
        let head = self.head.as_ref()?;
        let states = self.states(batch, Dropout::OFF);
        let states = self.llama.norm(states.select(0, batch.prompt_ends.clone()));
        Some(head.forward(states))
    }

    /// Continues each prompt of a batch compiled without answers; `ids` name the samples' noise.
    ///
    /// # Errors
    /// Prompts too long for the decoder, or logits that are not finite.
    pub fn generate(
        &self,
        batch: &Batch,
        lengths: &[usize],
        ids: &[u64],
        max_new_tokens: usize,
        sampling: &Sampling,
    ) -> Result<Vec<Generation>, ModelError> {
        let embeddings = self.embed(batch);
        let dim = embeddings.dims()[2];
        let prompts: Vec<Prompt> = lengths
            .iter()
            .zip(ids)
            .enumerate()
            .map(|(row, (length, id))| Prompt {
                id: *id,
                embeddings: embeddings
                    .clone()
                    .slice([row..row + 1, 0..*length])
                    .reshape([*length, dim]),
            })
            .collect();
        Ok(limbic_llama::generate(
            &self.llama,
            &prompts,
            max_new_tokens,
            &self.llama.config().eos_token_ids,
            sampling,
        )?)
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
        let dim = rows.len() / (batch.size * batch.length);
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
