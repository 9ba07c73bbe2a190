//! Which sample has which number of a run: a pure function of the number, so that a resumed run, and every replica, sees
//! what an uninterrupted one sees.
//!
//! An epoch is one pass over all samples in an order of its own. Grouped, samples of like length come in the same steps:
//! within windows of a few steps they are sorted by length, and the steps then shuffled, so that lengths come as randomly
//! as windows are wide, and every sample still comes once an epoch.

use std::ops::Range;

use limbic_weights::CounterRng;

/// Steps of a window. A window's sorted samples fall into as many stretches as it has shards, which is enough: in the
/// quickstart 0.99 of all positions are real, of 0.90. Transformers' `group_by_length` takes up to 50, and its order is
/// the less random for it.
const WINDOW: u64 = 8;

/// The order of a run's samples.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    seed: u64,
    /// Samples of an epoch.
    samples: u64,
    /// Samples of a step, where those of like length come together.
    grouped: Option<u64>,
}

/// A sample that is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Due {
    /// Which one.
    pub(crate) index: usize,
    /// Decides what is asked about it, this time.
    pub(crate) rng: CounterRng,
}

impl Order {
    /// Every epoch of `samples` samples shuffled as `seed` says.
    pub(crate) fn shuffled(seed: u64, samples: usize) -> Self {
        Self {
            seed,
            samples: samples as u64,
            grouped: None,
        }
    }

    /// The same, with samples of like length in the same steps, which have `step` samples each.
    pub(crate) fn grouped(self, step: usize) -> Self {
        Self {
            grouped: Some(step as u64),
            ..self
        }
    }

    /// Epoch and place in it of sample number `number` of the run.
    pub(crate) fn position(&self, number: u64) -> (u64, u64) {
        (number / self.samples, number % self.samples)
    }

    /// The samples of these numbers; `length` tells how long one is, where that matters.
    pub(crate) fn due(&self, numbers: Range<u64>, length: impl Fn(Due) -> usize) -> Vec<Due> {
        let mut due = Vec::new();
        let mut number = numbers.start;
        while number < numbers.end {
            let (epoch, _) = self.position(number);
            let first = epoch * self.samples;
            let rng = CounterRng::new(self.seed).site("epoch").index(epoch);
            let whole = rng.permutation(self.samples as usize);
            let whole = whole.into_iter().map(|index| Due {
                index,
                rng: rng.index(index as u64),
            });
            let window = self.window(number, first..first + self.samples);
            let members = whole
                .skip((window.start - first) as usize)
                .take((window.end - window.start) as usize);
            let members: Vec<Due> = match self.grouped {
                None => members.collect(),
                Some(step) => group(members.collect(), &window, step, &length, rng),
            };
            let wanted = number..numbers.end.min(window.end);
            let place = |number: u64| (number - window.start) as usize;
            due.extend(&members[place(wanted.start)..place(wanted.end)]);
            number = wanted.end;
        }
        due
    }

    /// The numbers around `number` among which samples change places; they do not leave their epoch.
    fn window(&self, number: u64, epoch: Range<u64>) -> Range<u64> {
        let Some(step) = self.grouped else {
            return epoch;
        };
        let numbers = step * WINDOW;
        let start = number / numbers * numbers;
        start.max(epoch.start)..(start + numbers).min(epoch.end)
    }
}

/// The members of a window by steps of like length, the steps in an order that `rng` decides. Where an epoch's ends cut
/// steps of the window short, those parts are steps of their own.
fn group(
    mut members: Vec<Due>,
    window: &Range<u64>,
    step: u64,
    length: impl Fn(Due) -> usize,
    rng: CounterRng,
) -> Vec<Due> {
    members.sort_by_cached_key(|due| length(*due));
    let steps = window.start / step..window.end.div_ceil(step);
    let steps: Vec<Range<usize>> = steps
        .map(|number| {
            let start = (number * step).max(window.start);
            let end = ((number + 1) * step).min(window.end);
            (start - window.start) as usize..(end - window.start) as usize
        })
        .collect();
    let rng = rng.site("groups").index(window.start);
    let mut placed = members.clone();
    let mut taken = 0;
    for number in rng.permutation(steps.len()) {
        let places = steps[number].clone();
        let stretch = &members[taken..taken + places.len()];
        taken += places.len();
        placed[places].copy_from_slice(stretch);
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths of all sorts, another in every epoch as wordings are.
    fn length(due: Due) -> usize {
        20 + (due.rng.uniform(0) * 200.0) as usize + 7 * (due.index % 5)
    }

    fn orders(samples: usize, step: usize) -> [Order; 2] {
        let shuffled = Order::shuffled(3, samples);
        [shuffled.clone(), shuffled.grouped(step)]
    }

    #[test]
    fn every_sample_comes_once_an_epoch() {
        for (samples, step) in [(10, 4), (77, 4), (77, 100), (256, 8), (1, 3)] {
            for order in orders(samples, step) {
                for epoch in 0..4 {
                    let first = epoch * samples as u64;
                    let due = order.due(first..first + samples as u64, length);
                    let mut seen: Vec<usize> = due.iter().map(|due| due.index).collect();
                    seen.sort_unstable();
                    assert_eq!(seen, (0..samples).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn a_number_means_the_same_wherever_one_begins() {
        for order in orders(77, 4) {
            let whole = order.due(0..400, length);
            for start in [0, 3, 76, 77, 150] {
                assert_eq!(
                    order.due(start..start + 100, length),
                    whole[start as usize..][..100]
                );
            }
            let steps: Vec<Due> = (0..100)
                .flat_map(|step| order.due(step * 4..step * 4 + 4, length))
                .collect();
            assert_eq!(steps, whole);
        }
    }

    #[test]
    fn a_step_holds_samples_of_like_length() {
        let (samples, step) = (640, 8);
        let [spread, grouped] = orders(samples, step).map(|order| {
            let due = order.due(0..2 * samples as u64, length);
            let spreads = due.chunks(step).map(|step| {
                let lengths: Vec<usize> = step.iter().map(|due| length(*due)).collect();
                lengths.iter().max().unwrap() - lengths.iter().min().unwrap()
            });
            spreads.sum::<usize>() as f64 / (2 * samples / step) as f64
        });
        // Of 228 lengths, eight of a step span some 180, those of a group an eighth of the window's.
        assert!(spread > 150.0 && grouped < 40.0, "{spread} {grouped}");
    }

    #[test]
    fn long_and_short_steps_follow_one_another_at_random() {
        let [_, order] = orders(640, 8);
        let due = order.due(0..640, length);
        let means: Vec<usize> = due
            .chunks(8)
            .map(|step| step.iter().map(|due| length(*due)).sum::<usize>())
            .collect();
        let rises = means.windows(2).filter(|pair| pair[0] < pair[1]).count();
        // Sorted steps would rise in seven of eight.
        assert!((25..55).contains(&rises), "{rises} of 79");
    }
}
