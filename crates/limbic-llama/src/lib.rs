//! The LLaMA backbone with LoRA adapters on its linear layers.
//!
//! - [`LlamaConfig`] reads Hugging Face's `config.json`; `init` builds a [`Llama`], [`Llama::read`] reads one from its folder.
//! - A forward pass is [`Llama::embed`], [`Llama::hidden`], [`Llama::logits`]; media embeddings are put in after the
//!   first, and only the positions that matter go through the last.
//! - [`Llama::with_lora`] adds adapters, [`Llama::merge_lora`] adds them into the weights.
//! - [`generate()`] continues prompts through a [`KvCache`].
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
mod error;
mod file;
mod generate;
mod hugging_face;
mod llama;
mod lora;
mod merge;
mod norm;
mod rope;

pub use adapter::{read_adapter, read_config as read_adapter_config, rename_base, write_adapter};
pub use attention::Attention;
pub use block::{Block, SwiGlu};
pub use cache::{KvCache, LayerCache};
pub use config::{Architecture, LlamaConfig};
pub use context::{Context, Dropout, Padding};
pub use error::LlamaError;
pub use generate::{End, Generation, Prompt, Sampling, generate};
pub use llama::{Decoder, Llama};
pub use lora::{LoraConfig, LoraFactor, LoraLinear};
pub use merge::{MergeOptions, MergeReport, decoder_digest, write_merged};
pub use norm::RmsNorm;
pub use rope::RopeScaling;
