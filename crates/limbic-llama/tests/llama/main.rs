//! The crate from outside, against numbers of transformers and PEFT (scripts/golden/llama.py).

/// Adapter folders: PEFT's read, ours written, damaged ones refused.
mod adapter;
/// Folders of weights: what is passed over, what is refused.
mod folders;
/// Texts: cache, batches, stop tokens.
mod generation;
/// Forward passes and gradients.
mod golden;
/// Plausible mistakes, each of which the comparison must see.
mod mistakes;
/// Several samples in one row.
mod packed;
/// Going back through the decoder a block at a time.
mod tape;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use limbic_llama::{Dropout, Llama, Padding, Slopes};
use limbic_weights::{ModulePath, Weights};

/// The folders of tests/golden/llama.
const MODELS: [&str; 5] = ["untied", "tied", "llama3", "qwen2", "biased"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/llama")
        .join(name)
}

fn read(name: &str) -> Llama {
    Llama::read(&folder(name), &Device::flex()).unwrap()
}

/// The reference tensors and the token ids of one model.
struct Reference {
    tensors: Weights,
    text: serde_json::Value,
}

impl Reference {
    fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(folder(name).join("reference.json")).unwrap();
        Self {
            tensors: Weights::read(&folder(name).join("reference.safetensors")).unwrap(),
            text: serde_json::from_str(&text).unwrap(),
        }
    }

    fn rows(&self) -> Vec<Vec<u32>> {
        [0, 1].map(|row| numbers(&self.text["ids"][row])).to_vec()
    }

    fn ids(&self) -> Tensor<2, Int> {
        let rows = self.rows();
        let shape = [2, rows[0].len()];
        let ids: Vec<i64> = rows.concat().into_iter().map(i64::from).collect();
        Tensor::from_data(TensorData::new(ids, shape), &Device::flex())
    }

    fn values(&self, name: &str) -> &[f32] {
        &self.tensors.tensors[name].values
    }

    fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let tensor = &self.tensors.tensors[name];
        let data = TensorData::new(tensor.values.clone(), tensor.shape.clone());
        Tensor::from_data(data, &Device::flex())
    }
}

fn numbers(value: &serde_json::Value) -> Vec<u32> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|n| n.as_u64().unwrap() as u32).collect()
}

/// Hidden states of the last block and logits at every position, `[B, L, D]` and `[B, L, V]`.
fn forward(llama: &Llama, embeddings: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
    forward_with(llama, embeddings, Dropout::OFF)
}

fn forward_with(llama: &Llama, embeddings: Tensor<3>, dropout: Dropout) -> (Tensor<3>, Tensor<3>) {
    let hidden = llama.hidden(embeddings, &Padding::Right, None, dropout);
    let [rows, slots, width] = hidden.dims();
    let logits = llama.logits(hidden.clone().reshape([rows * slots, width]), dropout);
    let vocab = logits.dims()[1];
    (hidden, logits.reshape([rows, slots, vocab]))
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// Largest difference, as a share of the largest wanted value.
fn distance(got: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(got.len(), wanted.len());
    let largest =
        |values: &mut dyn Iterator<Item = f32>| values.fold(0.0f32, |m, v| m.max(v.abs()));
    let difference = largest(&mut got.iter().zip(wanted).map(|(g, w)| g - w));
    difference / largest(&mut wanted.iter().copied())
}

/// Makes autodiff leaves of the parameters whose name `chosen` accepts.
fn track(llama: Llama, chosen: fn(&str) -> bool) -> Llama {
    struct Tracker {
        path: ModulePath,
        chosen: fn(&str) -> bool,
    }
    impl ModuleMapper for Tracker {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !(self.chosen)(&self.path.name()) {
                return param;
            }
            Param::initialized(param.id, param.val().autodiff().require_grad())
        }
    }
    llama.map(&mut Tracker {
        path: ModulePath::default(),
        chosen,
    })
}

/// The slopes at all parameters that have one.
fn named_gradients(llama: &Llama, slopes: &Slopes) -> BTreeMap<String, Vec<f32>> {
    struct Collector<'a> {
        path: ModulePath,
        slopes: &'a Slopes,
        named: BTreeMap<String, Vec<f32>>,
    }
    impl ModuleVisitor for Collector<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(slope) = self.slopes.of(param) {
                self.named.insert(self.path.name(), host(slope));
            }
        }
    }
    let mut collector = Collector {
        path: ModulePath::default(),
        slopes,
        named: BTreeMap::new(),
    };
    llama.visit(&mut collector);
    collector.named
}
