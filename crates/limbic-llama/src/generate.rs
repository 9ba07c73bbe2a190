//! Text from a prompt, token by token, for many prompts at once.
//!
//! Rows are padded on the left, so that all end in the same slot, and each computes what it would compute alone; what
//! several prompts begin with is computed once. Noise comes from (seed, prompt id, step), so that neither the batch nor
//! its order changes a text, unless by the rounding of products of another size.
//!
//! Deliberately absent: beams, repetition penalties.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use limbic_weights::CounterRng;

use crate::fused;
use crate::prefix::{Span, WORTH_A_PASS, passes};
use crate::{Dropout, KvCache, Llama, LlamaConfig, LlamaError, Padding, Sampling};

/// What is to be continued.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Names the prompt's noise; for example the clip's number in its manifest.
    pub id: u64,
    /// `[L, D]`
    pub embeddings: Tensor<2>,
    /// What stands at each position: where two prompts of a batch have equal numbers up to some place, their embeddings
    /// are equal up to there, and go through the decoder once. Empty where that is not known.
    pub content: Vec<u64>,
}

/// Prompts that the decoder has read, ready to be continued.
#[derive(Clone, Debug)]
pub struct Prefilled {
    llama: Llama,
    /// The prompts' names.
    ids: Vec<u64>,
    /// Of the last block at each prompt's last position, `[B, D]`.
    hidden: Tensor<2>,
    cache: KvCache,
    /// The slots of each row that hold no position.
    gaps: Vec<Vec<Range<usize>>>,
    room: usize,
}

/// What a prompt was continued with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The new tokens, without the stop token.
    pub tokens: Vec<u32>,
    /// Why it ends there.
    pub end: End,
}

/// Why a generation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model gave this stop token.
    Stop(u32),
    /// The number of new tokens was reached.
    Length,
}

/// Continues each prompt by at most `max_new_tokens`, up to one of `stop_ids`. Records no tape.
///
/// # Errors
/// Sampling settings out of range, a prompt that is empty or too long, logits that are not finite.
pub fn generate(
    llama: &Llama,
    prompts: &[Prompt],
    max_new_tokens: usize,
    stop_ids: &[u32],
    sampling: &Sampling,
) -> Result<Vec<Generation>, LlamaError> {
    sampling.validate()?;
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    Prefilled::new(llama, prompts, max_new_tokens)?.generate(stop_ids, sampling)
}

impl Prefilled {
    /// Reads `prompts`, with room for `max_new_tokens` after each. Records no tape.
    ///
    /// # Errors
    /// A prompt that is empty or too long.
    ///
    /// # Panics
    /// When there are none, or when a prompt's content is neither empty nor as long as its embeddings.
    pub fn new(
        llama: &Llama,
        prompts: &[Prompt],
        max_new_tokens: usize,
    ) -> Result<Self, LlamaError> {
        Self::in_passes(llama, prompts, max_new_tokens, WORTH_A_PASS)
    }

