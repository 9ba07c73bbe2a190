//! Without the CPU backend no block is run whole.

use std::convert::Infallible;
use std::ops::Range;

use burn::tensor::{Device, Tensor};

use crate::tape::{Recompute, Slopes};
use crate::{Block, Dropout, KvCache, LlamaConfig, Padding};

/// Never there.
#[derive(Debug)]
pub(crate) struct Fused(Infallible);

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

    pub(crate) fn run(&self, _embeddings: Tensor<3>) -> Tensor<2> {
        match self.0 {}
    }

    pub(crate) fn record(
        self,
        _embeddings: Tensor<3>,
        _lowest: usize,
        _recompute: Recompute,
    ) -> (Tensor<2>, Self) {
        match self.0 {}
    }

    pub(crate) fn backward(
        self,
        _slope: Tensor<2>,
        _wants_input: bool,
        _slopes: &mut Slopes,
    ) -> Option<Tensor<3>> {
        match self.0 {}
    }
}

/// Never.
pub(crate) fn fill(
    _blocks: &[Block],
    _config: &LlamaConfig,
    _embeddings: &Tensor<3>,
    _gaps: &[Vec<Range<usize>>],
    _cache: &mut KvCache,
) -> Option<Tensor<2>> {
    None
}

/// Whether tensors on `device` are in the host's memory; without the CPU backend none is.
pub fn is_cpu(_device: &Device) -> bool {
    false
}

/// Frees what passes on CPU keep for the next ones: nothing.
pub fn free_idle_memory() {}
