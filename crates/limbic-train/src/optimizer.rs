//! AdamW (Loshchilov and Hutter 2019) over the flat vector of trained values, as `torch.optim.AdamW` computes it, with a
//! learning rate a part and the norm of the whole gradient clipped.
//!
//! One vector instead of a tensor a parameter: the state is two vectors in a checkpoint, and the norm is one number.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use limbic_model::{Alignment, Trainables};
use limbic_weights::{NamedTensor, Weights, WeightsError};

use crate::recipe::{Decay, TrainRecipe};

/// The optimizer and its state.
#[derive(Debug, Clone)]
pub struct AdamW {
    betas: [f64; 2],
    epsilon: f64,
    /// Of each value.
    weight_decay: Tensor<1>,
    /// Peak learning rate of each value.
    rates: Tensor<1>,
    /// Where each parameter lies.
    parameters: Vec<Range<usize>>,
    /// Updates that each parameter took part in.
    counts: Vec<u64>,
    /// Updates done; skipped steps do not count.
    updates: u64,
    first_moment: Tensor<1>,
    second_moment: Tensor<1>,
}

impl AdamW {
    /// A fresh optimizer for `trainables`, on the device of `values`.
    pub fn new(recipe: &TrainRecipe, trainables: &Trainables, values: &Tensor<1>) -> Self {
        let mut rates = vec![0.0f32; trainables.num_values()];
        let mut weight_decay = vec![recipe.weight_decay as f32; trainables.num_values()];
        let mut parameters = Vec::with_capacity(trainables.num_parameters());
        for (name, part, range) in trainables.parameters() {
            parameters.push(range.clone());
            // Decay would pull the temperature towards 1; CLIP's training leaves it out, too.
            if name == Alignment::LOG_SCALE {
                weight_decay[range.clone()].fill(0.0);
            }
            let ratio = if is_second_factor(name) {
                recipe.lora_plus
            } else {
                1.0
            };
            rates[range].fill((recipe.learning_rate[&part] * ratio) as f32);
        }
        let shape = [rates.len()];
        let device = values.device();
        Self {
            betas: recipe.betas,
            epsilon: recipe.epsilon,
            weight_decay: Tensor::from_data(TensorData::new(weight_decay, shape), &device),
            rates: Tensor::from_data(TensorData::new(rates, shape), &device),
            counts: vec![0; parameters.len()],
            parameters,
            updates: 0,
            first_moment: Tensor::zeros(shape, &device),
            second_moment: Tensor::zeros(shape, &device),
        }
    }

    /// The values after one update with `gradient`; `schedule` is the share of the peak rates in force. Parameters that
    /// did not take part stay as they are, and so does their state: torch has no gradient for them.
    pub fn step(
        &mut self,
        values: Tensor<1>,
        gradient: Tensor<1>,
        took_part: &[bool],
        schedule: f64,
    ) -> Tensor<1> {
        self.updates += 1;
        let (mut new_values, mut firsts, mut seconds) = (Vec::new(), Vec::new(), Vec::new());
        for (range, count) in self.stretches(took_part) {
            let of = |x: &Tensor<1>| x.clone().slice([range.clone()]);
            let (value, first, second) =
                (of(&values), of(&self.first_moment), of(&self.second_moment));
            let (value, first, second) = match count {
                None => (value, first, second),
                Some(count) => {
                    let [beta1, beta2] = self.betas;
                    let correction = |beta: f64| 1.0 - beta.powf(count as f64);
                    let gradient = of(&gradient);
                    let first = first * beta1 + gradient.clone() * (1.0 - beta1);
                    let second = second * beta2 + gradient.square() * (1.0 - beta2);
                    let denominator =
                        second.clone().sqrt() / correction(beta2).sqrt() + self.epsilon;
                    let rates = of(&self.rates) * schedule;
                    let decayed = value.clone() - value * (rates.clone() * of(&self.weight_decay));
                    let value = decayed - rates * (first.clone() / correction(beta1)) / denominator;
                    (value, first, second)
                }
            };
            new_values.push(value);
            firsts.push(first);
            seconds.push(second);
        }
        self.first_moment = Tensor::cat(firsts, 0);
        self.second_moment = Tensor::cat(seconds, 0);
        Tensor::cat(new_values, 0)
    }

