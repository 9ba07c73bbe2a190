//! Small networks that read the emotion off a state: logits of classes, or one number for valence.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// A head's settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// Width of the hidden layer between state and output; 0 for none.
    #[serde(default)]
    pub hidden: usize,
    /// The state it reads.
    #[serde(default, skip_serializing_if = "Reads::is_decoder")]
    pub reads: Reads,
}

/// The state that a head reads. In YAML: `decoder`, or the name of a fusion.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Reads {
    /// The decoder's normed state at the last position of the prompt, which the causal mask keeps from seeing the answer.
    #[default]
    Decoder,
    /// The state of the fusion of this name. No decoder takes part in it.
    Fusion(String),
}

impl Reads {
    /// Whether it is the decoder's state.
    pub fn is_decoder(&self) -> bool {
        *self == Self::Decoder
    }
}

const DECODER: &str = "decoder";

impl From<String> for Reads {
    fn from(name: String) -> Self {
        if name == DECODER {
            Self::Decoder
        } else {
            Self::Fusion(name)
        }
    }
}

impl From<Reads> for String {
    fn from(reads: Reads) -> Self {
        match reads {
            Reads::Decoder => DECODER.into(),
            Reads::Fusion(name) => name,
        }
    }
}

/// One or two layers on a state of width D.
#[derive(Module, Debug)]
pub struct Head {
    inner: Option<Linear>,
    output: Linear,
    #[module(skip)]
    reads: Reads,
}

impl HeadConfig {
    /// A head with `outputs` numbers for states of width `dim`.
    pub fn init(&self, dim: usize, outputs: usize, device: &Device) -> Head {
        let linear = |input, output| LinearConfig::new(input, output).init(device);
        let width = if self.hidden == 0 { dim } else { self.hidden };
        Head {
            inner: (self.hidden > 0).then(|| linear(dim, self.hidden)),
            output: linear(width, outputs),
            reads: self.reads.clone(),
        }
    }
}

impl Head {
    /// # Shapes
    /// States `[N, D]` to outputs `[N, C]`.
    pub fn forward(&self, states: Tensor<2>) -> Tensor<2> {
        let x = match &self.inner {
            Some(inner) => inner.forward(states).tanh(),
            None => states,
        };
        self.output.forward(x)
    }

    /// The state it reads.
    pub fn reads(&self) -> &Reads {
        &self.reads
    }
}
