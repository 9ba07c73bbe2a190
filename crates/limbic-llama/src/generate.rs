//! Text from a prompt, token by token, for many prompts at once.
//!
//! Rows are padded on the left, so that all end in the same slot, and each computes what it would compute alone.
//! Noise comes from (seed, prompt id, step), so that neither the batch nor its order changes a text.
//!
//! Deliberately absent: beams, repetition penalties.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use limbic_weights::CounterRng;

use crate::{Dropout, KvCache, Llama, LlamaConfig, LlamaError, Padding};

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token, the first of equals.
    pub temperature: f64,
    /// Draws from the fewest tokens that hold this much probability together (Holtzman et al. 2020); 1 draws from all.
    pub top_p: f64,
    /// Names the noise.
    pub seed: u64,
}

/// What is to be continued.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Names the prompt's noise; for example the clip's number in its manifest.
    pub id: u64,
    /// `[L, D]`
    pub embeddings: Tensor<2>,
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

impl Sampling {
    /// Always the likeliest token.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_p: 1.0,
        seed: 0,
    };

    fn validate(&self) -> Result<(), LlamaError> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(LlamaError::Sampling(format!(
                "`temperature` is {}, wanted 0 (greedy) or a positive number",
                self.temperature
            )));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(LlamaError::Sampling(format!(
                "`top_p` is {}, wanted more than 0 and at most 1",
                self.top_p
            )));
        }
        Ok(())
    }

    /// The token for these logits, with `uniform` in `[0, 1)` as noise.
    fn choose(&self, logits: &[f32], uniform: f64) -> u32 {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        let likeliest_first =
            |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
        if self.temperature == 0.0 {
            let best = order.into_iter().min_by(likeliest_first);
            return best.unwrap_or_default() as u32;
        }
        order.sort_unstable_by(likeliest_first);
        let largest = f64::from(logits[order[0]]);
        let weight = |token: usize| ((f64::from(logits[token]) - largest) / self.temperature).exp();
        let total: f64 = order.iter().map(|token| weight(*token)).sum();

        // The fewest likeliest tokens whose weights reach the share `top_p`.
        let mut kept = Vec::new();
        let mut sum = 0.0;
        for &token in &order {
            sum += weight(token);
            kept.push((token, sum));
            if sum >= self.top_p * total {
                break;
            }
        }
        let target = uniform * sum;
        let (token, _) = kept
            .iter()
            .find(|(_, reached)| *reached > target)
            .unwrap_or(&kept[kept.len() - 1]);
        *token as u32
    }
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
    for prompt in prompts {
        check_length(prompt, max_new_tokens, llama.config())?;
    }
    let mut rows: Vec<Generation> = prompts
        .iter()
        .map(|_| Generation {
            tokens: Vec::new(),
            end: End::Length,
        })
        .collect();
    let Some(first) = prompts.first() else {
        return Ok(rows);
    };
    let llama = llama.valid();
    let device = first.embeddings.device().without_autodiff();
    let rng = CounterRng::new(sampling.seed);
    let (mut input, padding) = left_padded(prompts);
    let capacity = input.dims()[1] + max_new_tokens;
    let mut cache = KvCache::new(llama.config(), prompts.len(), capacity, &device);

    for step in 0..max_new_tokens {
        let hidden = llama.hidden(input, &padding, Some(&mut cache), Dropout::OFF);
        let last = hidden.dims()[1] - 1;
        let logits = llama.logits(hidden.narrow(1, last, 1).squeeze_dim(1), Dropout::OFF);
        let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
        let mut next = Vec::with_capacity(prompts.len());
        for ((row, prompt), logits) in rows
            .iter_mut()
            .zip(prompts)
            .zip(logits.chunks_exact(llama.config().vocab_size))
        {
            if let End::Stop(token) = row.end {
                // An ended row still takes its place in the batch; nobody reads what it computes.
                next.push(token);
                continue;
            }
            if logits.iter().any(|logit| !logit.is_finite()) {
                return Err(LlamaError::NonFinite {
                    id: prompt.id,
                    step,
                });
            }
            let uniform = rng.index(prompt.id).uniform(step as u64);
            let token = sampling.choose(logits, uniform);
            if stop_ids.contains(&token) {
                row.end = End::Stop(token);
            } else {
                row.tokens.push(token);
            }
            next.push(token);
        }
        if rows.iter().all(|row| row.end != End::Length) {
            break;
        }
        input = llama.embed(ids(&next, &device));
    }
    Ok(rows)
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

/// `[B, L, D]` with every prompt at the end of its row.
fn left_padded(prompts: &[Prompt]) -> (Tensor<3>, Padding) {
    let lengths = prompts.iter().map(|prompt| prompt.embeddings.dims()[0]);
    let longest = lengths.clone().max().unwrap_or_default();
    let pads: Vec<usize> = lengths.map(|length| longest - length).collect();
    let rows = prompts.iter().zip(&pads).map(|(prompt, &pad)| {
        let embeddings = prompt.embeddings.clone().without_autodiff();
        if pad == 0 {
            return embeddings;
        }
        let width = embeddings.dims()[1];
        let empty = Tensor::zeros([pad, width], &embeddings.device());
        Tensor::cat(vec![empty, embeddings], 0)
    });
    (Tensor::stack(rows.collect(), 0), Padding::Left(pads))
}

/// One token for each row, `[B, 1]`.
fn ids(tokens: &[u32], device: &Device) -> Tensor<2, Int> {
    let tokens: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
    let shape = [tokens.len(), 1];
    Tensor::from_data(TensorData::new(tokens, shape), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probabilities 0.5, 0.3, 0.15, 0.05 in another order.
    fn logits() -> Vec<f32> {
        [0.15f32, 0.5, 0.05, 0.3].map(f32::ln).to_vec()
    }

    fn shares(sampling: &Sampling) -> [f64; 4] {
        let mut counts = [0.0; 4];
        let n = 20_000;
        let rng = CounterRng::new(5);
        for i in 0..n {
            counts[sampling.choose(&logits(), rng.uniform(i)) as usize] += 1.0 / n as f64;
        }
        counts
    }

    #[test]
    fn draws_follow_temperature_and_top_p() {
        let close = |got: [f64; 4], wanted: [f64; 4]| {
            for (g, w) in got.iter().zip(wanted) {
                assert!((g - w).abs() < 0.015, "{got:?} {wanted:?}");
            }
        };
        let all = Sampling {
            temperature: 1.0,
            top_p: 1.0,
            seed: 0,
        };
        close(shares(&all), [0.15, 0.5, 0.05, 0.3]);
        let nucleus = Sampling {
            top_p: 0.75,
            ..all.clone()
        };
        close(shares(&nucleus), [0.0, 0.625, 0.0, 0.375]);
        let cold = Sampling {
            temperature: 0.5,
            ..all
        };
        // Squares of the probabilities, to sum 1: 0.365.
        close(shares(&cold), [0.0616, 0.685, 0.00685, 0.2466]);
        close(shares(&Sampling::GREEDY), [0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for (temperature, top_p) in [(-1.0, 1.0), (f64::NAN, 1.0), (1.0, 0.0), (1.0, 1.1)] {
            let sampling = Sampling {
                temperature,
                top_p,
                seed: 0,
            };
            assert!(sampling.validate().is_err(), "{sampling:?}");
        }
    }
}
