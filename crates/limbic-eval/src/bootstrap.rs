//! How far scores can be trusted: the percentile bootstrap over clips (Efron 1979).
//!
//! Clips are resampled as if independent; clips of one speaker are not, so the interval for unseen speakers is wider.

use crate::{Confusion, EvalError};
use serde::{Deserialize, Serialize};

const RESAMPLES: u64 = 1000;

/// The 95 % intervals of the two headline scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Interval of [`crate::Scores::accuracy`].
    pub accuracy: Interval,
    /// Interval of [`crate::Scores::uar`]; a class that a resample lacks is left out of that resample's mean.
    pub uar: Interval,
}

/// The middle 95 % of a score over the resamples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

/// Resamples the clips of `confusion` 1000 times; equal counts and `seed` give equal intervals, whatever order the
/// clips came in.
///
/// # Errors
///
/// [`EvalError::NoClips`] when nothing was counted.
pub fn bootstrap(confusion: &Confusion, seed: u64) -> Result<Bootstrap, EvalError> {
    let clips = outcomes(confusion);
    if clips.is_empty() {
        return Err(EvalError::NoClips);
    }
    let (accuracies, uars) = (0..RESAMPLES)
        .map(|resample| score_resample(&clips, confusion.labels.len(), seed, resample))
        .unzip();
    Ok(Bootstrap {
        accuracy: interval(accuracies),
        uar: interval(uars),
    })
}

/// True class of each clip and whether its prediction is right: all that accuracy and UAR depend on. Class by class,
/// the right ones first.
fn outcomes(confusion: &Confusion) -> Vec<(usize, bool)> {
    let mut clips = Vec::new();
    for (class, row) in confusion.counts.iter().enumerate() {
        let right = row[class];
        let wrong = row.iter().sum::<u64>() - right;
        clips.extend((0..right).map(|_| (class, true)));
        clips.extend((0..wrong).map(|_| (class, false)));
    }
    clips
}

/// Accuracy and UAR of `clips.len()` clips drawn with replacement.
fn score_resample(clips: &[(usize, bool)], classes: usize, seed: u64, resample: u64) -> (f64, f64) {
    let mut right = vec![0_u64; classes];
    let mut support = vec![0_u64; classes];
    for draw in 0..clips.len() {
        let (class, is_right) = clips[random_index(seed, resample, draw as u64, clips.len())];
        support[class] += 1;
        right[class] += u64::from(is_right);
    }
    let accuracy = right.iter().sum::<u64>() as f64 / clips.len() as f64;
    let recalls: Vec<_> = right
        .iter()
        .zip(&support)
        .filter(|(_, support)| **support > 0)
        .map(|(&right, &support)| right as f64 / support as f64)
        .collect();
    (accuracy, recalls.iter().sum::<f64>() / recalls.len() as f64)
}

/// An index below `length` for one draw: a function of its counters alone.
fn random_index(seed: u64, resample: u64, draw: u64, length: usize) -> usize {
    let bits = splitmix(splitmix(splitmix(seed) ^ resample) ^ draw);
    // The high word of the product maps 64 bits to the range (Lemire 2019); its bias is below length / 2^64.
    ((u128::from(bits) * length as u128) >> 64) as usize
}

/// One step of SplitMix64 (Steele, Lea and Flood 2014).
fn splitmix(state: u64) -> u64 {
    let mut bits = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn interval(mut scores: Vec<f64>) -> Interval {
    scores.sort_by(f64::total_cmp);
    Interval {
        low: percentile(&scores, 0.025),
        high: percentile(&scores, 0.975),
    }
}

/// Linear interpolation between the closest ranks, numpy's default.
fn percentile(sorted: &[f64], quantile: f64) -> f64 {
    let position = quantile * (sorted.len() - 1) as f64;
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of the reference `splitmix64.c` (Vigna) from state 1234567; each call advances the state by
    /// the golden-ratio constant.
    #[test]
    fn splitmix_matches_the_reference() {
        let gamma = 0x9e37_79b9_7f4a_7c15_u64;
        assert_eq!(splitmix(1_234_567), 6_457_827_717_110_365_317);
        assert_eq!(
            splitmix(1_234_567_u64.wrapping_add(gamma)),
            3_203_168_211_198_807_973
        );
    }

    /// A proportion's interval is near the normal approximation, 0.8 +- 1.96 sqrt(0.8 * 0.2 / 400).
    #[test]
    fn interval_has_the_width_of_a_proportion() {
        let mut confusion = Confusion::new(["happy", "sad"]);
        confusion.counts = vec![vec![160, 20, 20], vec![30, 160, 10]];
        let interval = bootstrap(&confusion, 7).unwrap().accuracy;
        assert!((interval.low - 0.7608).abs() < 0.006, "{interval:?}");
        assert!((interval.high - 0.8392).abs() < 0.006, "{interval:?}");
    }

    #[test]
    fn the_seed_decides() {
        let mut confusion = Confusion::new(["happy", "sad"]);
        confusion.counts = vec![vec![31, 9, 1], vec![6, 22, 2]];
        assert_eq!(bootstrap(&confusion, 1), bootstrap(&confusion, 1));
        assert_ne!(bootstrap(&confusion, 1), bootstrap(&confusion, 2));
    }

    #[test]
    fn nothing_to_resample_is_an_error() {
        let confusion = Confusion::new(["happy"]);
        assert_eq!(bootstrap(&confusion, 7), Err(EvalError::NoClips));
    }
}
