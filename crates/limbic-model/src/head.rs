use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// The class head's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// Width of the hidden layer between decoder and classes; 0 for none.
    #[serde(default)]
    pub hidden: usize,
}

/// Emotion logits from the last position of the prompt, which the causal mask keeps from seeing the answer.
#[derive(Module, Debug)]
pub struct ClassHead {
    inner: Option<Linear>,
    output: Linear,
}

impl HeadConfig {
    /// A head for decoder states of width `dim`.
    pub fn init(&self, dim: usize, classes: usize, device: &Device) -> ClassHead {
        let linear = |input, output| LinearConfig::new(input, output).init(device);
        let width = if self.hidden == 0 { dim } else { self.hidden };
        ClassHead {
            inner: (self.hidden > 0).then(|| linear(dim, self.hidden)),
            output: linear(width, classes),
        }
    }
}

impl ClassHead {
    /// # Shapes
    /// Normed decoder states `[N, D]` to logits `[N, C]`.
    pub fn forward(&self, states: Tensor<2>) -> Tensor<2> {
        let x = match &self.inner {
            Some(inner) => inner.forward(states).tanh(),
            None => states,
        };
        self.output.forward(x)
    }
}
