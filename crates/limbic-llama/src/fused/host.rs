//! The memory of tensors on the backend flex.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Tensor, bf16, f16};
use limbic_kernels::Stored;

/// A tensor's memory.
#[derive(Debug)]
pub(crate) struct Host(FlexTensor);

/// The memory of a matrix, in any precision.
#[derive(Debug)]
pub(crate) struct HostMatrix(FlexTensor);

impl Host {
    /// `None` for a tensor of another backend or precision.
    pub(crate) fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        if tensor.dtype() != DType::F32 {
            return None;
        }
        let plain = tensor.clone().without_autodiff();
        let tensor = plain.try_into_primitive::<Flex>().ok()?;
        // A stretch of a larger tensor is read where it lies: flex would copy it.
        let is_whole = tensor.is_contiguous();
        Some(Self(if is_whole {
            tensor
        } else {
            tensor.to_contiguous()
        }))
    }

    pub(crate) fn numbers(&self) -> &[f32] {
        let layout = self.0.layout();
        let start = layout.start_offset();
        &self.0.storage::<f32>()[start..start + layout.num_elements()]
    }
}

impl HostMatrix {
    /// `None` for a tensor of another backend.
    pub(crate) fn of(tensor: &Tensor<2>) -> Option<Self> {
        let plain = tensor.clone().without_autodiff();
        let tensor = plain.try_into_primitive::<Flex>().ok()?.to_contiguous();
        let is_stored = matches!(tensor.dtype(), DType::F32 | DType::BF16 | DType::F16);
        is_stored.then_some(Self(tensor))
    }

    pub(crate) fn stored(&self) -> Stored<'_> {
        let whole = "a contiguous tensor is one slice";
        match self.0.dtype() {
            DType::F32 => Stored::F32(self.0.as_slice().expect(whole)),
            DType::BF16 => Stored::Bf16(self.0.as_slice::<bf16>().expect(whole)),
            _ => Stored::F16(self.0.as_slice::<f16>().expect(whole)),
        }
    }
}
