//! Arithmetic on many numbers at once, in the widest instructions that the machine has.
//!
//! Loops are written so that the compiler vectorises them: sums in sixteen lanes that are added at the end in one order,
//! and an exponential without branches. [`widest`] compiles what it is given for AVX-512, AVX2 and plain machines, and
//! chooses at run time.

/// Lanes of a sum: a register of AVX-512.
pub(crate) const LANES: usize = 16;

/// Runs `work` with the widest instructions of the machine.
#[inline(always)]
pub(crate) fn widest<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// `e^x` to within 2 units in the last place; 0 below -87 and never more than `e^88`.
///
/// `x = n ln 2 + r` with n an integer and |r| at most half of ln 2, `e^r` as its Taylor polynomial (next term 1e-9
/// relative), and `2^n` by putting n into the exponent.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding it rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let tiny = x < -87.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let p = 1.0 / 5040.0;
    let p = r.mul_add(p, 1.0 / 720.0);
    let p = r.mul_add(p, 1.0 / 120.0);
    let p = r.mul_add(p, 1.0 / 24.0);
    let p = r.mul_add(p, 1.0 / 6.0);
    let p = r.mul_add(p, 0.5);
    let p = r.mul_add(p, 1.0);
    let p = r.mul_add(p, 1.0);
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if tiny { 0.0 } else { p * power }
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The sum of what `of` makes of each pair.
#[inline(always)]
pub(crate) fn sum(a: &[f32], b: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for lane in 0..LANES {
            lanes[lane] += of(a[lane], b[lane]);
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[lane] += of(*a, *b);
    }
    fold(lanes, |a, b| a + b)
}

/// The largest.
#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] {
                chunk[lane]
            } else {
                lanes[lane]
            };
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        lanes[lane] = lanes[lane].max(*x);
    }
    fold(lanes, f32::max)
}

/// Replaces each number by `e^(x - shift)` and returns their sum.
#[inline(always)]
pub(crate) fn exponentiate(x: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (whole, rest) = x.as_chunks_mut::<LANES>();
    for chunk in whole {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - shift);
            lanes[lane] += chunk[lane];
        }
    }
    for (lane, x) in rest.iter_mut().enumerate() {
        *x = exp(*x - shift);
        lanes[lane] += *x;
    }
    fold(lanes, |a, b| a + b)
}

/// The lanes in pairs, then pairs of pairs.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = of(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Numbers between -1 and 1 that look random (the generator of Numerical Recipes).
    pub(crate) fn numbers(length: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn the_exponential_is_the_exponential() {
        let mut worst = 0.0f64;
        for i in -86_900..88_000 {
            let x = i as f32 / 1000.0;
            let wanted = f64::from(x).exp();
            let got = f64::from(widest(
                #[inline(always)]
                || exp(x),
            ));
            worst = worst.max((got / wanted - 1.0).abs());
        }
        assert!(worst < 2.5e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(1000.0).is_finite());
    }

    #[test]
    fn sums_take_every_number_once() {
        for length in [0, 1, 15, 16, 17, 50] {
            let (a, b) = (numbers(length, 1), numbers(length, 2));
            let wanted: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a * b)).sum();
            let got = widest(
                #[inline(always)]
                || sum(&a, &b, |a, b| a * b),
            );
            assert!((f64::from(got) - wanted).abs() < 1e-5, "{length}");
            let wanted = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(
                widest(
                    #[inline(always)]
                    || largest(&a)
                ),
                wanted,
                "{length}"
            );
            let mut powers = a.clone();
            let total = widest(
                #[inline(always)]
                || exponentiate(&mut powers, 0.5),
            );
            let wanted: f64 = a.iter().map(|x| f64::from(x - 0.5).exp()).sum();
            assert!((f64::from(total) - wanted).abs() < 1e-5, "{length}");
        }
    }
}
