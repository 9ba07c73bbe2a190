//! Stretches of equal length, spread evenly over a sound.

/// The first sample of each of `count` windows of `window` seconds.
///
/// As pytorchvideo's `ConstantClipsPerVideoSampler` has it, which ImageBind and AffectGPT use: window `i` starts at
/// `i / count` of the room that is left, so that the last does not reach the end. Its times are fractions, made of a
/// duration in double precision and cut to whole samples; the same is done here.
pub(crate) fn starts(samples: usize, sample_rate: u32, window: f64, count: usize) -> Vec<usize> {
    let room = (samples as f64 / f64::from(sample_rate) - window).max(0.0);
    (0..count)
        .map(|index| floor_of_product(room, index as u64 * u64::from(sample_rate), count as u64))
        .collect()
}

/// `⌊value · numerator / denominator⌋` without rounding on the way; the value is neither negative nor infinite.
fn floor_of_product(value: f64, numerator: u64, denominator: u64) -> usize {
    // A double is a whole number of 2^-k; k is at most 64 for the durations of sounds, or the value is too small to
    // reach one sample.
    let mut shift = 0;
    let mut whole = value;
    while whole.fract() != 0.0 && shift < 64 {
        whole *= 2.0;
        shift += 1;
    }
    let product = whole as u128 * u128::from(numerator);
    (product / (u128::from(denominator) << shift)) as usize
}

/// The windows themselves; silence follows where the sound ends before they do.
pub(crate) fn cut(samples: &[f32], sample_rate: u32, window: f64, count: usize) -> Vec<Vec<f32>> {
    let length = (window * f64::from(sample_rate)) as usize;
    starts(samples.len(), sample_rate, window, count)
        .into_iter()
        .map(|start| {
            let end = samples.len().min(start + length);
            let mut window = samples[start.min(end)..end].to_vec();
            window.resize(length, 0.0);
            window
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_start_where_pytorchvideos_do() {
        // 2.6 s in three: 0.6000000000000001 s are left, of which a third is 3200 samples and a little.
        assert_eq!(starts(41_600, 16_000, 2.0, 3), [0, 3_200, 6_400]);
        // 5.3 s in eight: 3.3 s are left in thought, and a little less in double precision.
        assert_eq!(5.3f64 - 2.0, 3.3);
        assert_eq!(
            starts(84_800, 16_000, 2.0, 8),
            [0, 6_599, 13_199, 19_799, 26_399, 32_999, 39_599, 46_199]
        );
        assert_eq!(starts(20_000, 16_000, 2.0, 3), [0, 0, 0]);
    }

    #[test]
    fn what_is_missing_is_silence() {
        let cut = cut(&[1.0; 10], 4, 4.0, 2);
        assert_eq!(cut.len(), 2);
        assert_eq!(cut[1][..10], [1.0; 10]);
        assert_eq!(cut[1][10..], [0.0; 6]);
    }
}