    fn in_passes(
        llama: &Llama,
        prompts: &[Prompt],
        max_new_tokens: usize,
        worth: usize,
    ) -> Result<Self, LlamaError> {
        assert!(!prompts.is_empty(), "no prompt to read");
        let mut contents = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            check_length(prompt, max_new_tokens, llama.config())?;
            let length = prompt.embeddings.dims()[0];
            let known = prompt.content.len();
            assert!(
                known == 0 || known == length,
                "the content of {known} of the {length} positions of prompt {}",
                prompt.id
            );
            contents.push((length, prompt.content.as_slice()));
        }
        let passes = passes(&contents, worth);
        let width = |pass: &Vec<Span>| pass.iter().map(|span| span.positions.len()).max();
        let capacity = passes.iter().filter_map(width).sum::<usize>() + max_new_tokens;
        let device = prompts[0].embeddings.device().without_autodiff();
        let llama = llama.valid();
        let mut cache = KvCache::new(llama.config(), passes[0].len(), capacity, &device);
        let mut gaps = vec![Vec::new(); passes[0].len()];
        let mut hidden = None;
        for (number, pass) in passes.iter().enumerate() {
            if number > 0 {
                let parents: Vec<usize> = pass.iter().map(|span| span.parent).collect();
                cache = cache.branch(&parents);
                gaps = parents.iter().map(|parent| gaps[*parent].clone()).collect();
            }
            let (input, pads) = left_padded(prompts, pass);
            let first = cache.length();
            for (gaps, pad) in gaps.iter_mut().zip(pads) {
                if pad > 0 {
                    gaps.push(first..first + pad);
                }
            }
            hidden = Some(read(&llama, input, &gaps, &mut cache));
        }
        Ok(Self {
            llama,
            ids: prompts.iter().map(|prompt| prompt.id).collect(),
            hidden: hidden.expect("there is a last pass"),
            cache,
            gaps,
            room: max_new_tokens,
        })
    }

    /// The output of the last block, before the final norm, at each prompt's last position.
    ///
    /// # Shapes
    /// `[B, D]`
    pub fn hidden(&self) -> Tensor<2> {
        self.hidden.clone()
    }

    /// Continues each prompt by as many tokens as there is room for, up to one of `stop_ids`.
    ///
    /// # Errors
    /// Sampling settings out of range, logits that are not finite.
    pub fn generate(
        self,
        stop_ids: &[u32],
        sampling: &Sampling,
    ) -> Result<Vec<Generation>, LlamaError> {
        sampling.validate()?;
        let Self {
            llama,
            ids,
            mut hidden,
            mut cache,
            mut gaps,
            room,
        } = self;
        let device = hidden.device();
        let rng = CounterRng::new(sampling.seed);
        let mut texts: Vec<Generation> = ids
            .iter()
            .map(|_| Generation {
                tokens: Vec::new(),
                end: End::Length,
            })
            .collect();
        // Which text each row of the batch continues.
        let mut rows: Vec<usize> = (0..texts.len()).collect();
        for step in 0..room {
            let logits = llama.logits(hidden, Dropout::OFF);
            let uniform = |row: usize| rng.index(ids[rows[row]]).uniform(step as u64);
            let next = sampling.next_tokens(logits, uniform);
            let mut live = Vec::with_capacity(rows.len());
            for (row, (&number, &token)) in rows.iter().zip(&next).enumerate() {
                let text = &mut texts[number];
                // Nobody reads what a row computes that waits to leave.
                if text.end != End::Length {
                    continue;
                }
                let id = ids[number];
                let token = token.ok_or(LlamaError::NonFinite { id, step })?;
                if stop_ids.contains(&token) {
                    text.end = End::Stop(token);
                } else {
                    text.tokens.push(token);
                    live.push(row);
                }
            }
            if live.is_empty() || step + 1 == room {
                break;
            }
            let mut next = next;
            // A row that has ended takes its place in the batch until there are enough of them to pay for a copy of
            // what the others keep; nobody reads what it computes.
            if 4 * live.len() <= 3 * rows.len() {
                cache = cache.branch(&live);
                gaps = live.iter().map(|row| gaps[*row].clone()).collect();
                rows = live.iter().map(|row| rows[*row]).collect();
                next = live.iter().map(|row| next[*row]).collect();
            }
            // Any token will do for a row that waits to leave.
            let next: Vec<u32> = next.iter().map(|token| token.unwrap_or(0)).collect();
            let input = llama.embed(one_each(&next, &device));
            hidden = read(&llama, input, &gaps, &mut cache);
        }
        Ok(texts)
    }
}

fn check_length(
    prompt: &Prompt,
    new_tokens: usize,
    config: &LlamaConfig,
) -> Result<(), LlamaError> {
    let length = prompt.embeddings.dims()[0];
    let limit = config.max_position_embeddings;
    if length == 0 || length + new_tokens > limit {
        return Err(LlamaError::PromptLength {
            id: prompt.id,
            length,
            new_tokens,
            limit,
        });
    }
    Ok(())
}

/// `[B, L, D]` with every span at the end of its row, and how much is empty before each.
fn left_padded(prompts: &[Prompt], pass: &[Span]) -> (Tensor<3>, Vec<usize>) {
    let lengths = pass.iter().map(|span| span.positions.len());
    let longest = lengths.clone().max().unwrap_or_default();
    let pads: Vec<usize> = lengths.map(|length| longest - length).collect();
    let rows = pass.iter().zip(&pads).map(|(span, &pad)| {
        let embeddings = prompts[span.prompt].embeddings.clone().without_autodiff();
        let width = embeddings.dims()[1];
        let empty = Tensor::zeros([pad, width], &embeddings.device());
        if pad == longest {
            return empty;
        }
        let held = embeddings.slice_dim(0, span.positions.clone());
        match pad {
            0 => held,
            _ => Tensor::cat(vec![empty, held], 0),
        }
    });
    (Tensor::stack(rows.collect(), 0), pads)
}

/// The output of the last block in the last slot of each row, `[B, L, D]` to `[B, D]`. The cache takes up all slots.
///
/// Where whole blocks run on CPU, rows that are empty in this pass have no output. Single tokens do not go that way: the
/// keys before them would be copied once more for each.
fn read(
    llama: &Llama,
    input: Tensor<3>,
    gaps: &[Vec<Range<usize>>],
    cache: &mut KvCache,
) -> Tensor<2> {
    let slots = input.dims()[1];
    if slots > 1 || cache.length() == 0 {
        let blocks = &llama.model.layers;
        if let Some(hidden) = fused::fill(blocks, llama.config(), &input, gaps, cache) {
            return hidden;
        }
    }
    let padding = Padding::Gaps(gaps.to_vec());
    let hidden = llama.hidden(input, &padding, Some(cache), Dropout::OFF);
    hidden.narrow(1, slots - 1, 1).squeeze_dim(1)
}

