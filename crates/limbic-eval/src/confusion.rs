//! The confusion matrix: the one thing all scores are computed from.

use crate::EvalError;
use serde::{Deserialize, Serialize};

/// Counts of truth against prediction.
///
/// Rows are the true classes, columns the predicted ones in the same order, and one more column, the last, holds the
/// answers that named no class (Unparsed).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Class names, in label order.
    pub labels: Vec<String>,
    /// `[labels, labels + 1]` numbers of clips.
    pub counts: Vec<Vec<u64>>,
}

impl Confusion {
    /// An empty matrix over `labels`, the class names in label order.
    pub fn new(labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let labels: Vec<String> = labels.into_iter().map(Into::into).collect();
        let counts = vec![vec![0; labels.len() + 1]; labels.len()];
        Self { labels, counts }
    }

    /// Counts a whole split: `truth[i]` and `predicted[i]` belong to the same clip.
    ///
    /// # Errors
    ///
    /// [`EvalError::LengthMismatch`] when the slices differ in length, [`EvalError::UnknownClass`] as [`Self::add`].
    pub fn of(
        labels: impl IntoIterator<Item = impl Into<String>>,
        truth: &[usize],
        predicted: &[Option<usize>],
    ) -> Result<Self, EvalError> {
        if truth.len() != predicted.len() {
            return Err(EvalError::LengthMismatch {
                truth: truth.len(),
                predicted: predicted.len(),
            });
        }
        let mut confusion = Self::new(labels);
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            confusion.add(truth, predicted)?;
        }
        Ok(confusion)
    }

    /// Counts one clip; `None` is an unparsed answer.
    ///
    /// # Errors
    ///
    /// [`EvalError::UnknownClass`] when an index is not below the number of labels; nothing is counted then.
    pub fn add(&mut self, truth: usize, predicted: Option<usize>) -> Result<(), EvalError> {
        self.check("true", truth)?;
        if let Some(predicted) = predicted {
            self.check("predicted", predicted)?;
        }
        self.counts[truth][predicted.unwrap_or(self.labels.len())] += 1;
        Ok(())
    }

    fn check(&self, role: &'static str, index: usize) -> Result<(), EvalError> {
        if index < self.labels.len() {
            return Ok(());
        }
        Err(EvalError::UnknownClass {
            clip: self.n() as usize,
            role,
            index,
            classes: self.labels.len(),
        })
    }

    /// Number of clips counted.
    pub fn n(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Number of clips whose prediction is right.
    pub fn correct(&self) -> u64 {
        (0..self.labels.len())
            .map(|class| self.counts[class][class])
            .sum()
    }

    /// Number of clips that truly are `class`.
    pub fn support(&self, class: usize) -> u64 {
        self.counts[class].iter().sum()
    }

    /// Number of clips predicted as `class`.
    pub fn predicted(&self, class: usize) -> u64 {
        self.counts.iter().map(|row| row[class]).sum()
    }

    /// Number of clips whose answer named no class.
    pub fn unparsed(&self) -> u64 {
        self.predicted(self.labels.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [&str; 2] = ["happy", "sad"];

    #[test]
    fn unparsed_answers_have_their_own_column() {
        let confusion = Confusion::of(
            LABELS,
            &[0, 0, 0, 1, 1],
            &[Some(0), Some(1), None, Some(1), None],
        )
        .unwrap();
        assert_eq!(confusion.counts, [[1, 1, 1], [0, 1, 1]]);
        assert_eq!(confusion.n(), 5);
        assert_eq!(confusion.correct(), 2);
        assert_eq!(confusion.support(0), 3);
        assert_eq!(confusion.predicted(1), 2);
        assert_eq!(confusion.unparsed(), 2);
    }

    #[test]
    fn lengths_must_agree() {
        let error = Confusion::of(LABELS, &[0, 1], &[None]).unwrap_err();
        assert_eq!(
            error,
            EvalError::LengthMismatch {
                truth: 2,
                predicted: 1
            }
        );
        assert!(
            error
                .to_string()
                .starts_with("got 1 predictions for 2 true labels")
        );
    }

    #[test]
    fn an_unknown_class_names_the_clip_and_counts_nothing() {
        let mut confusion = Confusion::new(LABELS);
        confusion.add(1, Some(1)).unwrap();
        let predicted = confusion.add(0, Some(2)).unwrap_err();
        assert!(
            predicted
                .to_string()
                .starts_with("clip 1: predicted label index 2 is outside the 2")
        );
        let truth = confusion.add(7, None).unwrap_err();
        assert!(
            truth
                .to_string()
                .starts_with("clip 1: true label index 7 is outside the 2")
        );
        assert_eq!(confusion.n(), 1);
    }
}
