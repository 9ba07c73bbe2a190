//! The convolution that tells time steps apart by what surrounds them (wav2vec 2.0, section 2).

use burn::module::Module;
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{Initializer, PaddingConfig1d};
use burn::tensor::{Device, Tensor};
use limbic_weights::{Checkpoint, NamedTensor, WeightsError};

use super::attention::Activation;

/// A wide grouped convolution over time. Its weight is stored as length and direction and joined when it is read, by
/// [`fold_weight_norm`].
#[derive(Module, Debug)]
pub(crate) struct PositionalConv {
    conv: Conv1d,
    #[module(skip)]
    activation: Activation,
}

impl PositionalConv {
    pub(crate) fn new(
        dim: usize,
        kernel: usize,
        groups: usize,
        activation: Activation,
        device: &Device,
    ) -> Self {
        // Padding by `kernel / 2` on both sides gives one step too many where the kernel is even, and the published
        // code drops the last: the same as one step less of padding behind.
        let behind = (kernel - 1) / 2;
        Self {
            conv: Conv1dConfig::new(dim, dim, kernel)
                .with_groups(groups)
                .with_padding(PaddingConfig1d::Explicit(kernel / 2, behind))
                .with_initializer(Initializer::Zeros)
                .init(device),
            activation,
        }
    }

    /// # Shapes
    /// `[B, T, D]` to `[B, T, D]`
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.conv.forward(x.swap_dims(1, 2));
        self.activation.apply(x).swap_dims(1, 2)
    }
}

/// Joins the two parts of a weight that is normalised for each place in the kernel (`weight_norm` with `dim=2`):
/// `g v / ‖v‖`. Reads `weight_g` and `weight_v`, and the names that torch 2 gives them.
///
/// # Errors
/// One part without the other, or of another shape.
pub(crate) fn fold_weight_norm(
    mut checkpoint: Checkpoint,
    conv: &str,
) -> Result<Checkpoint, WeightsError> {
    let styles = [
        ("weight_g", "weight_v"),
        (
            "parametrizations.weight.original0",
            "parametrizations.weight.original1",
        ),
    ];
    for (length, direction) in styles {
        let (length, direction) = (format!("{conv}.{length}"), format!("{conv}.{direction}"));
        let present = |name: &str| checkpoint.names().any(|other| other == name);
        if !present(&length) && !present(&direction) {
            continue;
        }
        let lengths = checkpoint.take(&length)?;
        let directions = checkpoint.take(&direction)?;
        let [.., kernel] = directions.shape[..] else {
            return Err(WeightsError::Mismatch(format!(
                "`{direction}` is a single number, wanted [channels, channels, kernel]"
            )));
        };
        if lengths.values.len() != kernel {
            return Err(WeightsError::Mismatch(format!(
                "`{length}` has shape {:?}, wanted [1, 1, {kernel}] beside `{direction}` {:?}",
                lengths.shape, directions.shape
            )));
        }
        checkpoint.put(
            format!("{conv}.weight"),
            joined(&lengths, &directions, kernel),
        );
    }
    Ok(checkpoint)
}

fn joined(lengths: &NamedTensor, directions: &NamedTensor, kernel: usize) -> NamedTensor {
    let mut squares = vec![0.0f64; kernel];
    for row in directions.values.chunks(kernel) {
        for (square, value) in squares.iter_mut().zip(row) {
            *square += f64::from(*value).powi(2);
        }
    }
    let scales: Vec<f64> = lengths
        .values
        .iter()
        .zip(&squares)
        .map(|(length, square)| f64::from(*length) / square.sqrt())
        .collect();
    let values = directions.values.chunks(kernel).flat_map(|row| {
        row.iter()
            .zip(&scales)
            .map(|(value, scale)| (f64::from(*value) * scale) as f32)
    });
    NamedTensor {
        shape: directions.shape.clone(),
        values: values.collect(),
    }
}
