//! A decoder, run over ids.

use std::path::Path;

use burn::tensor::Device;
use limbic_data::TextTokenizer;
use limbic_llama::{Llama, LlamaConfig, Padding, read_adapter};
use limbic_train::RunError;

use super::input::InputFile;
use super::numbers::Numbers;
use super::wanted;
use crate::args::ProbeArgs;

/// `logits`, and with `--layers` the hidden states as transformers lists them: the embeddings first, the last one after the
/// final norm.
pub(super) fn run(args: &ProbeArgs, device: &Device) -> anyhow::Result<Numbers> {
    let folder = &args.model;
    let config = LlamaConfig::read(&folder.join("config.json"))?;
    let (rows, padding) = rows(args, &config)?;
    let mut llama = Llama::read_as(folder, Some(args.dtype.float_dtype()), device)?;
    if let Some(adapter) = &args.adapter {
        llama = read_adapter(llama, adapter)?;
    }
    let found = llama.inspect(&rows, &padding).map_err(|error| {
        // What was typed is at fault, and not the model.
        RunError::recipe(format!("{}: {error}", folder.display()))
    })?;
    let mut numbers = Numbers::default();
    if args.layers {
        for (index, state) in found.hidden.into_iter().enumerate() {
            numbers.push(format!("hidden.{index}"), state);
        }
    }
    numbers.push("logits", found.logits);
    Ok(numbers)
}

/// The ids, all rows equally long, and where they are padded.
fn rows(args: &ProbeArgs, config: &LlamaConfig) -> anyhow::Result<(Vec<Vec<u32>>, Padding)> {
    if !args.ids.is_empty() {
        return Ok((vec![args.ids.clone()], Padding::Right));
    }
    if let Some(text) = &args.text {
        return Ok((vec![tokenize(&args.model, text, config)?], Padding::Right));
    }
    if let Some(path) = &args.input {
        let file = InputFile::read(path)?;
        let rows = file.wanted_whole("input_ids")?;
        let padding = match file.whole("attention_mask")? {
            Some(mask) => padding(&mask, &rows).map_err(|detail| {
                RunError::recipe(format!("{}: `attention_mask` {detail}", path.display()))
            })?,
            None => Padding::Right,
        };
        let wrong = |id: i64| {
            RunError::recipe(format!(
                "{}: `input_ids` holds {id}, which is no token's id",
                path.display()
            ))
        };
        let id = |id: i64| u32::try_from(id).map_err(|_| wrong(id));
        let ids = rows
            .into_iter()
            .map(|row| row.into_iter().map(id).collect());
        return Ok((ids.collect::<anyhow::Result<_>>()?, padding));
    }
    let flags = "--ids, --text or --input with `input_ids`";
    Err(wanted(args, "a decoder", flags))
}

fn tokenize(folder: &Path, text: &str, config: &LlamaConfig) -> anyhow::Result<Vec<u32>> {
    let path = folder.join("tokenizer.json");
    if !path.is_file() {
        return Err(RunError::recipe(format!(
            "{} is not there, so --text cannot be turned into ids; give --ids",
            path.display()
        )));
    }
    // Where the config names neither, the first id stands in: the tokenizer adds what its own file says.
    let eos = config.eos_token_ids.first().copied().unwrap_or(0);
    let tokenizer = TextTokenizer::read(&path, config.bos_token_id.unwrap_or(0), eos)?;
    let ids = tokenizer.encode_with_special(text)?;
    if ids.is_empty() {
        return Err(RunError::recipe(
            "the text has no tokens; give --text some words",
        ));
    }
    Ok(ids)
}

/// Where a mask of ones and zeros leaves slots empty.
fn padding(mask: &[Vec<i64>], rows: &[Vec<i64>]) -> Result<Padding, String> {
    let shape = |rows: &[Vec<i64>]| [rows.len(), rows[0].len()];
    if shape(mask) != shape(rows) {
        return Err(format!(
            "has shape {:?}, wanted that of `input_ids`, {:?}",
            shape(mask),
            shape(rows)
        ));
    }
    if mask.iter().flatten().any(|value| !(0..=1).contains(value)) {
        return Err("holds other values than 0 and 1".into());
    }
    let pads: Vec<usize> = mask
        .iter()
        .map(|row| row.iter().take_while(|value| **value == 0).count())
        .collect();
    let is_ones_from = |row: &Vec<i64>, start: usize| row[start..].iter().all(|v| *v == 1);
    if mask
        .iter()
        .zip(&pads)
        .all(|(row, pad)| is_ones_from(row, *pad))
    {
        return Ok(Padding::Left(pads));
    }
    let is_right = |row: &Vec<i64>| row.is_sorted_by(|a, b| a >= b);
    if mask.iter().all(is_right) {
        return Ok(Padding::Right);
    }
    Err("is neither padded at the left of every row nor at the right of every row".into())
}
