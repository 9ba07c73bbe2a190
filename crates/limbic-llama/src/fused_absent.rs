//! Without the CPU backend no block is run whole.

use burn::tensor::Tensor;

use crate::tape::{Recompute, Slopes};
use crate::{Block, Dropout, KvCache, LlamaConfig, Padding};

/// Never there.
#[derive(Debug)]
pub(crate) enum Fused {}

impl Fused {
    pub(crate) fn of(
        _blocks: &[Block],
        _config: &LlamaConfig,
        _embeddings: &Tensor<3>,
        _padding: &Padding,
        _rows: &[usize],
        _dropout: Dropout,
    ) -> Option<Self> {
        None
    }

    pub(crate) fn is_trained(&self) -> bool {
        match *self {}
    }

    pub(crate) fn run(&self, _embeddings: Tensor<3>) -> Tensor<2> {
        match *self {}
    }

    pub(crate) fn fill(&self, _embeddings: Tensor<3>, _cache: &mut KvCache) -> Tensor<2> {
        match *self {}
    }

    pub(crate) fn record(self, _embeddings: Tensor<3>, _recompute: Recompute) -> (Tensor<2>, Self) {
        match self {}
    }

    pub(crate) fn backward(
        self,
        _slope: Tensor<2>,
        _wants_input: bool,
        _slopes: &mut Slopes,
    ) -> Option<Tensor<3>> {
        match self {}
    }
}
