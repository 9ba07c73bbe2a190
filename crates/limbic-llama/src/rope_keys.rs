//! The RoPE keys of a `config.json`: two spellings, older and newer than transformers 5, and what they have to agree on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::RopeScaling;

/// What one of the spellings says.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct RopeParameters {
    #[serde(skip_serializing)]
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    /// The name of `rope_type` in transformers before 4.43; some files have both.
    #[serde(rename = "type", skip_serializing)]
    old_type: Option<String>,
    #[serde(skip_serializing)]
    partial_rotary_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    low_freq_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    high_freq_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_max_position_embeddings: Option<usize>,
    #[serde(flatten, skip_serializing)]
    foreign: BTreeMap<String, Value>,
}

/// All that a file says of RoPE.
pub(crate) struct Spellings<'a> {
    pub(crate) theta: Option<f64>,
    pub(crate) share: Option<f64>,
    pub(crate) original: Option<usize>,
    pub(crate) longest: usize,
    pub(crate) older: Option<&'a RopeParameters>,
    pub(crate) newer: Option<&'a RopeParameters>,
}

impl Spellings<'_> {
    /// The base and the scaling that a file's two spellings agree on.
    pub(crate) fn agree(&self) -> Result<(f64, Option<RopeScaling>), String> {
        let read = |key: &str, parameters: &RopeParameters| {
            // LLaMA 1 and 2 files leave it out; 10 000 is the value of Su et al. 2021 and transformers' default.
            let theta = parameters.rope_theta.or(self.theta).unwrap_or(10_000.0);
            Ok::<_, String>((theta, scaling(key, parameters, self)?))
        };
        match (self.older, self.newer) {
            (None, None) => read("rope_theta", &RopeParameters::default()),
            (Some(older), None) => read("rope_scaling", older),
            (None, Some(newer)) => read("rope_parameters", newer),
            (Some(older), Some(newer)) => {
                let (older, newer) = (
                    read("rope_scaling", older)?,
                    read("rope_parameters", newer)?,
                );
                if older != newer {
                    return Err(format!(
                        "`rope_scaling` says {older:?} and `rope_parameters` says {newer:?}; remove the wrong one"
                    ));
                }
                Ok(newer)
            }
        }
    }
}

fn scaling(
    key: &str,
    parameters: &RopeParameters,
    file: &Spellings,
) -> Result<Option<RopeScaling>, String> {
    let kind = parameters.rope_type.as_deref();
    let kind = kind.or(parameters.old_type.as_deref()).unwrap_or("default");
    let share = parameters.partial_rotary_factor.or(file.share);
    if let Some(share) = share.filter(|share| *share != 1.0) {
        return Err(format!(
            "`partial_rotary_factor` is {share}, wanted 1 or absent; heads that are turned in part are not built here"
        ));
    }
    let number = |name: &str, value: Option<f64>| {
        value.ok_or_else(|| format!("`{key}` asks for `{kind}` RoPE without `{name}`"))
    };
    let scaling = match kind {
        "default" => None,
        "linear" => Some(RopeScaling::Linear {
            factor: number("factor", parameters.factor)?,
        }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: number("factor", parameters.factor)?,
            low_freq_factor: number("low_freq_factor", parameters.low_freq_factor)?,
            high_freq_factor: number("high_freq_factor", parameters.high_freq_factor)?,
            // The order of precedence is that of transformers' `standardize_rope_params`.
            original_max_position_embeddings: file
                .original
                .or(parameters.original_max_position_embeddings)
                .unwrap_or(file.longest),
        }),
        other => {
            return Err(format!(
                "`{key}` asks for `{other}` RoPE, which is not built here; wanted `default`, `linear` or `llama3`"
            ));
        }
    };
    if let Some(foreign) = parameters.foreign.keys().next() {
        return Err(format!(
            "`{key}` holds `{foreign}`, which is not built here; wanted RoPE of type `default`, `linear` or `llama3` with \
             one set of parameters for all layers"
        ));
    }
    Ok(scaling)
}

impl From<RopeScaling> for RopeParameters {
    fn from(scaling: RopeScaling) -> Self {
        match scaling {
            RopeScaling::Linear { factor } => Self {
                rope_type: Some("linear".into()),
                factor: Some(factor),
                ..Self::default()
            },
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => Self {
                rope_type: Some("llama3".into()),
                factor: Some(factor),
                low_freq_factor: Some(low_freq_factor),
                high_freq_factor: Some(high_freq_factor),
                original_max_position_embeddings: Some(original_max_position_embeddings),
                ..Self::default()
            },
        }
    }
}
