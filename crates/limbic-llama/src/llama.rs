//! The decoder as a whole. Letters: B rows, L slots, D width, V vocabulary, N selected positions.
//!
//! The forward pass is in parts, because its users enter and leave it in different places: media embeddings are
//! put between [`embed`](Llama::embed) and [`hidden`](Llama::hidden), and only the positions that matter go
//! through [`logits`](Llama::logits).

use std::path::Path;

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor};
use limbic_weights::{Checkpoint, CounterRng};

use crate::block::Block;
use crate::fused::Fused;
use crate::lora::{lazy_zeros, project, with_dtype};
use crate::norm::RmsNorm;
use crate::tape::{Replayed, Stack, lowest_trained, row_numbers, select_rows};
use crate::{
    Context, Dropout, KvCache, LlamaConfig, LlamaError, LoraConfig, LoraLinear, Padding, Pass,
    Recompute,
};

/// LLaMA (Touvron et al. 2023): token embeddings, a stack of [`Block`]s, a final norm, an output layer.
///
/// Parameters live on the plain device they were built on; whoever trains some of them makes those autodiff
/// leaves, and the others stay constants beside them. Parameter names are those of Hugging Face's
/// `LlamaForCausalLM` and `Qwen2ForCausalLM`, and of PEFT's adapters on them.
///
/// Weights may be in F16 or BF16: products are then taken in that precision. Everything between them, norms, softmax
/// and the residual stream included, is in F32.
#[derive(Module, Debug)]
pub struct Llama {
    /// Everything but the output layer.
    pub model: Decoder,
    /// `[V, D]`; absent where the embedding table serves instead.
    pub lm_head: Option<LoraLinear>,
    #[module(skip)]
    config: LlamaConfig,
    #[module(skip)]
    lora: Option<LoraConfig>,
}

/// A model whose adapters are part of its weights for the time being: it computes as fast as its base model.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The merged model, without adapters.
    pub llama: Llama,
    original: Llama,
}

impl Merged {
    /// The model before merging, to the bit: adding an adapter and taking it away again would leave rounding errors.
    pub fn unmerge(self) -> Llama {
        self.original
    }
}

/// The output layer's matrix, in a checkpoint.
const HEAD: &str = "lm_head.weight";

/// The names of `LlamaForCausalLM`, of what may have been written of another class.
fn of_causal_lm(checkpoint: Checkpoint, config: &LlamaConfig) -> Result<Checkpoint, LlamaError> {
    // What training scripts write: the weights as one entry of a dictionary.
    let wrapper = "state_dict.";
    let is_wrapped = checkpoint.names().all(|name| name.starts_with(wrapper));
    let checkpoint = match is_wrapped {
        true => checkpoint.strip_prefix(wrapper)?,
        false => checkpoint,
    };
    let place = checkpoint.path().display().to_string();
    if checkpoint.shape("score.weight").is_some() {
        return Err(LlamaError::Config(format!(
            "{place}: the weights are those of a classifier (`LlamaForSequenceClassification` or Qwen2's), with `score` in \
             place of `{HEAD}`; wanted a `..ForCausalLM`"
        )));
    }
    if checkpoint.shape("embed_tokens.weight").is_none() {
        return Ok(checkpoint);
    }
    if !config.tie_word_embeddings && checkpoint.shape(HEAD).is_none() {
        return Err(LlamaError::Config(format!(
            "{place}: the weights are those of a bare `LlamaModel` or `Qwen2Model`, without the output layer `{HEAD}`; \
             wanted a `..ForCausalLM`"
        )));
    }
    // A bare model whose output layer is the embedding table is whole.
    Ok(checkpoint.rename(|name| match name {
        HEAD => name.to_string(),
        _ => format!("model.{name}"),
    })?)
}

/// Compares a stored output layer with the embedding table that is to serve in its place.
fn check_tied(checkpoint: &Checkpoint) -> Result<(), LlamaError> {
    let mut stored = checkpoint.clone();
    if stored.take(HEAD)? == stored.take("model.embed_tokens.weight")? {
        return Ok(());
    }
    Err(LlamaError::Config(format!(
        "{}: `tie_word_embeddings` is true, but `{HEAD}` and `model.embed_tokens.weight` differ; set it to false to use \
         both",
        checkpoint.path().display()
    )))
}

/// The decoder stack.
#[derive(Module, Debug)]
pub struct Decoder {
    /// `[V, D]`
    pub embed_tokens: Embedding,
    /// From the input to the output.
    pub layers: Vec<Block>,
    /// The final norm.
    pub norm: RmsNorm,
}

