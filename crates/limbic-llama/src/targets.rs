//! Which layers are meant: names, ends of names and regular expressions, with PEFT's rules of matching.

use std::fmt;

use fancy_regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{InOrder, LlamaError};

/// A set of layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// Names, whole or from a dot on: `q_proj`, `self_attn.q_proj`.
    Names(Vec<String>),
    /// A regular expression that fits whole names such as `model.layers.0.self_attn.q_proj`, as Python's
    /// `re.fullmatch` does; or `all-linear`, for every linear layer but the output layer.
    Pattern(String),
}

impl Targets {
    /// Whether each layer is among these.
    pub(crate) fn fit(&self, key: &str, layers: &[String]) -> Result<Vec<bool>, LlamaError> {
        match self {
            Self::Pattern(_) if self.is_all_linear() && key == "target_modules" => {
                Ok(layers.iter().map(|name| name != OUTPUT_LAYER).collect())
            }
            Self::Pattern(pattern) => {
                let regex = compile(key, &format!(r"\A(?:{pattern})\z"), pattern)?;
                let fit = layers.iter().map(|name| matches(&regex, name));
                let fit: Vec<bool> = fit.collect::<Result<_, _>>()?;
                if !fit.contains(&true) {
                    return wrong(format!(
                        "the regular expression `{pattern}` in `{key}` fits no layer; wanted one for whole names such \
                         as `{}`",
                        layers.first().map_or("", String::as_str)
                    ));
                }
                Ok(fit)
            }
            Self::Names(targets) => {
                if targets.is_empty() {
                    return wrong(format!(
                        "`{key}` is empty; wanted some of {}",
                        kinds(layers)
                    ));
                }
                let fits = |target: &String, name: &String| {
                    name == target || name.ends_with(&format!(".{target}"))
                };
                if let Some(target) = targets
                    .iter()
                    .find(|target| !layers.iter().any(|name| fits(target, name)))
                {
                    return wrong(format!(
                        "`{key}` names `{target}`, which no layer of this model is called; wanted some of {}",
                        kinds(layers)
                    ));
                }
                let is_target = |name| targets.iter().any(|target| fits(target, name));
                Ok(layers.iter().map(is_target).collect())
            }
        }
    }

    pub(crate) fn is_all_linear(&self) -> bool {
        matches!(self, Self::Pattern(pattern) if pattern.eq_ignore_ascii_case("all-linear"))
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Names(names) => f.write_str(&names.join(", ")),
            Self::Pattern(pattern) => f.write_str(pattern),
        }
    }
}

/// The layer that PEFT's `all-linear` leaves out.
const OUTPUT_LAYER: &str = "lm_head";

/// The last parts of the layers' names, each once.
pub(crate) fn kinds(layers: &[String]) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    for name in layers {
        let kind = name.rsplit('.').next().unwrap_or(name);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.join(", ")
}

/// The index of each layer's block: the number after the first name that `names` fit, or after the second part.
pub(crate) fn block_indices(
    layers: &[String],
    names: &[String],
) -> Result<Vec<Option<usize>>, LlamaError> {
    let mut regexes = Vec::new();
    for name in names {
        let regex = format!(r"\A(?:.*?\.)?(?:{name})\.(\d+)\.");
        regexes.push(compile("layers_pattern", &regex, name)?);
    }
    if names.is_empty() {
        regexes.push(compile("layers_pattern", r"\A.*?\.[^.]*\.(\d+)\.", "")?);
    }
    let index = |name: &String| {
        for regex in &regexes {
            let found = regex.captures(name).map_err(too_hard)?;
            if let Some(digits) = found
                .as_ref()
                .and_then(|found| found.iter().last().flatten())
            {
                return Ok(digits.as_str().parse().ok());
            }
        }
        Ok(None)
    };
    layers.iter().map(index).collect()
}

/// A pattern's regular expression and what it gives.
pub(crate) type Pattern<T> = (Regex, T);

/// The patterns of one setting in the order in which they are tried, that of the file.
pub(crate) fn patterns<T: Copy>(
    key: &str,
    patterns: &InOrder<T>,
    adapted: &[&String],
) -> Result<Vec<Pattern<T>>, LlamaError> {
    let mut compiled = Vec::new();
    for (pattern, value) in patterns.iter() {
        // PEFT's `get_pattern_key`.
        let regex = compile(key, &format!(r"\A(?:.*\.)?(?:{pattern})\z"), pattern)?;
        let mut fits = false;
        for name in adapted {
            fits |= matches(&regex, name)?;
        }
        if !fits {
            return wrong(format!(
                "`{key}` names `{pattern}`, which fits no adapted layer; correct or remove it"
            ));
        }
        compiled.push((regex, *value));
    }
    Ok(compiled)
}

pub(crate) fn first_match<T: Copy>(
    patterns: &[Pattern<T>],
    name: &str,
) -> Result<Option<T>, LlamaError> {
    for (regex, value) in patterns {
        if matches(regex, name)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

fn compile(key: &str, regex: &str, pattern: &str) -> Result<Regex, LlamaError> {
    Regex::new(regex).map_err(|error| {
        LlamaError::Lora(format!(
            "`{key}` holds `{pattern}`, which is no regular expression: {error}"
        ))
    })
}

fn matches(regex: &Regex, name: &str) -> Result<bool, LlamaError> {
    regex.is_match(name).map_err(too_hard)
}

fn too_hard(error: fancy_regex::Error) -> LlamaError {
    LlamaError::Lora(format!("a regular expression gave up: {error}"))
}

pub(crate) fn wrong<T>(detail: String) -> Result<T, LlamaError> {
    Err(LlamaError::Lora(detail))
}
