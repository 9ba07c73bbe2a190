//! From a YAML file and `key=value` overrides to a checked recipe, with errors that name file, line and nearest key.

use std::path::Path;

use serde_yaml::Value;

use crate::recipe::ModelRecipe;
use crate::{Recipe, RunError};

/// Reads a recipe, applies `overrides` such as `train.steps=10`, reads the files it refers to and checks the values.
///
/// # Errors
/// [`RunError::Recipe`] with every problem found, each with its place.
pub fn read_recipe(path: &Path, overrides: &[String]) -> anyhow::Result<Recipe> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        RunError::recipe(format!(
            "{}: {error}; wanted a recipe, for example recipes/quickstart/stage1.yaml",
            path.display()
        ))
    })?;
    // Read as it stands first: only then do errors carry line numbers of the file.
    let as_written: Result<Recipe, _> = serde_yaml::from_str(&text);
    let mut recipe = as_written.map_err(|error| RunError::recipe(explain(path, &text, &error)))?;
    if !overrides.is_empty() {
        recipe = overridden(path, &text, overrides)?;
    }
    let mut problems = resolve(&mut recipe);
    problems.extend(
        recipe
            .problems()
            .into_iter()
            .map(|problem| format!("{}: {problem}", path.display())),
    );
    if problems.is_empty() {
        Ok(recipe)
    } else {
        Err(RunError::Recipe(problems).into())
    }
}

fn overridden(path: &Path, text: &str, overrides: &[String]) -> anyhow::Result<Recipe> {
    let written: Value = serde_yaml::from_str(text)?;
    let mut value = written.clone();
    for text in overrides {
        apply(&mut value, text)?;
    }
    serde_yaml::from_value(value).map_err(|error| {
        // Several may build one thing together, so that only the error of all of them counts; alone, the one at fault
        // gives the same.
        let culprit = overrides.iter().find(|text| {
            let mut alone = written.clone();
            apply(&mut alone, text).is_ok()
                && serde_yaml::from_value::<Recipe>(alone)
                    .is_err_and(|other| other.to_string() == error.to_string())
        });
        let place = match culprit {
            Some(text) => format!("override `{text}`"),
            None => format!("{} with its overrides", path.display()),
        };
        RunError::recipe(format!("{place}: {}", with_nearest(&error.to_string())))
    })
}

fn apply(value: &mut Value, text: &str) -> anyhow::Result<()> {
    let (key, new) = text.split_once('=').ok_or_else(|| {
        RunError::recipe(format!(
            "`{text}` is no override; wanted KEY=VALUE, for example train.steps=10"
        ))
    })?;
    let new: Value = serde_yaml::from_str(new)
        .map_err(|error| RunError::recipe(format!("override `{text}`: {error}")))?;
    set(value, key, new)
        .map_err(|problem| RunError::recipe(format!("override `{text}`: {problem}")))
}

fn set(value: &mut Value, key: &str, new: Value) -> Result<(), String> {
    let mut place = value;
    for part in key.split('.') {
        if part.is_empty() {
            return Err("the key has an empty part".into());
        }
        place = match place {
            Value::Sequence(items) => {
                let length = items.len();
                part.parse()
                    .ok()
                    .and_then(|index: usize| items.get_mut(index))
                    .ok_or_else(|| format!("`{part}` is no index into a list of {length}"))?
            }
            Value::Null => {
                *place = Value::Mapping(Default::default());
                entry(place, part)
            }
            Value::Mapping(_) => entry(place, part),
            Value::String(path) => {
                *place = content(path, part)?;
                match place {
                    Value::Mapping(_) => entry(place, part),
                    _ => return Err(format!("there is nothing below which `{part}` could stand")),
                }
            }
            _ => return Err(format!("there is nothing below which `{part}` could stand")),
        };
    }
    *place = new;
    Ok(())
}

