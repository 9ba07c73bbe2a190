//! Which hidden states of a model become features.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::{HiddenStates, Keep};

/// The last hidden states, combined into one. The last of them is the model's last output, normalised where the model
/// normalises it, as in the versions of transformers that the published pipelines used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    /// How many.
    pub last: usize,
    /// How they become one.
    pub combine: Combine,
}

/// How hidden states become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// Their mean (AffectGPT).
    Mean,
    /// Their sum (MERBench).
    Sum,
}

/// What becomes of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimePool {
    /// A feature for each time step.
    #[default]
    None,
    /// Their mean: one feature for the sound, or for each window. Whisper's mean is over all of its positions, those
    /// of the silence that fills up its 30 s too.
    Mean,
}

/// The hidden states that become features, counted from the end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Choice {
    /// The last is 1.
    One {
        from_end: usize,
    },
    Last(Layers),
}

impl Choice {
    /// Of a model with so many hidden states.
    ///
    /// # Errors
    /// The key that asks for more than there are, and what it may be.
    pub(crate) fn new(
        layer: Option<i64>,
        layers: Option<Layers>,
        states: usize,
    ) -> Result<Self, (&'static str, String)> {
        match (layer, layers) {
            (Some(layer), _) => {
                let from_end = if layer < 0 {
                    layer.saturating_neg()
                } else {
                    states as i64 - layer
                };
                match usize::try_from(from_end) {
                    Ok(from_end) if (1..=states).contains(&from_end) => Ok(Self::One { from_end }),
                    _ => {
                        let problem = format!("got {layer}, wanted -{states} to {}", states - 1);
                        Err(("layer", problem))
                    }
                }
            }
            (None, Some(layers)) if (1..=states).contains(&layers.last) => Ok(Self::Last(layers)),
            (None, Some(layers)) => Err((
                "layers.last",
                format!("got {}, wanted 1 to {states} hidden states", layers.last),
            )),
            (None, None) => Ok(Self::One { from_end: 1 }),
        }
    }

    /// What the model must keep for it.
    pub(crate) fn keep(self) -> Keep {
        match self {
            Self::One { from_end: 1 } => Keep::Last(0),
            Self::One { from_end } => Keep::Last(from_end),
            Self::Last(layers) => Keep::Last(layers.last),
        }
    }

    /// # Shapes
    /// `[B, T, D]`
    pub(crate) fn of(self, mut states: HiddenStates) -> Tensor<3> {
        let last = states.last_hidden_state;
        match self {
            Self::One { from_end: 1 } => last,
            Self::One { .. } => states.hidden.swap_remove(0),
            Self::Last(layers) => {
                let count = states.hidden.len();
                states.hidden[count - 1] = last;
                let sum = states
                    .hidden
                    .into_iter()
                    .reduce(|sum, state| sum + state)
                    .expect("at least one hidden state was asked for");
                match layers.combine {
                    Combine::Sum => sum,
                    Combine::Mean => sum / count as f64,
                }
            }
        }
    }
}
