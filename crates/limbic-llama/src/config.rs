use crate::{LlamaError, RopeScaling};

/// Which of transformers' classes a checkpoint is made for. They share everything but biases and names of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `LlamaForCausalLM`: LLaMA 1 to 3.2, Vicuna.
    Llama,
    /// `Qwen2ForCausalLM`: Qwen2 and Qwen2.5, whose query, key and value layers have biases.
    Qwen2,
}

/// The shape and constants of a LLaMA or Qwen2.
///
/// Deliberately absent: sliding windows, RoPE that depends on the sequence's length (`dynamic`, `yarn`, `longrope`),
/// activations other than SiLU.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// The class it is loaded as elsewhere.
    pub architecture: Architecture,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the SwiGLU layer.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; each serves `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Most positions a sequence may have.
    pub max_position_embeddings: usize,
    /// Added to the mean square inside RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched over longer sequences than the model was first trained on.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether all four layers of attention have biases. Those of a Qwen2's query, key and value layers are there anyway.
    pub attention_bias: bool,
    /// Whether the three layers of the SwiGLU layer have biases.
    pub mlp_bias: bool,
    /// Whether the embedding table also serves as output layer.
    pub tie_word_embeddings: bool,
    /// Id of the token that begins a sequence.
    pub bos_token_id: Option<u32>,
    /// Ids of the tokens that end one.
    pub eos_token_ids: Vec<u32>,
    /// How the checkpoint stores its weights (`float32`, `float16`, `bfloat16`); computing is in F32.
    pub dtype: String,
}

/// Far more than any model has, and little enough that no product of two sizes overflows.
const MOST: usize = 1 << 24;

impl LlamaConfig {
    /// A small shape for training from scratch and for tests: SwiGLU about 8/3 as wide as the residual stream
    /// (Shazeer 2020), untied, 2048 positions, `rope_theta` 10 000.
    pub fn small(vocab_size: usize, hidden_size: usize, layers: usize, heads: usize) -> Self {
        Self {
            architecture: Architecture::Llama,
            vocab_size,
            hidden_size,
            intermediate_size: (hidden_size * 8 / 3).next_multiple_of(16),
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: heads,
            head_dim: hidden_size / heads.max(1),
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: None,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: false,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
            dtype: "float32".into(),
        }
    }

    /// Whether the query, key and value layers have biases.
    pub(crate) fn has_input_biases(&self) -> bool {
        self.attention_bias || self.architecture == Architecture::Qwen2
    }

    /// Checks that the sizes make a model.
    ///
    /// # Errors
    /// Names the first key that does not.
    pub fn validate(&self) -> Result<(), LlamaError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(LlamaError::Config(format!(
                "`{key}` is 0, wanted at least 1"
            )));
        }
        let most = |key: &str| match key {
            "num_hidden_layers" => 1 << 16,
            "max_position_embeddings" => 1 << 30,
            _ => MOST,
        };
        if let Some((key, size)) = sizes.iter().find(|(key, size)| *size > most(key)) {
            return Err(LlamaError::Config(format!(
                "`{key}` is {size}, wanted at most {}",
                most(key)
            )));
        }
        if self.num_attention_heads * self.head_dim > MOST {
            return Err(LlamaError::Config(format!(
                "`num_attention_heads` {} of `head_dim` {} are wider than {MOST}",
                self.num_attention_heads, self.head_dim
            )));
        }
        let (heads, groups) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(groups) {
            return Err(LlamaError::Config(format!(
                "`num_attention_heads` {heads} is no multiple of `num_key_value_heads` {groups}"
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(LlamaError::Config(format!(
                "`head_dim` is {}, wanted an even number, since rotary embedding turns pairs",
                self.head_dim
            )));
        }
        for (key, value) in [
            ("rms_norm_eps", self.rms_norm_eps),
            ("rope_theta", self.rope_theta),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(LlamaError::Config(format!(
                    "`{key}` is {value}, wanted a positive number"
                )));
            }
        }
        match &self.rope_scaling {
            Some(scaling) => scaling.validate().map_err(LlamaError::Config),
            None => Ok(()),
        }
    }
}
