//! From RGB bytes to patch vectors, and the fixed bases that turn patches into features without a
//! pretrained projection.

use limbic_weights::CounterRng;

/// Cuts frames into square patches and normalises each colour channel.
///
/// `data` is `[count, size, size, 3]`; the result `[count * (size / patch)^2, 3 * patch * patch]`
/// with patches in reading order and values in (channel, row, column) order, which is the order of a
/// flattened PyTorch convolution kernel.
pub(crate) fn cut(
    data: &[u8],
    size: usize,
    patch: usize,
    mean: [f32; 3],
    std: [f32; 3],
) -> Vec<f32> {
    let side = size / patch;
    let mut patches = Vec::with_capacity(data.len());
    for frame in data.chunks_exact(size * size * 3) {
        for (row, column) in (0..side).flat_map(|row| (0..side).map(move |column| (row, column))) {
            for channel in 0..3 {
                for y in row * patch..(row + 1) * patch {
                    for x in column * patch..(column + 1) * patch {
                        let value = f32::from(frame[(y * size + x) * 3 + channel]) / 255.0;
                        patches.push((value - mean[channel]) / std[channel]);
                    }
                }
            }
        }
    }
    patches
}

/// A seeded random rotation of the pixels of a patch: `[inputs, inputs]` with orthonormal rows
/// (Gram-Schmidt on normal vectors), so that distances between patches are kept.
pub(crate) fn random_basis(inputs: usize, seed: u64) -> Vec<f32> {
    let rng = CounterRng::new(seed).site("patch_embed.proj.weight");
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(inputs);
    for index in 0..inputs {
        let mut row: Vec<f64> = (0..inputs)
            .map(|i| rng.normal((index * inputs + i) as u64))
            .collect();
        // Twice: one pass leaves rounding errors of the size of the cancellation.
        for _ in 0..2 {
            for earlier in &rows {
                let along = dot(&row, earlier);
                row.iter_mut()
                    .zip(earlier)
                    .for_each(|(value, part)| *value -= along * part);
            }
        }
        let norm = dot(&row, &row).sqrt();
        row.iter_mut().for_each(|value| *value /= norm);
        rows.push(row);
    }
    rows.into_iter()
        .flatten()
        .map(|value| value as f32)
        .collect()
}

/// The two-dimensional cosine transform of each colour channel: `[dim, 3 * patch * patch]` with
/// orthonormal rows, from flat colour to fine detail (by the sum of the two frequencies, as in
/// JPEG's zigzag), the three channels of a frequency side by side.
pub(crate) fn cosine_basis(dim: usize, patch: usize) -> Vec<f32> {
    let mut frequencies: Vec<(usize, usize)> = (0..patch)
        .flat_map(|y| (0..patch).map(move |x| (y, x)))
        .collect();
    frequencies.sort_by_key(|(y, x)| (y + x, *y));
    let wave = |frequency: usize, place: usize| {
        let scale = if frequency == 0 { 1.0 } else { 2.0 } / patch as f64;
        scale.sqrt()
            * (std::f64::consts::PI * (place as f64 + 0.5) * frequency as f64 / patch as f64).cos()
    };
    let rows = frequencies
        .iter()
        .flat_map(|frequency| (0..3).map(move |channel| (*frequency, channel)))
        .take(dim);
    let mut basis = Vec::with_capacity(dim * 3 * patch * patch);
    for ((fy, fx), channel) in rows {
        for place in 0..3 * patch * patch {
            let (c, y, x) = (
                place / (patch * patch),
                place / patch % patch,
                place % patch,
            );
            basis.push(if c == channel {
                (wave(fy, y) * wave(fx, x)) as f32
            } else {
                0.0
            });
        }
    }
    basis
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_follow_the_kernel_order() {
        // Two patches beside two: the byte at (y, x, c) is 100 c + 10 y + x.
        let data: Vec<u8> = (0..48)
            .map(|i| (100 * (i % 3) + 10 * (i / 12) + i / 3 % 4) as u8)
            .collect();
        let patches = cut(&data, 4, 2, [0.0; 3], [1.0 / 255.0; 3]);
        let second: Vec<f32> = vec![
            2.0, 3.0, 12.0, 13.0, 102.0, 103.0, 112.0, 113.0, 202.0, 203.0, 212.0, 213.0,
        ];
        for (value, wanted) in patches[12..24].iter().zip(second) {
            assert!((value - wanted).abs() < 1e-4, "{value} {wanted}");
        }
    }

    #[test]
    fn both_bases_are_orthonormal() {
        for basis in [random_basis(48, 3), cosine_basis(48, 4)] {
            let rows: Vec<Vec<f64>> = basis
                .chunks(48)
                .map(|row| row.iter().map(|value| f64::from(*value)).collect())
                .collect();
            assert_eq!(rows.len(), 48);
            for (i, a) in rows.iter().enumerate() {
                for (j, b) in rows.iter().enumerate() {
                    let wanted = if i == j { 1.0 } else { 0.0 };
                    assert!((dot(a, b) - wanted).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn the_lowest_cosines_are_the_mean_colours() {
        let basis = cosine_basis(3, 4);
        assert!(basis[..16].iter().all(|value| (value - 0.25).abs() < 1e-7));
        assert!(basis[16..48].iter().all(|value| *value == 0.0));
    }
}
