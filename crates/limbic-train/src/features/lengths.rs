//! Whether a clip's features are as many as projectors and fusions take.

use limbic_data::Reason;
use limbic_encoders::InputLength;
use limbic_model::{FusedConfig, InputConfig};

use crate::perception::Refusal;
use crate::stored::Stored;

/// Refuses what a projector or a fusion does not take of a clip's `features`, an entry an input.
pub(super) fn check_lengths(
    inputs: &[InputConfig],
    fusions: &[FusedConfig],
    features: &[Option<Stored>],
) -> Result<(), Refusal> {
    for (input, features) in inputs.iter().zip(features) {
        if let Some(features) = features {
            check_input(input, features.length())?;
        }
    }
    fusions
        .iter()
        .try_for_each(|fused| check_fusion(fused, inputs, features))
}

fn check_input(input: &InputConfig, got: usize) -> Result<(), Refusal> {
    let Some(projector) = &input.projector else {
        return Ok(());
    };
    let accepts = projector.accepts();
    if accepts.allows(got) {
        return Ok(());
    }
    let (reason, fix) = match accepts {
        InputLength::AtMost(_) => (
            Reason::TooLong,
            "raise its `max_length` (or `positions`) or shorten the clip",
        ),
        _ => (
            Reason::WrongLength,
            "make projector, encoder and `frames` agree",
        ),
    };
    let problem = format!(
        "{got} features for input `{}`, whose projector takes {accepts}; {fix}",
        input.name
    );
    Err((reason, problem))
}

/// Refuses sources that are together longer than a fusion takes.
fn check_fusion(
    fused: &FusedConfig,
    inputs: &[InputConfig],
    features: &[Option<Stored>],
) -> Result<(), Refusal> {
    let lengths = inputs
        .iter()
        .zip(features)
        .filter(|(input, _)| fused.sources.contains(&input.name))
        .map(|(_, features)| Some(features.as_ref()?.length()));
    // Without one of them there is no fusion.
    let Some(length) = lengths.sum::<Option<usize>>() else {
        return Ok(());
    };
    match fused.fusion.max_length() {
        Some(longest) if length > longest => Err((
            Reason::TooLong,
            format!(
                "{length} features for fusion `{}`, which takes {longest} of all its sources together; \
                 raise its `positions` or shorten the clip",
                fused.name
            ),
        )),
        _ => Ok(()),
    }
}
