//! The `loss` of a recipe: which objectives there are, how much each counts, and how each is formed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The weighted sum of losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossRecipe {
    /// Weight of the mean cross-entropy over supervised tokens.
    pub lm_weight: Weight,
    /// Weight of the mean cross-entropy over labelled samples.
    pub class_weight: Weight,
    /// Share of each class target that is spread over all classes.
    pub label_smoothing: f64,
    /// How much each label counts in the class loss; all alike if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_weights: Option<LabelWeights>,
    /// The focal form of the class loss: samples count by (1 - p)^gamma, p being the probability of their class
    /// (Lin et al. 2017). 0 for plain cross-entropy.
    pub focal_gamma: f64,
    /// Weight of the valence loss over samples with a valence.
    pub valence_weight: Weight,
    /// What the valence loss is made of.
    pub valence: ValenceRecipe,
    /// Weight of the mean contrastive loss over the step's pairs of clip and caption.
    pub contrastive_weight: Weight,
    /// Weight of the mean cross-entropy over hidden tokens of captions.
    pub masked_weight: Weight,
    /// Share of a caption's tokens that is hidden.
    pub mask_share: f64,
}

impl Default for LossRecipe {
    fn default() -> Self {
        Self {
            lm_weight: Weight::Constant(1.0),
            class_weight: Weight::Constant(1.0),
            label_smoothing: 0.0,
            label_weights: None,
            focal_gamma: 0.0,
            valence_weight: Weight::Constant(1.0),
            valence: ValenceRecipe::default(),
            contrastive_weight: Weight::Constant(0.0),
            masked_weight: Weight::Constant(0.0),
            mask_share: 0.15,
        }
    }
}

/// What a loss counts, as a function of the step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "wanted a number, or a list of [step, weight]")]
pub enum Weight {
    /// Always the same.
    Constant(f64),
    /// Linear between the points `[step, weight]`, constant before the first and after the last.
    Points(Vec<(u64, f64)>),
}

impl Weight {
    /// The weight in step `step`.
    pub fn at(&self, step: u64) -> f64 {
        let points = match self {
            Self::Constant(weight) => return *weight,
            Self::Points(points) => points,
        };
        let after = points.partition_point(|(at, _)| *at <= step);
        match (
            after.checked_sub(1).map(|before| points[before]),
            points.get(after),
        ) {
            (Some((_, weight)), None) | (None, Some(&(_, weight))) => weight,
            (Some((from, start)), Some(&(to, end))) => {
                start + (end - start) * (step - from) as f64 / (to - from) as f64
            }
            (None, None) => 0.0,
        }
    }

    /// Whether it is ever above 0.
    pub fn is_used(&self) -> bool {
        match self {
            Self::Constant(weight) => *weight > 0.0,
            Self::Points(points) => points.iter().any(|(_, weight)| *weight > 0.0),
        }
    }

    /// Whether it is above 0 in one of the first `steps` steps.
    fn is_used_within(&self, steps: u64) -> bool {
        let Self::Points(points) = self else {
            return self.is_used();
        };
        let at_points = points.iter().map(|(step, _)| *step);
        at_points
            .chain([0, steps.saturating_sub(1)])
            .any(|step| step < steps && self.at(step) > 0.0)
    }

    fn problem(&self) -> Option<String> {
        let bad = |weight: &f64| !(*weight >= 0.0 && weight.is_finite());
        match self {
            Self::Constant(weight) if bad(weight) => {
                Some(format!("is {weight}, wanted at least 0"))
            }
            Self::Constant(_) => None,
            Self::Points(points) if points.is_empty() => {
                Some("is an empty list, wanted points [step, weight]".into())
            }
            Self::Points(points) => {
                let falls = points.windows(2).find(|pair| pair[0].0 >= pair[1].0);
                if let Some((_, weight)) = points.iter().find(|(_, weight)| bad(weight)) {
                    Some(format!("has the weight {weight}, wanted at least 0"))
                } else {
                    falls.map(|pair| {
                        format!(
                            "goes from step {} to step {}, wanted steps that rise",
                            pair[0].0, pair[1].0
                        )
                    })
                }
            }
        }
    }
}

impl From<f64> for Weight {
    fn from(weight: f64) -> Self {
        Self::Constant(weight)
    }
}

/// How much each label counts in the class loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "wanted `balanced`, or a weight for each label by its name"
)]
pub enum LabelWeights {
    /// From the training split.
    Counted(CountedWeights),
    /// By name; every label has one.
    Each(BTreeMap<String, f64>),
}

/// Label weights that follow from the training split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountedWeights {
    /// Clips / (labels · clips of the label), as scikit-learn's `balanced`; 0 for a label without clips.
    Balanced,
}

/// What the valence loss is made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValenceRecipe {
    /// Share of the mean squared error.
    pub mse: f64,
    /// Share of 1 - CCC, with the concordance correlation coefficient (Lin 1989) over the whole step.
    pub ccc: f64,
}

impl Default for ValenceRecipe {
    fn default() -> Self {
        Self { mse: 1.0, ccc: 0.0 }
    }
}

