//! Named tensors into the parameters of a module: compared first, as a whole, then read and put there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{FloatDType, Tensor, TensorData};
use rayon::prelude::*;

use crate::report::Misfit;
use crate::stored::{Stored, StoredDtype};
use crate::{ModulePath, NamedTensor, Report, Weights, WeightsError};

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
    let views = weights.tensors.iter();
    let views = views
        .map(|(name, tensor)| (name.as_str(), View::Computed(tensor)))
        .collect();
    let report = compare(&module, &views, &wanted);
    fill(module, &views, None, wanted, report, Path::new(""))
}

/// A tensor that is about to be loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum View<'a> {
    Stored(&'a Stored),
    Computed(&'a NamedTensor),
}

/// Tensors by name.
pub(crate) type Views<'a> = BTreeMap<&'a str, View<'a>>;

impl View<'_> {
    fn shape(&self) -> &[usize] {
        match self {
            Self::Stored(stored) => &stored.shape,
            Self::Computed(tensor) => &tensor.shape,
        }
    }

    fn dtype(&self) -> StoredDtype {
        match self {
            Self::Stored(stored) => stored.dtype,
            Self::Computed(_) => StoredDtype::F32,
        }
    }

    fn bytes(&self) -> usize {
        self.shape().iter().product::<usize>() * self.dtype().size() as usize
    }

    /// The values of the tensor called `name`, in `precision` or as they are stored.
    pub(crate) fn data(
        &self,
        name: &str,
        precision: Option<FloatDType>,
    ) -> Result<TensorData, WeightsError> {
        match self {
            Self::Stored(stored) => stored.data(name, precision),
            Self::Computed(tensor) => {
                let data = TensorData::new(tensor.values.clone(), tensor.shape.clone());
                Ok(match precision {
                    None => data,
                    Some(precision) => data.convert_dtype(precision.into()),
                })
            }
        }
    }
}

/// How `views` and the wanted parameters of `module` fit, without reading a value.
pub(crate) fn compare<M: Module>(
    module: &M,
    views: &Views,
    wanted: impl Fn(&str) -> bool,
) -> Report {
    let parameters = survey(module, wanted);
    let mut report = Report::default();
    for (name, wanted) in &parameters {
        let misfit = |got: Option<&[usize]>| Misfit {
            name: name.clone(),
            got: got.map(<[usize]>::to_vec),
            wanted: Some(wanted.clone()),
            nearest: None,
        };
        match views.get(name.as_str()) {
            None => report.missing.push(misfit(None)),
            Some(view) if view.shape() != wanted => {
                report.wrong_shape.push(misfit(Some(view.shape())));
            }
            Some(view) if !view.dtype().is_float() => {
                report.wrong_dtype.push((name.clone(), view.dtype()));
            }
            Some(_) => report.matched.push(name.clone()),
        }
    }
    let known: BTreeSet<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    for (name, view) in views {
        if !known.contains(name) {
            report.unexpected.push(Misfit {
                name: name.to_string(),
                got: Some(view.shape().to_vec()),
                wanted: None,
                nearest: None,
            });
        }
    }
    report.find_nearest();
    report
}

/// Fills the wanted parameters, where `report` says that all fit.
pub(crate) fn fill<M: Module>(
    module: M,
    views: &Views,
    precision: Option<FloatDType>,
    wanted: impl Fn(&str) -> bool,
    report: Report,
    path: &Path,
) -> Result<M, WeightsError> {
    if !report.fits() {
        return Err(WeightsError::Unfit {
            path: path.to_path_buf(),
            report: Box::new(report),
        });
    }
    let queue = survey(&module, &wanted).into_iter().map(|(name, _)| name);
    let mut loader = Loader {
        path: ModulePath::default(),
        reader: Reader {
            views,
            precision,
            queue: queue.collect(),
            ready: VecDeque::new(),
        },
        wanted,
        failure: None,
    };
    let module = module.map(&mut loader);
    match loader.failure {
        None => Ok(module),
        Some(error) => Err(error),
    }
}

/// Names and shapes, as PyTorch has them, of the wanted parameters, in the order of traversal.
fn survey<M: Module>(module: &M, wanted: impl Fn(&str) -> bool) -> Vec<(String, Vec<usize>)> {
    let mut survey = Survey {
        path: ModulePath::default(),
        wanted,
        parameters: Vec::new(),
    };
    module.visit(&mut survey);
    survey.parameters
}

struct Survey<F> {
    path: ModulePath,
    wanted: F,
    parameters: Vec<(String, Vec<usize>)>,
}

impl<F: Fn(&str) -> bool> ModuleVisitor for Survey<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        if (self.wanted)(&name) {
            let mut shape = param.lazy_shape().to_vec();
            if self.path.is_transposed() {
                shape.swap(0, 1);
            }
            self.parameters.push((name, shape));
        }
    }
}

/// Reads values a little ahead of the traversal, several tensors at once.
struct Reader<'a> {
    views: &'a Views<'a>,
    precision: Option<FloatDType>,
    /// Names still to be read.
    queue: VecDeque<String>,
    ready: VecDeque<TensorData>,
}

impl Reader<'_> {
    fn next(&mut self) -> Result<TensorData, WeightsError> {
        // On a GPU this much waits on the host for its upload; on a CPU it is where it stays.
        const AHEAD: usize = 1 << 30;
        if self.ready.is_empty() {
            let mut bytes = 0;
            let mut batch = Vec::new();
            while bytes < AHEAD
                && let Some(name) = self.queue.pop_front()
            {
                let view = self.views[name.as_str()];
                bytes += view.bytes();
                batch.push((name, view));
            }
            // Vectors are few values, which elementwise work reads: they stay in F32.
            let precision = |view: &View| match view.shape() {
                [_] => self.precision.map(|_| FloatDType::F32),
                _ => self.precision,
            };
            let read = batch
                .into_par_iter()
                .map(|(name, view)| view.data(&name, precision(&view)));
            self.ready = read.collect::<Result<Vec<_>, _>>()?.into();
        }
        Ok(self
            .ready
            .pop_front()
            .expect("a module is mapped in the order in which it is visited"))
    }
}

struct Loader<'a, F> {
    path: ModulePath,
    reader: Reader<'a>,
    wanted: F,
    failure: Option<WeightsError>,
}

impl<F: Fn(&str) -> bool> ModuleMapper for Loader<'_, F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failure.is_some() || !(self.wanted)(&self.path.name()) {
            return param;
        }
        let data = match self.reader.next() {
            Ok(data) => data,
            Err(error) => {
                self.failure = Some(error);
                return param;
            }
        };
        let dtype = data.dtype();
        let tracked = param.is_initialized() && param.val().is_require_grad();
        let device = param.lazy_device().without_autodiff();
        let mut value = Tensor::<D>::from_data(data, (&device, dtype));
        if self.path.is_transposed() {
            value = value.swap_dims(0, 1);
        }
        if tracked {
            value = value.autodiff().require_grad();
        }
        Param::initialized(param.id, value)
    }
}
