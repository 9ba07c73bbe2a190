use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{FloatDType, TensorData};
use rayon::prelude::*;

use crate::load::{View, Views, compare, fill};
use crate::open::{Contents, open};
use crate::report::Ignored;
use crate::stored::{Stored, StoredDtype};
use crate::{NamedTensor, Report, Weights, WeightsError};

/// Weights on disk, opened: what they hold is known, and may be renamed, before a value is read.
///
/// A model's file tells how a published checkpoint becomes its parameters by a chain of these calls, ending in
/// [`load`](Self::load), which accepts no name that was not spoken of.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Entry>,
    ignored: Vec<Ignored>,
    passed_over: usize,
}

#[derive(Debug, Clone)]
enum Entry {
    Stored(Stored),
    Computed(NamedTensor),
}

impl Entry {
    fn view(&self) -> View<'_> {
        match self {
            Self::Stored(stored) => View::Stored(stored),
            Self::Computed(tensor) => View::Computed(tensor),
        }
    }

    fn named(&self, name: &str) -> Result<NamedTensor, WeightsError> {
        match self {
            Self::Stored(stored) => stored.named(name),
            Self::Computed(tensor) => Ok(tensor.clone()),
        }
    }
}

impl Checkpoint {
    /// Opens a safetensors file, a file of `torch.save` (PyTorch 1.6 or later), or a folder of Hugging Face's layout:
    /// `model.safetensors` or `pytorch_model.bin`, whole or in the shards that an index lists.
    ///
    /// Headers alone are read. Of a file of `torch.save` only the description of tensors is understood, and nothing in
    /// it is executed; nested dictionaries become dotted names (`model.llama_proj.weight`).
    ///
    /// # Errors
    /// A missing or damaged file, a pickle that asks for anything but tensors.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let Contents {
            tensors,
            passed_over,
        } = open(path)?;
        let tensors = tensors.into_iter();
        Ok(Self {
            path: path.to_path_buf(),
            tensors: tensors
                .map(|(name, stored)| (name, Entry::Stored(stored)))
                .collect(),
            ignored: Vec::new(),
            passed_over,
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
        self.tensors.get(name).map(|entry| match entry {
            Entry::Stored(stored) => stored.shape.as_slice(),
            Entry::Computed(tensor) => tensor.shape.as_slice(),
        })
    }

    /// How the values of a tensor are stored.
    pub fn dtype(&self, name: &str) -> Option<StoredDtype> {
        self.tensors.get(name).map(|entry| match entry {
            Entry::Stored(stored) => stored.dtype,
            Entry::Computed(_) => StoredDtype::F32,
        })
    }

    /// How many values of the file are no tensors: steps, settings, words.
    pub fn passed_over(&self) -> usize {
        self.passed_over
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

    /// Leaves out the tensors that `unused` names, for `reason`, which the report repeats.
    pub fn ignore(mut self, unused: impl Fn(&str) -> bool, reason: &'static str) -> Self {
        let mut names = Vec::new();
        self.tensors.retain(|name, _| {
            let left_out = unused(name);
            if left_out {
                names.push(name.clone());
            }
            !left_out
        });
        if !names.is_empty() {
            self.ignored.push(Ignored { reason, names });
        }
        self
    }

    /// Reads the values of a tensor: in `precision`, or as they are stored.
    ///
    /// # Errors
    /// When it is absent, holds no floats, or cannot be read.
    pub fn data(
        &self,
        name: &str,
        precision: Option<FloatDType>,
    ) -> Result<TensorData, WeightsError> {
        let entry = self.tensors.get(name).ok_or_else(|| self.absent(name))?;
        entry.view().data(name, precision)
    }

    /// Reads a tensor as F32 and takes it out.
    ///
    /// # Errors
    /// When it is absent, holds no floats, or cannot be read.
    pub fn take(&mut self, name: &str) -> Result<NamedTensor, WeightsError> {
        match self.tensors.remove(name) {
            Some(entry) => entry.named(name),
            None => Err(self.absent(name)),
        }
    }

    fn absent(&self, name: &str) -> WeightsError {
        WeightsError::Mismatch(format!("{}: missing `{name}`", self.path.display()))
    }

    /// Puts in a tensor that was computed, in place of one of that name if there is one.
    pub fn put(&mut self, name: impl Into<String>, tensor: NamedTensor) {
        self.tensors.insert(name.into(), Entry::Computed(tensor));
    }

    /// How the tensors and the parameters of `module` fit, without reading a value.
    pub fn report<M: Module>(&self, module: &M) -> Report {
        self.report_only(module, |_| true)
    }

    /// As [`report`](Self::report), for the parameters whose name `wanted` accepts.
    pub fn report_only<M: Module>(&self, module: &M, wanted: impl Fn(&str) -> bool) -> Report {
        Report {
            ignored: self.ignored.clone(),
            passed_over: self.passed_over,
            ..compare(module, &self.views(), wanted)
        }
    }

    /// Fills every float parameter of `module`: in `precision`, except that vectors are then in F32, or as each tensor is
    /// stored.
    ///
    /// Tensors are copied from the file straight to where they stay, several at a time; at its peak this takes little
    /// more memory than the loaded module.
    ///
    /// # Errors
    /// Lists every missing, unexpected and wrong-shaped tensor, with the nearest names.
    pub fn load<M: Module>(
        self,
        module: M,
        precision: Option<FloatDType>,
    ) -> Result<M, WeightsError> {
        self.load_only(module, precision, |_| true)
    }

    /// As [`load`](Self::load), for the parameters whose name `wanted` accepts; the others keep what they have.
    ///
    /// # Errors
    /// As [`load`](Self::load); a tensor that is not among the wanted ones is unexpected.
    pub fn load_only<M: Module>(
        self,
        module: M,
        precision: Option<FloatDType>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<M, WeightsError> {
        let report = self.report_only(&module, &wanted);
        let views = self.views();
        fill(module, &views, precision, wanted, report, &self.path)
    }

    /// All tensors in F32.
    ///
    /// # Errors
    /// When one holds no floats or cannot be read.
    pub fn weights(&self) -> Result<Weights, WeightsError> {
        let tensors = self.tensors.par_iter();
        let read = tensors.map(|(name, entry)| Ok((name.clone(), entry.named(name)?)));
        Ok(Weights {
            tensors: read.collect::<Result<_, WeightsError>>()?,
        })
    }

    fn views(&self) -> Views<'_> {
        let tensors = self.tensors.iter();
        tensors
            .map(|(name, entry)| (name.as_str(), entry.view()))
            .collect()
    }
}
