//! Cross-entropy of tokens, and its slope at their logits.

use rayon::prelude::*;

use crate::vector::{exponentiate, largest, widest};

/// Sums `log Σ e^logit - logit of the target` over rows, and replaces the logits by the slopes at them,
/// `softmax(logits) - [target]`.
///
/// # Shapes
/// logits `[N, V]`, targets N.
///
/// # Panics
/// When a target is no token.
pub fn cross_entropy(logits: &mut [f32], targets: &[u32]) -> f64 {
    if targets.is_empty() {
        return 0.0;
    }
    let vocabulary = logits.len() / targets.len();
    assert_eq!(
        logits.len(),
        vocabulary * targets.len(),
        "logits of {} rows",
        targets.len()
    );
    let rows = logits.par_chunks_exact_mut(vocabulary).zip(targets);
    let of_rows: Vec<f64> = rows
        .map(|(logits, target)| {
            widest(
                #[inline(always)]
                || {
                    let wanted = logits[*target as usize];
                    let most = largest(logits);
                    let total = exponentiate(logits, most);
                    let share = 1.0 / total;
                    logits.iter_mut().for_each(|logit| *logit *= share);
                    logits[*target as usize] -= 1.0;
                    f64::from(most) - f64::from(wanted) + f64::from(total).ln()
                },
            )
        })
        .collect();
    of_rows.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::tests::numbers;

    #[test]
    fn loss_and_slope_are_those_of_the_definition() {
        let (rows, vocabulary) = (3, 101);
        let logits: Vec<f32> = numbers(rows * vocabulary, 4)
            .iter()
            .map(|x| x * 8.0)
            .collect();
        let targets = [0, 100, 57];
        let mut slopes = logits.clone();
        let loss = cross_entropy(&mut slopes, &targets);
        let mut wanted = 0.0;
        for (row, target) in targets.iter().enumerate() {
            let logits = &logits[row * vocabulary..][..vocabulary];
            let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            wanted += total.ln() - f64::from(logits[*target as usize]);
            for (token, logit) in logits.iter().enumerate() {
                let share = f64::from(*logit).exp() / total;
                let slope = share - f64::from(u8::from(token == *target as usize));
                let got = f64::from(slopes[row * vocabulary + token]);
                assert!((got - slope).abs() < 1e-6, "{row} {token}: {got} {slope}");
            }
        }
        assert!((loss / wanted - 1.0).abs() < 1e-6, "{loss} {wanted}");
    }
}
