//! Short names of the models that configs/ mention.

use limbic_data::error::nearest;
use limbic_train::RunError;

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A repository of the hub, OWNER/NAME.
    Hub(String),
    /// The address of a file.
    Address(String),
}

/// The name below `weights/`, and the repository.
const REPOSITORIES: [(&str, &str); 35] = [
    ("llama-2-7b", "meta-llama/Llama-2-7b-hf"),
    ("llama-2-7b-chat", "meta-llama/Llama-2-7b-chat-hf"),
    ("llama-3.1-8b", "meta-llama/Llama-3.1-8B"),
    ("llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
    ("llama-3.2-1b", "meta-llama/Llama-3.2-1B"),
    ("llama-3.2-1b-instruct", "meta-llama/Llama-3.2-1B-Instruct"),
    ("vicuna-7b", "lmsys/vicuna-7b-v1.5"),
    ("vicuna-7b-v0", "Vision-CAIR/vicuna-7b"),
    ("qwen2.5-0.5b-instruct", "Qwen/Qwen2.5-0.5B-Instruct"),
    ("qwen2.5-7b-instruct", "Qwen/Qwen2.5-7B-Instruct"),
    ("bert-base-uncased", "google-bert/bert-base-uncased"),
    ("clip-vit-base-patch32", "openai/clip-vit-base-patch32"),
    ("clip-vit-large-patch14", "openai/clip-vit-large-patch14"),
    (
        "CLIP-ViT-H-14-laion2B-s32B-b79K",
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    ),
    ("siglip-base-patch16-224", "google/siglip-base-patch16-224"),
    (
        "siglip-so400m-patch14-384",
        "google/siglip-so400m-patch14-384",
    ),
    ("dinov2-base", "facebook/dinov2-base"),
    ("dinov2-large", "facebook/dinov2-large"),
    ("vit-mae-large", "facebook/vit-mae-large"),
    ("videomae-large", "MCG-NJU/videomae-large"),
    ("hubert-base-ls960", "facebook/hubert-base-ls960"),
    ("hubert-large-ll60k", "facebook/hubert-large-ll60k"),
    ("chinese-hubert-base", "TencentGameMate/chinese-hubert-base"),
    (
        "chinese-hubert-large",
        "TencentGameMate/chinese-hubert-large",
    ),
    ("wav2vec2-base", "facebook/wav2vec2-base"),
    ("wav2vec2-large", "facebook/wav2vec2-large"),
    ("wav2vec2-large-960h", "facebook/wav2vec2-large-960h"),
    (
        "chinese-wav2vec2-large",
        "TencentGameMate/chinese-wav2vec2-large",
    ),
    ("wavlm-base", "microsoft/wavlm-base"),
    ("wavlm-large", "microsoft/wavlm-large"),
    ("whisper-tiny", "openai/whisper-tiny"),
    ("whisper-base", "openai/whisper-base"),
    ("whisper-large-v2", "openai/whisper-large-v2"),
    ("whisper-large-v3", "openai/whisper-large-v3"),
    ("blip2-opt-2.7b", "Salesforce/blip2-opt-2.7b"),
];

/// The name of the file below `weights/` without its ending, and its address.
const FILES: [(&str, &str); 4] = [
    (
        "eva_vit_g",
        "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/eva_vit_g.pth",
    ),
    (
        "blip2_pretrained_flant5xxl",
        "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/blip2_pretrained_flant5xxl.pth",
    ),
    (
        "imagebind_huge",
        "https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth",
    ),
    (
        "mae_pretrain_vit_large",
        "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_large.pth",
    ),
];

impl Source {
    /// The name below `weights/` where none is asked for.
    pub(super) fn default_name(&self) -> String {
        match self {
            Self::Hub(repo) => {
                let short = REPOSITORIES.iter().find(|(_, other)| other == repo);
                let name = repo.rsplit('/').next().unwrap_or(repo);
                short.map_or(name, |(short, _)| *short).to_string()
            }
            Self::Address(url) => {
                let path = url.split(['?', '#']).next().unwrap_or(url);
                path.rsplit('/').next().unwrap_or(path).to_string()
            }
        }
    }
}

/// What `model` means: a short name, OWNER/NAME, or an address.
///
/// # Errors
/// None of these.
pub(super) fn resolve(model: &str) -> anyhow::Result<Source> {
    if let Some((_, repo)) = REPOSITORIES.iter().find(|(name, _)| *name == model) {
        return Ok(Source::Hub(repo.to_string()));
    }
    if let Some((_, url)) = FILES.iter().find(|(name, _)| *name == model) {
        return Ok(Source::Address(url.to_string()));
    }
    if model.contains("://") {
        return Ok(Source::Address(model.to_string()));
    }
    let is_part = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && part.chars().all(plain) && !part.starts_with('.')
    };
    match model.split_once('/') {
        Some((owner, name)) if is_part(owner) && is_part(name) => {
            Ok(Source::Hub(model.to_string()))
        }
        _ => {
            let known: Vec<&str> = short_names().collect();
            let hint = match nearest(model, &known) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("short names are {}", known.join(", ")),
            };
            Err(RunError::recipe(format!(
                "`{model}` is no model's name: wanted OWNER/NAME, an address, or a short name; {hint}"
            )))
        }
    }
}

fn short_names() -> impl Iterator<Item = &'static str> {
    let names = REPOSITORIES.iter().map(|(name, _)| *name);
    names.chain(FILES.iter().map(|(name, _)| *name))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn names_lead_to_one_place_each() {
        let mut names: Vec<&str> = short_names().collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), REPOSITORIES.len() + FILES.len());
        for name in names {
            resolve(name).unwrap();
        }
        let source = resolve("openai/clip-vit-large-patch14").unwrap();
        assert_eq!(source, resolve("clip-vit-large-patch14").unwrap());
        assert_eq!(source.default_name(), "clip-vit-large-patch14");
        let source = resolve("https://host/a/eva.pth?x=1").unwrap();
        assert_eq!(source.default_name(), "eva.pth");
        let message = resolve("clip-vit-large-patch4").unwrap_err().to_string();
        assert!(message.contains("`clip-vit-large-patch14`"), "{message}");
        for wrong in ["", "../x", "a/b/c", "a/"] {
            assert!(resolve(wrong).is_err(), "{wrong}");
        }
    }

    /// The checkpoints of Emotion-LLaMA's own encoders, which its authors share by hand.
    const BY_HAND: [&str; 2] = ["maeVideo_ckp199.pth", "mae_checkpoint-340.pth"];

    #[test]
    fn what_configs_look_for_can_be_fetched() {
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let mut texts = Vec::new();
        for folder in std::fs::read_dir(configs).unwrap() {
            for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
                texts.push(std::fs::read_to_string(file.unwrap().path()).unwrap());
            }
        }
        let mut found = 0;
        for text in &texts {
            for (at, before) in text.match_indices("weights/") {
                let is_end = |c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c));
                let name = text[at + before.len()..].split(is_end).next().unwrap();
                let name = name.trim_end_matches('.');
                if name.is_empty() || BY_HAND.contains(&name) {
                    continue;
                }
                let short = name.strip_suffix(".pth").unwrap_or(name);
                let source = resolve(short).unwrap();
                assert_eq!(source.default_name(), name);
                found += 1;
            }
        }
        assert!(found > 15, "{found}");
    }
}
