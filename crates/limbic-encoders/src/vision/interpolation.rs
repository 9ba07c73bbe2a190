//! Bicubic interpolation of learned position embeddings to another grid, as `torch.nn.functional.interpolate` does it
//! with `align_corners=False`.

use burn::tensor::{Tensor, TensorData};

use super::resize::{Filter, cubic};

/// The two kernels of PyTorch's bicubic interpolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cubic {
    /// a = -0.75, over four neighbours whatever the scale.
    Plain,
    /// `antialias=True`: Pillow's kernel, a = -0.5, which widens where the grid shrinks.
    Antialiased,
}

impl Cubic {
    /// For each of `to` places, which of `from` places it is a sum of, and with what weights.
    fn taps(self, from: usize, to: usize) -> Vec<Vec<(usize, f64)>> {
        match self {
            Self::Plain => {
                let scale = from as f64 / to as f64;
                let last = from as isize - 1;
                (0..to)
                    .map(|place| {
                        let center = (place as f64 + 0.5) * scale - 0.5;
                        let first = center.floor() as isize - 1;
                        // Neighbours beyond the border count for the border.
                        let tap =
                            |x: isize| (x.clamp(0, last) as usize, cubic(-0.75, center - x as f64));
                        (first..first + 4).map(tap).collect()
                    })
                    .collect()
            }
            Self::Antialiased => Filter::Bicubic
                .taps(from, to)
                .into_iter()
                .map(|taps| (taps.first..).zip(taps.weights).collect())
                .collect(),
        }
    }
}

/// A position table on another grid; the first `extra` positions are of no place and stay.
///
/// The table's own grid is square.
///
/// # Shapes
/// `[1, extra + side², D]` to `[1, extra + rows columns, D]`
pub(super) fn positions(
    table: Tensor<3>,
    extra: usize,
    grid: [usize; 2],
    kernel: Cubic,
) -> Tensor<3> {
    let [_, length, dim] = table.dims();
    let side = (length - extra).isqrt();
    if grid == [side, side] {
        return table;
    }
    let values: Vec<f32> = table
        .clone()
        .narrow(1, extra, length - extra)
        .into_data()
        .iter::<f32>()
        .collect();
    let resized = resize(&values, dim, [side, side], grid, kernel);
    let data = TensorData::new(resized, [1, grid[0] * grid[1], dim]);
    let patches = Tensor::from_data(data, (&table.device(), table.dtype()));
    match extra {
        0 => patches,
        _ => Tensor::cat(vec![table.narrow(1, 0, extra), patches], 1),
    }
}

/// `values` is `[from rows, from columns, dim]`; the result `[to rows, to columns, dim]`.
pub(super) fn resize(
    values: &[f32],
    dim: usize,
    from: [usize; 2],
    to: [usize; 2],
    kernel: Cubic,
) -> Vec<f32> {
    assert_eq!(
        values.len(),
        from[0] * from[1] * dim,
        "a grid {from:?} of width {dim}"
    );
    let (rows, columns) = (kernel.taps(from[0], to[0]), kernel.taps(from[1], to[1]));
    let mut resized = Vec::with_capacity(to[0] * to[1] * dim);
    let mut sum = vec![0.0f64; dim];
    for row in &rows {
        for column in &columns {
            sum.fill(0.0);
            for (y, vertical) in row {
                for (x, horizontal) in column {
                    let start = (y * from[1] + x) * dim;
                    for (sum, value) in sum.iter_mut().zip(&values[start..start + dim]) {
                        *sum += vertical * horizontal * f64::from(*value);
                    }
                }
            }
            resized.extend(sum.iter().map(|value| *value as f32));
        }
    }
    resized
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_and_the_same_grid_is_untouched() {
        for kernel in [Cubic::Plain, Cubic::Antialiased] {
            for (from, to) in [(5, 7), (7, 5), (3, 3), (4, 11), (16, 5)] {
                for taps in kernel.taps(from, to) {
                    let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
                    assert!((sum - 1.0).abs() < 1e-12, "{from} to {to}: {sum}");
                }
            }
            let values = [1.0, -2.0, 0.5, 4.0];
            assert_eq!(resize(&values, 1, [2, 2], [2, 2], kernel), values);
        }
    }
}
