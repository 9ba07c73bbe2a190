use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use crate::{ModulePath, Weights, WeightsError};

/// Puts `weights` into every float parameter of `module`, on the device and with the tracking that
/// each parameter has.
///
/// # Errors
/// Lists every missing, unexpected and wrong-shaped tensor; `module` is then lost, since a half-loaded one is of no use.
pub fn load<M: Module>(module: M, weights: &Weights) -> Result<M, WeightsError> {
    load_only(module, weights, |_| true)
}

/// As [`load`], for the parameters whose name `wanted` accepts; the others keep what they have.
///
/// # Errors
/// As [`load`]; a tensor of `weights` that is not among the wanted ones is unexpected.
pub fn load_only<M: Module>(
    module: M,
    weights: &Weights,
    wanted: impl Fn(&str) -> bool,
) -> Result<M, WeightsError> {
    let mut loader = Loader {
        path: ModulePath::default(),
        weights,
        wanted,
        used: BTreeSet::new(),
        problems: Vec::new(),
    };
    let module = module.map(&mut loader);
    let Loader {
        used, mut problems, ..
    } = loader;
    for name in weights.tensors.keys().filter(|name| !used.contains(*name)) {
        problems.push(format!("unexpected `{name}`"));
    }
    if problems.is_empty() {
        return Ok(module);
    }
    const SHOWN: usize = 20;
    let more = problems.len().saturating_sub(SHOWN);
    problems.truncate(SHOWN);
    let mut message = problems.join("; ");
    if more > 0 {
        message.push_str(&format!("; and {more} more"));
    }
    Err(WeightsError::Mismatch(message))
}

struct Loader<'a, F> {
    path: ModulePath,
    weights: &'a Weights,
    wanted: F,
    used: BTreeSet<String>,
    problems: Vec<String>,
}

impl<F: Fn(&str) -> bool> ModuleMapper for Loader<'_, F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        if !(self.wanted)(&name) {
            return param;
        }
        let transposed = self.path.is_transposed();
        let mut wanted = param.lazy_shape().to_vec();
        if transposed {
            wanted.swap(0, 1);
        }
        let Some(tensor) = self.weights.tensors.get(&name) else {
            let nearest = nearest(&name, self.weights);
            self.problems
                .push(format!("missing `{name}` {wanted:?}{nearest}"));
            return param;
        };
        self.used.insert(name.clone());
        if tensor.shape != wanted {
            self.problems.push(format!(
                "`{name}` has shape {:?}, wanted {wanted:?}",
                tensor.shape
            ));
            return param;
        }
        let data = TensorData::new(tensor.values.clone(), tensor.shape.clone());
        let tracked = param.is_initialized() && param.val().is_require_grad();
        let mut value = Tensor::<D>::from_data(data, &param.lazy_device().without_autodiff());
        if transposed {
            value = value.swap_dims(0, 1);
        }
        if tracked {
            value = value.autodiff().require_grad();
        }
        Param::initialized(param.id, value)
    }
}

fn nearest(name: &str, weights: &Weights) -> String {
    weights
        .tensors
        .keys()
        .map(|other| (strsim::normalized_levenshtein(name, other), other))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| format!(" (nearest in the file: `{other}`)"))
        .unwrap_or_default()
}
