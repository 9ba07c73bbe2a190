//! Going back through the decoder without a tape of all its operations (the layer at a time of docs/architecture.md).
//!
//! A pass runs forward on plain tensors and keeps what its way back needs; what it gives is a leaf of a new tape, on which
//! losses are formed. [`Tape::backward`] runs that tape, then the passes block by block, then the tape that their inputs
//! came from.

use std::cell::RefCell;
use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::fused::Fused;
use crate::{Block, Context, Dropout};

/// What is computed again on the way back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Nothing: what the way back needs is kept.
    #[default]
    None,
    /// Each block: only its input is kept (Chen et al. 2016). The same gradients for less memory and one more pass forward.
    Block,
}

/// How a pass through the decoder is run.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// What the adapters do not see.
    pub dropout: Dropout,
    /// Keeps what the way back needs. Without one, whatever is tracked stays on burn's tape.
    pub tape: Option<&'a Tape>,
}

/// The passes of one shard, in their order.
#[derive(Debug, Default)]
pub struct Tape {
    recompute: Recompute,
    passes: RefCell<Vec<Recorded>>,
}

/// Slopes at parameters.
#[derive(Default)]
pub struct Slopes {
    tapes: Vec<Gradients>,
    of_blocks: HashMap<ParamId, Tensor<1>>,
}

/// A pass that can be gone back through.
#[derive(Debug)]
struct Recorded {
    /// `[B, L, D]`, on the tape that it came from, if on any.
    input: Tensor<3>,
    /// `[N, D]`, a leaf.
    output: Tensor<2>,
    stack: Stack,
}

#[derive(Debug)]
pub(crate) enum Stack {
    Fused(Box<Fused>),
    Replayed(Box<Replayed>),
}

impl Pass<'static> {
    /// Nothing is dropped and nothing kept: evaluation and generation.
    pub const PLAIN: Self = Self {
        dropout: Dropout::OFF,
        tape: None,
    };
}

impl Tape {
    /// An empty tape.
    pub fn new(recompute: Recompute) -> Self {
        Self {
            recompute,
            passes: RefCell::default(),
        }
    }

    pub(crate) fn recompute(&self) -> Recompute {
        self.recompute
    }

    /// Keeps a pass; what it gave comes back as a leaf.
    pub(crate) fn record(&self, input: Tensor<3>, output: Tensor<2>, stack: Stack) -> Tensor<2> {
        let output = output.autodiff().require_grad();
        self.passes.borrow_mut().push(Recorded {
            input,
            output: output.clone(),
            stack,
        });
        output
    }

    /// Slopes of `objective`, which was formed from what the passes gave.
    ///
    /// # Panics
    /// When `objective` is on no tape.
    pub fn backward(self, objective: Tensor<1>) -> Slopes {
        let last = objective.backward();
        let mut slopes = Slopes::default();
        let mut pulls = Vec::new();
        for Recorded {
            input,
            output,
            stack,
        } in self.passes.into_inner()
        {
            // What no loss reads has no slope.
            let Some(slope) = output.grad(&last) else {
                continue;
            };
            let wants_input = input.is_tracked();
            let at_input = match stack {
                Stack::Fused(fused) => fused.backward(slope, wants_input, &mut slopes),
                Stack::Replayed(replayed) => replayed.backward(slope, wants_input, &mut slopes),
            };
            let shape = input.dims();
            pulls.extend(at_input.map(|slope| (input * slope.reshape(shape)).sum()));
        }
        slopes.tapes.push(last);
        // One call: inputs of several passes came from one tape.
        if let Some(pull) = pulls.into_iter().reduce(|a, b| a + b) {
            slopes.tapes.push(pull.backward());
        }
        slopes
    }
}

impl Slopes {
    /// The slope at a parameter, `[values]`; `None` where it took no part.
    pub fn of<const D: usize>(&self, parameter: &Param<Tensor<D>>) -> Option<Tensor<1>> {
        let value = parameter.val();
        let on_tapes = self.tapes.iter().filter_map(|tape| value.grad(tape));
        let on_tapes = on_tapes.map(|slope| slope.reshape([-1]));
        let of_blocks = self.of_blocks.get(&parameter.id).cloned();
        on_tapes.chain(of_blocks).reduce(|a, b| a + b)
    }