impl LlamaConfig {
    /// A LLaMA of this shape whose matrices are zero and take no memory until they are loaded or seeded.
    pub fn init(&self, device: &Device) -> Llama {
        Llama {
            model: Decoder {
                embed_tokens: Embedding {
                    weight: lazy_zeros([self.vocab_size, self.hidden_size], device),
                },
                layers: (0..self.num_hidden_layers)
                    .map(|_| Block::new(self, device))
                    .collect(),
                norm: RmsNorm::new(self.hidden_size, self.rms_norm_eps, device),
            },
            lm_head: (!self.tie_word_embeddings)
                .then(|| LoraLinear::new(self.hidden_size, self.vocab_size, false, device)),
            config: self.clone(),
            lora: None,
        }
    }
}

impl Llama {
    /// Reads a Hugging Face folder in F32: `config.json` and the weights beside it, in one file or in shards.
    ///
    /// # Errors
    /// An unusable config; missing, unexpected or wrong-shaped weights.
    pub fn read(folder: &Path, device: &Device) -> Result<Self, LlamaError> {
        Self::read_as(folder, Some(FloatDType::F32), device)
    }

    /// As [`read`](Self::read), with matrices in `precision` and vectors in F32, or each as it is stored.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_as(
        folder: &Path,
        precision: Option<FloatDType>,
        device: &Device,
    ) -> Result<Self, LlamaError> {
        let config = LlamaConfig::read(&folder.join("config.json"))?;
        let checkpoint = Self::checkpoint(folder, &config)?;
        // Before anything is built of that size.
        let tensors = checkpoint.names().count();
        if config.num_hidden_layers > tensors {
            return Err(LlamaError::Config(format!(
                "{}: `num_hidden_layers` is {}, but the checkpoint has {tensors} tensors in all",
                folder.join("config.json").display(),
                config.num_hidden_layers
            )));
        }
        Ok(checkpoint.load(config.init(device), precision)?)
    }

    /// The weights of a Hugging Face folder, opened, without what a model of this `config` has no use for.
    pub(crate) fn checkpoint(
        folder: &Path,
        config: &LlamaConfig,
    ) -> Result<Checkpoint, LlamaError> {
        let mut checkpoint = of_causal_lm(Checkpoint::open(folder)?, config)?.ignore(
            |name| name.ends_with(".rotary_emb.inv_freq"),
            "published files of LLaMA 2 carry the rotary frequencies, which follow from config.json",
        );
        if config.tie_word_embeddings && checkpoint.shape(HEAD).is_some() {
            check_tied(&checkpoint)?;
            checkpoint = checkpoint.ignore(
                |name| name == HEAD,
                "a tied output layer is the embedding table, with which it was compared",
            );
        }
        Ok(checkpoint)
    }

    /// Its shape.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The settings of its adapters, if it has any.
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    /// # Shapes
    /// Token ids `[B, L]` to `[B, L, D]`.
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        with_dtype(self.model.embed_tokens.forward(ids), DType::F32)
    }

    /// The output of the last block, before the final norm.
    ///
    /// With a cache, the slots follow those it holds, and it takes them up.
    ///
    /// # Shapes
    /// `[B, L, D]` to the same.
    ///
    /// # Panics
    /// When the sequence is longer than `max_position_embeddings` or than the cache.
    pub fn hidden(
        &self,
        embeddings: Tensor<3>,
        padding: &Padding,
        cache: Option<&mut KvCache>,
        dropout: Dropout,
    ) -> Tensor<3> {
        let slots = embeddings.dims()[1];
        let past = cache.as_ref().map_or(0, |cache| cache.length());
        let device = embeddings.device();
        let context = Context::new(&self.config, past, slots, padding, dropout, &device);
        let blocks = self.model.layers.iter();
        match cache {
            None => blocks.fold(embeddings, |x, block| block.forward(x, &context, None)),
            Some(cache) => blocks
                .zip(&mut cache.layers)
                .fold(embeddings, |x, (block, cache)| {
                    block.forward(x, &context, Some(cache))
                }),
        }
    }

    /// The output of the last block, before the final norm, at some positions of `B · L`, in ascending order.
    ///
    /// The same numbers as [`hidden`](Self::hidden) has at positions that hold something, for less: on CPU whole blocks run
    /// as one, the last of them for these positions alone. With a tape in `pass` the way back is that tape's.
    ///
    /// # Shapes
    /// `[B, L, D]` to `[N, D]`.
    ///
    /// # Panics
    /// When a sample is longer than `max_position_embeddings`, or positions do not ascend strictly.
    pub fn hidden_at(
        &self,
        embeddings: Tensor<3>,
        padding: &Padding,
        positions: &[usize],
        pass: Pass,
    ) -> Tensor<2> {
        let blocks = &self.model.layers;
        let dropout = pass.dropout;
        let fused = Fused::of(
            blocks,
            &self.config,
            &embeddings,
            padding,
            positions,
            dropout,
        );
        let plain = || embeddings.clone().without_autodiff();
        let is_tracked = embeddings.is_tracked();
        assert!(
            positions.is_sorted_by(|a, b| a < b),
            "positions must ascend, each of them once: {positions:?}"
        );
        let lowest = match is_tracked {
            true => 0,
            false => lowest_trained(blocks),
        };
        let goes_back = lowest < blocks.len();
        match (fused, pass.tape) {
            (Some(fused), _) if !goes_back => fused.run(plain()),
            (Some(fused), Some(tape)) => {
                let (output, fused) = fused.record(plain(), lowest, tape.recompute());
                tape.record(embeddings, output, Stack::Fused(Box::new(fused)))
            }
            (None, Some(tape)) if goes_back && tape.recompute() == Recompute::Block => {
                let slots = embeddings.dims()[1];
                let device = embeddings.device();
                let context = Context::new(&self.config, 0, slots, padding, dropout, &device);
                let (output, replayed) = Replayed::run(blocks, lowest, context, plain(), positions);
                tape.record(embeddings, output, Stack::Replayed(Box::new(replayed)))
            }
            _ => {
                let rows = row_numbers(positions, &embeddings.device());
                select_rows(self.hidden(embeddings, padding, None, dropout), rows)
            }
        }
    }

    /// The final norm.
    ///
    /// # Shapes
    /// `[.., D]` to the same.
    pub fn norm<const N: usize>(&self, hidden: Tensor<N>) -> Tensor<N> {
        self.model.norm.forward(hidden)
    }

    /// Final norm and output layer for the positions at hand.
    ///
    /// # Shapes
    /// Rows of [`hidden`](Self::hidden) `[N, D]` to `[N, V]`.
    pub fn logits(&self, hidden_rows: Tensor<2>, dropout: Dropout) -> Tensor<2> {
        let x = self.norm(hidden_rows);
        match &self.lm_head {
            Some(head) => head.forward(x, dropout),
            None => project(x, self.model.embed_tokens.weight.val()),
        }
    }

    /// Puts fresh adapters beside the layers that `lora` names. Load or seed the base weights first.
    ///
    /// A is drawn from `(seed, name)`; B is zero, so that the model computes what it did before.
    ///
    /// # Errors
    /// Settings out of range, a target that no layer is called, or a model that has adapters already.
    pub fn with_lora(mut self, lora: &LoraConfig, seed: u64) -> Result<Self, LlamaError> {
        if self.lora.is_some() {
            return Err(LlamaError::Lora(
                "the model has adapters already; merge them before adding others".into(),
            ));
        }
        let rng = CounterRng::new(seed);
        let mut linears = self.linears_mut();
        let names: Vec<String> = linears.iter().map(|(name, _)| name.clone()).collect();
        for ((name, linear), adapter) in linears.iter_mut().zip(lora.plan(&names)?) {
            if let Some(adapter) = adapter {
                linear.adapt(name, &adapter, lora, rng);
            }
        }
        self.lora = Some(lora.clone());
        Ok(self)
    }

    /// The same model with the adapters added into its weights, for good.
    pub fn merge_lora(mut self) -> Self {
        for (_, linear) in self.linears_mut() {
            linear.merge();
        }
        self.lora = None;
        self
    }

    /// The same model with the adapters added into its weights until [`Merged::unmerge`].
    pub fn merge(self) -> Merged {
        Merged {
            llama: self.clone().merge_lora(),
            original: self,
        }
    }

    /// The linear layers with their full names, from the input to the output.
    pub(crate) fn linears_mut(&mut self) -> Vec<(String, &mut LoraLinear)> {
        let head = self.lm_head.as_mut().map(|head| ("lm_head".into(), head));
        let blocks = self.model.layers.iter_mut().enumerate();
        blocks
            .flat_map(|(index, block)| {
                block
                    .linears_mut()
                    .map(|(name, linear)| (format!("model.layers.{index}.{name}"), linear))
            })
            .chain(head)
            .collect()
    }
}
