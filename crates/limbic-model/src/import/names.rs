use limbic_llama::adapter_tensor_name;

use crate::{EmotionLlmConfig, ModelError};

/// Which published names are which of our parameters.
pub(super) struct Names {
    /// Beginnings of names, theirs and ours.
    beginnings: Vec<(&'static str, String)>,
}

impl Names {
    pub(super) fn new(beginnings: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self {
            beginnings: beginnings.into_iter().collect(),
        }
    }

    /// Our name for a published one; unknown names come back as they are, to be reported.
    pub(super) fn ours(&self, name: &str) -> String {
        if name.starts_with("llama_model.") {
            return format!("llama.{}", adapter_tensor_name(name));
        }
        let known = self
            .beginnings
            .iter()
            .find_map(|(theirs, ours)| Some((ours, name.strip_prefix(theirs)?)));
        match known {
            Some((ours, rest)) => format!("{ours}{}", rest_of_query_transformer(rest)),
            None => name.to_string(),
        }
    }

    /// Whether a parameter of ours is in the layout.
    pub(super) fn has(&self, ours: &str) -> bool {
        let mut all = self.beginnings.iter();
        all.any(|(_, beginning)| ours.starts_with(beginning))
    }
}

/// LAVIS names the attention of its query transformers `self`, transformers and limbic `attention`; its first norm
/// belongs to the embeddings, of which nothing else is left.
fn rest_of_query_transformer(rest: &str) -> String {
    rest.replace(".attention.self.", ".attention.attention.")
        .replace(".crossattention.self.", ".crossattention.attention.")
        .replace("embeddings.LayerNorm.", "layernorm.")
}

/// The beginning of the parameters of the projector of the input called `name`.
pub(super) fn projector(config: &EmotionLlmConfig, name: &str) -> Result<String, ModelError> {
    let found = config.inputs.iter().position(|input| input.name == name);
    let index = found.ok_or_else(|| {
        let inputs: Vec<&str> = config
            .inputs
            .iter()
            .map(|input| input.name.as_str())
            .collect();
        ModelError::Config(format!(
            "the checkpoint has weights for an input `{name}`; the model has {}; take the file of configs/models that is \
             made for this checkpoint, or name your inputs like that one does",
            inputs.join(", ")
        ))
    })?;
    Ok(format!("projectors.{index}.body."))
}
