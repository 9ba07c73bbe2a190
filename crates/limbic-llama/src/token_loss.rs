//! Cross-entropy of the next tokens of some positions, without ever holding the logits of all of them.
//!
//! The slope at the states follows from each chunk's logits while they are there, so that going back costs a product with
//! it and no logits at all. Letters: N positions, D width, V vocabulary.

#[cfg(feature = "flex")]
use burn::tensor::TensorData;
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor};
#[cfg(feature = "flex")]
use limbic_kernels::Stored;

#[cfg(feature = "flex")]
use crate::fused::{Host, HostMatrix};
use crate::lora::{project, with_dtype};
use crate::{Dropout, Llama};

/// Logits that are alive at a time: 32 MiB of F32.
const LOGITS: usize = 8 << 20;

impl Llama {
    /// The cross-entropy of `targets` at `hidden_rows`, summed, through final norm and output layer.
    ///
    /// Exact, in chunks of positions. Gradients reach the states, the norm and the output layer where they are tracked.
    ///
    /// # Shapes
    /// Rows of [`hidden_at`](Self::hidden_at) `[N, D]` and tokens `[N]` to `[1]`.
    pub fn cross_entropy_sum(
        &self,
        hidden_rows: Tensor<2>,
        targets: Tensor<1, Int>,
        dropout: Dropout,
    ) -> Tensor<1> {
        let x = self.norm(hidden_rows);
        let weight = match &self.lm_head {
            Some(head) if !head.is_plain() => {
                // An adapter's way back is burn's.
                return on_tape(head.forward(x, dropout), targets);
            }
            Some(head) => head.weight.val(),
            None => self.model.embed_tokens.weight.val(),
        };
        let plain = Chunks {
            x: x.clone().without_autodiff(),
            weight: weight.clone().without_autodiff(),
            targets,
        };
        let wanted = Wanted {
            x: x.is_tracked(),
            weight: weight.is_tracked(),
        };
        let found = plain.run(wanted, (LOGITS / self.config().vocab_size).max(1));
        let with_x = match found.x {
            None => found.loss,
            Some(slope) => with_slope(found.loss, x, slope),
        };
        match found.weight {
            None => with_x,
            Some(slope) => with_slope(with_x, weight, slope),
        }
    }
}

/// `value`, with this slope at `x`: what is added is zero to the bit.
fn with_slope(value: Tensor<1>, x: Tensor<2>, slope: Tensor<2>) -> Tensor<1> {
    let pull = (with_dtype(x, DType::F32) * slope).sum();
    value + (pull.clone() - pull.without_autodiff())
}

fn on_tape(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let chosen = log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1));
    chosen.sum().neg()
}

/// Positions to be gone through in chunks, all plain.
struct Chunks {
    /// `[N, D]`
    x: Tensor<2>,
    /// `[V, D]`
    weight: Tensor<2>,
    /// `[N]`
    targets: Tensor<1, Int>,
}

/// Which slopes are asked for.
#[derive(Clone, Copy)]
struct Wanted {
    x: bool,
    weight: bool,
}

struct Found {
    loss: Tensor<1>,
    /// `[N, D]`
    x: Option<Tensor<2>>,
    /// `[V, D]`
    weight: Option<Tensor<2>>,
}

impl Chunks {
    /// Goes through `size` positions at a time.
    fn run(&self, wanted: Wanted, size: usize) -> Found {
        let [positions, _] = self.x.dims();
        let [vocabulary, width] = self.weight.dims();
        let device = self.x.device();
        let mut loss = Tensor::<1>::zeros([1], &device);
        let mut x_slopes = Vec::new();
        let mut weight_slope: Option<Tensor<2>> = None;
        for first in (0..positions).step_by(size) {
            let count = size.min(positions - first);
            let x = self.x.clone().narrow(0, first, count);
            let targets = self.targets.clone().narrow(0, first, count);
            let logits = self.logits(x.clone());
            let (of_chunk, slope) = loss_and_slope(logits, targets);
            loss = loss + of_chunk;
            if wanted.x {
                x_slopes.push(self.at_states(slope.clone()));
            }
            if wanted.weight {
                let of_chunk = slope.transpose().matmul(x);
                weight_slope = Some(match weight_slope {
                    None => of_chunk,
                    Some(sum) => sum + of_chunk,
                });
            }
        }
        let empty = || Tensor::zeros([vocabulary, width], &device);
        Found {
            loss,
            x: wanted.x.then(|| match x_slopes.is_empty() {
                true => self.x.zeros_like(),
                false => Tensor::cat(x_slopes, 0),
            }),
            weight: wanted.weight.then(|| weight_slope.unwrap_or_else(empty)),
        }
    }
}

