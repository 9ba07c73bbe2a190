use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

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
    /// Reads a safetensors file, or a folder in Hugging Face's layout (`model.safetensors`, or the
    /// shards that `model.safetensors.index.json` lists).
    ///
    /// # Errors
    /// A missing or damaged file, a dtype that is no float, a shard without a tensor it was promised to hold.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        if !path.is_dir() {
            return Self::read_file(path);
        }
        let single = path.join("model.safetensors");
        let index = path.join("model.safetensors.index.json");
        if single.is_file() {
            Self::read_file(&single)
        } else if index.is_file() {
            Self::read_shards(path, &index)
        } else {
            Err(WeightsError::Absent(path.to_path_buf()))
        }
    }

    fn read_shards(folder: &Path, index: &Path) -> Result<Self, WeightsError> {
        let text = std::fs::read_to_string(index).map_err(WeightsError::io(index))?;
        let format = |detail: String| WeightsError::Format {
            path: index.to_path_buf(),
            detail,
        };
        let parsed: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| format(error.to_string()))?;
        let map = parsed["weight_map"]
            .as_object()
            .ok_or_else(|| format("no object `weight_map`".into()))?;
        let mut of_shard: BTreeMap<PathBuf, Vec<&str>> = BTreeMap::new();
        for (name, shard) in map {
            let shard = shard
                .as_str()
                .filter(|shard| !shard.contains(['/', '\\']))
                .ok_or_else(|| format(format!("`{name}` is not mapped to a file name")))?;
            of_shard.entry(folder.join(shard)).or_default().push(name);
        }
        let mut all = Self::default();
        for (shard, names) in of_shard {
            let mut part = Self::read_file(&shard)?;
            for name in names {
                let tensor = part
                    .tensors
                    .remove(name)
                    .ok_or_else(|| WeightsError::Format {
                        path: shard.clone(),
                        detail: format!("`{name}` is missing, which {} promises", index.display()),
                    })?;
                all.tensors.insert(name.to_string(), tensor);
            }
        }
        Ok(all)
    }

    fn read_file(path: &Path) -> Result<Self, WeightsError> {
        let bytes = std::fs::read(path).map_err(WeightsError::io(path))?;
        let format = |detail: String| WeightsError::Format {
            path: path.to_path_buf(),
            detail,
        };
        let file = SafeTensors::deserialize(&bytes).map_err(|error| format(error.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let values = widen(&view).map_err(|got| {
                format(format!(
                    "`{name}` has dtype {got:?}, wanted F32, F16 or BF16"
                ))
            })?;
            let shape = view.shape().to_vec();
            tensors.insert(name.to_string(), NamedTensor { shape, values });
        }
        Ok(Self { tensors })
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

    /// SHA-256 over names, shapes and bits, in hex.
    pub fn sha256(&self) -> String {
        let mut digest = TensorDigest::default();
        for (name, tensor) in &self.tensors {
            digest.update(name, tensor);
        }
        digest.finish()
    }
}

fn widen(view: &TensorView) -> Result<Vec<f32>, Dtype> {
    let half = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
    match view.dtype() {
        Dtype::F32 => Ok(view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()),
        Dtype::BF16 => Ok(view
            .data()
            .chunks_exact(2)
            .map(|b| f32::from_bits(u32::from(half(b)) << 16))
            .collect()),
        Dtype::F16 => Ok(view
            .data()
            .chunks_exact(2)
            .map(|b| burn::tensor::f16::from_bits(half(b)).to_f32())
            .collect()),
        other => Err(other),
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
