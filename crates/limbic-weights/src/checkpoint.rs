use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::FloatDType;

use crate::{NamedTensor, Weights, WeightsError};

/// Weights on disk, opened: what they hold is known, and may be renamed, before it is read into a module.
///
/// A model's file tells how a published checkpoint becomes its parameters by a chain of these calls, ending in
/// [`load`](Self::load), which accepts no name that was not spoken of.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, NamedTensor>,
}

impl Checkpoint {
    /// Opens a safetensors file, or a folder of Hugging Face's layout.
    ///
    /// # Errors
    /// A missing or damaged file.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        Ok(Self {
            path: path.to_path_buf(),
            tensors: Weights::read(path)?.tensors,
        })
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The dimensions of a tensor, outermost first.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// Gives each tensor the name that `name` makes of its own.
    ///
    /// # Errors
    /// Two tensors of one name.
    pub fn rename(self, name: impl Fn(&str) -> String) -> Result<Self, WeightsError> {
        let mut tensors = BTreeMap::new();
        for (old, tensor) in self.tensors {
            let new = name(&old);
            if tensors.insert(new.clone(), tensor).is_some() {
                return Err(WeightsError::Mismatch(format!(
                    "{}: `{old}` and another tensor would both be `{new}`",
                    self.path.display()
                )));
            }
        }
        Ok(Self { tensors, ..self })
    }

    /// Takes `prefix` off the names that have it; the others stay, and [`load`](Self::load) will not expect them.
    ///
    /// # Errors
    /// Two tensors of one name.
    pub fn strip_prefix(self, prefix: &str) -> Result<Self, WeightsError> {
        self.rename(|name| name.strip_prefix(prefix).unwrap_or(name).to_string())
    }

    /// Leaves out the tensors that `unused` names, for `reason`.
    pub fn ignore(mut self, unused: impl Fn(&str) -> bool, _reason: &'static str) -> Self {
        self.tensors.retain(|name, _| !unused(name));
        self
    }

    /// Reads a tensor as F32 and takes it out.
    ///
    /// # Errors
    /// When it is absent or cannot be read.
    pub fn take(&mut self, name: &str) -> Result<NamedTensor, WeightsError> {
        let absent =
            || WeightsError::Mismatch(format!("{}: missing `{name}`", self.path.display()));
        self.tensors.remove(name).ok_or_else(absent)
    }

    /// Puts in a tensor that was computed, in place of one of that name if there is one.
    pub fn put(&mut self, name: impl Into<String>, tensor: NamedTensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// Fills every float parameter of `module`: in `precision`, or as each tensor is stored.
    ///
    /// # Errors
    /// Lists every missing, unexpected and wrong-shaped tensor, with the nearest names.
    pub fn load<M: Module>(
        self,
        module: M,
        _precision: Option<FloatDType>,
    ) -> Result<M, WeightsError> {
        crate::load(module, &self.weights()?)
    }

    /// All tensors in F32.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn weights(&self) -> Result<Weights, WeightsError> {
        Ok(Weights {
            tensors: self.tensors.clone(),
        })
    }
}
