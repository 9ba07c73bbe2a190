//! What of a model is trained, as a table for people.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::ModulePath;

/// Numbers of values by kind of parameter. Names that differ in the numbers of blocks only are one kind.
///
/// Shapes are asked for, never values: a model that was not loaded is counted without taking memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterTable {
    /// The trained kinds, in the order of the model.
    pub trained: Vec<ParameterKind>,
    /// Values that are trained.
    pub trainable: usize,
    /// All values.
    pub all: usize,
}

/// One line of a [`ParameterTable`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterKind {
    /// The name of the layer, with `*` for numbers.
    pub name: String,
    /// Parameters of this kind.
    pub tensors: usize,
    /// Values in all of them.
    pub values: usize,
}

impl ParameterTable {
    /// Counts the float parameters of `module`; `is_trained` tells by a parameter's name whether it is.
    pub fn of<M: Module>(module: &M, is_trained: impl Fn(&str) -> bool) -> Self {
        let mut counter = Counter {
            path: ModulePath::default(),
            is_trained,
            places: BTreeMap::new(),
            table: Self {
                trained: Vec::new(),
                trainable: 0,
                all: 0,
            },
        };
        module.visit(&mut counter);
        counter.table
    }

    /// The line that PEFT's `print_trainable_parameters` prints.
    pub fn line(&self) -> String {
        format!(
            "trainable params: {} || all params: {} || trainable%: {:.4}",
            grouped(self.trainable),
            grouped(self.all),
            100.0 * self.trainable as f64 / self.all.max(1) as f64
        )
    }
}

/// One line for each trained kind, one for what is frozen, and PEFT's.
impl fmt::Display for ParameterTable {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        const FROZEN: &str = "(frozen)";
        let names = self.trained.iter().map(|kind| kind.name.len());
        let width = names.chain([FROZEN.len()]).max().unwrap_or_default();
        for kind in &self.trained {
            let ParameterKind { name, tensors, .. } = kind;
            let values = grouped(kind.values);
            writeln!(f, "{name:width$}  {tensors:>5} x  {values:>14}")?;
        }
        let frozen = grouped(self.all - self.trainable);
        writeln!(f, "{FROZEN:width$}  {:>5}    {frozen:>14}", "")?;
        f.write_str(&self.line())
    }
}

/// `1,234,567`
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The name of the layer that holds a parameter, with `*` for numbers.
fn kind(name: &str) -> String {
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let layer = name
        .strip_suffix(".weight")
        .or(name.strip_suffix(".bias"))
        .unwrap_or(name);
    let parts = layer
        .split('.')
        .map(|part| if is_number(part) { "*" } else { part });
    parts.collect::<Vec<_>>().join(".")
}

struct Counter<F> {
    path: ModulePath,
    is_trained: F,
    places: BTreeMap<String, usize>,
    table: ParameterTable,
}

impl<F: Fn(&str) -> bool> ModuleVisitor for Counter<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        let values = param.lazy_shape().num_elements();
        let table = &mut self.table;
        table.all += values;
        if !(self.is_trained)(&name) {
            return;
        }
        table.trainable += values;
        let kind = kind(&name);
        let place = *self.places.entry(kind.clone()).or_insert_with(|| {
            table.trained.push(ParameterKind {
                name: kind,
                tensors: 0,
                values: 0,
            });
            table.trained.len() - 1
        });
        table.trained[place].tensors += 1;
        table.trained[place].values += values;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
    use burn::tensor::Device;

    #[derive(Module, Debug)]
    struct Model {
        layers: Vec<Linear>,
        norm: LayerNorm,
    }

    #[test]
    fn kinds_are_counted_and_the_line_is_pefts() {
        let device = Device::flex();
        let model = Model {
            layers: (0..12)
                .map(|_| LinearConfig::new(30, 40).init(&device))
                .collect(),
            norm: LayerNormConfig::new(7).init(&device),
        };
        let table = ParameterTable::of(&model, |name| name.starts_with("layers."));
        assert_eq!(
            table.to_string(),
            "layers.*     24 x          14,880\n\
             (frozen)                       14\n\
             trainable params: 14,880 || all params: 14,894 || trainable%: 99.9060"
        );
        let peft = ParameterTable {
            trained: Vec::new(),
            trainable: 33_554_432,
            all: 6_771_970_048,
        };
        assert_eq!(
            peft.line(),
            "trainable params: 33,554,432 || all params: 6,771,970,048 || trainable%: 0.4955"
        );
    }
}
