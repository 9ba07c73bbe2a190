//! What a shape is: a decoder, its adapters, and the work that a position is.

use burn::tensor::Device;
use limbic_llama::{Llama, LlamaConfig, LoraConfig};
use limbic_train::RunError;
use limbic_train::bench::draw_decoder;

use super::args::ShapeArgs;

impl ShapeArgs {
    /// The decoder, for sequences of at least `longest` positions.
    pub(crate) fn decoder(&self, longest: usize) -> anyhow::Result<LlamaConfig> {
        let config = LlamaConfig {
            intermediate_size: self.ffn,
            num_key_value_heads: self.kv_heads,
            max_position_embeddings: longest.max(4096),
            ..LlamaConfig::small(self.vocab, self.dim, self.layers, self.heads)
        };
        if self.heads == 0 || !self.dim.is_multiple_of(self.heads) {
            return Err(RunError::recipe(format!(
                "--dim {} is no multiple of --heads {}",
                self.dim, self.heads
            )));
        }
        let checked = config.validate();
        checked.map_err(|error| RunError::recipe(error.to_string()))?;
        Ok(config)
    }

    /// The adapters, scaled as the peer's.
    pub(crate) fn lora(&self) -> LoraConfig {
        let targets: Vec<&str> = self.targets.iter().map(String::as_str).collect();
        LoraConfig {
            lora_dropout: self.dropout,
            ..LoraConfig::new(self.rank, 2.0 * self.rank as f64, &targets)
        }
    }

    /// The decoder with its adapters and drawn weights.
    pub(crate) fn drawn(&self, longest: usize, device: &Device) -> anyhow::Result<Llama> {
        let config = self.decoder(longest)?;
        let llama = draw_decoder(&config, self.dtype.float_dtype(), device);
        adapted(llama, &self.lora())
    }

    /// Values in the linear layers of all blocks, and in the output layer.
    pub(crate) fn linear_values(&self) -> [f64; 2] {
        let head_dim = self.dim / self.heads;
        let queries = self.dim * self.heads * head_dim;
        let keys = self.dim * self.kv_heads * head_dim;
        let block = 2 * queries + 2 * keys + 3 * self.dim * self.ffn;
        [(self.layers * block) as f64, (self.vocab * self.dim) as f64]
    }
}

/// `llama` with adapters; settings that do not fit it were typed.
pub(crate) fn adapted(llama: Llama, lora: &LoraConfig) -> anyhow::Result<Llama> {
    let adapted = llama.with_lora(lora, 0);
    adapted.map_err(|error| RunError::recipe(format!("--rank, --dropout and --targets: {error}")))
}
