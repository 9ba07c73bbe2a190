//! Which layers get an adapter, and of what size: PEFT's settings with PEFT's rules of matching names.
//!
//! A setting that has no effect is an error here, where PEFT stays silent: a misspelt name would train something else
//! than was asked for.

use serde::{Deserialize, Deserializer, Serialize};

use crate::targets::{Targets, block_indices, first_match, kinds, patterns, wrong};
use crate::{InOrder, LlamaError};

/// Which layers get an adapter, and of what kind. Names and meanings are PEFT's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of the adapters.
    pub r: usize,
    /// Numerator of the scale.
    pub lora_alpha: f64,
    /// Probability with which an input element of an adapter is dropped in training.
    #[serde(default)]
    pub lora_dropout: f64,
    /// The layers that are adapted.
    pub target_modules: Targets,
    /// Layers that are not, although `target_modules` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_modules: Option<Targets>,
    /// Indices of the blocks whose layers are adapted, one or a list; all if empty. Goes with a list of targets only.
    #[serde(
        default,
        deserialize_with = "one_or_many",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub layers_to_transform: Vec<usize>,
    /// Names before the index of a block, one or a list of regular expressions; any if empty.
    #[serde(
        default,
        deserialize_with = "one_or_many",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub layers_pattern: Vec<String>,
    /// Ranks other than `r`, by the end of a layer's name or a regular expression for it; the first that fits counts,
    /// in the order in which they are written.
    #[serde(default, skip_serializing_if = "InOrder::is_empty")]
    pub rank_pattern: InOrder<usize>,
    /// Numerators other than `lora_alpha`, likewise.
    #[serde(default, skip_serializing_if = "InOrder::is_empty")]
    pub alpha_pattern: InOrder<f64>,
    /// Scale by `lora_alpha / √r` instead of `lora_alpha / r` (Kalajdzievski 2023).
    #[serde(default)]
    pub use_rslora: bool,
    /// Train the lengths of the weights' rows apart from their directions (Liu et al. 2024).
    #[serde(default, skip_serializing_if = "is_false")]
    pub use_dora: bool,
}

/// What one layer gets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Adapter {
    pub(crate) rank: usize,
    pub(crate) scale: f64,
}

impl LoraConfig {
    /// Adapters of rank `r` on the layers of these names, and PEFT's defaults for the rest.
    pub fn new(r: usize, lora_alpha: f64, target_modules: &[&str]) -> Self {
        let names = target_modules.iter().map(|name| name.to_string());
        Self {
            r,
            lora_alpha,
            lora_dropout: 0.0,
            target_modules: Targets::Names(names.collect()),
            exclude_modules: None,
            layers_to_transform: Vec::new(),
            layers_pattern: Vec::new(),
            rank_pattern: InOrder::default(),
            alpha_pattern: InOrder::default(),
            use_rslora: false,
            use_dora: false,
        }
    }

    /// What each of the layers of these full names gets.
    ///
    /// # Errors
    /// Numbers out of range, a pattern that is none, a setting that concerns no layer.
    pub(crate) fn plan(&self, layers: &[String]) -> Result<Vec<Option<Adapter>>, LlamaError> {
        self.check_numbers()?;
        let chosen = self.chosen(layers)?;
        let adapted: Vec<&String> = layers
            .iter()
            .zip(&chosen)
            .filter_map(|(name, chosen)| chosen.then_some(name))
            .collect();
        if adapted.is_empty() {
            return wrong(format!(
                "`target_modules` ({}) leaves no layer to adapt with the other settings; wanted some of {}",
                self.target_modules,
                kinds(layers)
            ));
        }
        let ranks = patterns("rank_pattern", &self.rank_pattern, &adapted)?;
        let alphas = patterns("alpha_pattern", &self.alpha_pattern, &adapted)?;
        let adapter = |name: &String| {
            let rank = first_match(&ranks, name)?.unwrap_or(self.r);
            let alpha = first_match(&alphas, name)?.unwrap_or(self.lora_alpha);
            let size = rank as f64;
            let scale = alpha / if self.use_rslora { size.sqrt() } else { size };
            Ok(Adapter { rank, scale })
        };
        let layers = layers.iter().zip(chosen);
        layers
            .map(|(name, chosen)| chosen.then(|| adapter(name)).transpose())
            .collect()
    }

