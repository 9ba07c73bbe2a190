//! An export read back and held against the run it came from: every tensor, then the logits of a prompt.
//!
//! PEFT warns of what is missing and says nothing of what is not expected, so that a wrong export loads and answers
//! like the decoder alone. Here a difference is an error.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use limbic_llama::{Dropout, Llama, Padding};
use limbic_weights::{Checkpoint, Precision, Weights, load};

use crate::export::MERGED;
use crate::{Artifact, DecoderSource, EmotionLlm, ExportOptions, ModelError, Part};

/// Positions of the prompt.
const PROMPT: usize = 12;

/// Largest difference of logits that ought to be equal, relative to the largest logit where that is more than 1.
const TOLERANCE: f32 = 1e-4;

/// What was found to agree.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Tensors compared.
    pub tensors: usize,
    /// Largest difference of the reloaded adapter's logits from those of the run's weights, rounded alike.
    pub adapter: f32,
    /// The same of the merged decoder, where there is one.
    pub merged: Option<f32>,
    /// Largest difference of the merged decoder's logits from the run's own, unrounded, where there is one.
    pub rounding: Option<f32>,
    /// Whether there is an adapter that changes nothing, because every B is zero.
    pub zero_b: bool,
}

/// Compares the export in `exported` with the artifact in `run` that it was made from.
///
/// Both are loaded whole.
///
/// # Errors
/// The first tensor that is not the run's, rounded to the precision asked for; logits that differ.
pub fn verify_export(
    run: &Path,
    exported: &Path,
    options: &ExportOptions,
    device: &Device,
) -> Result<Verified, ModelError> {
    let run = Artifact::read(run, Precision::F32, device)?;
    let back = Artifact::read(exported, Precision::F32, device)?;
    let ids = prompt(&run.model.llama, device);
    let wanted = logits(&run.model.llama, ids.clone());

    let is_own = run.config.decoder == DecoderSource::Own;
    let own_precision = options.precision.unwrap_or(Precision::F32);
    let expected = run.model.clone();
    let expected = round(expected, own_precision, |name| match Part::of(name) {
        Some(Part::Lora) => true,
        Some(Part::Decoder) => is_own,
        _ => false,
    })?;
    let mut tensors = compare(
        exported,
        &Weights::collect(&back.model),
        &Weights::collect(&expected),
    )?;
    let adapter = difference(
        &logits(&back.model.llama, ids.clone()),
        &logits(&expected.llama, ids.clone()),
    );
    check(exported, "the reloaded model", adapter, &wanted)?;

    let (mut merged, mut rounding) = (None, None);
    if options.merged {
        let folder = exported.join(MERGED);
        let whole = run.model.llama.clone().merge_lora();
        let base = Checkpoint::open(&run.decoder)?;
        let precision = |name: &str| {
            let stored = || base.dtype(name).map(Precision::of);
            options.precision.or_else(stored).unwrap_or(Precision::F32)
        };
        let weights = rounded(&Weights::collect(&whole), precision);
        let files = Checkpoint::open(&folder)?;
        for name in files.names() {
            let got = files.dtype(name).map(Precision::of);
            if got != Some(precision(name)) {
                return Err(ModelError::directory(
                    &folder,
                    format!("`{name}` is not stored in {}", precision(name)),
                ));
            }
        }
        let back = Llama::read(&folder, device)?;
        tensors += compare(&folder, &Weights::collect(&back), &weights)?;
        let expected = load(whole, &weights)?;
        let got = logits(&back, ids.clone());
        let of_rounded = difference(&got, &logits(&expected, ids));
        check(&folder, "the merged decoder", of_rounded, &wanted)?;
        let of_run = difference(&got, &wanted);
        if weights
            .tensors
            .keys()
            .all(|name| precision(name) == Precision::F32)
        {
            check(&folder, "the merged decoder", of_run, &wanted)?;
        }
        (merged, rounding) = (Some(of_rounded), Some(of_run));
    }
    Ok(Verified {
        tensors,
        adapter,
        merged,
        rounding,
        zero_b: has_zero_b(&run.model),
    })
}

/// Token ids spread over the vocabulary, `[1, L]`.
fn prompt(llama: &Llama, device: &Device) -> Tensor<2, Int> {
    let config = llama.config();
    let length = PROMPT.min(config.max_position_embeddings);
    let ids: Vec<i64> = (0..length)
        .map(|i| ((i * 7919 + 1) % config.vocab_size) as i64)
        .collect();
    Tensor::from_data(TensorData::new(ids, [1, length]), device)
}

fn logits(llama: &Llama, ids: Tensor<2, Int>) -> Vec<f32> {
    let hidden = llama.hidden(llama.embed(ids), &Padding::Right, None, Dropout::OFF);
    let logits = llama.logits(hidden.squeeze_dim(0), Dropout::OFF);
    logits.into_data().iter::<f32>().collect()
}

/// The largest difference; not a number where either side is none.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most })
}

fn check(path: &Path, what: &str, difference: f32, logits: &[f32]) -> Result<(), ModelError> {
    let largest = logits
        .iter()
        .fold(1.0f32, |most, logit| most.max(logit.abs()));
    if difference <= TOLERANCE * largest {
        return Ok(());
    }
    Err(ModelError::directory(
        path,
        format!(
            "logits of {what} differ from the run's by {difference:.2e}, wanted at most {:.2e}; do not use this export",
            TOLERANCE * largest
        ),
    ))
}

fn rounded(weights: &Weights, precision: impl Fn(&str) -> Precision) -> Weights {
    let mut weights = weights.clone();
    for (name, tensor) in &mut weights.tensors {
        let precision = precision(name);
        for value in &mut tensor.values {
            *value = precision.round(*value);
        }
    }
    weights
}

fn round(
    model: EmotionLlm,
    precision: Precision,
    which: impl Fn(&str) -> bool,
) -> Result<EmotionLlm, ModelError> {
    let weights = rounded(&Weights::collect_only(&model, &which), |_| precision);
    let which = |name: &str| weights.tensors.contains_key(name);
    Ok(limbic_weights::load_only(model, &weights, which)?)
}

/// Counts the tensors, which must be the same to the bit.
fn compare(path: &Path, got: &Weights, wanted: &Weights) -> Result<usize, ModelError> {
    let fail = |detail: String| Err(ModelError::directory(path, detail));
    for (name, wanted) in &wanted.tensors {
        let Some(got) = got.tensors.get(name) else {
            return fail(format!("`{name}` is missing"));
        };
        if got.shape != wanted.shape {
            return fail(format!(
                "`{name}` has shape {:?}, in the run {:?}",
                got.shape, wanted.shape
            ));
        }
        let mut pairs = got.values.iter().zip(&wanted.values).enumerate();
        if let Some((index, (got, wanted))) =
            pairs.find(|(_, (got, wanted))| got.to_bits() != wanted.to_bits())
        {
            return fail(format!(
                "value {index} of `{name}` is {got:?}, in the run (rounded alike) {wanted:?}"
            ));
        }
    }
    match got
        .tensors
        .keys()
        .find(|name| !wanted.tensors.contains_key(*name))
    {
        Some(name) => fail(format!("`{name}` is not in the run")),
        None => Ok(wanted.tensors.len()),
    }
}

fn has_zero_b(model: &EmotionLlm) -> bool {
    let factors = Weights::collect_only(&model.llama, |name| name.contains(".lora_B."));
    let mut values = factors.tensors.values().flat_map(|tensor| &tensor.values);
    !factors.tensors.is_empty() && values.all(|value| *value == 0.0)
}
