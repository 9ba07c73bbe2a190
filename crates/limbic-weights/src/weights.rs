use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use safetensors::{Dtype, tensor::TensorView};

use crate::{ModulePath, Precision, TensorDigest, WeightsError};

/// A tensor on the host, row-major, in PyTorch's layout.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` values.
    pub values: Vec<f32>,
}

/// A set of named tensors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    /// Sorted by name, so that every traversal and every file has one order.
    pub tensors: BTreeMap<String, NamedTensor>,
}

impl Weights {
    /// Reads what [`Checkpoint::open`](crate::Checkpoint::open) opens, in F32.
    ///
    /// # Errors
    /// A missing or damaged file, a dtype that is no float, a shard without a tensor it was promised to hold.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        crate::Checkpoint::open(path)?.weights()
    }

    /// The float parameters of a module, by PyTorch's names and layouts.
    pub fn collect<M: Module>(module: &M) -> Self {
        Self::collect_only(module, |_| true)
    }

    /// As [`collect`](Self::collect), for the parameters whose name `wanted` accepts.
    pub fn collect_only<M: Module>(module: &M, wanted: impl Fn(&str) -> bool) -> Self {
        let mut collector = Collector {
            path: ModulePath::default(),
            weights: Self::default(),
            wanted,
        };
        module.visit(&mut collector);
        collector.weights
    }

    /// Writes a safetensors file of F32 whole or not at all. The same weights give the same bytes.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), WeightsError> {
        self.write_in(path, Precision::F32)
    }

    /// As [`write`](Self::write), rounded to `precision`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_in(&self, path: &Path, precision: Precision) -> Result<(), WeightsError> {
        let dtype = match precision {
            Precision::F32 => Dtype::F32,
            Precision::F16 => Dtype::F16,
            Precision::Bf16 => Dtype::BF16,
        };
        let bytes: BTreeMap<&str, Vec<u8>> = self
            .tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), precision.encode(&tensor.values)))
            .collect();
        let views = self.tensors.iter().map(|(name, tensor)| {
            let view = TensorView::new(dtype, tensor.shape.clone(), &bytes[name.as_str()])
                .expect("a tensor holds as many values as its shape says");
            (name.as_str(), view)
        });
        // Readers in the PyTorch world refuse a file without this entry; a second entry would make the bytes depend on hashing.
        let metadata = Some([("format".to_string(), "pt".to_string())].into());
        let file =
            safetensors::serialize(views, metadata).map_err(|error| WeightsError::Format {
                path: path.to_path_buf(),
                detail: error.to_string(),
            })?;
        crate::write_whole(path, &file).map_err(WeightsError::io(path))
    }

    /// The tensors whose name `keep` accepts.
    pub fn filter(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self {
            tensors: self
                .tensors
                .iter()
                .filter(|(name, _)| keep(name))
                .map(|(name, tensor)| (name.clone(), tensor.clone()))
                .collect(),
        }
    }

    /// The tensors below `prefix`, without it.
    pub fn below(&self, prefix: &str) -> Self {
        Self {
            tensors: self
                .tensors
                .iter()
                .filter_map(|(name, tensor)| {
                    Some((name.strip_prefix(prefix)?.to_string(), tensor.clone()))
                })
                .collect(),
        }
    }

    /// Number of values in all tensors.
    pub fn num_values(&self) -> usize {
        self.tensors.values().map(|t| t.values.len()).sum()
    }

    /// SHA-256 over names, shapes and values, in hex; see [`TensorDigest`].
    pub fn sha256(&self) -> String {
        let mut digest = TensorDigest::default();
        for (name, tensor) in &self.tensors {
            digest.update(name, &tensor.shape, &tensor.values);
        }
        digest.finish()
    }
}

struct Collector<F> {
    path: ModulePath,
    weights: Weights,
    wanted: F,
}

impl<F: Fn(&str) -> bool> ModuleVisitor for Collector<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        if !(self.wanted)(&name) {
            return;
        }
        let mut value = param.val();
        if self.path.is_transposed() {
            value = value.swap_dims(0, 1);
        }
        let shape = value.dims().to_vec();
        let values = value
            .into_data()
            .convert_dtype(DType::F32)
            .try_into_vec::<f32>()
            .expect("converted to F32 above");
        self.weights
            .tensors
            .insert(name, NamedTensor { shape, values });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
    use burn::tensor::Device;

    #[derive(Module, Debug)]
    enum Choice {
        Wide(Linear),
    }

    #[derive(Module, Debug)]
    struct Model {
        norm: LayerNorm,
        layers: Vec<Linear>,
        choice: Choice,
    }

    fn model() -> Model {
        let device = Device::flex();
        let model = Model {
            norm: LayerNormConfig::new(3).init(&device),
            layers: vec![LinearConfig::new(3, 2).with_bias(false).init(&device)],
            choice: Choice::Wide(LinearConfig::new(3, 4).init(&device)),
        };
        crate::seed(model, 3)
    }

    #[test]
    fn names_and_layouts_are_pytorchs() {
        let weights = Weights::collect(&model());
        let shapes: Vec<(String, Vec<usize>)> = weights
            .tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
            .collect();
        let expected = [
            ("choice.bias", vec![4]),
            ("choice.weight", vec![4, 3]),
            ("layers.0.weight", vec![2, 3]),
            ("norm.bias", vec![3]),
            ("norm.weight", vec![3]),
        ];
        assert_eq!(
            shapes,
            expected.map(|(name, shape)| (name.to_string(), shape))
        );
    }

    #[test]
    fn a_file_brings_back_the_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let weights = Weights::collect(&model());
        weights.write(&path).unwrap();
        assert_eq!(Weights::read(&path).unwrap(), weights);
        let other = crate::load(crate::seed(model(), 4), &weights).unwrap();
        assert_eq!(Weights::collect(&other).sha256(), weights.sha256());
        assert_ne!(Weights::collect(&crate::seed(model(), 4)), weights);
    }

    #[test]
    fn misfits_are_listed_with_the_nearest_name() {
        let mut weights = Weights::collect(&model());
        let tensor = weights.tensors.remove("layers.0.weight").unwrap();
        weights.tensors.insert("layers.0.weigth".into(), tensor);
        weights.tensors.get_mut("norm.bias").unwrap().shape = vec![1, 3];
        let message = crate::load(model(), &weights).unwrap_err().to_string();
        for part in [
            "missing `layers.0.weight` [2, 3]",
            "nearest in the file: `layers.0.weigth`",
            "unexpected `layers.0.weigth`",
            "`norm.bias` has shape [1, 3], wanted [3]",
        ] {
            assert!(message.contains(part), "{part} not in: {message}");
        }
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        Weights::collect(&model()).write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let message = Weights::read(&path).unwrap_err().to_string();
        assert!(message.contains("w.safetensors"), "{message}");
        assert!(matches!(
            Weights::read(folder.path()),
            Err(WeightsError::Absent(_))
        ));
    }
}