    fn check_numbers(&self) -> Result<(), LlamaError> {
        if self.r == 0 || self.rank_pattern.values().any(|rank| *rank == 0) {
            return wrong("a rank in `r` or `rank_pattern` is 0, wanted at least 1".into());
        }
        let alphas = [("lora_alpha", &self.lora_alpha)].into_iter();
        let alphas = alphas.chain(
            self.alpha_pattern
                .values()
                .map(|alpha| ("alpha_pattern", alpha)),
        );
        for (key, alpha) in alphas {
            if !alpha.is_finite() || *alpha <= 0.0 {
                return wrong(format!("`{key}` is {alpha}, wanted a positive number"));
            }
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return wrong(format!(
                "`lora_dropout` is {}, wanted at least 0 and less than 1",
                self.lora_dropout
            ));
        }
        Ok(())
    }

    /// Whether each layer is adapted: PEFT's `check_target_module_exists`.
    fn chosen(&self, layers: &[String]) -> Result<Vec<bool>, LlamaError> {
        let mut chosen = self.target_modules.fit("target_modules", layers)?;
        if let (Targets::Pattern(_), false) =
            (&self.target_modules, self.layers_to_transform.is_empty())
        {
            return wrong(
                "`layers_to_transform` goes with a list in `target_modules`; put the indices into the regular \
                 expression instead"
                    .into(),
            );
        }
        if self.layers_to_transform.is_empty() && !self.layers_pattern.is_empty() {
            return wrong("`layers_pattern` is of no use without `layers_to_transform`".into());
        }
        if let (Targets::Names(names), false) =
            (&self.target_modules, self.layers_to_transform.is_empty())
        {
            let indices = block_indices(layers, &self.layers_pattern)?;
            let mut wanted = self.layers_to_transform.iter();
            if let Some(index) = wanted.find(|index| !indices.contains(&Some(**index))) {
                return wrong(format!(
                    "`layers_to_transform` names block {index}, of which this model has no layer; it counts from 0"
                ));
            }
            for ((chosen, name), index) in chosen.iter_mut().zip(layers).zip(indices) {
                // A target that is a whole name stands by itself.
                let is_meant = index.is_some_and(|index| self.layers_to_transform.contains(&index));
                *chosen &= is_meant || names.contains(name);
            }
        }
        if let Some(excluded) = &self.exclude_modules {
            let excluded = excluded.fit("exclude_modules", layers)?;
            for (chosen, excluded) in chosen.iter_mut().zip(excluded) {
                *chosen &= !excluded;
            }
        }
        Ok(chosen)
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// One of something, or a list: PEFT's files have both.
fn one_or_many<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany<T> {
        One(T),
        Many(Vec<T>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Vec<String> {
        let block = |index| {
            ["self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj"]
                .map(|name| format!("model.layers.{index}.{name}"))
        };
        let mut layers: Vec<String> = (0..12).flat_map(block).collect();
        layers.push("lm_head".into());
        layers
    }

    fn read(yaml: &str) -> LoraConfig {
        let mut value: serde_json::Value = serde_json::from_str(yaml).unwrap();
        value["r"] = 4.into();
        value["lora_alpha"] = 8.into();
        serde_json::from_value(value).unwrap()
    }

    /// Rank and scale by layer, for the adapted ones.
    fn plan(json: &str) -> Vec<(String, usize, f64)> {
        let layers = layers();
        let plan = read(json).plan(&layers).unwrap();
        layers
            .into_iter()
            .zip(plan)
            .filter_map(|(name, adapter)| adapter.map(|a| (name, a.rank, a.scale)))
            .collect()
    }

    fn names(json: &str) -> Vec<String> {
        plan(json).into_iter().map(|(name, ..)| name).collect()
    }

    #[test]
    fn targets_fit_as_in_peft() {
        assert_eq!(names(r#"{"target_modules": ["q_proj"]}"#).len(), 12);
        assert_eq!(names(r#"{"target_modules": "all-linear"}"#).len(), 36);
        assert_eq!(
            names(r#"{"target_modules": ["mlp.up_proj", "lm_head"]}"#).len(),
            13
        );
        // A regular expression fits whole names only; it may look ahead.
        assert_eq!(
            names(r#"{"target_modules": "(?!.*mlp)model\\.layers\\.1\\..*_proj"}"#),
            [
                "model.layers.1.self_attn.q_proj",
                "model.layers.1.self_attn.k_proj"
            ]
        );
        let error = read(r#"{"target_modules": "q_proj"}"#).plan(&layers());
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("`model.layers.0.self_attn.q_proj`"),
            "{error}"
        );
        assert_eq!(
            names(
                r#"{"target_modules": ["q_proj", "lm_head"], "layers_to_transform": [1, 11],
                    "layers_pattern": "layers"}"#
            ),
            [
                "model.layers.1.self_attn.q_proj",
                "model.layers.11.self_attn.q_proj",
                // A whole name; PEFT does not ask for its block.
                "lm_head"
            ]
        );
        assert_eq!(
            names(
                r#"{"target_modules": ["q_proj", "k_proj"], "layers_to_transform": 2,
                    "exclude_modules": ["self_attn.k_proj"]}"#
            ),
            ["model.layers.2.self_attn.q_proj"]
        );
        assert_eq!(
            names(
                r#"{"target_modules": ["q_proj"], "exclude_modules": "model\\.layers\\.(?:[0-9]|11)\\..*"}"#
            ),
            ["model.layers.10.self_attn.q_proj"]
        );
    }

    #[test]
    fn patterns_give_ranks_and_numerators() {
        let plan = plan(
            r#"{"target_modules": ["q_proj", "up_proj"], "use_rslora": true, "layers_to_transform": [0, 1, 11],
                "rank_pattern": {"layers.1.self_attn.q_proj": 16, "model.layers.11.*": 9},
                "alpha_pattern": {"up_proj|down_proj": 2}}"#,
        );
        let numbers: Vec<(usize, f64)> = plan.iter().map(|(_, r, s)| (*r, *s)).collect();
        // `layers.1` is no end of `layers.11`, and an end begins after a dot.
        assert_eq!(
            numbers,
            [
                (4, 4.0),
                (4, 1.0),
                (16, 2.0),
                (4, 1.0),
                (9, 8.0 / 3.0),
                (9, 2.0 / 3.0)
            ]
        );
    }

    #[test]
    fn settings_without_effect_are_refused() {
        for (json, part) in [
            (
                r#"{"target_modules": []}"#,
                "q_proj, k_proj, up_proj, lm_head",
            ),
            (r#"{"target_modules": ["qproj"]}"#, "`qproj`"),
            (r#"{"target_modules": "("}"#, "no regular expression"),
            (
                r#"{"target_modules": ["q_proj"], "exclude_modules": ["v_proj"]}"#,
                "`exclude_modules` names `v_proj`",
            ),
            (
                r#"{"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]}"#,
                "leaves no layer",
            ),
            (
                r#"{"target_modules": ["q_proj"], "layers_to_transform": [12]}"#,
                "block 12",
            ),
            (
                r#"{"target_modules": "all-linear", "layers_to_transform": [1]}"#,
                "`layers_to_transform`",
            ),
            (
                r#"{"target_modules": ["q_proj"], "layers_pattern": "layers"}"#,
                "`layers_pattern`",
            ),
            (
                r#"{"target_modules": ["q_proj"], "rank_pattern": {"up_proj": 2}}"#,
                "`rank_pattern` names `up_proj`",
            ),
            (
                r#"{"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 0}}"#,
                "rank",
            ),
            (
                r#"{"target_modules": ["q_proj"], "alpha_pattern": {"q_proj": -1}}"#,
                "`alpha_pattern` is -1",
            ),
        ] {
            let error = read(json).plan(&layers()).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn a_config_survives_its_file() {
        let config = read(
            r#"{"target_modules": "all-linear", "use_dora": true, "rank_pattern": {"q_proj": 2}}"#,
        );
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<LoraConfig>(&text).unwrap(), config);
        assert!(!text.contains("layers_pattern"), "{text}");
    }
}
