//! How samples are cut into shards, each of which is one pass through the model.

use std::collections::VecDeque;

use limbic_model::Layout;

use crate::dataset::Drawn;
use crate::recipe::Batching;

/// The samples of a step, or of an evaluation, cut.
#[derive(Debug)]
pub struct Shards<'a> {
    pub(crate) shards: Vec<Shard<'a>>,
    /// How each of them lies in its batch.
    pub(crate) layout: Layout,
}

/// Samples that go through the model together.
#[derive(Debug, Default)]
pub(crate) struct Shard<'a> {
    pub(crate) drawn: Vec<Drawn<'a>>,
    /// Which of all the samples each of them is.
    pub(crate) places: Vec<usize>,
}

impl<'a> Shards<'a> {
    /// Cuts `drawn` into `count` shards.
    ///
    /// Padded, they are stretches of the order in which samples were drawn. Packed, they get near-equal numbers of
    /// positions, since whoever computes one of them waits for the slowest; their samples stay in the drawn order.
    pub fn cut(drawn: Vec<Drawn<'a>>, count: usize, batching: Batching) -> Self {
        let (layout, homes) = match batching {
            Batching::Padded | Batching::Grouped => {
                let homes = (0..drawn.len()).map(|place| place * count / drawn.len());
                (Layout::Padded, homes.collect())
            }
            Batching::Packed => {
                let lengths = drawn.iter().map(|drawn| drawn.compiled.length());
                (
                    Layout::Packed,
                    balanced(&lengths.collect::<Vec<_>>(), count),
                )
            }
        };
        let mut shards: Vec<Shard> = (0..count).map(|_| Shard::default()).collect();
        for ((place, drawn), home) in drawn.into_iter().enumerate().zip(homes) {
            shards[home].drawn.push(drawn);
            shards[home].places.push(place);
        }
        Self { shards, layout }
    }

    /// Cuts `drawn` into shards of `size` samples of like `length`, to be evaluated. Long and short shards take turns,
    /// since each replica gets a stretch of them.
    pub(crate) fn of_like_length(
        drawn: Vec<Drawn<'a>>,
        size: usize,
        length: impl Fn(&Drawn) -> usize,
    ) -> Self {
        let mut sorted: Vec<(usize, Drawn)> = drawn.into_iter().enumerate().collect();
        sorted.sort_by_key(|(_, drawn)| length(drawn));
        let mut ascending: VecDeque<Shard> = VecDeque::new();
        for (number, (place, drawn)) in sorted.into_iter().enumerate() {
            if number % size == 0 {
                ascending.push_back(Shard::default());
            }
            let shard = ascending.back_mut().expect("one was put in");
            shard.drawn.push(drawn);
            shard.places.push(place);
        }
        let turns = (0..ascending.len()).map(|turn| match turn % 2 {
            0 => ascending.pop_front(),
            _ => ascending.pop_back(),
        });
        Self {
            shards: turns.flatten().collect(),
            layout: Layout::Padded,
        }
    }
}

/// In which of `count` shards each of `lengths` goes: the longest first, each into the shard that holds least (Graham
/// 1969), the first of equals. The fullest shard is then at most a third above the least possible.
fn balanced(lengths: &[usize], count: usize) -> Vec<usize> {
    let mut by_length: Vec<usize> = (0..lengths.len()).collect();
    by_length.sort_by_key(|place| std::cmp::Reverse(lengths[*place]));
    let mut held = vec![0; count];
    let mut homes = vec![0; lengths.len()];
    for place in by_length {
        let least = (0..count).min_by_key(|shard| held[*shard]);
        homes[place] = least.expect("a step has at least one shard");
        held[homes[place]] += lengths[place];
    }
    homes
}

#[cfg(test)]
mod tests {
    use limbic_weights::CounterRng;

    use super::*;

    #[test]
    fn shards_hold_near_equal_numbers_of_positions() {
        assert_eq!(balanced(&[5, 5, 4, 3, 3], 2), [0, 1, 0, 1, 1]);
        let rng = CounterRng::new(4);
        for (samples, count) in [(16, 4), (16, 8), (64, 2), (8, 8)] {
            let lengths: Vec<usize> = (0..samples)
                .map(|i| 30 + (rng.uniform(i) * 300.0) as usize)
                .collect();
            let mut shards = vec![Vec::new(); count];
            for (home, length) in balanced(&lengths, count).into_iter().zip(lengths) {
                shards[home].push(length);
            }
            let held = |shard: &Vec<usize>| shard.iter().sum::<usize>();
            let least = shards.iter().map(held).min().unwrap();
            assert!(least > 0, "no shard is empty");
            // When the last sample came in, no shard held less.
            let fullest = shards.iter().max_by_key(|shard| held(shard)).unwrap();
            let last = fullest.iter().min().unwrap();
            assert!(held(fullest) - least <= *last, "{shards:?}");
        }
    }
}
