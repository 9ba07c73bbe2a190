//! AffectGPT v1 (Lian et al. 2023), in the layout of Video-LLaMA (Zhang et al. 2023; `video_llama.py`): a query
//! transformer for video and one for sound, each with its positions and its way to the decoder. No LoRA.

use super::names::{Names, projector};
use crate::{EmotionLlmConfig, ModelError};

pub(super) fn names(config: &EmotionLlmConfig) -> Result<Names, ModelError> {
    let (video, audio) = (projector(config, "video")?, projector(config, "audio")?);
    Ok(Names::new([
        (
            "video_frame_position_embedding.weight",
            format!("{video}positions"),
        ),
        ("video_query_tokens", format!("{video}query_tokens")),
        ("video_Qformer.bert.", format!("{video}qformer.")),
        ("llama_proj.", format!("{video}proj.")),
        (
            "audio_position_embedding.weight",
            format!("{audio}positions"),
        ),
        ("audio_query_tokens", format!("{audio}query_tokens")),
        ("audio_Qformer.bert.", format!("{audio}qformer.")),
        ("audio_llama_proj.", format!("{audio}proj.")),
    ]))
}
