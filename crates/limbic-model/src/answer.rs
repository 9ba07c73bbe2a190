//! Answers to prompts: texts by the decoder and what the heads say, from one reading of each prompt.
//!
//! Letters: B samples, D decoder width.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use limbic_data::Segment;
use limbic_llama::{Generation, Prefilled, Prompt, Sampling};

use crate::{Batch, EmotionLlm, Example, Head, Judgement, ModelError, Reads};

impl EmotionLlm {
    /// Continues each prompt of `examples`, compiled without answers, of which `batch` was made, and says what the heads
    /// say. `ids` name the samples' noise. What prompts begin with, such as a clip that several of them ask about, goes
    /// through the decoder once.
    ///
    /// # Errors
    /// Prompts too long for the decoder, or logits that are not finite.
    pub fn answer(
        &self,
        batch: &Batch,
        examples: &[Example],
        ids: &[u64],
        max_new_tokens: usize,
        sampling: &Sampling,
    ) -> Result<(Vec<Generation>, Judgement), ModelError> {
        let embeddings = self.embed(batch);
        let rows = contents(examples).into_iter().zip(ids).enumerate();
        let prompts: Vec<Prompt> = rows
            .map(|(row, (content, id))| Prompt {
                id: *id,
                embeddings: embeddings
                    .clone()
                    .slice([row..row + 1, 0..content.len()])
                    .squeeze_dim(0),
                content,
            })
            .collect();
        let prefilled = Prefilled::new(&self.llama, &prompts, max_new_tokens)?;
        let judgement = self.judge_ends(batch, Some(&prefilled.hidden()));
        let stop_ids = &self.llama.config().eos_token_ids;
        Ok((prefilled.generate(stop_ids, sampling)?, judgement))
    }

    /// What both heads say about every sample, with the decoder's states `[B, D]` at the ends of prompts.
    pub(crate) fn judge_ends(&self, batch: &Batch, ends: Option<&Tensor<2>>) -> Judgement {
        let all: Vec<usize> = (0..batch.size).collect();
        let judge = |head: &Head| {
            let state = match head.reads() {
                Reads::Decoder => {
                    let ends = ends.expect("the decoder ran, since a head reads it");
                    self.llama.norm(ends.clone())
                }
                Reads::Fusion(_) => self.state(head, batch, &all, None),
            };
            head.forward(state)
        };
        Judgement {
            classes: self.head.as_ref().map(judge),
            valences: self.valence.as_ref().map(|head| judge(head).squeeze_dim(1)),
        }
    }
}

/// What stands at each position of the prompts, as numbers: token ids, and above them one for each place of a medium of a
/// clip. Two prompts have the same clip where all features are one and the same and the transcripts are equal.
fn contents(examples: &[Example]) -> Vec<Vec<u64>> {
    let first_id = u64::from(u32::MAX) + 1;
    let mut media: BTreeMap<(usize, usize, usize), u64> = BTreeMap::new();
    let mut all = Vec::with_capacity(examples.len());
    for example in examples {
        let clip = examples
            .iter()
            .position(|other| is_same_clip(example, other));
        let clip = clip.expect("an example is of the same clip as itself");
        let mut content = Vec::with_capacity(example.compiled.prompt_length());
        for segment in &example.compiled.prompt {
            match segment {
                Segment::Text(ids) => content.extend(ids.iter().map(|id| u64::from(*id))),
                Segment::Media { input, tokens } => content.extend((0..*tokens).map(|token| {
                    let next = first_id + media.len() as u64;
                    *media.entry((clip, *input, token)).or_insert(next)
                })),
            }
        }
        all.push(content);
    }
    all
}

fn is_same_clip(a: &Example, b: &Example) -> bool {
    let mut features = a.features.iter().zip(b.features);
    a.features.len() == b.features.len()
        && a.compiled.transcript == b.compiled.transcript
        && features.all(|pair| match pair {
            (Some(a), Some(b)) => std::ptr::eq(*a, *b),
            (None, None) => true,
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use limbic_data::Compiled;
    use limbic_encoders::Features;
    use limbic_llama::Sampling;

    use super::*;
    use crate::tests::{Fixture, distance, host};

    fn example<'a>(compiled: &'a Compiled, features: &'a [Option<&'a Features>]) -> Example<'a> {
        Example {
            compiled,
            features,
            label: None,
            valence: None,
        }
    }

    #[test]
    fn positions_have_the_numbers_of_what_stands_there() {
        let compiled = |question: u32, transcript: u32| Compiled {
            prompt: vec![
                Segment::Text(vec![1, 7]),
                Segment::Media {
                    input: 0,
                    tokens: 2,
                },
                Segment::Text(vec![question]),
            ],
            answer: Vec::new(),
            transcript: vec![transcript],
        };
        let features = || Features {
            data: vec![0.5; 4],
            length: 2,
            dim: 2,
        };
        let (one, equal) = (features(), features());
        let (of_one, of_equal) = ([Some(&one)], [Some(&equal)]);
        let texts = [compiled(8, 3), compiled(9, 3), compiled(8, 4)];
        let base = u64::from(u32::MAX) + 1;
        let got = contents(&[
            example(&texts[0], &of_one),
            example(&texts[1], &of_one),
            // Equal features of another clip, and a transcript that a fusion may read.
            example(&texts[0], &of_equal),
            example(&texts[2], &of_one),
            example(&texts[0], &[None]),
        ]);
        let wanted =
            |first: u64, question: u64| vec![1, 7, base + first, base + first + 1, question];
        assert_eq!(
            got,
            [
                wanted(0, 8),
                wanted(0, 9),
                wanted(2, 8),
                wanted(4, 8),
                wanted(6, 8)
            ]
        );
    }

    #[test]
    fn the_heads_say_of_answered_prompts_what_they_say_alone() {
        let fixture = Fixture::new(1);
        let model = &fixture.artifact.model;
        let mut compiled = fixture.two();
        for compiled in &mut compiled {
            compiled.answer.clear();
        }
        let batch = fixture.batch(&compiled, &[0, 1]);
        let alone = model.judge(&batch);
        let (generations, judged) = fixture.with_examples(&compiled, &[0, 1], |examples| {
            model
                .answer(&batch, examples, &[0, 1], 3, &Sampling::GREEDY)
                .unwrap()
        });
        assert_eq!(generations.len(), 2);
        let [alone, judged] = [alone, judged].map(|judgement| host(judgement.classes.unwrap()));
        assert!(distance(&alone, &judged) < 1e-5, "{alone:?} {judged:?}");
    }
}
