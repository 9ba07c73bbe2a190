//! Dropout whose masks are a function of a key, so that replaying a step drops the same inputs, wherever it runs.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use limbic_weights::CounterRng;
use pulp::Arch;

use crate::is_cpu;

/// Which inputs of the adapters are dropped, as a function of a key.
///
/// The key stands for all that should change the draw (seed, step, micro-batch); the adapter's own name is mixed in.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    key: Option<CounterRng>,
}

impl Dropout {
    /// No dropout: evaluation and generation.
    pub const OFF: Self = Self { key: None };

    /// The dropout that `key` names. The same key gives the same masks on every device.
    pub fn keyed(key: CounterRng) -> Self {
        Self { key: Some(key) }
    }

    /// Whether [`apply`](Self::apply) would change anything.
    pub(crate) fn acts(self, probability: f64) -> bool {
        self.key.is_some() && probability > 0.0
    }

    /// Zeros x's elements with `probability` and scales the others up to the same expectation.
    pub(crate) fn apply<const D: usize>(
        self,
        x: Tensor<D>,
        probability: f64,
        site: &str,
    ) -> Tensor<D> {
        if !self.acts(probability) {
            return x;
        }
        let shape = x.dims();
        let device = x.device().without_autodiff();
        let mask = if is_cpu(&device) {
            let rows = 0..shape[..D - 1].iter().product();
            let mut mask = vec![0.0; shape.iter().product()];
            self.mask(probability, site, rows, shape[D - 1], &mut mask);
            Tensor::from_data(TensorData::new(mask, shape), &device)
        } else {
            let count = shape.iter().product();
            let mask = self.draw(probability, site).on(count, &device);
            mask.reshape(shape)
        };
        let dtype = x.dtype();
        x * mask.cast(dtype)
    }

    /// What the elements of some rows are multiplied by, where dropout [acts](Self::acts).
    ///
    /// # Shapes
    /// `mask` `[rows, width]`
    pub(crate) fn mask(
        self,
        probability: f64,
        site: &str,
        rows: impl Iterator<Item = usize>,
        width: usize,
        mask: &mut [f32],
    ) {
        let draw = self.draw(probability, site);
        for (row, mask) in rows.zip(mask.chunks_exact_mut(width)) {
            let first = (row * width) as u32;
            // Millions of draws a pass: in the widest instructions of the machine.
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    for (index, element) in mask.iter_mut().enumerate() {
                        *element = draw.at(first.wrapping_add(index as u32));
                    }
                },
            );
        }
    }

    fn draw(self, probability: f64, site: &str) -> Draw {
        let key = self.key.expect("dropout that acts has a key");
        let bits = key.site(site).bits(0);
        Draw {
            keys: [bits as u32, (bits >> 32) as u32],
            threshold: (probability * f64::from(1u32 << 31)) as u32,
            scale: (1.0 / (1.0 - probability)) as f32,
        }
    }
}

/// The decisions of one adapter in one pass: element i is kept where 31 bits of a hash of i are not below a threshold.
///
/// The hash is a finalizer of 32 bits (its constants are those that Wellons's search "hash prospector" found) with half of
/// the key before its first multiplication and half before its second: 32-bit operations alone, which devices have.
#[derive(Clone, Copy)]
struct Draw {
    keys: [u32; 2],
    threshold: u32,
    scale: f32,
}

const FACTORS: [u32; 2] = [0x7feb_352d, 0x846c_a68b];

impl Draw {
    #[inline(always)]
    fn at(self, index: u32) -> f32 {
        let mut bits = index ^ self.keys[0];
        bits = (bits ^ (bits >> 16)).wrapping_mul(FACTORS[0]);
        bits = (bits ^ (bits >> 15)) ^ self.keys[1];
        bits = bits.wrapping_mul(FACTORS[1]);
        bits ^= bits >> 16;
        if bits >> 1 < self.threshold {
            0.0
        } else {
            self.scale
        }
    }

    /// The first `count` elements, drawn on `device`: nothing but the keys goes there.
    fn on(self, count: usize, device: &Device) -> Tensor<1> {
        let signed = |bits: u32| bits.cast_signed();
        // Of signed integers, whose shift to the right brings the sign along.
        let shift = |x: Tensor<1, Int>, by: u32| {
            let shifted = x.bitwise_right_shift_scalar(by as i32);
            shifted.bitwise_and_scalar(signed(u32::MAX >> by))
        };
        let folded = |x: Tensor<1, Int>, by: u32| x.clone().bitwise_xor(shift(x, by));
        let index = Tensor::arange(0..count as i64, (device, DType::I32));
        let bits = index.bitwise_xor_scalar(signed(self.keys[0]));
        let bits = folded(bits, 16).mul_scalar(signed(FACTORS[0]));
        let bits = folded(bits, 15).bitwise_xor_scalar(signed(self.keys[1]));
        let bits = folded(bits.mul_scalar(signed(FACTORS[1])), 16);
        let kept = shift(bits, 1).greater_equal_elem(signed(self.threshold));
        kept.float().mul_scalar(self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_keeps_the_expectation_and_repeats_itself() {
        let ones = Tensor::<2>::ones([200, 301], &Device::flex());
        let dropout = Dropout::keyed(CounterRng::new(3));
        let draw = |site: &str| {
            let dropped = dropout.apply(ones.clone(), 0.25, site);
            dropped.into_data().try_into_vec::<f32>().unwrap()
        };
        let values = draw("a");
        assert!(
            values
                .iter()
                .all(|v| *v == 0.0 || (*v - 4.0 / 3.0).abs() < 1e-6)
        );
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        assert_eq!(values, draw("a"));
        assert_ne!(values, draw("b"));
        let mut some = vec![9.0; 3 * 301];
        dropout.mask(0.25, "a", [3usize, 4, 150].into_iter(), 301, &mut some);
        let wanted = [3, 4, 150].map(|row| values[row * 301..][..301].to_vec());
        assert_eq!(some, wanted.concat());
    }

    #[test]
    fn masks_drawn_by_tensor_operations_are_those_of_the_host() {
        for (probability, site) in [(0.05, "a"), (0.5, "b"), (0.99, "c")] {
            let draw = Dropout::keyed(CounterRng::new(5)).draw(probability, site);
            let on_device = draw.on(100_000, &Device::flex()).into_data();
            let on_host: Vec<f32> = (0..100_000).map(|index| draw.at(index)).collect();
            assert_eq!(on_device.try_into_vec::<f32>().unwrap(), on_host);
        }
    }

    #[test]
    fn masks_of_two_sites_and_of_neighbours_are_independent() {
        let count = 1 << 20;
        let draws = ["a", "b"].map(|site| Dropout::keyed(CounterRng::new(1)).draw(0.5, site));
        let kept = |draw: Draw, index: u32| draw.at(index) > 0.0;
        // Agreement of fair coins, within four standard deviations.
        let fair = |agree: usize| (agree as f64 / f64::from(count) - 0.5).abs() < 2.0 / 1024.0;
        let of_sites = (0..count).filter(|i| kept(draws[0], *i) == kept(draws[1], *i));
        assert!(fair(of_sites.count()));
        for apart in [1, 2, 3, 16, 512, 4096, 1 << 16] {
            let same = (0..count).filter(|i| kept(draws[0], *i) == kept(draws[0], i + apart));
            assert!(fair(same.count()), "{apart} apart");
        }
    }
}
