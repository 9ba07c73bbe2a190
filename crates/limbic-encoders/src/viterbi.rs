//! The likeliest path through pitches, voiced and unvoiced (`librosa.sequence.viterbi` on the model of `librosa.pyin`).
//!
//! States are the pitches voiced, then the pitches unvoiced: an unvoiced stretch has a pitch, too, from which the next
//! voiced one cannot be far.

/// The probability of staying voiced, or unvoiced.
const STAY: f64 = 0.99;

/// Logarithms of the probabilities to move from pitch to pitch.
#[derive(Debug, Clone)]
pub(crate) struct Transitions {
    bins: usize,
    reach: usize,
    /// `[bins, 2 * reach + 1]`: from a bin to one so far away, less `reach`, without a change of voicing.
    stay: Vec<f64>,
    /// As `stay`, with one.
    switch: Vec<f64>,
}

/// librosa adds the smallest normal number before each logarithm: nothing is impossible.
fn log(probability: f64) -> f64 {
    (probability + f64::MIN_POSITIVE).ln()
}

impl Transitions {
    /// Triangular in the distance: `reach` is the farthest that is likely. There are more bins than it spans.
    pub(crate) fn new(bins: usize, reach: usize) -> Self {
        let width = 2 * reach + 1;
        let weight = |from: usize, step: usize| {
            let inside = (reach..bins + reach).contains(&(from + step));
            let distance = step.abs_diff(reach) as f64;
            if inside {
                1.0 - distance / (reach + 1) as f64
            } else {
                0.0
            }
        };
        let table = |factor: f64| {
            (0..bins)
                .flat_map(|from| {
                    let total: f64 = (0..width).map(|step| weight(from, step)).sum();
                    (0..width).map(move |step| log(factor * (weight(from, step) / total)))
                })
                .collect()
        };
        Self {
            bins,
            reach,
            stay: table(STAY),
            switch: table(1.0 - STAY),
        }
    }

    /// The pitch in each frame, `None` where it is unvoiced.
    ///
    /// `observed` has the probabilities of the pitches, `voiced` their sum; what is left is shared by the unvoiced.
    pub(crate) fn likeliest(&self, observed: &[Vec<f64>], voiced: &[f64]) -> Vec<Option<usize>> {
        let states = 2 * self.bins;
        let likelihood = |frame: usize, state: usize| match observed[frame].get(state) {
            Some(probability) => log(*probability),
            None => log((1.0 - voiced[frame]) / self.bins as f64),
        };
        let first = |state| likelihood(0, state) + log(1.0 / states as f64);
        let mut values: Vec<f64> = (0..states).map(first).collect();
        let mut came_from = Vec::with_capacity(observed.len());
        for frame in 1..observed.len() {
            let far = largest(values.iter().copied().enumerate());
            let best: Vec<(usize, f64)> = (0..states)
                .map(|state| self.best_into(state, &values, far))
                .collect();
            values = (0..states)
                .map(|state| likelihood(frame, state) + best[state].1)
                .collect();
            came_from.push(best.into_iter().map(|(from, _)| from).collect::<Vec<_>>());
        }
        let mut state = largest(values.into_iter().enumerate()).0;
        let mut path = vec![state];
        for from in came_from.iter().rev() {
            state = from[state];
            path.push(state);
        }
        path.reverse();
        path.into_iter()
            .map(|state| (state < self.bins).then_some(state))
            .collect()
    }

    /// The likeliest way into a state, out of reach or not. Of equals the lowest state is taken.
    fn best_into(&self, state: usize, values: &[f64], far: (usize, f64)) -> (usize, f64) {
        let (pitch, width) = (state % self.bins, 2 * self.reach + 1);
        let near = pitch.saturating_sub(self.reach)..self.bins.min(pitch + self.reach + 1);
        let into = |offset: usize| {
            let same = (offset == 0) == (state < self.bins);
            let table = if same { &self.stay } else { &self.switch };
            near.clone().map(move |from| {
                let step = pitch + self.reach - from;
                (
                    offset + from,
                    values[offset + from] + table[from * width + step],
                )
            })
        };
        let near = largest(into(0).chain(into(self.bins)));
        let far = (far.0, far.1 + log(0.0));
        if far.1 > near.1 || far.1 == near.1 && far.0 < near.0 {
            far
        } else {
            near
        }
    }
}

/// The first of the largest values, with its place.
fn largest(values: impl Iterator<Item = (usize, f64)>) -> (usize, f64) {
    values
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .expect("there are states")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_does_not_leap() {
        let transitions = Transitions::new(30, 2);
        let frame = |bin: usize| {
            let mut pitches = vec![0.0; 30];
            pitches[bin] = 0.9;
            pitches
        };
        // The leap to 25 and back is taken for an unvoiced frame.
        let observed = [frame(10), frame(11), frame(25), frame(11), frame(10)];
        let path = transitions.likeliest(&observed, &[0.9; 5]);
        assert_eq!(path, [Some(10), Some(11), None, Some(11), Some(10)]);
    }
}
