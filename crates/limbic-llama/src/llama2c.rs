//! Checkpoints of llama2.c (Karpathy 2023): seven integers, then F32 matrices in a fixed order (its `legacy_export`).
//!
//! They keep Meta's layout of rotary pairs, dimension `2i` with `2i + 1`; query and key rows are put into ours once.

use std::path::Path;

use burn::tensor::Device;
use limbic_weights::{NamedTensor, Weights};

use crate::{Llama, LlamaConfig, LlamaError};

/// Bytes of the header.
const HEADER: usize = 7 * 4;
/// First word of the later formats, `ak42`.
const MAGIC: i32 = 0x616b_3432;

impl Llama {
    /// Reads a checkpoint of llama2.c in its first format, the one of the published `stories*.bin`.
    ///
    /// Such a model ends a text by the token that begins one, so both count as end.
    ///
    /// # Errors
    /// A file that cannot be read, of another format, or longer or shorter than its header says.
    pub fn read_llama2c(path: &Path, device: &Device) -> Result<Self, LlamaError> {
        let bytes = std::fs::read(path).map_err(LlamaError::io(path))?;
        let config = header(&bytes).map_err(|detail| LlamaError::llama2c(path, detail))?;
        let weights = weights(&config, &bytes[HEADER..])
            .map_err(|detail| LlamaError::llama2c(path, detail))?;
        Ok(limbic_weights::load(config.init(device), &weights)?)
    }
}

fn header(bytes: &[u8]) -> Result<LlamaConfig, String> {
    if bytes.len() < HEADER {
        return Err(format!(
            "{} bytes, wanted a header of {HEADER}",
            bytes.len()
        ));
    }
    let words = bytes[..HEADER].chunks_exact(4);
    let words: Vec<i32> = words
        .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    if words[0] == MAGIC {
        return Err(format!(
            "version {} of the format; wanted the first one (`export.py --version 0`)",
            words[1]
        ));
    }
    // A negative vocabulary tells that the output layer is stored apart.
    let tied = words[5] > 0;
    let sizes = [
        "dim",
        "hidden_dim",
        "n_layers",
        "n_heads",
        "n_kv_heads",
        "vocab_size",
        "seq_len",
    ];
    const LARGEST: u32 = 1 << 24;
    for (name, word) in sizes.iter().zip(&words) {
        let size = if *name == "vocab_size" {
            word.unsigned_abs()
        } else {
            *word as u32
        };
        if size == 0 || size > LARGEST {
            return Err(format!(
                "`{name}` is {word}, which is no llama2.c checkpoint"
            ));
        }
    }
    let size = |index: usize| words[index].unsigned_abs() as usize;
    if size(0) % size(3) != 0 {
        return Err(format!(
            "`dim` {} is no multiple of `n_heads` {}",
            size(0),
            size(3)
        ));
    }
    let config = LlamaConfig {
        intermediate_size: size(1),
        num_key_value_heads: size(4),
        max_position_embeddings: size(6),
        tie_word_embeddings: tied,
        eos_token_ids: vec![2, 1],
        ..LlamaConfig::small(size(5), size(0), size(2), size(3))
    };
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

/// The matrices by Hugging Face's names.
fn weights(config: &LlamaConfig, bytes: &[u8]) -> Result<Weights, String> {
    let mut reader = Reader {
        bytes,
        position: 0,
        weights: Weights::default(),
    };
    let (layers, width, inner) = (
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
    );
    let head = config.head_dim;
    let keys = config.num_key_value_heads * head;
    let block =
        |name: &'static str| move |layer: usize| format!("model.layers.{layer}.{name}.weight");
    let one = |name: &'static str| move |_: usize| format!("{name}.weight");

    reader.take(1, &[config.vocab_size, width], one("model.embed_tokens"))?;
    reader.take(layers, &[width], block("input_layernorm"))?;
    reader.take(layers, &[width, width], block("self_attn.q_proj"))?;
    reader.take(layers, &[keys, width], block("self_attn.k_proj"))?;
    reader.take(layers, &[keys, width], block("self_attn.v_proj"))?;
    reader.take(layers, &[width, width], block("self_attn.o_proj"))?;
    reader.take(layers, &[width], block("post_attention_layernorm"))?;
    reader.take(layers, &[inner, width], block("mlp.gate_proj"))?;
    reader.take(layers, &[width, inner], block("mlp.down_proj"))?;
    reader.take(layers, &[inner, width], block("mlp.up_proj"))?;
    reader.take(1, &[width], one("model.norm"))?;
    // Cosines and sines, which follow from the header.
    reader.skip(config.max_position_embeddings * head)?;
    if !config.tie_word_embeddings {
        reader.take(1, &[config.vocab_size, width], one("lm_head"))?;
    }
    let left = bytes.len() - reader.position;
    if left > 0 {
        return Err(format!("{left} bytes more than its header says"));
    }
    let mut weights = reader.weights;
    for (name, tensor) in &mut weights.tensors {
        if name.contains("q_proj") || name.contains("k_proj") {
            tensor.values = to_halves(&tensor.values, width, head);
        }
    }
    Ok(weights)
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    weights: Weights,
}

impl Reader<'_> {
    /// One tensor of this shape for each layer.
    fn take(
        &mut self,
        layers: usize,
        shape: &[usize],
        name: impl Fn(usize) -> String,
    ) -> Result<(), String> {
        for layer in 0..layers {
            let name = name(layer);
            let values = self.next(shape.iter().product(), &name)?.chunks_exact(4);
            let values = values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            let tensor = NamedTensor {
                shape: shape.to_vec(),
                values: values.collect(),
            };
            self.weights.tensors.insert(name, tensor);
        }
        Ok(())
    }

    fn skip(&mut self, count: usize) -> Result<(), String> {
        self.next(count, "the rotary tables").map(drop)
    }

    fn next(&mut self, count: usize, name: &str) -> Result<&[u8], String> {
        let end = self.position + 4 * count;
        let bytes = self.bytes.get(self.position..end);
        self.position = end;
        bytes.ok_or_else(|| format!("it ends within {name}; fetch or export it again"))
    }
}

