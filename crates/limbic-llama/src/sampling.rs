//! How the next token is chosen.

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::LlamaError;

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

/// Tokens looked at first: where the model is sure of itself, the choice is among few.
const FIRST_LOOK: usize = 64;

impl Sampling {
    /// Always the likeliest token.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_p: 1.0,
        seed: 0,
    };

    /// Refuses settings that nothing can be drawn with.
    ///
    /// # Errors
    /// A temperature below 0 or without end, a share of probability that is not above 0 and at most 1.
    pub fn validate(&self) -> Result<(), LlamaError> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(LlamaError::Sampling(format!(
                "`temperature` is {}, wanted 0 (greedy) or a positive number that is finite",
                self.temperature
            )));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(LlamaError::Sampling(format!(
                "`top_p` is {}, wanted more than 0 and at most 1 (1 draws from all tokens)",
                self.top_p
            )));
        }
        Ok(())
    }

    /// The next token of each row, with `uniform` in `[0, 1)` as a row's noise. A greedy choice is made where the logits
    /// are.
    ///
    /// # Shapes
    /// `[B, V]`
    /// `None` for a row whose logits are not finite.
    pub(crate) fn next_tokens(
        &self,
        logits: Tensor<2>,
        uniform: impl Fn(usize) -> f64 + Sync,
    ) -> Vec<Option<u32>> {
        if self.temperature == 0.0 {
            let best = logits.clone().argmax(1).into_data();
            // Zero, unless one of them is infinite or no number.
            let check = (logits * 0.0).sum_dim(1).into_data();
            let best = best.iter::<i64>().zip(check.iter::<f32>());
            return best
                .map(|(token, sum)| (sum == 0.0).then_some(token as u32))
                .collect();
        }
        let vocabulary = logits.dims()[1];
        let logits: Vec<f32> = logits
            .into_data()
            .try_into_vec()
            .expect("logits are in F32");
        let rows = logits.par_chunks_exact(vocabulary).enumerate();
        let choose = |(row, logits): (usize, &[f32])| {
            let is_finite = logits.iter().all(|logit| logit.is_finite());
            is_finite.then(|| self.draw(logits, uniform(row)))
        };
        rows.map(choose).collect()
    }

    /// The token for these logits. Of the likeliest tokens only as many are put in order as the draw needs.
    fn draw(&self, logits: &[f32], uniform: f64) -> u32 {
        let likeliest_first =
            |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
        let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let weight = |token: usize| ((f64::from(logits[token]) - largest) / self.temperature).exp();
        let total: f64 = (0..logits.len()).map(weight).sum();
        let share = self.top_p * total;

        let mut order: Vec<usize> = (0..logits.len()).collect();
        let mut sorted = 0;
        // The likeliest tokens with the sums of their weights, until these reach the share.
        let mut kept: Vec<(usize, f64)> = Vec::new();
        let mut sum = 0.0;
        while sorted < order.len() && sum < share {
            let end = (8 * sorted).max(FIRST_LOOK).min(order.len());
            if end < order.len() {
                order[sorted..].select_nth_unstable_by(end - sorted, likeliest_first);
            }
            order[sorted..end].sort_unstable_by(likeliest_first);
            for &token in &order[sorted..end] {
                sum += weight(token);
                kept.push((token, sum));
                if sum >= share {
                    break;
                }
            }
            sorted = end;
        }
        let target = uniform * sum;
        let reached = kept.partition_point(|(_, reached)| *reached <= target);
        let (token, _) = kept[reached.min(kept.len() - 1)];
        token as u32
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use limbic_weights::CounterRng;

    use super::*;

    fn choose(sampling: &Sampling, logits: &[f32], uniform: f64) -> Option<u32> {
        let data = TensorData::new(logits.to_vec(), [1, logits.len()]);
        let tensor = Tensor::from_data(data, &Device::flex());
        sampling.next_tokens(tensor, |_| uniform)[0]
    }

    /// All tokens in order, and all their weights.
    fn choose_slowly(sampling: &Sampling, logits: &[f32], uniform: f64) -> u32 {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
        if sampling.temperature == 0.0 {
            return order[0] as u32;
        }
        let largest = f64::from(logits[order[0]]);
        let weights: Vec<f64> = order
            .iter()
            .map(|token| ((f64::from(logits[*token]) - largest) / sampling.temperature).exp())
            .collect();
        let share = sampling.top_p * weights.iter().sum::<f64>();
        let mut kept = Vec::new();
        let mut sum = 0.0;
        for (token, weight) in order.iter().zip(&weights) {
            sum += weight;
            kept.push((*token, sum));
            if sum >= share {
                break;
            }
        }
        let drawn = kept.iter().find(|(_, reached)| *reached > uniform * sum);
        drawn.unwrap_or(&kept[kept.len() - 1]).0 as u32
    }

    #[test]
    fn the_choice_is_that_of_a_full_sort() {
        let rng = CounterRng::new(11);
        for (case, vocabulary) in [1usize, 5, 64, 65, 700, 5000].into_iter().enumerate() {
            for draw in 0..60u64 {
                let of_case = rng.index(case as u64).index(draw);
                // Rounded, so that many are equal.
                let spread = [0.5, 4.0, 20.0][draw as usize % 3];
                let logits: Vec<f32> = (0..vocabulary as u64)
                    .map(|i| ((of_case.uniform(i) * spread * 8.0).round() / 8.0) as f32)
                    .collect();
                let sampling = Sampling {
                    temperature: [0.0, 0.3, 1.0, 2.0][draw as usize % 4],
                    top_p: [0.1, 0.5, 0.95, 1.0][draw as usize / 4 % 4],
                    seed: 0,
                };
                let uniform = of_case.site("noise").uniform(draw);
                let wanted = choose_slowly(&sampling, &logits, uniform);
                let got = choose(&sampling, &logits, uniform).unwrap();
                assert_eq!(got, wanted, "{sampling:?}, {vocabulary} tokens, {uniform}");
            }
        }
    }

    #[test]
    fn logits_that_are_no_numbers_are_told() {
        let nucleus = Sampling {
            temperature: 1.0,
            ..Sampling::GREEDY
        };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for sampling in [&Sampling::GREEDY, &nucleus] {
                let rows = TensorData::new(vec![0.0, 1.0, bad, 2.0], [2, 2]);
                let rows = Tensor::from_data(rows, &Device::flex());
                let next = sampling.next_tokens(rows, |_| 0.5);
                let found: Vec<bool> = next.iter().map(Option::is_some).collect();
                assert!(!found[1] && found[0], "{bad}: {found:?}");
            }
        }
    }

    /// Probabilities 0.5, 0.3, 0.15, 0.05 in another order.
    fn logits() -> Vec<f32> {
        [0.15f32, 0.5, 0.05, 0.3].map(f32::ln).to_vec()
    }

    fn shares(sampling: &Sampling) -> [f64; 4] {
        let mut counts = [0.0; 4];
        let n = 20_000;
        let rng = CounterRng::new(5);
        for i in 0..n {
            counts[choose(sampling, &logits(), rng.uniform(i)).unwrap() as usize] += 1.0 / n as f64;
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
