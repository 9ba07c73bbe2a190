//! Emotion-LLaMA (Cheng et al. 2024): `minigpt4/runners/runner_base.py` saves what requires gradients, and all buffers.
//!
//! LoRA on queries and values, `llama_proj` of four patches to a token, `feats_llama_proj1` to `3` of face, movement and
//! voice, in this order (`first_face.py`), and `cls_tk_llama_proj` of the class token.

use limbic_weights::{Checkpoint, NamedTensor};

use super::names::{Names, projector};
use crate::{EmotionLlmConfig, ModelError};

pub(super) fn names(config: &EmotionLlmConfig) -> Result<Names, ModelError> {
    let mut names = Vec::new();
    for (theirs, input) in [
        ("llama_proj.", "video"),
        ("feats_llama_proj1.", "face"),
        ("feats_llama_proj2.", "movement"),
        ("feats_llama_proj3.", "audio"),
        ("cls_tk_llama_proj.", "scene"),
    ] {
        names.push((theirs, projector(config, input)? + "linear."));
    }
    Ok(Names::new(names))
}

/// Leaves out the head that is saved and never run, and a norm behind the vision encoder that does nothing.
pub(super) fn without_unused(checkpoint: Checkpoint) -> Result<Checkpoint, ModelError> {
    let mut norm = checkpoint.clone();
    for (name, identity) in [("ln_vision.weight", 1.0), ("ln_vision.bias", 0.0)] {
        if norm.shape(name).is_none() {
            continue;
        }
        let NamedTensor { values, .. } = norm.take(name)?;
        if let Some(value) = values.iter().find(|value| **value != identity) {
            return Err(ModelError::directory(
                checkpoint.path(),
                format!(
                    "`{name}` holds {value}, wanted {identity} everywhere: the published model norms without scale and \
                     shift, and so does the encoder eva-vit-g-448; this file is of another model"
                ),
            ));
        }
    }
    Ok(checkpoint
        .ignore(
            |name| name.starts_with("attention."),
            "a head that the published code builds, saves and never runs",
        )
        .ignore(
            |name| name.starts_with("ln_vision."),
            "a norm without scale and shift, with which it was compared",
        ))
}
