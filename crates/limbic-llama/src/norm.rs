use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};

use crate::lora::with_dtype;

/// Root mean square normalisation (Zhang and Sennrich 2019), `x / sqrt(mean(x²) + epsilon) * weight`.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// Scale of each channel, `[D]`.
    pub weight: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl RmsNorm {
    pub(crate) fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        let weight = Param::uninitialized(
            ParamId::new(),
            move |device, _| Tensor::ones([width], device),
            device.clone(),
            false,
            [width].into(),
        );
        Self { weight, epsilon }
    }

    #[cfg(feature = "flex")]
    pub(crate) fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// # Shapes
    /// `[.., D]` to the same.
    pub fn forward<const N: usize>(&self, x: Tensor<N>) -> Tensor<N> {
        let mean_square = x.clone().square().mean_dim(N - 1);
        let weight = with_dtype(self.weight.val(), x.dtype());
        x * (mean_square + self.epsilon).sqrt().recip() * weight.unsqueeze()
    }
}
