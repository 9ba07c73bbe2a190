//! What can be wrong with the predictions handed in.

/// Why a set of predictions cannot be scored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// Truth and predictions do not belong to the same clips.
    #[error(
        "got {predicted} predictions for {truth} true labels, wanted one per clip; \
         score the predictions of the same split and manifest that the labels come from"
    )]
    LengthMismatch {
        /// Number of true labels.
        truth: usize,
        /// Number of predictions, the unparsed ones included.
        predicted: usize,
    },

    /// A label index that the label set does not have.
    #[error(
        "clip {clip}: {role} label index {index} is outside the {classes} classes of the label set; \
         use the label set that the predictions were made with"
    )]
    UnknownClass {
        /// How many clips were counted before this one.
        clip: usize,
        /// `true` or `predicted`.
        role: &'static str,
        /// The index found.
        index: usize,
        /// Number of classes, so that indices below it are valid.
        classes: usize,
    },

    /// Nothing to resample.
    #[error("no clip was scored, wanted at least one; check that the split is not empty")]
    NoClips,
}