    /// Counts an update of the marked parameters, and joins neighbours that are treated alike: with the number of their
    /// updates, `None` for those that stay.
    fn stretches(&mut self, took_part: &[bool]) -> Vec<(Range<usize>, Option<u64>)> {
        assert_eq!(
            took_part.len(),
            self.parameters.len(),
            "marks of parameters"
        );
        let mut stretches: Vec<(Range<usize>, Option<u64>)> = Vec::new();
        let parameters = self.parameters.iter().zip(&mut self.counts);
        for ((range, count), took_part) in parameters.zip(took_part) {
            *count += u64::from(*took_part);
            let treated = took_part.then_some(*count);
            match stretches.last_mut() {
                Some((last, alike)) if *alike == treated => last.end = range.end,
                _ => stretches.push((range.clone(), treated)),
            }
        }
        stretches
    }

    /// The state by name.
    pub fn to_weights(&self) -> Weights {
        let named = |tensor: &Tensor<1>| NamedTensor {
            shape: tensor.dims().to_vec(),
            values: tensor
                .to_data()
                .try_into_vec::<f32>()
                .expect("the optimizer's state is F32"),
        };
        let counts = self.counts.iter().map(|count| *count as f32);
        let step = NamedTensor {
            shape: vec![self.counts.len()],
            values: counts.collect(),
        };
        Weights {
            tensors: [
                ("step".to_string(), step),
                ("exp_avg".to_string(), named(&self.first_moment)),
                ("exp_avg_sq".to_string(), named(&self.second_moment)),
            ]
            .into(),
        }
    }

    /// Takes up a saved state after `updates` updates.
    ///
    /// # Errors
    /// A state for another number of values.
    pub fn restore(&mut self, weights: &Weights, updates: u64) -> Result<(), WeightsError> {
        let device = self.first_moment.device();
        let get = |name: &str, wanted: usize| match weights.tensors.get(name) {
            Some(tensor) if tensor.shape == [wanted] => Ok(&tensor.values),
            other => Err(WeightsError::Mismatch(format!(
                "optimizer state `{name}` has shape {:?}, wanted [{wanted}]; it is of another model or version, so \
                 start over with `--restart`",
                other.map(|tensor| &tensor.shape)
            ))),
        };
        let moment = |name: &str| -> Result<Tensor<1>, WeightsError> {
            let values = get(name, self.first_moment.dims()[0])?;
            Ok(Tensor::from_data(values.as_slice(), &device))
        };
        let (first, second) = (moment("exp_avg")?, moment("exp_avg_sq")?);
        let counts = get("step", self.counts.len())?.iter();
        self.counts = counts.map(|count| *count as u64).collect();
        (self.first_moment, self.second_moment) = (first, second);
        self.updates = updates;
        Ok(())
    }

    /// Updates done.
    pub fn updates(&self) -> u64 {
        self.updates
    }
}

/// Whether LoRA+ gives a parameter the higher rate: B, and DoRA's magnitudes, as PEFT's `create_loraplus_optimizer` has it.
fn is_second_factor(name: &str) -> bool {
    name.contains(".lora_B.") || name.contains(".lora_magnitude_vector")
}

/// The share of the peak learning rates in force in step `step` (from 0): a pure function, so that resuming needs no state.
pub fn schedule(recipe: &TrainRecipe, step: u64) -> f64 {
    if step < recipe.warmup {
        return (step + 1) as f64 / recipe.warmup as f64;
    }
    match recipe.decay {
        Decay::Constant => 1.0,
        Decay::Cosine => {
            let length = recipe.steps.saturating_sub(recipe.warmup).max(1);
            let done = ((step - recipe.warmup) as f64 / length as f64).min(1.0);
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
            recipe.final_rate + (1.0 - recipe.final_rate) * cosine
        }
    }
}

