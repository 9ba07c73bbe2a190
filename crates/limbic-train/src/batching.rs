//! How the samples of a step are cut into shards, each of which is one pass through the model.

use limbic_model::Layout;

use crate::dataset::Drawn;
use crate::recipe::Batching;

/// A step's samples, cut.
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
    /// Which of the step's samples each of them is.
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
                .map(|i| 30 + (rng.uniform(i as u64) * 300.0) as usize)
                .collect();
            let homes = balanced(&lengths, count);
            let mut held = vec![0; count];
            for (home, length) in homes.iter().zip(&lengths) {
                held[*home] += length;
            }
            let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
            assert!(*least > 0, "no shard is empty");
            let shortest = lengths.iter().min().unwrap();
            let longest = lengths.iter().max().unwrap();
            assert!(most - least <= *longest, "{held:?}");
            if samples >= 4 * count {
                assert!(most - least <= 2 * shortest, "{held:?} {shortest}");
            }
        }
    }
}
