//! Resizing as Pillow does it (`Resample.c`): a kernel that widens where the picture shrinks, along rows and along columns,
//! in fixed point with 8 bits between the two. The results are the same bytes as Pillow 13's. Before 13 it went along rows
//! first in every picture, so that some values of tall ones differ by one.

/// Pillow's resampling kernels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Filter {
    Bilinear,
    Bicubic,
    Lanczos,
}

/// What one place of the result is a sum of: consecutive places from `first` on.
pub(super) struct Taps {
    pub(super) first: usize,
    pub(super) weights: Vec<f64>,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => cubic(-0.5, x),
            Self::Lanczos if x.abs() < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }

    /// For each of `to` places, what it is a sum of; weights beyond the border are left out, and the others grow.
    pub(super) fn taps(self, from: usize, to: usize) -> Vec<Taps> {
        let scale = from as f64 / to as f64;
        let widened = scale.max(1.0);
        let support = self.support() * widened;
        (0..to)
            .map(|place| {
                let center = (place as f64 + 0.5) * scale;
                let first = (center - support + 0.5).max(0.0) as usize;
                let end = ((center + support + 0.5) as usize).min(from);
                let inverse = 1.0 / widened;
                let mut weights: Vec<f64> = (first..end)
                    .map(|x| self.weight((x as f64 - center + 0.5) * inverse))
                    .collect();
                let sum: f64 = weights.iter().sum();
                weights.iter_mut().for_each(|weight| *weight /= sum);
                Taps { first, weights }
            })
            .collect()
    }
}

/// Keys 1981: the weight of a neighbour at distance `x`.
pub(super) fn cubic(a: f64, x: f64) -> f64 {
    match x.abs() {
        x if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * a,
        _ => 0.0,
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Resizes an RGB picture `[height, width, 3]` from the sides `from` to the sides `to`, each height and width.
pub(super) fn resize(bytes: &[u8], from: [usize; 2], to: [usize; 2], filter: Filter) -> Vec<u8> {
    let [height, width] = from;
    assert_eq!(
        bytes.len(),
        3 * height * width,
        "bytes of a {from:?} picture"
    );
    let along_rows = |bytes: Vec<u8>, height| match to[1] == width {
        true => bytes,
        false => along(&bytes, [height, width, 3], to[1], filter),
    };
    let along_columns = |bytes: Vec<u8>, width| match to[0] == height {
        true => bytes,
        // A column of pixels is one long pixel.
        false => along(&bytes, [1, height, 3 * width], to[0], filter),
    };
    // Pillow 13 takes the pass first that loses far more.
    let lost = |side: usize| from[side] as i64 - to[side] as i64;
    if lost(0) > 0 && lost(0) > 2 * lost(1) {
        along_rows(along_columns(bytes.to_vec(), width), to[0])
    } else {
        along_columns(along_rows(bytes.to_vec(), height), to[1])
    }
}

/// Resizes the middle one of three dimensions to `to`.
fn along(bytes: &[u8], [outer, from, inner]: [usize; 3], to: usize, filter: Filter) -> Vec<u8> {
    let fixed = |weight: &f64| (weight * f64::from(1 << PRECISION_BITS)).round() as i32;
    let taps: Vec<(usize, Vec<i32>)> = filter
        .taps(from, to)
        .iter()
        .map(|taps| (taps.first, taps.weights.iter().map(fixed).collect()))
        .collect();
    let mut resized = Vec::with_capacity(outer * to * inner);
    let mut sums = vec![0i32; inner];
    for slab in bytes.chunks_exact(from * inner) {
        for (first, weights) in &taps {
            sums.fill(1 << (PRECISION_BITS - 1));
            for (pixel, weight) in slab[first * inner..].chunks_exact(inner).zip(weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            resized.extend(
                sums.iter()
                    .map(|sum| (sum >> PRECISION_BITS).clamp(0, 255) as u8),
            );
        }
    }
    resized
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_colour_stays_and_stripes_average_out() {
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            let flat = [7, 130, 255].repeat(9 * 5);
            assert_eq!(
                resize(&flat, [9, 5], [4, 11], filter),
                [7, 130, 255].repeat(44)
            );
            let stripes: Vec<u8> = (0..64).flat_map(|x| [255 * (x % 2) as u8; 3]).collect();
            for value in resize(&stripes, [1, 64], [1, 8], filter) {
                assert!((108..=148).contains(&value), "{filter:?}: {value}");
            }
        }
    }
}
