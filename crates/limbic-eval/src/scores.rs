//! Accuracy, recall, F1 and agreement, as scikit-learn defines them.
//!
//! The definitions are those of scikit-learn with `labels=` all classes and `zero_division=0`, where an unparsed
//! answer is one more predicted label that is never true: wrong for its true class, a false positive of none.
//! A ratio whose denominator is zero is 0, so that a class that is never predicted cannot raise a score.

use crate::Confusion;
use serde::{Deserialize, Serialize};

/// All scores of one set of predictions, each in 0 to 1 unless said otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Number of clips scored, the unparsed ones included.
    pub n: u64,
    /// Share of right answers; also called WAR, weighted average recall.
    pub accuracy: f64,
    /// Unweighted average recall: the mean over the classes that occur in the truth (`balanced_accuracy_score`).
    pub uar: f64,
    /// Mean of the per-class F1, weighted by support.
    pub weighted_f1: f64,
    /// Mean of the per-class F1 over all classes, those that do not occur included.
    pub macro_f1: f64,
    /// Share of answers that named no class.
    pub unparsed_rate: f64,
    /// Cohen's kappa, -1 to 1, Unparsed being one more predicted category; 0 where chance agreement is complete
    /// (one single class in truth and prediction), where scikit-learn gives NaN.
    pub kappa: f64,
    /// One entry per class, in label order.
    pub per_class: Vec<ClassScores>,
    /// The counts that everything above is computed from.
    pub confusion: Confusion,
}

/// The scores of one class against all others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// The class's name.
    pub label: String,
    /// Right answers among those that named the class.
    pub precision: f64,
    /// Right answers among the clips that are of the class.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
    /// Number of clips that are of the class.
    pub support: u64,
    /// Number of answers that named the class.
    pub predicted: u64,
}

impl Scores {
    /// Scores the counts of `confusion`; all are 0 when nothing was counted.
    pub fn new(confusion: Confusion) -> Self {
        let n = confusion.n();
        let per_class: Vec<_> = (0..confusion.labels.len())
            .map(|class| ClassScores::new(&confusion, class))
            .collect();
        let f1 = |class: &ClassScores| class.f1;

        Self {
            n,
            accuracy: ratio(confusion.correct(), n),
            uar: mean(
                per_class
                    .iter()
                    .filter(|class| class.support > 0)
                    .map(|class| class.recall),
            ),
            weighted_f1: per_class
                .iter()
                .map(|class| class.f1 * ratio(class.support, n))
                .sum(),
            macro_f1: mean(per_class.iter().map(f1)),
            unparsed_rate: ratio(confusion.unparsed(), n),
            kappa: kappa(&confusion),
            per_class,
            confusion,
        }
    }
}

impl ClassScores {
    fn new(confusion: &Confusion, class: usize) -> Self {
        let correct = confusion.counts[class][class];
        let support = confusion.support(class);
        let predicted = confusion.predicted(class);
        Self {
            label: confusion.labels[class].clone(),
            precision: ratio(correct, predicted),
            recall: ratio(correct, support),
            f1: ratio(2 * correct, support + predicted),
            support,
            predicted,
        }
    }
}

/// The scores of answering every clip with the class that is most frequent in the truth of `confusion`, the first of
/// them on a tie: no constant answer reaches a higher accuracy, so a model below it has learnt nothing.
pub fn majority(confusion: &Confusion) -> Scores {
    let mut constant = Confusion::new(&confusion.labels);
    let supports: Vec<_> = (0..confusion.labels.len())
        .map(|class| confusion.support(class))
        .collect();
    let most = supports.iter().max();
    if let Some(answer) = supports.iter().position(|support| Some(support) == most) {
        for (row, support) in constant.counts.iter_mut().zip(&supports) {
            row[answer] = *support;
        }
    }
    Scores::new(constant)
}