/// Rows `2i` and `2i + 1` of each head become rows `i` and `i + head / 2`.
fn to_halves(values: &[f32], width: usize, head: usize) -> Vec<f32> {
    let mut turned = Vec::with_capacity(values.len());
    for rows in values.chunks_exact(head * width) {
        let row = |index: usize| &rows[index * width..][..width];
        for parity in [0, 1] {
            for pair in 0..head / 2 {
                turned.extend_from_slice(row(2 * pair + parity));
            }
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model of one layer: dim 4, hidden 3, 2 heads on 1, vocabulary 5, 6 positions.
    fn file(vocabulary: i32) -> Vec<u8> {
        let words = [4, 3, 1, 2, 1, vocabulary, 6i32];
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let count = 20 + 4 + 16 + 8 + 8 + 16 + 4 + 12 * 3 + 4 + 6 * 2;
        let head = if vocabulary < 0 { 20 } else { 0 };
        bytes.extend((0..count + head).flat_map(|i| (i as f32).to_le_bytes()));
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Llama, LlamaError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.bin");
        std::fs::write(&path, bytes).unwrap();
        Llama::read_llama2c(&path, &Device::flex())
    }

    #[test]
    fn matrices_come_in_their_order_and_layout() {
        for vocabulary in [5, -5] {
            let llama = read(&file(vocabulary)).unwrap();
            assert_eq!(llama.config().tie_word_embeddings, vocabulary > 0);
            let weights = Weights::collect(&llama);
            let first = |name: &str| weights.tensors[name].values[0];
            assert_eq!(first("model.layers.0.self_attn.q_proj.weight"), 24.0);
            assert_eq!(first("model.layers.0.mlp.down_proj.weight"), 88.0);
            if vocabulary < 0 {
                assert_eq!(first("lm_head.weight"), 128.0);
            }
        }
        // Head width 4: rows 0, 2, 1, 3.
        let rows: Vec<f32> = (0..8).map(|v| v as f32).collect();
        assert_eq!(
            to_halves(&rows, 2, 4),
            [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]
        );
    }

    #[test]
    fn damaged_and_foreign_files_are_refused() {
        let whole = file(5);
        let mut later = whole.clone();
        later[..4].copy_from_slice(&MAGIC.to_le_bytes());
        let mut no_heads = whole.clone();
        no_heads[12..16].fill(0);
        for (bytes, part) in [
            (&whole[..10], "header"),
            (&whole[..whole.len() - 4], "ends within"),
            (&[&whole[..], &[0; 4]].concat()[..], "4 bytes more"),
            (&later, "version 3"),
            (&no_heads, "`n_heads` is 0"),
        ] {
            let error = read(bytes).unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains("model.bin"),
                "{error}"
            );
        }
    }
}