    /// Adds the slope at a parameter that a block went back through.
    #[cfg(feature = "flex")]
    pub(crate) fn add(&mut self, id: ParamId, slope: Tensor<1>) {
        let sum = match self.of_blocks.remove(&id) {
            None => slope,
            Some(before) => before + slope,
        };
        self.of_blocks.insert(id, sum);
    }
}

impl From<Gradients> for Slopes {
    fn from(tape: Gradients) -> Self {
        Self {
            tapes: vec![tape],
            of_blocks: HashMap::new(),
        }
    }
}

/// Blocks that are run again, each on a tape of its own that lives no longer than its way back: on every backend.
#[derive(Debug)]
pub(crate) struct Replayed {
    blocks: Vec<Block>,
    context: Context,
    /// The block that the way back ends with.
    lowest: usize,
    /// From that block on, `[B, L, D]`.
    inputs: Vec<Tensor<3>>,
    /// Of `B · L`, those that are read.
    rows: Tensor<1, Int>,
}

impl Replayed {
    /// Runs `blocks` without a tape, and gives the states of `rows`, `[N, D]`. The way back ends with block `lowest`.
    pub(crate) fn run(
        blocks: &[Block],
        lowest: usize,
        context: Context,
        embeddings: Tensor<3>,
        rows: &[usize],
    ) -> (Tensor<2>, Self) {
        let mut inputs = Vec::with_capacity(blocks.len() - lowest);
        let mut x = embeddings;
        for (number, block) in blocks.iter().enumerate() {
            if number >= lowest {
                inputs.push(x.clone());
            }
            x = block.valid().forward(x, &context, None);
        }
        let rows = row_numbers(rows, &x.device());
        let output = select_rows(x, rows.clone());
        let replayed = Self {
            blocks: blocks.to_vec(),
            context,
            lowest,
            inputs,
            rows,
        };
        (output, replayed)
    }

    fn backward(
        self,
        slope: Tensor<2>,
        wants_input: bool,
        slopes: &mut Slopes,
    ) -> Option<Tensor<3>> {
        let mut inputs = self.inputs;
        let shape = inputs.first()?.dims();
        let [rows, slots, width] = shape;
        let mut slope = Tensor::<2>::zeros([rows * slots, width], &slope.device())
            .select_assign(0, self.rows, slope, burn::tensor::IndexingUpdateOp::Add)
            .reshape(shape);
        for (number, block) in self.blocks.iter().enumerate().skip(self.lowest).rev() {
            let mut x = inputs.pop().expect("one input a block");
            let wants_x = number > self.lowest || wants_input;
            if wants_x {
                x = x.autodiff().require_grad();
            }
            let y = block.forward(x.clone(), &self.context, None);
            // The product's own value is of no interest: its slope at y is `slope`.
            let mut tape = (y * slope.clone()).sum().backward();
            if wants_x {
                slope = x.grad_remove(&mut tape).expect("the block reads its input");
            }
            slopes.tapes.push(tape);
        }
        wants_input.then_some(slope)
    }
}

/// The first of `blocks` with a trained parameter; their number where none has one.
pub(crate) fn lowest_trained(blocks: &[Block]) -> usize {
    struct Search {
        found: bool,
    }
    impl ModuleVisitor for Search {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found |= param.val().is_require_grad();
        }
    }
    let is_trained = |block: &Block| {
        let mut search = Search { found: false };
        block.visit(&mut search);
        search.found
    };
    blocks.iter().position(is_trained).unwrap_or(blocks.len())
}

/// As a tensor of indices.
pub(crate) fn row_numbers(rows: &[usize], device: &burn::tensor::Device) -> Tensor<1, Int> {
    let numbers: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
    let shape = [numbers.len()];
    let device = device.clone().without_autodiff();
    Tensor::from_data(TensorData::new(numbers, shape), &device)
}

/// `[B, L, D]` to `[N, D]`.
pub(crate) fn select_rows(states: Tensor<3>, rows: Tensor<1, Int>) -> Tensor<2> {
    let [size, length, width] = states.dims();
    states.reshape([size * length, width]).select(0, rows)
}
