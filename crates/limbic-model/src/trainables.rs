//! The one list of what is trained.
//!
//! All trained values form one flat F32 vector in the model's traversal order. Replicas are filled from it, their
//! gradients come back in its shape (zeros where a parameter took no part), and clipping, reduction, the optimizer
//! and the checkpoint work on it alone, so that they cannot disagree about what is trained.

use std::ops::Range;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor};
use limbic_llama::Slopes;
use limbic_weights::{ModulePath, Weights, WeightsError};
use serde::{Deserialize, Serialize};

use crate::EmotionLlm;

/// What can be trained or left frozen as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The decoder's own weights.
    Decoder,
    /// The adapters on them.
    Lora,
    /// The projectors of all inputs.
    Projectors,
    /// The fusions of several inputs.
    Fusions,
    /// The heads: of classes, of valence, the alignment of clips with captions, and the mask of hidden tokens.
    Head,
}

/// The modules of [`Part::Head`].
const HEADS: [&str; 4] = ["head.", "valence.", "alignment.", "mask."];

impl Part {
    /// The part a parameter belongs to; `None` for measured input statistics, which nothing trains.
    pub fn of(name: &str) -> Option<Self> {
        let last = name.rsplit('.').next().unwrap_or(name);
        if last == "input_mean" || last == "input_std" {
            None
        } else if name.starts_with("projectors.") {
            Some(Self::Projectors)
        } else if name.starts_with("fusions.") {
            Some(Self::Fusions)
        } else if HEADS.iter().any(|head| name.starts_with(head)) {
            Some(Self::Head)
        } else if [".lora_A.", ".lora_B.", ".lora_magnitude_vector"]
            .iter()
            .any(|adapter| name.contains(adapter))
        {
            Some(Self::Lora)
        } else {
            Some(Self::Decoder)
        }
    }
}

/// A trained parameter's place in the flat vector.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    name: String,
    part: Part,
    range: Range<usize>,
}

/// Names, parts and places of all trained parameters of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Trainables {
    entries: Vec<Entry>,
    num_values: usize,
}

impl Trainables {
    /// The parameters of `model` that belong to `parts`.
    pub fn of(model: &EmotionLlm, parts: &[Part]) -> Self {
        let mut lister = Lister {
            path: ModulePath::default(),
            parts,
            found: Self {
                entries: Vec::new(),
                num_values: 0,
            },
        };
        model.visit(&mut lister);
        lister.found
    }

    /// Length of the flat vector.
    pub fn num_values(&self) -> usize {
        self.num_values
    }

    /// Number of values of each part, in the order of [`Part`].
    pub fn num_values_of(&self, part: Part) -> usize {
        self.entries
            .iter()
            .filter(|entry| entry.part == part)
            .map(|entry| entry.range.len())
            .sum()
    }

    /// Stretches of the flat vector that belong to one part, in order.
    pub fn stretches(&self) -> Vec<(Part, Range<usize>)> {
        let mut stretches: Vec<(Part, Range<usize>)> = Vec::new();
        for entry in &self.entries {
            match stretches.last_mut() {
                Some((part, range)) if *part == entry.part => range.end = entry.range.end,
                _ => stretches.push((entry.part, entry.range.clone())),
            }
        }
        stretches
    }

