/// Random numbers as a pure function of a key and an index.
///
/// Whatever is drawn during a run (initial weights, dropout, the order of samples, sampling of
/// text) is addressed, never streamed: replaying step 300 needs no state from step 299.
/// The mixing function is the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterRng {
    key: u64,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl CounterRng {
    /// The function that `seed` names.
    pub fn new(seed: u64) -> Self {
        Self {
            key: mix(seed.wrapping_add(GOLDEN)),
        }
    }

    /// A function of its own for `site`, for example a parameter's name.
    pub fn site(self, site: &str) -> Self {
        let hash = site.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.index(hash)
    }

    /// A function of its own for number `index`, for example a step.
    pub fn index(self, index: u64) -> Self {
        Self {
            key: mix(self.key ^ mix(index.wrapping_mul(GOLDEN).wrapping_add(1))),
        }
    }

    /// 64 random bits at position `i`.
    #[inline(always)]
    pub fn bits(self, i: u64) -> u64 {
        mix(self
            .key
            .wrapping_add(GOLDEN.wrapping_mul(i.wrapping_add(1))))
    }

    /// Uniform in `[0, 1)` at position `i`, with 53 random bits.
    pub fn uniform(self, i: u64) -> f64 {
        (self.bits(i) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal at position `i` (Box and Muller 1958).
    pub fn normal(self, i: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(2 * i)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(2 * i + 1)).cos()
    }

    /// A permutation of `0..len` (Fisher and Yates).
    pub fn permutation(self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for i in (1..len).rev() {
            let j = (self.uniform(i as u64) * (i + 1) as f64) as usize;
            order.swap(i, j);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let rng = CounterRng::new(7).site("weight");
        let n = 100_000;
        let mean = (0..n).map(|i| rng.uniform(i)).sum::<f64>() / n as f64;
        let variance = (0..n).map(|i| rng.normal(i).powi(2)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        assert!((variance - 1.0).abs() < 0.02, "{variance}");
    }

    #[test]
    fn sites_and_indices_are_apart() {
        let rng = CounterRng::new(7);
        assert_ne!(rng.site("a").bits(0), rng.site("b").bits(0));
        assert_ne!(rng.index(0).bits(0), rng.index(1).bits(0));
        assert_ne!(CounterRng::new(8).bits(0), rng.bits(0));
        assert_eq!(rng.site("a").bits(3), CounterRng::new(7).site("a").bits(3));
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut order = CounterRng::new(1).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
