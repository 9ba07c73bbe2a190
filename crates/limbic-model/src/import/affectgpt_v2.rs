//! AffectGPT v2 (Lian et al. 2025; `my_affectgpt/models/affectgpt.py`): LoRA on all linear layers, projectors of video,
//! sound and pictures by weighted sum, mean or query transformer, and the pre-fusion of video and sound.

use super::names::{Names, projector};
use crate::{EmotionLlmConfig, ModelError};

/// What the published model calls video is the input `face`: its default reads faces.
const SOURCES: [&str; 2] = ["face", "audio"];

pub(super) fn names(config: &EmotionLlmConfig) -> Result<Names, ModelError> {
    let (video, audio) = (
        projector(config, SOURCES[0])?,
        projector(config, SOURCES[1])?,
    );
    let image = projector(config, "image")?;
    let multi = fusion(config)?;
    Ok(Names::new([
        ("video_attention_mlp.", format!("{video}attention_mlp.")),
        (
            "video_frame_position_embedding.weight",
            format!("{video}positions"),
        ),
        ("video_query_tokens", format!("{video}query_tokens")),
        ("video_Qformer.bert.", format!("{video}qformer.")),
        ("affectgpt_proj.", format!("{video}proj.")),
        ("audio_attention_mlp.", format!("{audio}attention_mlp.")),
        (
            "audio_position_embedding.weight",
            format!("{audio}positions"),
        ),
        ("audio_query_tokens", format!("{audio}query_tokens")),
        ("audio_Qformer.bert.", format!("{audio}qformer.")),
        ("audio_llama_proj.", format!("{audio}proj.")),
        ("image_llama_proj.", format!("{image}proj.")),
        ("multi_video_embs.", format!("{multi}embs.0.")),
        ("multi_audio_embs.", format!("{multi}embs.1.")),
        ("attention_mlp.", format!("{multi}attention_mlp.")),
        ("fc_att.", format!("{multi}fc_att.")),
        (
            "multi_position_embedding.weight",
            format!("{multi}positions"),
        ),
        ("multi_query_tokens", format!("{multi}query_tokens")),
        ("multi_Qformer.bert.", format!("{multi}qformer.")),
        ("multi_llama_proj.", format!("{multi}proj.")),
    ]))
}

/// The beginning of the pre-fusion's parameters. The order of its sources is in the shape of no tensor, so it is
/// compared here: swapped ones would load, and mean something else.
fn fusion(config: &EmotionLlmConfig) -> Result<String, ModelError> {
    let found = config
        .fusions
        .iter()
        .position(|fused| fused.name == "multi");
    match found {
        Some(index) if config.fusions[index].sources == SOURCES => {
            Ok(format!("fusions.{index}.body."))
        }
        _ => Err(ModelError::Config(format!(
            "the checkpoint has weights for a fusion `multi` of {}, in this order; take configs/models/affectgpt-v2.yaml, \
             or build yours like it",
            SOURCES.join(" and ")
        ))),
    }
}
