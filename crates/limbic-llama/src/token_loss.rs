//! Cross-entropy of the next tokens of some positions, without ever holding the logits of all of them.
//!
//! The slope at the states follows from each chunk's logits while they are there, so that going back costs a product with
//! it and no logits at all. Letters: N positions, D width, V vocabulary.

#[cfg(feature = "flex")]
use burn::tensor::TensorData;
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor};
#[cfg(feature = "flex")]
use limbic_kernels::Buffer;

#[cfg(feature = "flex")]
use crate::fused::{Host, HostMatrix};
use crate::lora::{project, with_dtype};
use crate::{Dropout, Llama};

/// Logits that are alive at a time: 32 MiB of F32.
const LOGITS: usize = 8 << 20;

impl Llama {
    /// The cross-entropy of `targets` at `hidden_rows`, summed, through final norm and output layer.
    ///
    /// Exact, in chunks of positions, except for an output layer with an adapter or a bias. Gradients reach the states, the norm and the output layer where they are tracked.
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
                // Adapters here are rare, and their way back is burn's, with all logits.
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
        let device = self.x.device();
        let mut loss = Tensor::<1>::zeros([1], &device);
        let mut x_slopes = Vec::new();
        let mut weight_slope: Option<Tensor<2>> = None;
        for first in (0..positions).step_by(size) {
            let count = size.min(positions - first);
            let found = self.chunk(first, count).run(wanted);
            loss = loss + found.loss;
            x_slopes.extend(found.x);
            weight_slope = match (weight_slope, found.weight) {
                (Some(sum), Some(slope)) => Some(sum + slope),
                (sum, slope) => sum.or(slope),
            };
        }
        let zeros = |like: &Tensor<2>| like.zeros_like();
        Found {
            loss,
            x: wanted.x.then(|| match x_slopes.is_empty() {
                true => zeros(&self.x),
                false => Tensor::cat(x_slopes, 0),
            }),
            weight: wanted
                .weight
                .then(|| weight_slope.unwrap_or_else(|| zeros(&self.weight))),
        }
    }

    fn chunk(&self, first: usize, count: usize) -> Chunk {
        Chunk {
            x: self.x.clone().narrow(0, first, count),
            weight: self.weight.clone(),
            targets: self.targets.clone().narrow(0, first, count),
        }
    }
}

/// Positions whose logits are alive at the same time.
struct Chunk {
    /// `[N, D]`
    x: Tensor<2>,
    /// `[V, D]`
    weight: Tensor<2>,
    /// `[N]`
    targets: Tensor<1, Int>,
}

impl Chunk {
    /// Loss and slopes; the one at the logits is `softmax(logits) - [target]`.
    fn run(self, wanted: Wanted) -> Found {
        #[cfg(feature = "flex")]
        if let Some(found) = self.run_on_cpu(wanted) {
            return found;
        }
        let Self { x, weight, targets } = self;
        let log_shares = log_softmax(project(x.clone(), weight.clone()), 1);
        let targets: Tensor<2, Int> = targets.unsqueeze_dim(1);
        let chosen = log_shares.clone().gather(1, targets.clone());
        let loss = chosen.clone().sum().neg();
        if !wanted.x && !wanted.weight {
            return Found::only(loss);
        }
        let less = chosen.ones_like().neg();
        let shares = log_shares.exp();
        let slope = shares.scatter(1, targets, less, IndexingUpdateOp::Add);
        Found {
            loss,
            x: wanted.x.then(|| {
                let slope = with_dtype(slope.clone(), weight.dtype());
                with_dtype(slope.matmul(weight), DType::F32)
            }),
            weight: wanted.weight.then(|| slope.transpose().matmul(x)),
        }
    }

    /// The same in one buffer of logits, with the output layer as it is stored; `None` on another backend.
    #[cfg(feature = "flex")]
    fn run_on_cpu(&self, wanted: Wanted) -> Option<Found> {
        let (host, matrix) = (Host::of(&self.x)?, HostMatrix::of(&self.weight)?);
        let device = self.x.device();
        let ([count, width], shape) = (self.x.dims(), self.weight.dims());
        let targets: Vec<u32> = self.targets.to_data().iter::<u32>().collect();
        let mut logits = Buffer::stale(count * shape[0]);
        matrix.stored().there(&mut logits, host.numbers(), shape);
        let loss = limbic_kernels::cross_entropy(&mut logits, &targets);
        let slope = logits;
        let tensor = |numbers: Vec<f32>, shape: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(numbers, shape), &device)
        };
        Some(Found {
            loss: Tensor::from_data([loss as f32], &device),
            x: wanted.x.then(|| {
                let mut out = vec![0.0; count * width];
                matrix.stored().back(&mut out, false, &slope, shape);
                tensor(out, [count, width])
            }),
            weight: wanted.weight.then(|| {
                let slope = tensor(slope.to_vec(), [count, shape[0]]);
                slope.transpose().matmul(self.x.clone())
            }),
        })
    }
}

impl Found {
    fn only(loss: Tensor<1>) -> Self {
        Self {
            loss,
            x: None,
            weight: None,
        }
    }
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
