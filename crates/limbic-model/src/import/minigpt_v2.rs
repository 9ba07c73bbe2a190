//! MiniGPT-v2 (Chen et al. 2023): LoRA on queries and values and `llama_proj`. A model with more inputs, such as
//! Emotion-LLaMA, which is trained from this checkpoint, keeps its other projectors as they were seeded.

use super::names::{Names, projector};
use crate::{EmotionLlmConfig, ModelError};

pub(super) fn names(config: &EmotionLlmConfig) -> Result<Names, ModelError> {
    Ok(Names::new([(
        "llama_proj.",
        projector(config, "video")? + "linear.",
    )]))
}