/// `1 - (1 - observed) / (1 - chance)`, Cohen (1960).
fn kappa(confusion: &Confusion) -> f64 {
    let n = confusion.n();
    let observed = confusion.correct();
    // Unparsed is never true, so it adds nothing to the agreement expected by chance. In integers, complete chance
    // agreement is recognised exactly.
    let chance: u128 = (0..confusion.labels.len())
        .map(|class| u128::from(confusion.support(class)) * u128::from(confusion.predicted(class)))
        .sum();
    let total = u128::from(n) * u128::from(n);
    if chance == total {
        return 0.0;
    }
    let disagreement = u128::from(n) * u128::from(n - observed);
    1.0 - disagreement as f64 / (total - chance) as f64
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counts that Emotion-LLaMA publishes for MER2023 test 3 (`stage2/result/MER2023.txt`), with the weighted F1
    /// printed beside them.
    #[test]
    fn reproduces_the_published_emotion_llama_scores() {
        let counts = [
            [179, 1, 2, 1, 0, 0],
            [2, 152, 7, 4, 3, 1],
            [10, 10, 134, 6, 2, 4],
            [2, 2, 1, 250, 0, 2],
            [1, 0, 3, 1, 6, 3],
            [4, 1, 3, 2, 1, 34],
        ];
        let mut confusion =
            Confusion::new(["angry", "happy", "neutral", "sad", "surprise", "worried"]);
        for (row, published) in confusion.counts.iter_mut().zip(counts) {
            row[..6].copy_from_slice(&published);
        }
        let scores = Scores::new(confusion);
        assert_eq!(scores.n, 834);
        let close = |got: f64, published: f64, digits: i32| {
            assert!(
                (got - published).abs() <= 0.5001 * 10_f64.powi(-digits),
                "{got} is not {published}"
            );
        };
        close(scores.weighted_f1, 0.903577, 6);
        close(scores.accuracy, 0.90528, 5);
        close(scores.macro_f1, 0.8134, 4);
        close(scores.uar, 0.8069, 4);
        for (class, f1) in scores
            .per_class
            .iter()
            .zip([0.940, 0.907, 0.848, 0.960, 0.462, 0.764])
        {
            close(class.f1, f1, 3);
        }
    }

    #[test]
    fn unparsed_answers_lower_recall_but_nobodys_precision() {
        let confusion = Confusion::of(
            ["happy", "sad"],
            &[0, 0, 1, 1],
            &[Some(0), None, Some(1), Some(1)],
        )
        .unwrap();
        let scores = Scores::new(confusion);
        assert_eq!(scores.accuracy, 0.75);
        assert_eq!(scores.unparsed_rate, 0.25);
        assert_eq!(scores.per_class[0].precision, 1.0);
        assert_eq!(scores.per_class[0].recall, 0.5);
        assert_eq!(scores.per_class[1].precision, 1.0);
    }

    #[test]
    fn nothing_counted_scores_zero() {
        for names in [vec![], vec!["happy", "sad"]] {
            let scores = Scores::new(Confusion::new(names));
            assert_eq!(scores.n, 0);
            for score in [
                scores.accuracy,
                scores.uar,
                scores.weighted_f1,
                scores.macro_f1,
                scores.unparsed_rate,
                scores.kappa,
            ] {
                assert_eq!(score, 0.0);
            }
        }
    }

    #[test]
    fn majority_takes_the_first_of_the_most_frequent() {
        let confusion =
            Confusion::of(["angry", "happy", "sad"], &[0, 1, 1, 2, 2], &[None; 5]).unwrap();
        let scores = majority(&confusion);
        assert_eq!(scores.confusion.predicted(1), 5);
        assert_eq!(scores.accuracy, 0.4);
        assert_eq!(scores.uar, 1.0 / 3.0);
        assert_eq!(scores.unparsed_rate, 0.0);
    }

    #[test]
    fn survives_json() {
        let confusion = Confusion::of(["happy", "sad"], &[0, 1], &[Some(0), None]).unwrap();
        let scores = Scores::new(confusion);
        let text = serde_json::to_string(&scores).unwrap();
        assert_eq!(serde_json::from_str::<Scores>(&text).unwrap(), scores);
    }
}
