//! The first layer of every vision transformer: a convolution whose stride is its kernel, run as one matrix
//! product on cut patches.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor};

/// A convolution over patches of a picture, named as `torch.nn.Conv2d`.
#[derive(Module, Debug)]
pub(super) struct PatchConv {
    /// `[D, C, patch, patch]`
    weight: Param<Tensor<4>>,
    /// `[D]`
    bias: Option<Param<Tensor<1>>>,
}

impl PatchConv {
    pub(super) fn new(dim: usize, patch: usize, bias: bool, device: &Device) -> Self {
        Self {
            weight: Initializer::Zeros.init([dim, 3, patch, patch], device),
            bias: bias.then(|| Initializer::Zeros.init([dim], device)),
        }
    }

    /// Side of a patch, in pixels.
    pub(super) fn patch(&self) -> usize {
        let [_, _, patch, _] = self.weight.val().dims();
        patch
    }

    /// Patches in reading order; pixels beyond the last whole patch are left out, as by a convolution.
    ///
    /// # Shapes
    /// `[B, C, H, W]` to `[B, (H / patch) (W / patch), D]`
    pub(super) fn forward(&self, pixel_values: Tensor<4>) -> Tensor<3> {
        let (weight, patch) = (self.weight.val(), self.patch());
        let [batch, channels, height, width] = pixel_values.dims();
        let (rows, columns) = (height / patch, width / patch);
        let patches = pixel_values
            .narrow(2, 0, rows * patch)
            .narrow(3, 0, columns * patch)
            .reshape([batch, channels, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, channels * patch * patch]);
        let bias = self.bias.as_ref().map(Param::val);
        linear(patches, weight.flatten::<2>(1, 3).transpose(), bias)
    }
}

/// A convolution over tubelets, patches that last a few frames; named as `torch.nn.Conv3d`.
#[derive(Module, Debug)]
pub(super) struct TubeletConv {
    /// `[D, C, frames, patch, patch]`
    weight: Param<Tensor<5>>,
    /// `[D]`
    bias: Param<Tensor<1>>,
}

impl TubeletConv {
    pub(super) fn new(dim: usize, frames: usize, patch: usize, device: &Device) -> Self {
        Self {
            weight: Initializer::Zeros.init([dim, 3, frames, patch, patch], device),
            bias: Initializer::Zeros.init([dim], device),
        }
    }

    /// Tubelets in the order of time, then of reading.
    ///
    /// # Shapes
    /// `[B, T, C, H, W]` to `[B, (T / frames) (H / patch) (W / patch), D]`
    pub(super) fn forward(&self, pixel_values: Tensor<5>) -> Tensor<3> {
        let weight = self.weight.val();
        let [_, _, frames, patch, _] = weight.dims();
        let [batch, time, channels, height, width] = pixel_values.dims();
        let (steps, rows, columns) = (time / frames, height / patch, width / patch);
        let tubelets = pixel_values
            .narrow(1, 0, steps * frames)
            .narrow(3, 0, rows * patch)
            .narrow(4, 0, columns * patch)
            .reshape([batch, steps, frames, channels, rows, patch, columns, patch])
            .permute([0, 1, 4, 6, 3, 2, 5, 7])
            .reshape([
                batch,
                steps * rows * columns,
                channels * frames * patch * patch,
            ]);
        linear(
            tubelets,
            weight.flatten::<2>(1, 4).transpose(),
            Some(self.bias.val()),
        )
    }
}
