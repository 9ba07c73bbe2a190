//! The LLaMA and Qwen2 backbones with LoRA adapters on their linear layers.
//!
//! - [`LlamaConfig`] reads Hugging Face's `config.json`; `init` builds a [`Llama`], [`Llama::read`] reads one from its
//!   folder, [`Llama::read_llama2c`] from a file of llama2.c.
//! - A forward pass is [`Llama::embed`], [`Llama::hidden`], [`Llama::logits`]; media embeddings are put in after the
//!   first, and only the positions that matter go through the last.
//! - [`Llama::inspect`] keeps the hidden states of every block, for comparison with other implementations.
//! - [`Llama::with_lora`] adds adapters, [`Llama::merge_lora`] adds them into the weights, [`Llama::merge`] for a while.
//! - [`generate()`] continues prompts through a [`KvCache`]; [`Prefilled`] does it in two parts, with the prompts' states
//!   between them. What prompts of a batch begin with is computed once.
//! - [`Llama::hold_in`] keeps the weights in BF16 where that is what a device is fast in.
//! - [`write_adapter`] and [`read_adapter`] exchange adapters with PEFT.
//!
//! Frozen weights are plain tensors, and trained ones are made autodiff leaves by whoever trains: every layer here
//! takes either. Nothing keeps a random state; see [`Dropout`] and [`Sampling`].

mod adapter;
mod attention;
mod block;
mod cache;
mod config;
mod context;
mod dropout;
mod error;
mod file;
#[cfg(feature = "flex")]
mod fused;
#[cfg(not(feature = "flex"))]
#[path = "fused_absent.rs"]
mod fused;
mod generate;
mod hugging_face;
mod in_order;
mod inspect;
mod llama;
mod llama2c;
mod lora;
mod lora_config;
mod merge;
mod norm;
mod precision;
mod prefix;
mod rope;
mod rope_keys;
mod sampling;
mod tape;
mod targets;
#[cfg(feature = "flex")]
mod thin;
mod token_loss;

pub use adapter::{
    adapter_tensor_name, read_adapter, read_config as read_adapter_config, rename_base,
    write_adapter,
};
pub use attention::Attention;
pub use block::{Block, SwiGlu};
pub use cache::{KvCache, LayerCache};
pub use config::{Architecture, LlamaConfig};
pub use context::{Context, Padding};
pub use dropout::Dropout;
pub use error::LlamaError;
pub use fused::{free_idle_memory, is_cpu};
pub use generate::{End, Generation, Prefilled, Prompt, generate};
pub use in_order::InOrder;
pub use inspect::Inspection;
pub use llama::{Decoder, Llama, Merged};
pub use lora::{LoraFactor, LoraLinear};
pub use lora_config::LoraConfig;
pub use merge::{MergeOptions, MergeReport, decoder_digest, write_merged};
pub use norm::RmsNorm;
pub use rope::RopeScaling;
pub use sampling::Sampling;
pub use tape::{Pass, Recompute, Slopes, Tape};
pub use targets::Targets;
