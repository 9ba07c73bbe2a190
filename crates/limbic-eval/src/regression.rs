use serde::Serialize;

/// How near predicted numbers come to wanted ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Regression {
    /// Clips.
    pub n: u64,
    /// Mean squared error.
    pub mse: f64,
    /// Mean absolute error.
    pub mae: f64,
    /// Pearson's correlation; 0 where one side is constant, for which it is not defined.
    pub pearson: f64,
    /// Lin's concordance correlation coefficient (1989), with moments over all clips; 0 where it is not defined.
    pub ccc: f64,
}

impl Regression {
    /// Of pairs of a predicted and a wanted number; `None` without any.
    pub fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        if pairs.is_empty() {
            return None;
        }
        let n = pairs.len() as f64;
        let mean =
            |of: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|(a, b)| of(*a, *b)).sum::<f64>() / n;
        let (mean_a, mean_b) = (mean(&|a, _| a), mean(&|_, b| b));
        let covariance = mean(&|a, b| (a - mean_a) * (b - mean_b));
        let variance_a = mean(&|a, _| (a - mean_a).powi(2));
        let variance_b = mean(&|_, b| (b - mean_b).powi(2));
        let ratio = |above: f64, below: f64| if below > 0.0 { above / below } else { 0.0 };
        Some(Self {
            n: pairs.len() as u64,
            mse: mean(&|a, b| (a - b).powi(2)),
            mae: mean(&|a, b| (a - b).abs()),
            pearson: ratio(covariance, (variance_a * variance_b).sqrt()),
            ccc: ratio(
                2.0 * covariance,
                variance_a + variance_b + (mean_a - mean_b).powi(2),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concordance_wants_the_same_numbers_and_correlation_the_same_order() {
        let same = Regression::of(&[(0.1, 0.1), (0.7, 0.7), (-0.4, -0.4)]).unwrap();
        assert!((same.ccc - 1.0).abs() < 1e-12 && same.mse == 0.0 && same.n == 3);
        // Twice as large and shifted by 1: correlation 1, and by hand covariance 4/3, variances 2/3 and 8/3, means 0, 1.
        let other = Regression::of(&[(-1.0, -1.0), (0.0, 1.0), (1.0, 3.0)]).unwrap();
        assert!((other.pearson - 1.0).abs() < 1e-12, "{other:?}");
        assert!(
            (other.ccc - (8.0 / 3.0) / (10.0 / 3.0 + 1.0)).abs() < 1e-12,
            "{other:?}"
        );
        assert!((other.mse - 5.0 / 3.0).abs() < 1e-12 && (other.mae - 1.0).abs() < 1e-12);
        let constant = Regression::of(&[(0.5, 0.0), (0.5, 1.0)]).unwrap();
        assert_eq!((constant.pearson, constant.ccc), (0.0, 0.0));
        assert!(Regression::of(&[]).is_none());
    }
}
