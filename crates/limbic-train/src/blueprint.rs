//! What the model is: from the recipe and, where that is silent, from the artifact it starts from.

use std::collections::BTreeMap;

use limbic_data::error::nearest;
use limbic_data::{LabelSet, Manifest, Task};
use limbic_model::{
    AlignmentConfig, ArtifactConfig, DecoderSource, FORMAT, FusedConfig, InputConfig, Part,
    TRANSCRIPT,
};

use crate::objectives::is_mute;
use crate::{Recipe, RunError};

/// What a head `reads` that reads no fusion.
const DECODER: &str = "decoder";

/// Inputs, prompt, labels and head of the model; its decoder is settled later.
///
/// # Errors
/// Parts that are missing, named twice or do not go together.
pub(crate) fn blueprint(
    recipe: &Recipe,
    init: Option<&ArtifactConfig>,
) -> anyhow::Result<ArtifactConfig> {
    let model = recipe.model.get();
    let all: Vec<InputConfig> = if model.inputs.is_empty() {
        init.map(|init| init.inputs.clone()).unwrap_or_default()
    } else {
        model.inputs()
    };
    let fusions: Vec<FusedConfig> = if model.fusions.is_empty() && model.inputs.is_empty() {
        init.map(|init| init.fusions.clone()).unwrap_or_default()
    } else {
        model.fusions()
    };
    for input in &all {
        input.check().map_err(at_fault)?;
    }
    for fused in &fusions {
        fused.resolve(&all).map_err(at_fault)?;
    }
    if fusions.iter().any(|fused| fused.name == DECODER) {
        return Err(RunError::recipe(format!(
            "`model.fusions`: the name `{DECODER}` means the decoder where a head `reads` it; give the fusion another"
        )));
    }
    let mut taken = vec![TRANSCRIPT];
    for (key, name) in all
        .iter()
        .map(|input| ("model.inputs", input.name.as_str()))
        .chain(
            fusions
                .iter()
                .map(|fused| ("model.fusions", fused.name.as_str())),
        )
    {
        if taken.contains(&name) {
            return Err(RunError::recipe(format!(
                "`{key}`: the name `{name}` is taken; give each input and each fusion one of its own"
            )));
        }
        taken.push(name);
    }
    let known: Vec<&str> = all
        .iter()
        .map(|input| input.name.as_str())
        .chain([TRANSCRIPT])
        .collect();
    let used = match &recipe.inputs {
        None => known.iter().map(|name| name.to_string()).collect(),
        Some(used) => used.clone(),
    };
    if let Some(unknown) = used.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(RunError::recipe(format!(
            "`inputs` names `{unknown}`; the model has {}",
            known.join(", ")
        )));
    }
    if used.is_empty() {
        return Err(RunError::recipe("`inputs` is empty; wanted at least one"));
    }
    let inputs: Vec<InputConfig> = all
        .into_iter()
        .filter(|input| used.contains(&input.name))
        .collect();
    let fusions: Vec<FusedConfig> = fusions
        .into_iter()
        .filter(|fused| fused.sources.iter().all(|name| used.contains(name)))
        .collect();
    let is_read = |input: &InputConfig| {
        let mut sources = fusions.iter().flat_map(|fused| &fused.sources);
        input.projector.is_some() || sources.any(|name| *name == input.name)
    };
    if let Some(input) = inputs.iter().find(|input| !is_read(input)) {
        return Err(RunError::recipe(format!(
            "input `{}` has no `projector`, and no fusion in use reads it; give it one, or leave it out",
            input.name
        )));
    }
    let prompt = match (&recipe.prompt, init) {
        (Some(prompt), _) => prompt.get().clone(),
        (None, Some(init)) => init.prompt.clone(),
        (None, None) => {
            return Err(RunError::recipe(
                "`prompt` is missing; name a file of configs/prompts",
            ));
        }
    };
    // Contrast and masked modelling read the tokens of a projector wherever the template stands.
    let loss = &recipe.train.loss;
    let reads_all = loss.contrastive_weight.is_used() || loss.masked_weight.is_used();
    let is_shown = |input: &InputConfig| {
        let mut lines = prompt.template.iter();
        lines.any(|line| line.contains(&input.placeholder))
    };
    if recipe.train.learning_rate.contains_key(&Part::Projectors)
        && !reads_all
        && let Some(input) = inputs
            .iter()
            .find(|input| input.projector.is_some() && !is_shown(input))
    {
        return Err(RunError::recipe(format!(
            "no line of the prompt's `template` holds `{}`, so nothing reads what the `projector` of input `{}` makes and \
             it would learn nothing; add such a line, or take the projector away: fusions read the input without it",
            input.placeholder, input.name
        )));
    }
    let labels = match (&recipe.labels, init) {
        (Some(labels), _) => Some(labels.get().clone()),
        (None, init) => init.and_then(|init| init.labels.clone()),
    };
    let head = model
        .head
        .clone()
        .or_else(|| init.and_then(|init| init.head.clone()));
    if head.is_some() && labels.is_none() {
        return Err(RunError::recipe(
            "`model.head` needs `labels`; name a file of configs/labels",
        ));
    }
    let valence = model
        .valence
        .clone()
        .or_else(|| init.and_then(|init| init.valence.clone()));
    let alignment = alignment(recipe, init)?;
    let mut config = ArtifactConfig {
        format: FORMAT,
        run: recipe.name.clone(),
        decoder: DecoderSource::Own,
        transcript: used.iter().any(|name| name == TRANSCRIPT),
        inputs,
        fusions,
        prompt,
        labels,
        head,
        valence,
        alignment,
        // Made for the loss alone, and of no use without it.
        mask: loss.masked_weight.is_used(),
        mute: false,
    };
    config.mute = is_mute(loss, &config, init);
    Ok(config)
}

