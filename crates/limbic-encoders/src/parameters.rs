//! Where an encoder's parameters come from.

use std::path::Path;

use burn::module::Module;
use limbic_weights::Weights;

use crate::EncoderError;

/// Fills `module` from the file or from the seed.
///
/// A module that has parameters wants exactly one of the two: an encoder must not be random because
/// a line was forgotten.
pub(crate) fn fill<M: Module>(
    module: M,
    kind: &'static str,
    weights: Option<&Path>,
    seed: Option<u64>,
) -> Result<M, EncoderError> {
    let refuse = |problem: &str| {
        Err(EncoderError::Config {
            kind,
            key: "weights",
            problem: problem.into(),
        })
    };
    match (weights, seed) {
        (Some(path), None) => {
            let located = |source| EncoderError::Weights {
                kind,
                path: path.to_path_buf(),
                source,
            };
            let weights = Weights::read(path).map_err(located)?;
            limbic_weights::load(module, &weights).map_err(located)
        }
        (None, Some(seed)) => Ok(limbic_weights::seed(module, seed)),
        (None, None) if module.num_params() == 0 => Ok(module),
        (None, None) => refuse(
            "got neither `weights` nor `seed`, wanted one: a safetensors file, or random parameters",
        ),
        (Some(_), Some(_)) => refuse("got both `weights` and `seed`; remove one"),
    }
}