impl LossRecipe {
    /// What is wrong with the values for a run of `steps` steps of `samples` samples each, each problem with its key.
    pub(crate) fn problems(&self, steps: u64, samples: usize) -> Vec<String> {
        let weights = [
            ("lm_weight", &self.lm_weight),
            ("class_weight", &self.class_weight),
            ("valence_weight", &self.valence_weight),
            ("contrastive_weight", &self.contrastive_weight),
            ("masked_weight", &self.masked_weight),
        ];
        let mut problems: Vec<String> = weights
            .iter()
            .filter_map(|(key, weight)| Some(format!("`train.loss.{key}` {}", weight.problem()?)))
            .collect();
        if !weights.iter().any(|(_, weight)| weight.is_used()) {
            problems.push("`train.loss` gives no loss a weight, so nothing would be learnt".into());
        }
        let mut check = |fine: bool, problem: String| {
            if !fine {
                problems.push(problem);
            }
        };
        for (key, weight) in weights {
            check(
                steps == 0 || !weight.is_used() || weight.is_used_within(steps),
                format!(
                    "`train.loss.{key}` is 0 in all of the run's {steps} steps, wanted a point above 0 among them; \
                     move its points, or set it to 0"
                ),
            );
        }
        check(
            samples != 1 || !self.contrastive_weight.is_used(),
            "`train.loss.contrastive_weight` tells a step's samples from each other, but `train.batch_size` times \
             `train.accumulate` is 1, wanted at least 2"
                .into(),
        );
        check(
            samples != 1 || !self.valence_weight.is_used() || self.valence.ccc == 0.0,
            "`train.loss.valence.ccc` looks at how a step's valences vary, but `train.batch_size` times \
             `train.accumulate` is 1, wanted at least 2; or set it to 0"
                .into(),
        );
        let at_least_0 = |value: f64| value >= 0.0 && value.is_finite();
        check(
            (0.0..1.0).contains(&self.label_smoothing),
            format!(
                "`train.loss.label_smoothing` is {}, wanted at least 0 and less than 1",
                self.label_smoothing
            ),
        );
        check(
            at_least_0(self.focal_gamma),
            format!(
                "`train.loss.focal_gamma` is {}, wanted at least 0",
                self.focal_gamma
            ),
        );
        let ValenceRecipe { mse, ccc } = self.valence;
        check(
            at_least_0(mse) && at_least_0(ccc) && mse + ccc > 0.0,
            format!(
                "`train.loss.valence` is mse {mse} and ccc {ccc}, wanted at least 0, one of them above it"
            ),
        );
        check(
            self.mask_share > 0.0 && self.mask_share <= 1.0,
            format!(
                "`train.loss.mask_share` is {}, wanted more than 0 and at most 1",
                self.mask_share
            ),
        );
        if let Some(LabelWeights::Each(weights)) = &self.label_weights {
            for (name, weight) in weights {
                check(
                    at_least_0(*weight),
                    format!("`train.loss.label_weights.{name}` is {weight}, wanted at least 0"),
                );
            }
            check(
                weights.values().any(|weight| *weight != 0.0),
                "`train.loss.label_weights` gives every label 0, wanted one above it; for no class loss set \
                 `train.loss.class_weight` to 0"
                    .into(),
            );
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_number_or_points_with_lines_between() {
        let read = |text: &str| serde_yaml::from_str::<Weight>(text);
        assert_eq!(read("1").unwrap(), Weight::Constant(1.0));
        let points = read("[[10, 0], [20, 1.0], [40, 0.5]]").unwrap();
        for (step, wanted) in [
            (0, 0.0),
            (10, 0.0),
            (15, 0.5),
            (20, 1.0),
            (30, 0.75),
            (40, 0.5),
            (99, 0.5),
        ] {
            assert!(
                (points.at(step) - wanted).abs() < 1e-12,
                "step {step}: {}",
                points.at(step)
            );
        }
        assert!(points.is_used() && !read("[[0, 0.0], [9, 0]]").unwrap().is_used());
        let written = serde_yaml::to_string(&points).unwrap();
        assert_eq!(read(&written).unwrap(), points);
        let message = read("much").unwrap_err().to_string();
        assert!(message.contains("[step, weight]"), "{message}");
    }

    #[test]
    fn bad_losses_are_named_with_their_keys() {
        let recipe: LossRecipe = serde_yaml::from_str(
            "{lm_weight: -1, class_weight: [[5, 1], [5, 0]], masked_weight: [], mask_share: 0, focal_gamma: -2, \
             valence: {mse: 0}, label_weights: {happy: -1}, label_smoothing: 1}",
        )
        .unwrap();
        let problems = recipe.problems(10, 4);
        for (number, key) in [
            "lm_weight",
            "class_weight",
            "masked_weight",
            "label_smoothing",
            "focal_gamma",
            "valence",
            "mask_share",
            "label_weights.happy",
        ]
        .iter()
        .enumerate()
        {
            assert!(
                problems[number].contains(&format!("`train.loss.{key}`")),
                "{key}: {problems:?}"
            );
        }
        assert_eq!(problems.len(), 8);
        assert!(LossRecipe::default().problems(1, 1).is_empty());
        // Of no use only because the run is so short, or its steps so small.
        for (text, steps, samples, part) in [
            ("{lm_weight: [[5, 0], [9, 1]]}", 6, 2, "lm_weight"),
            ("{contrastive_weight: 1}", 9, 1, "contrastive_weight"),
            ("{valence: {ccc: 1}}", 9, 1, "valence.ccc"),
            ("{label_weights: {a: 0, b: 0}}", 9, 2, "label_weights"),
        ] {
            let recipe: LossRecipe = serde_yaml::from_str(text).unwrap();
            let problems = recipe.problems(steps, samples);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(part), "{problems:?}");
            if part != "label_weights" {
                assert!(recipe.problems(steps + 1, 2).is_empty(), "{text}");
            }
        }
        let balanced: LossRecipe = serde_yaml::from_str("{label_weights: balanced}").unwrap();
        let wanted = LabelWeights::Counted(CountedWeights::Balanced);
        assert_eq!(balanced.label_weights, Some(wanted));
    }
}
