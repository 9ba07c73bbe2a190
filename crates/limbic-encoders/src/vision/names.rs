//! From the names and layouts of transformers to those of the original checkpoints, for the architectures that were
//! published in both: separate query, key and value projections become one.

use limbic_weights::{Checkpoint, NamedTensor, WeightsError};

/// Renames a layer's parameter, ViTMAE's or VideoMAE's, as timm names it.
pub(super) fn timm(name: &str) -> String {
    const RENAMED: [(&str, &str); 11] = [
        (
            "embeddings.patch_embeddings.projection.",
            "patch_embed.proj.",
        ),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.cls_token", "cls_token"),
        ("encoder.layer.", "blocks."),
        ("attention.output.dense.", "attn.proj."),
        ("attention.attention.", "attn."),
        ("intermediate.dense.", "mlp.fc1."),
        ("output.dense.", "mlp.fc2."),
        ("layernorm_before.", "norm1."),
        ("layernorm_after.", "norm2."),
        ("layernorm.", "norm."),
    ];
    RENAMED
        .iter()
        .fold(name.to_string(), |name, (theirs, ours)| {
            name.replacen(theirs, ours, 1)
        })
}

/// Stacks `query`, `key` and `value` of each block's attention into `qkv`, for the suffixes (`weight`, `bias`) given.
///
/// # Errors
/// When one of the three is missing.
pub(super) fn join_qkv(
    mut checkpoint: Checkpoint,
    depth: usize,
    suffixes: &[&str],
) -> Result<Checkpoint, WeightsError> {
    for block in 0..depth {
        for suffix in suffixes {
            let mut joined = NamedTensor {
                shape: Vec::new(),
                values: Vec::new(),
            };
            for part in ["query", "key", "value"] {
                let tensor = checkpoint.take(&format!("blocks.{block}.attn.{part}.{suffix}"))?;
                joined.values.extend(tensor.values);
                match joined.shape.first_mut() {
                    Some(rows) => *rows += tensor.shape[0],
                    None => joined.shape = tensor.shape,
                }
            }
            checkpoint.put(format!("blocks.{block}.attn.qkv.{suffix}"), joined);
        }
    }
    Ok(checkpoint)
}

/// Takes off the names of the dictionaries that training scripts wrap their weights in (`model`, `module`), and leaves
/// out what lies beside them.
pub(super) fn unwrapped(checkpoint: Checkpoint) -> Result<Checkpoint, WeightsError> {
    checkpoint
        .ignore(
            |name| name.starts_with("optimizer.") || name.starts_with("scaler."),
            "the state of the optimizer, which no encoder needs",
        )
        .strip_prefix("model.")?
        .strip_prefix("module.")
}
