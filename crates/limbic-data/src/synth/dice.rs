//! Random numbers from counters: the n-th roll of the dice named (seed, names) is always the same, whatever
//! thread asks and whatever was rolled elsewhere.

/// A counter with a key; each roll hashes both (SplitMix64, Steele et al. 2014).
pub(super) struct Dice {
    key: u64,
    rolls: u64,
}

impl Dice {
    /// The dice that belong to `names` under `seed`.
    pub(super) fn new(seed: u64, names: &[&str]) -> Self {
        // FNV-1a, with a separator so that ["ab", "c"] and ["a", "bc"] differ.
        let hash = names.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, name| {
            name.bytes().chain([0xff]).fold(hash, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
        });
        Self {
            key: mix(hash ^ mix(seed)),
            rolls: 0,
        }
    }

    fn next(&mut self) -> u64 {
        self.rolls += 1;
        mix(self
            .key
            .wrapping_add(self.rolls.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Uniform in [0, 1).
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 24) as f32
    }

    /// Uniform in [low, high).
    pub(super) fn within(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Bell-shaped around 0 with standard deviation 1, never beyond 3.5 (the sum of four uniforms).
    pub(super) fn bell(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| self.unit()).sum();
        (sum - 2.0) * 3.0_f32.sqrt()
    }

    /// Uniform in 0..n.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// 0..n in random order (Fisher-Yates).
    pub(super) fn shuffled(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for last in (1..n).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolls_depend_on_seed_and_names_alone() {
        let roll = |seed, names: &[&str]| Dice::new(seed, names).next();
        assert_eq!(roll(7, &["face", "a"]), roll(7, &["face", "a"]));
        assert_ne!(roll(7, &["face", "a"]), roll(8, &["face", "a"]));
        assert_ne!(roll(7, &["ab", "c"]), roll(7, &["a", "bc"]));
    }

    #[test]
    fn the_bell_has_mean_zero_and_deviation_one() {
        let mut dice = Dice::new(1, &["bell"]);
        let values: Vec<f32> = (0..20_000).map(|_| dice.bell()).collect();
        let mean = values.iter().sum::<f32>() / 2e4;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / 2e4;
        assert!(mean.abs() < 0.03, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.05, "variance {variance}");
    }

    #[test]
    fn a_shuffle_keeps_every_index() {
        let mut order = Dice::new(3, &["deck"]).shuffled(20);
        assert_ne!(order, (0..20).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..20).collect::<Vec<_>>());
    }
}
