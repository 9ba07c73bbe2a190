//! Where an encoder's parameters come from.

use std::path::Path;

use burn::module::Module;
use limbic_weights::Weights;

use crate::EncoderError;

/// Refuses an encoder whose parameters have no source, or two: an encoder must not be random because a line was
/// forgotten.
pub(crate) fn check(
    kind: &'static str,
    has_parameters: bool,
    weights: Option<&Path>,
    seed: Option<u64>,
) -> Result<(), EncoderError> {
    let problem = match (weights, seed) {
        (None, None) if has_parameters => {
            "got neither `weights` nor `seed`, wanted one: a safetensors file, or random parameters"
        }
        (Some(_), Some(_)) => "got both `weights` and `seed`; remove one",
        _ => return Ok(()),
    };
    Err(EncoderError::Config {
        kind,
        key: "weights",
        problem: problem.into(),
    })
}

/// Fills `module` from the file or from the seed.
pub(crate) fn fill<M: Module>(
    module: M,
    kind: &'static str,
    weights: Option<&Path>,
    seed: Option<u64>,
) -> Result<M, EncoderError> {
    check(kind, module.num_params() > 0, weights, seed)?;
    match (weights, seed) {
        (Some(path), _) => {
            let located = |source| EncoderError::Weights {
                kind,
                path: path.to_path_buf(),
                source,
            };
            let weights = Weights::read(path).map_err(located)?;
            limbic_weights::load(module, &weights).map_err(located)
        }
        (None, Some(seed)) => Ok(limbic_weights::seed(module, seed)),
        (None, None) => Ok(module),
    }
}