    /// The trained parameters with their parts and their places in the flat vector, in order.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, Part, Range<usize>)> {
        self.entries
            .iter()
            .map(|entry| (entry.name.as_str(), entry.part, entry.range.clone()))
    }

    /// Whether the parameter of this name is trained.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    /// The trained values as one plain vector.
    pub fn gather(&self, model: &EmotionLlm) -> Tensor<1> {
        let mut collector = ValueCollector {
            walk: Walk::new(self),
            flat: Vec::new(),
        };
        model.visit(&mut collector);
        Tensor::cat(collector.flat, 0)
    }

    /// The gradients of the trained values, and which parameters took part in the loss, in the order of
    /// [`parameters`](Self::parameters); zeros for those that did not.
    pub fn gradients(&self, model: &EmotionLlm, slopes: &Slopes) -> (Tensor<1>, Vec<bool>) {
        let mut collector = GradientCollector {
            walk: Walk::new(self),
            slopes,
            flat: Vec::new(),
            took_part: Vec::new(),
        };
        model.visit(&mut collector);
        (Tensor::cat(collector.flat, 0), collector.took_part)
    }

    /// Number of trained parameters.
    pub fn num_parameters(&self) -> usize {
        self.entries.len()
    }

    /// `model` with the trained values taken from `flat`, as leaves of a new tape.
    pub fn scatter_tracked(&self, model: EmotionLlm, flat: &Tensor<1>) -> EmotionLlm {
        self.scatter(model, flat, true)
    }

    /// `model` with the trained values taken from `flat`, without a tape: for evaluation and saving.
    pub fn scatter_plain(&self, model: EmotionLlm, flat: &Tensor<1>) -> EmotionLlm {
        self.scatter(model, flat, false)
    }

    fn scatter(&self, model: EmotionLlm, flat: &Tensor<1>, tracked: bool) -> EmotionLlm {
        assert_eq!(
            flat.dims(),
            [self.num_values],
            "a vector of another set of parameters"
        );
        model.map(&mut Filler {
            walk: Walk::new(self),
            flat,
            tracked,
        })
    }

    /// The trained values by name.
    pub fn to_weights(&self, model: &EmotionLlm, flat: &Tensor<1>) -> Weights {
        let model = self.scatter_plain(model.clone(), flat);
        Weights::collect_only(&model, |name| self.contains(name))
    }

    /// The flat vector of named values.
    ///
    /// # Errors
    /// Missing, unexpected or wrong-shaped tensors.
    pub fn from_weights(
        &self,
        model: &EmotionLlm,
        weights: &Weights,
    ) -> Result<Tensor<1>, WeightsError> {
        let model = limbic_weights::load_only(model.clone(), weights, |name| self.contains(name))?;
        Ok(self.gather(&model))
    }

    /// Checks that exactly the trained parameters are leaves of a tape, in F32, and the others plain.
    ///
    /// # Panics
    /// Names the first parameter that is not as it should be: the split broke inside the program.
    pub fn assert_split(&self, model: &EmotionLlm) {
        model.visit(&mut SplitCheck {
            walk: Walk::new(self),
        });
    }

    /// Device of the model's parameters, without autodiff.
    pub fn device(model: &EmotionLlm) -> Device {
        model
            .llama
            .model
            .embed_tokens
            .weight
            .lazy_device()
            .without_autodiff()
    }
}

struct Lister<'a> {
    path: ModulePath,
    parts: &'a [Part],
    found: Trainables,
}

impl ModuleVisitor for Lister<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        if let Some(part) = Part::of(&name).filter(|part| self.parts.contains(part)) {
            let start = self.found.num_values;
            self.found.num_values += param.lazy_shape().num_elements();
            self.found.entries.push(Entry {
                name,
                part,
                range: start..self.found.num_values,
            });
        }
    }
}

/// Follows a traversal and tells which parameters are trained; they come in the order of the entries.
struct Walk<'a> {
    path: ModulePath,
    entries: std::iter::Peekable<std::slice::Iter<'a, Entry>>,
}

impl<'a> Walk<'a> {
    fn new(trainables: &'a Trainables) -> Self {
        Self {
            path: ModulePath::default(),
            entries: trainables.entries.iter().peekable(),
        }
    }

    fn next_if_trained(&mut self) -> Option<&'a Entry> {
        let name = self.path.name();
        self.entries.next_if(|entry| entry.name == name)
    }
}

struct ValueCollector<'a> {
    walk: Walk<'a>,
    flat: Vec<Tensor<1>>,
}

impl ModuleVisitor for ValueCollector<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.walk.next_if_trained().is_some() {
            self.flat.push(param.val().without_autodiff().reshape([-1]));
        }
    }
}

struct GradientCollector<'a> {
    walk: Walk<'a>,
    slopes: &'a Slopes,
    flat: Vec<Tensor<1>>,
    took_part: Vec<bool>,
}

impl ModuleVisitor for GradientCollector<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(entry) = self.walk.next_if_trained() else {
            return;
        };
        let slope = self.slopes.of(param);
        self.took_part.push(slope.is_some());
        self.flat.push(slope.unwrap_or_else(|| {
            let device = param.lazy_device().without_autodiff();
            Tensor::zeros([entry.range.len()], &device)
        }));
    }
}

struct Filler<'a> {
    walk: Walk<'a>,
    flat: &'a Tensor<1>,
    tracked: bool,
}

impl ModuleMapper for Filler<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(entry) = self.walk.next_if_trained() else {
            return param;
        };
        let value = self
            .flat
            .clone()
            .slice([entry.range.clone()])
            .reshape(param.lazy_shape());
        // A fresh id: leaves of two tapes must not be taken for one another.
        let id = ParamId::new();
        Param::initialized(
            id,
            if self.tracked {
                value.autodiff().require_grad()
            } else {
                value
            },
        )
    }
}

struct SplitCheck<'a> {
    walk: Walk<'a>,
}

impl ModuleVisitor for SplitCheck<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let trained = self.walk.next_if_trained().is_some();
        let value = param.val();
        assert_eq!(
            (value.is_autodiff(), value.is_require_grad()),
            (trained, trained),
            "`{}` is{} among the trained parameters, but autodiff and require_grad are as on the left",
            self.walk.path.name(),
            if trained { "" } else { " not" }
        );
    }
}