/// One token for each row, `[B, 1]`.
fn one_each(tokens: &[u32], device: &Device) -> Tensor<2, Int> {
    let tokens: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
    let shape = [tokens.len(), 1];
    Tensor::from_data(TensorData::new(tokens, shape), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: usize = 97;

    fn llama() -> Llama {
        let mut config = LlamaConfig::small(VOCABULARY, 32, 2, 4);
        config.num_key_value_heads = 2;
        limbic_weights::seed(config.init(&Device::flex()), 5)
    }

    /// Three clips of 40 "media" embeddings with two questions each, and a text of its own; the system text comes first.
    fn prompts(llama: &Llama, knows: bool) -> Vec<Prompt> {
        let embed = |tokens: &[u64]| -> Tensor<2> {
            let tokens: Vec<u32> = tokens.iter().map(|token| *token as u32).collect();
            llama
                .embed(one_each(&tokens, &Device::flex()))
                .squeeze_dim(1)
        };
        let prompt = |id: u64, content: Vec<u64>| Prompt {
            id,
            embeddings: embed(&content),
            content: if knows { content } else { Vec::new() },
        };
        let mut all = Vec::new();
        for clip in 0..3u64 {
            for question in 0..2u64 {
                let system = 1..10;
                let media = (0..40 - clip).map(|place| 10 + (place * (clip + 3)) % 80);
                let asked = (0..3 + question).map(|place| 50 + question + place);
                let content = system.chain(media).chain(asked).collect();
                all.push(prompt(clip, content));
            }
        }
        all.push(prompt(9, (30..50).collect()));
        all
    }

    fn logits(llama: &Llama, prefilled: &Prefilled) -> Vec<f32> {
        let logits = llama.logits(prefilled.hidden(), Dropout::OFF);
        logits.into_data().try_into_vec().unwrap()
    }

    fn off(a: &[f32], b: &[f32]) -> f32 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_shared_beginning_changes_no_number_and_no_word() {
        let llama = llama();
        let read = |knows: bool, worth: usize| {
            Prefilled::in_passes(&llama, &prompts(&llama, knows), 12, worth).unwrap()
        };
        let alone: Vec<f32> = prompts(&llama, false)
            .iter()
            .flat_map(|prompt| {
                let prompt = std::slice::from_ref(prompt);
                logits(&llama, &Prefilled::new(&llama, prompt, 12).unwrap())
            })
            .collect();
        let wanted = read(false, 1);
        assert!(off(&logits(&llama, &wanted), &alone) < 1e-5);
        let wanted_text = wanted.generate(&[], &Sampling::GREEDY).unwrap();
        for worth in [1, 30, 100] {
            let shared = read(true, worth);
            // 49 + 4 slots without a pass more; each makes the cache as much longer as padding costs.
            assert!(shared.gaps.iter().any(|gaps| !gaps.is_empty()), "{worth}");
            let off = off(&logits(&llama, &shared), &alone);
            assert!(off < 1e-5, "{worth}: {off}");
            let text = shared.generate(&[], &Sampling::GREEDY).unwrap();
            assert_eq!(text, wanted_text, "{worth}");
        }
    }

    #[test]
    fn prompts_that_are_taken_for_alike_and_are_not_are_told_from_each_other() {
        let llama = llama();
        let mut prompts = prompts(&llama, true);
        let right = Prefilled::in_passes(&llama, &prompts, 0, 1).unwrap();
        prompts[2].content = prompts[1].content[..prompts[2].content.len()].to_vec();
        let wrong = Prefilled::in_passes(&llama, &prompts, 0, 1).unwrap();
        assert!(off(&logits(&llama, &right), &logits(&llama, &wrong)) > 1e-3);
    }

    #[test]
    fn rows_that_have_ended_leave_and_the_others_go_on_as_alone() {
        let llama = llama();
        let prompts = prompts(&llama, true);
        let whole = generate(&llama, &prompts, 16, &[], &Sampling::GREEDY).unwrap();
        // Tokens at which most rows end early, at different steps.
        let stops: Vec<u32> = whole
            .iter()
            .take(5)
            .enumerate()
            .map(|(row, text)| text.tokens[row])
            .collect();
        let stopped = generate(&llama, &prompts, 16, &stops, &Sampling::GREEDY).unwrap();
        let mut ended = 0;
        for (text, whole) in stopped.iter().zip(&whole) {
            let at = whole.tokens.iter().position(|token| stops.contains(token));
            assert_eq!(text.tokens, whole.tokens[..at.unwrap_or(16)]);
            ended += usize::from(matches!(text.end, End::Stop(_)));
        }
        assert!(ended >= 5, "{ended}");
    }
}