impl Chunks {
    /// `x Wᵀ`
    fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        #[cfg(feature = "flex")]
        if let Some(logits) = self.in_16_bits(
            &x,
            [x.dims()[0], self.weight.dims()[0]],
            |w, out, x, shape| w.there(out, x, shape),
        ) {
            return logits;
        }
        project(x, self.weight.clone())
    }

    /// The slope at the states, given the one at the logits.
    fn at_states(&self, slope: Tensor<2>) -> Tensor<2> {
        #[cfg(feature = "flex")]
        if let Some(slope) = self.in_16_bits(
            &slope,
            [slope.dims()[0], self.weight.dims()[1]],
            |w, out, y, shape| w.back(out, y, shape),
        ) {
            return slope;
        }
        let weight = self.weight.clone();
        let slope = with_dtype(slope, weight.dtype());
        with_dtype(slope.matmul(weight), DType::F32)
    }

    /// A product with a matrix in 16 bits, which burn would widen as a whole each time.
    #[cfg(feature = "flex")]
    fn in_16_bits(
        &self,
        x: &Tensor<2>,
        shape: [usize; 2],
        product: impl Fn(&Stored, &mut [f32], &[f32], [usize; 2]),
    ) -> Option<Tensor<2>> {
        let weight = HostMatrix::of(&self.weight)?;
        let host = Host::of(x)?;
        let stored = weight.stored();
        if matches!(stored, Stored::F32(_)) {
            return None;
        }
        let mut out = vec![0.0; shape[0] * shape[1]];
        product(&stored, &mut out, host.numbers(), self.weight.dims());
        Some(Tensor::from_data(TensorData::new(out, shape), &x.device()))
    }
}

/// The loss of a chunk, `[1]`, and its slope at the logits, `softmax(logits) - [target]`.
fn loss_and_slope(logits: Tensor<2>, targets: Tensor<1, Int>) -> (Tensor<1>, Tensor<2>) {
    #[cfg(feature = "flex")]
    if Host::of(&logits).is_some() {
        return on_cpu(logits, targets);
    }
    let log_shares = log_softmax(logits, 1);
    let targets: Tensor<2, Int> = targets.unsqueeze_dim(1);
    let chosen = log_shares.clone().gather(1, targets.clone());
    let less = chosen.ones_like().neg();
    let slope = log_shares
        .exp()
        .scatter(1, targets, less, IndexingUpdateOp::Add);
    (chosen.sum().neg(), slope)
}

/// The same in the logits' own memory.
#[cfg(feature = "flex")]
fn on_cpu(logits: Tensor<2>, targets: Tensor<1, Int>) -> (Tensor<1>, Tensor<2>) {
    let device = logits.device();
    let shape = logits.dims();
    let targets: Vec<u32> = targets.into_data().iter::<u32>().collect();
    let numbers = logits.into_data().try_into_vec::<f32>();
    let mut numbers = numbers.expect("logits on this backend were seen to be F32");
    let loss = limbic_kernels::cross_entropy(&mut numbers, &targets);
    let slope = Tensor::from_data(TensorData::new(numbers, shape), &device);
    (Tensor::from_data([loss as f32], &device), slope)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, TensorData};

    use super::*;

    fn host(x: Tensor<2>) -> Vec<f32> {
        x.into_data().try_into_vec().unwrap()
    }

    fn assert_close(got: &[f32], wanted: &[f32], what: &str) {
        let largest = wanted.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (got, wanted) in got.iter().zip(wanted) {
            assert!(
                (got - wanted).abs() < 1e-5 * largest,
                "{what}: {got} {wanted}"
            );
        }
    }

    #[test]
    fn chunks_give_the_loss_and_the_slopes_of_all_logits_at_once() {
        let device = Device::flex();
        let (positions, width, vocabulary) = (7, 12, 50);
        device.seed(3);
        let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let (x, weight) = (random([positions, width]), random([vocabulary, width]));
        let targets = TensorData::from([0i64, 49, 3, 3, 20, 7, 48]);
        let targets = Tensor::<1, Int>::from_data(targets, &device);

        let leaf = |x: &Tensor<2>| x.clone().autodiff().require_grad();
        let (x_leaf, weight_leaf) = (leaf(&x), leaf(&weight));
        let whole = on_tape(
            project(x_leaf.clone(), weight_leaf.clone()),
            targets.clone(),
        );
        let wanted = f64::from(whole.clone().inner().into_scalar::<f32>());
        let gradients = whole.backward();
        let [at_x, at_weight] = [x_leaf, weight_leaf].map(|x| host(x.grad(&gradients).unwrap()));

        let chunks = Chunks { x, weight, targets };
        for size in [1, 3, 7, 100] {
            let both = Wanted {
                x: true,
                weight: true,
            };
            let found = chunks.run(both, size);
            let loss = f64::from(found.loss.into_scalar::<f32>());
            assert!(
                (loss / wanted - 1.0).abs() < 1e-6,
                "{size}: {loss} {wanted}"
            );
            assert_close(&host(found.x.unwrap()), &at_x, "states");
            assert_close(&host(found.weight.unwrap()), &at_weight, "output layer");
        }
    }

    #[test]
    fn what_carries_a_slope_adds_nothing_to_the_value() {
        let device = Device::flex();
        let x = Tensor::<2>::full([3, 4], 1e4, &device)
            .autodiff()
            .require_grad();
        let slope = Tensor::<2>::full([3, 4], 0.3, &device);
        let value = Tensor::<1>::from_data([0.123_456_79f32], &device);
        let with = with_slope(value.clone(), x.clone(), slope.clone());
        let (got, wanted) = (with.clone().inner(), value);
        assert_eq!(got.into_scalar::<f32>(), wanted.into_scalar::<f32>());
        assert_eq!(host(x.grad(&with.backward()).unwrap()), host(slope));
    }
}