/// What stands in the file that the recipe names, in place of its name: only the recipe's own copy is changed.
fn content(path: &str, part: &str) -> Result<Value, String> {
    let wanted = |problem: String| {
        format!("`{path}` was taken for a file with `{part}` in it, which it is not: {problem}")
    };
    let text = std::fs::read_to_string(path).map_err(|error| wanted(error.to_string()))?;
    serde_yaml::from_str(&text).map_err(|error| wanted(error.to_string()))
}

fn entry<'a>(mapping: &'a mut Value, key: &str) -> &'a mut Value {
    let mapping = mapping
        .as_mapping_mut()
        .expect("the caller made sure of it");
    mapping
        .entry(Value::String(key.into()))
        .or_insert(Value::Null)
}

fn resolve(recipe: &mut Recipe) -> Vec<String> {
    let mut results = Vec::new();
    if let Some(labels) = &mut recipe.labels {
        let checked = labels.resolve("labels").and_then(|()| {
            let refused = |problem| format!("`labels`: {problem}");
            labels.get().check().map_err(refused)
        });
        results.push(checked);
    }
    if let Some(prompt) = &mut recipe.prompt {
        results.push(prompt.resolve("prompt"));
    }
    match recipe.model.resolve("model") {
        Ok(()) => results.extend(resolve_model(recipe.model.get_mut())),
        Err(problem) => results.push(Err(problem)),
    }
    results.into_iter().filter_map(Result::err).collect()
}

/// Reads the files that a model names.
pub(crate) fn resolve_model(model: &mut ModelRecipe) -> Vec<Result<(), String>> {
    let decoder = model.decoder.iter_mut();
    let decoder = decoder.map(|decoder| decoder.resolve("model.decoder"));
    let encoders = model.inputs.iter_mut().map(|input| {
        let key = format!("model.inputs.{}.encoder", input.name);
        input.encoder.resolve(&key)
    });
    decoder.chain(encoders).collect()
}

/// `file:line: what is wrong`, with the nearest known key where one is unknown.
pub(crate) fn explain(path: &Path, text: &str, error: &serde_yaml::Error) -> String {
    let message = error.to_string();
    let reported = error.location().map(|location| location.line());
    let place = match line_of_unknown_key(text, &message, reported).or(reported) {
        Some(line) => format!("{}:{line}", path.display()),
        None => path.display().to_string(),
    };
    // The place stands in front already, and is the better one.
    let message = match error.location() {
        Some(at) => message.replace(
            &format!(" at line {} column {}", at.line(), at.column()),
            "",
        ),
        None => message,
    };
    format!("{place}: {}", with_nearest(&message))
}

/// Inside a tagged enum serde reports where the whole of it begins; the key itself stands at or after that.
fn line_of_unknown_key(text: &str, message: &str, reported: Option<usize>) -> Option<usize> {
    let key = message.split("unknown field `").nth(1)?.split('`').next()?;
    let first = reported.unwrap_or(1) - 1;
    let has_key = |line: &str| {
        line.match_indices(key).any(|(start, _)| {
            let before = line[..start].chars().next_back();
            let is_whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
            is_whole && line[start + key.len()..].trim_start().starts_with(':')
        })
    };
    let line = text.lines().skip(first).position(has_key)?;
    Some(first + line + 1)
}

