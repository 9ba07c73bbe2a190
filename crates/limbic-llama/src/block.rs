//! One layer of the decoder. Letters: B rows, L slots, D width, F width of the SwiGLU layer.

use burn::module::Module;
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};

use crate::attention::Attention;
use crate::cache::LayerCache;
use crate::norm::RmsNorm;
use crate::{Context, Dropout, LlamaConfig, LoraLinear};

/// Norm, attention, norm, SwiGLU, with a residual connection around each pair.
#[derive(Module, Debug)]
pub struct Block {
    /// Before attention.
    pub input_layernorm: RmsNorm,
    /// Causal self-attention.
    pub self_attn: Attention,
    /// Before the SwiGLU layer.
    pub post_attention_layernorm: RmsNorm,
    /// The SwiGLU layer.
    pub mlp: SwiGlu,
}

impl Block {
    pub(crate) fn new(config: &LlamaConfig, device: &Device) -> Self {
        let norm = || RmsNorm::new(config.hidden_size, config.rms_norm_eps, device);
        Self {
            input_layernorm: norm(),
            self_attn: Attention::new(config, device),
            post_attention_layernorm: norm(),
            mlp: SwiGlu::new(config, device),
        }
    }

    /// # Shapes
    /// `[B, L, D]` to the same.
    pub fn forward(
        &self,
        x: Tensor<3>,
        context: &Context,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let x = x.clone()
            + self
                .self_attn
                .forward(self.input_layernorm.forward(x), context, cache);
        x.clone()
            + self
                .mlp
                .forward(self.post_attention_layernorm.forward(x), context.dropout)
    }

    /// The linear layers: query, key, value and output of attention, gate, up, down.
    #[cfg(feature = "flex")]
    pub(crate) fn linears(&self) -> [&LoraLinear; 7] {
        let Self { self_attn, mlp, .. } = self;
        [
            &self_attn.q_proj,
            &self_attn.k_proj,
            &self_attn.v_proj,
            &self_attn.o_proj,
            &mlp.gate_proj,
            &mlp.up_proj,
            &mlp.down_proj,
        ]
    }

    /// The linear layers with their names inside the block.
    pub(crate) fn linears_mut(&mut self) -> [(&'static str, &mut LoraLinear); 7] {
        let Self { self_attn, mlp, .. } = self;
        [
            ("self_attn.q_proj", &mut self_attn.q_proj),
            ("self_attn.k_proj", &mut self_attn.k_proj),
            ("self_attn.v_proj", &mut self_attn.v_proj),
            ("self_attn.o_proj", &mut self_attn.o_proj),
            ("mlp.gate_proj", &mut mlp.gate_proj),
            ("mlp.up_proj", &mut mlp.up_proj),
            ("mlp.down_proj", &mut mlp.down_proj),
        ]
    }
}

/// `down(silu(gate(x)) · up(x))` (Shazeer 2020).
#[derive(Module, Debug)]
pub struct SwiGlu {
    /// `[F, D]`
    pub gate_proj: LoraLinear,
    /// `[F, D]`
    pub up_proj: LoraLinear,
    /// `[D, F]`
    pub down_proj: LoraLinear,
}

impl SwiGlu {
    fn new(config: &LlamaConfig, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let bias = config.mlp_bias;
        Self {
            gate_proj: LoraLinear::new(width, inner, bias, device),
            up_proj: LoraLinear::new(width, inner, bias, device),
            down_proj: LoraLinear::new(inner, width, bias, device),
        }
    }

    /// # Shapes
    /// `[B, L, D]` to the same.
    pub fn forward(&self, x: Tensor<3>, dropout: Dropout) -> Tensor<3> {
        let gate = self.gate_proj.forward(x.clone(), dropout);
        let up = self.up_proj.forward(x, dropout);
        self.down_proj.forward(silu(gate) * up, dropout)
    }
}