/// Sums of the squares of the gradient, whose sum is the square of its Euclidean norm.
///
/// Of stretches of a fixed length: burn's full sum of a very long vector is cut by the number of threads.
///
/// # Shapes
/// `[N]` to `[N / 2^20, rounded up]`
pub(crate) fn sums_of_squares(gradient: &Tensor<1>) -> Tensor<1> {
    const STRETCH: usize = 1 << 20;
    let length = gradient.dims()[0];
    let squares = gradient.clone().square();
    let sums = (0..length.div_ceil(STRETCH)).map(|i| {
        let stretch = i * STRETCH..((i + 1) * STRETCH).min(length);
        squares.clone().slice([stretch]).sum()
    });
    Tensor::cat(sums.collect(), 0)
}

/// `gradient` scaled down to a norm of at most `max_norm`, as `torch.nn.utils.clip_grad_norm_` does it.
pub fn clip(gradient: Tensor<1>, norm: f64, max_norm: f64) -> Tensor<1> {
    let scale = max_norm / (norm + 1e-6);
    if scale < 1.0 {
        gradient * scale
    } else {
        gradient
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use serde_json::Value;

    use super::*;

    fn flat(value: &Value) -> Tensor<1> {
        let values: Vec<f32> = value
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap() as f32)
            .collect();
        Tensor::from_data(values.as_slice(), &Device::flex())
    }

    fn norm(gradient: &Tensor<1>) -> f64 {
        let squares = sums_of_squares(gradient).into_data();
        squares.iter::<f64>().sum::<f64>().sqrt()
    }

    fn host(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.to_data().try_into_vec().unwrap()
    }

    fn assert_close(got: &Tensor<1>, wanted: &Value, what: &str) {
        let (got, wanted) = (host(got), host(&flat(wanted)));
        assert_eq!(got.len(), wanted.len());
        for (got, wanted) in got.iter().zip(&wanted) {
            assert!(
                (got - wanted).abs() < 2e-6,
                "{what}: {got}, torch says {wanted}"
            );
        }
    }

    /// tests/golden/adamw.json, made by scripts/golden/adamw.py.
    fn golden() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/adamw.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn fresh(golden: &Value) -> AdamW {
        let number = |key: &str| golden[key].as_f64().unwrap();
        let rates = flat(&golden["rates"]);
        AdamW {
            betas: [
                golden["betas"][0].as_f64().unwrap(),
                golden["betas"][1].as_f64().unwrap(),
            ],
            epsilon: number("eps"),
            weight_decay: rates.full_like(number("weight_decay")),
            parameters: vec![0..3, 3..7],
            counts: vec![0; 2],
            updates: 0,
            first_moment: rates.zeros_like(),
            second_moment: rates.zeros_like(),
            rates,
        }
    }

    #[test]
    fn ten_steps_are_torchs() {
        let golden = golden();
        let mut optimizer = fresh(&golden);
        let mut values = flat(&golden["start"]);
        for (number, step) in golden["steps"].as_array().unwrap().iter().enumerate() {
            let gradient = flat(&step["gradient"]);
            let norm = norm(&gradient);
            assert!(
                (norm - step["norm"].as_f64().unwrap()).abs() < 1e-5 * norm,
                "step {number}: {norm}"
            );
            let gradient = clip(gradient, norm, golden["max_norm"].as_f64().unwrap());
            assert_close(
                &gradient,
                &step["clipped"],
                &format!("gradient of step {number}"),
            );
            values = optimizer.step(
                values,
                gradient,
                &[true; 2],
                step["schedule"].as_f64().unwrap(),
            );
            assert_close(
                &values,
                &step["values"],
                &format!("values after step {number}"),
            );
        }
        assert_eq!(optimizer.updates(), 10);
    }

    #[test]
    fn a_restored_state_goes_on_bit_for_bit() {
        let golden = golden();
        let steps: Vec<_> = golden["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| flat(&s["gradient"]))
            .collect();
        let run = |mut optimizer: AdamW, mut values: Tensor<1>, steps: &[Tensor<1>]| {
            for gradient in steps {
                values = optimizer.step(values, gradient.clone(), &[true; 2], 1.0);
            }
            (optimizer, values)
        };
        let (_, whole) = run(fresh(&golden), flat(&golden["start"]), &steps);
        let (stopped, values) = run(fresh(&golden), flat(&golden["start"]), &steps[..6]);
        let mut resumed = fresh(&golden);
        resumed
            .restore(&stopped.to_weights(), stopped.updates())
            .unwrap();
        assert_eq!(host(&run(resumed, values, &steps[6..]).1), host(&whole));

        let mut other = fresh(&golden);
        other.first_moment = Tensor::zeros([3], &Device::flex());
        let message = other
            .restore(&stopped.to_weights(), 6)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("[7]") && message.contains("[3]"),
            "{message}"
        );
    }

    /// As `torch.optim.AdamW` passes over a parameter whose gradient is None: what follows is as if there had been no such
    /// step for it.
    #[test]
    fn a_parameter_that_took_no_part_stays() {
        let golden = golden();
        let gradient = flat(&golden["steps"][0]["gradient"]);
        let start = flat(&golden["start"]);
        let mut optimizer = fresh(&golden);
        let once = optimizer.step(start.clone(), gradient.clone(), &[true, false], 1.0);
        assert_eq!(host(&once)[3..], host(&start)[3..]);
        assert_eq!(host(&optimizer.first_moment)[3..], [0.0; 4]);
        let mut resumed = fresh(&golden);
        resumed.restore(&optimizer.to_weights(), 1).unwrap();
        let twice = resumed.step(once, gradient.clone(), &[true, true], 1.0);
        let mut whole = fresh(&golden);
        let one = whole.step(start, gradient.clone(), &[true, true], 1.0);
        assert_eq!(host(&twice)[3..], host(&one)[3..]);
        let two = whole.step(one, gradient, &[true, true], 1.0);
        assert_eq!(host(&twice)[..3], host(&two)[..3]);
    }

    #[test]
    fn the_norm_of_a_long_vector_is_exact() {
        // Three stretches, the last one short: 2^21 + 5 values of 1/2 have norm sqrt(2^21 + 5) / 2.
        let length = (1 << 21) + 5;
        let gradient = Tensor::<1>::full([length], 0.5, &Device::flex());
        let wanted = (length as f64).sqrt() / 2.0;
        assert!((norm(&gradient) - wanted).abs() < 1e-6 * wanted);
        let broken = Tensor::<1>::from_data([1.0f32, f32::NAN], &Device::flex());
        assert!(norm(&broken).is_nan());
    }

    #[test]
    fn the_schedule_rises_stays_and_falls() {
        let mut recipe: TrainRecipe = serde_yaml::from_str(
            "{steps: 12, batch_size: 4, learning_rate: {head: 1.0}, warmup: 4, final_rate: 0.1}",
        )
        .unwrap();
        // Rising by quarters; then 0.1 + 0.9 (1 + cos(pi d)) / 2 for d = 0, 1/2, 1.
        for (step, wanted) in [
            (0, 0.25),
            (1, 0.5),
            (3, 1.0),
            (4, 1.0),
            (8, 0.55),
            (12, 0.1),
            (99, 0.1),
        ] {
            assert!(
                (schedule(&recipe, step) - wanted).abs() < 1e-12,
                "step {step}: {}",
                schedule(&recipe, step)
            );
        }
        recipe.decay = Decay::Constant;
        assert_eq!(
            [0, 4, 99].map(|step| schedule(&recipe, step)),
            [0.25, 1.0, 1.0]
        );
        recipe.warmup = 0;
        assert_eq!(schedule(&recipe, 0), 1.0);
    }
}