/// Serde lists the known keys; of these the nearest is named first.
fn with_nearest(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let is_unknown = message.contains("unknown field") || message.contains("unknown variant");
    let Some((got, known)) = quoted.split_first().filter(|_| is_unknown) else {
        return message.to_string();
    };
    let nearest = known
        .iter()
        .map(|key| (strsim::jaro_winkler(got, key), key))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, key)) => format!("{message} (did you mean `{key}`?)"),
        None => message.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DecoderRecipe;
    use crate::reference::Reference;

    const SMALLEST: &str = "name: r\ndata:\n  manifest: m.jsonl\n  tasks: {emotion: 1}\ntrain:\n  steps: 5\n  batch_size: 4\n  learning_rate: {head: 1e-3}\n";

    fn read(text: &str, overrides: &[&str]) -> Result<Recipe, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.yaml");
        std::fs::write(&path, text).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
        read_recipe(&path, &overrides).map_err(|error| error.to_string())
    }

    #[test]
    fn overrides_replace_and_add() {
        let recipe = read(
            SMALLEST,
            &[
                "train.steps=7",
                "inputs=[audio]",
                "train.loss.class_weight=0.5",
            ],
        )
        .unwrap();
        assert_eq!(recipe.train.steps, 7);
        assert_eq!(recipe.inputs.unwrap(), ["audio"]);
        assert_eq!(recipe.train.loss.class_weight, 0.5.into());
        assert_eq!(recipe.train.loss.lm_weight, 1.0.into());
    }

    #[test]
    fn a_model_may_be_a_file_and_overrides_reach_into_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let decoder = file(
            "decoder.yaml",
            "{kind: scratch, vocab_size: 300, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1,
              num_attention_heads: 1, num_key_value_heads: 1, max_position_embeddings: 9}",
        );
        let model = file(
            "model.yaml",
            &format!(
                "decoder: {decoder}\nlora: {{r: 4, lora_alpha: 8, target_modules: [q_proj]}}\n"
            ),
        );
        let text = format!("{SMALLEST}model: {model}\n");
        let recipe = read(&text, &[]).unwrap();
        assert_eq!(recipe.model.get().lora.as_ref().unwrap().r, 4);
        let changed = ["model.lora.r=2", "model.decoder.hidden_size=16"];
        let recipe = read(&text, &changed).unwrap();
        let model = recipe.model.get();
        assert_eq!(model.lora.as_ref().unwrap().r, 2);
        assert_eq!(model.lora.as_ref().unwrap().lora_alpha, 8.0);
        let Some(DecoderRecipe::Scratch(decoder)) = model.decoder.as_ref().map(Reference::get)
        else {
            panic!("{:?}", model.decoder)
        };
        assert_eq!((decoder.hidden_size, decoder.vocab_size), (16, 300));
        // What is wrong inside a file is placed there; what is no file is not read.
        let misspelt = file("bad.yaml", "lora:\n  rank: 3\n");
        let message = read(&format!("{SMALLEST}model: {misspelt}\n"), &[]).unwrap_err();
        assert!(
            message.contains("bad.yaml") && message.contains("`rank`"),
            "{message}"
        );
        let message = read(SMALLEST, &["name.first=a"]).unwrap_err();
        assert!(message.contains("`r` was taken for a file"), "{message}");
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line_and_the_nearest() {
        let message = read(&SMALLEST.replace("batch_size", "bacth_size"), &[]).unwrap_err();
        for part in ["r.yaml:7", "`bacth_size`", "did you mean `batch_size`?"] {
            assert!(message.contains(part), "{part} not in: {message}");
        }
        let message = read(SMALLEST, &["train.stepz=7"]).unwrap_err();
        assert!(
            message.contains("override `train.stepz=7`")
                && message.contains("did you mean `steps`?"),
            "{message}"
        );
        let message = read(SMALLEST, &["steps"]).unwrap_err();
        assert!(message.contains("KEY=VALUE"), "{message}");
    }

    #[test]
    fn all_bad_values_are_listed_at_once() {
        let message = read(
            SMALLEST,
            &["train.steps=0", "train.batch_size=3", "labels=nowhere.yaml"],
        )
        .unwrap_err();
        for part in [
            "`train.steps` is 0",
            "multiple of `train.shards`",
            "`labels` names nowhere.yaml",
        ] {
            assert!(message.contains(part), "{part} not in: {message}");
        }
    }

    #[test]
    fn a_resolved_recipe_reads_back_the_same() {
        let recipe = read(
            SMALLEST,
            &["labels={name: two, labels: [{name: happy}, {name: sad}]}"],
        )
        .unwrap();
        let text = serde_yaml::to_string(&recipe).unwrap();
        assert_eq!(read(&text, &[]).unwrap(), recipe);
    }
}