/// The common space of clips and captions, which is there for the contrastive loss alone.
fn alignment(
    recipe: &Recipe,
    init: Option<&ArtifactConfig>,
) -> anyhow::Result<Option<AlignmentConfig>> {
    let own = recipe.model.get().alignment.clone();
    let is_used = recipe.train.loss.contrastive_weight.is_used();
    if own.as_ref().is_some_and(|alignment| alignment.dim == 0) {
        return Err(RunError::recipe(
            "`model.alignment.dim` is 0, wanted at least 1",
        ));
    }
    match own.or_else(|| init.and_then(|init| init.alignment.clone())) {
        Some(alignment) if is_used => Ok(Some(alignment)),
        None if is_used => Err(RunError::recipe(
            "`train.loss.contrastive_weight` needs `model.alignment`; add it, for example { dim: 64 }",
        )),
        Some(_) if recipe.model.get().alignment.is_some() => Err(RunError::recipe(
            "`model.alignment` is of use for the contrastive loss alone; give `train.loss.contrastive_weight` a weight, or remove it",
        )),
        Some(_) | None => Ok(None),
    }
}

/// Refuses a task that needs labels without any, and a label set that no clip speaks. What is told about clips with
/// labels outside the set is for people: leaving some out may be meant.
///
/// # Errors
/// Both.
pub(crate) fn check_labels(
    recipe: &Recipe,
    manifest: &Manifest,
    labels: Option<&LabelSet>,
) -> anyhow::Result<Vec<String>> {
    let weight = recipe.data.tasks.get(&Task::Emotion).copied();
    let asks_for_labels = weight.is_some_and(|weight| weight > 0.0);
    let Some(labels) = labels else {
        if asks_for_labels {
            return Err(RunError::recipe(
                "task `emotion` needs `labels`; name a file of configs/labels",
            ));
        }
        return Ok(Vec::new());
    };
    let mut unknown: BTreeMap<&str, usize> = BTreeMap::new();
    let mut known = 0;
    for emotion in manifest
        .clips
        .iter()
        .filter_map(|clip| clip.emotion.as_deref())
    {
        if labels.index(emotion).is_some() {
            known += 1;
        } else {
            *unknown.entry(emotion).or_default() += 1;
        }
    }
    let names = labels.names();
    let counts: Vec<String> = unknown
        .iter()
        .map(|(emotion, count)| match nearest(emotion, &names) {
            Some(name) => format!("{count} x {emotion:?} (did you mean `{name}`?)"),
            None => format!("{count} x {emotion:?}"),
        })
        .collect();
    if counts.is_empty() {
        return Ok(Vec::new());
    }
    let note = format!(
        "{} clips of {} have an emotion outside the label set `{}` and count as unlabelled: {}",
        unknown.values().sum::<usize>(),
        recipe.data.manifest.display(),
        labels.name,
        counts.join(", ")
    );
    if asks_for_labels && known == 0 {
        return Err(RunError::Data(note).into());
    }
    Ok(vec![note])
}

/// What a library refuses here, the recipe asked for.
pub(crate) fn at_fault(error: impl std::fmt::Display) -> anyhow::Error {
    RunError::recipe(error.to_string())
}
