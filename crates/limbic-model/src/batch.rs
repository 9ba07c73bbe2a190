//! Compiled prompts and encoded media as tensors: the one place where media meet text.
//!
//! Letters: B samples, R rows, L slots of a row, D decoder width, N supervised positions.

use burn::tensor::{Device, Int, Tensor, TensorData};
use limbic_data::{Compiled, Segment};
use limbic_encoders::{Features, Padded};
use limbic_llama::Padding;

/// One compiled sample.
#[derive(Debug, Clone, Copy)]
pub struct Example<'a> {
    /// Prompt and answer.
    pub compiled: &'a Compiled,
    /// Encoded media, one entry an input; `None` where the clip lacks it.
    pub features: &'a [Option<&'a Features>],
    /// The class, where it counts for the class loss.
    pub label: Option<usize>,
    /// The valence, where it counts for the valence loss.
    pub valence: Option<f32>,
}

/// How the samples of a batch lie in its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Each in a row of its own, padded on the right to the longest.
    Padded,
    /// One after the other in a single row, without a slot between them.
    Packed,
}

/// Samples side by side or end to end.
#[derive(Debug, Clone)]
pub struct Batch {
    /// B
    pub size: usize,
    /// R
    pub rows: usize,
    /// L
    pub length: usize,
    /// Who may look at whom.
    pub(crate) padding: Padding,
    /// All text tokens of all samples, one after the other: `[1, text]`.
    pub(crate) text: Tensor<2, Int>,
    /// The features of each input, of the samples that have it.
    pub(crate) media: Vec<Option<PerSample>>,
    /// Token ids `[rows, longest]` of the transcripts, of the samples that have one.
    pub(crate) transcripts: Option<(Tensor<2, Int>, Words)>,
    /// The samples whose prompts hold each slot: the inputs' slots first, then the fusions'.
    pub(crate) holders: Vec<Vec<usize>>,
    /// Where each of the R·L positions is found in the table of text rows followed by the slots' rows.
    pub(crate) places: Tensor<1, Int>,
    /// Positions (of R·L, ascending) whose next token is supervised, and those tokens, `[N]`.
    pub(crate) supervised: Option<(Vec<usize>, Tensor<1, Int>)>,
    /// Numbers of the samples with a label, and the labels.
    pub(crate) labelled: Option<(Vec<usize>, Tensor<1, Int>)>,
    /// Numbers of the samples with a valence, and the valences.
    pub(crate) valued: Option<(Vec<usize>, Tensor<1>)>,
    /// Last prompt position (of R·L) of every sample.
    pub(crate) prompt_ends: Vec<usize>,
    /// Positions that hold something, padding left out.
    pub num_positions: usize,
    /// N
    pub num_supervised: usize,
    /// Samples with a label.
    pub num_labelled: usize,
}

/// Sequences of those samples that have them.
#[derive(Debug, Clone)]
pub(crate) struct PerSample {
    /// Numbers of these samples, ascending.
    pub(crate) samples: Vec<usize>,
    /// Their sequences.
    pub(crate) padded: Padded,
}

/// Which samples have a transcript, and how long it is.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    pub(crate) samples: Vec<usize>,
    pub(crate) lengths: Vec<usize>,
}

impl PerSample {
    /// The sequences of `samples`, which are among these.
    pub(crate) fn only(self, samples: &[usize]) -> Padded {
        if self.samples == samples {
            return self.padded;
        }
        let Padded { values, lengths } = self.padded;
        let device = values.device().without_autodiff();
        let lengths = samples
            .iter()
            .map(|sample| lengths[row_of(*sample, &self.samples)]);
        Padded {
            lengths: lengths.collect(),
            values: values.select(0, rows_of(samples, &self.samples, &device)),
        }
    }
}

/// In which rows `samples` stand, where each of `all` has one.
pub(crate) fn rows_of(samples: &[usize], all: &[usize], device: &Device) -> Tensor<1, Int> {
    let rows = samples.iter().map(|sample| row_of(*sample, all) as i64);
    let rows: Vec<i64> = rows.collect();
    let shape = [rows.len()];
    Tensor::from_data(TensorData::new(rows, shape), device)
}

fn row_of(sample: usize, all: &[usize]) -> usize {
    let row = all.iter().position(|other| *other == sample);
    row.expect("a sample that has what its prompt has a slot for")
}

impl Batch {
    /// Lays out `examples` on a plain device.
    ///
    /// # Panics
    /// When there are no examples, or when a prompt has a slot whose features are missing: the compiler saw other media
    /// than it is given here.
    pub fn new(examples: &[Example], layout: Layout, device: &Device) -> Self {
        let device = &device.clone().without_autodiff();
        let size = examples.len();
        let lengths = examples.iter().map(|example| example.compiled.length());
        let lengths: Vec<usize> = lengths.collect();
        let num_positions = lengths.iter().sum();
        let longest = *lengths
            .iter()
            .max()
            .expect("a batch of at least one example");
        let mut starts = Vec::with_capacity(size);
        let (rows, length, padding) = match layout {
            Layout::Padded => {
                starts.extend((0..size).map(|row| row * longest));
                (size, longest, Padding::Right)
            }
            Layout::Packed => {
                let mut end = 0;
                for length in &lengths {
                    starts.push(end);
                    end += length;
                }
                (1, num_positions, Padding::Packed(lengths))
            }
        };
        let num_inputs = examples[0].features.len();

        let num_text: usize = examples
            .iter()
            .map(|example| text_length(example.compiled))
            .sum();
        let mut text: Vec<i64> = Vec::with_capacity(num_text);
        let slots = examples
            .iter()
            .flat_map(|example| &example.compiled.prompt)
            .filter_map(|segment| match segment {
                Segment::Media { input, .. } => Some(*input),
                Segment::Text(_) => None,
            });
        let num_slots = slots
            .max()
            .map_or(num_inputs, |last| num_inputs.max(last + 1));
        let mut holders: Vec<Vec<usize>> = vec![Vec::new(); num_slots];
        // Row of the table, or (slot, row among that slot's rows) until all rows are counted.
        let mut places = vec![Place::Text(0); rows * length];
        let (mut supervised, mut targets) = (Vec::new(), Vec::new());
        let (mut labelled, mut labels, mut prompt_ends) = (Vec::new(), Vec::new(), Vec::new());
        let (mut valued, mut valences) = (Vec::new(), Vec::new());
        for (row, example) in examples.iter().enumerate() {
            let mut position = starts[row];
            let mut put_text = |ids: &[u32], position: &mut usize| {
                for id in ids {
                    places[*position] = Place::Text(text.len());
                    text.push(i64::from(*id));
                    *position += 1;
                }
            };
            let mut media_places = Vec::new();
            for segment in &example.compiled.prompt {
                match segment {
                    Segment::Text(ids) => put_text(ids, &mut position),
                    Segment::Media { input, tokens } => {
                        if let Some(features) = example.features.get(*input) {
                            features.expect(
                                "the compiler leaves out the slot of a medium that the clip lacks",
                            );
                        }
                        let first = holders[*input].len() * tokens;
                        holders[*input].push(row);
                        for token in 0..*tokens {
                            media_places.push((position, Place::Media(*input, first + token)));
                            position += 1;
                        }
                    }
                }
            }
            let end = position - 1;
            prompt_ends.push(end);
            for (offset, id) in example.compiled.answer.iter().enumerate() {
                supervised.push(end + offset);
                targets.push(i64::from(*id));
            }
            put_text(&example.compiled.answer, &mut position);
            for (position, place) in media_places {
                places[position] = place;
            }
            if let Some(label) = example.label {
                labelled.push(row);
                labels.push(label as i64);
            }
            if let Some(valence) = example.valence {
                valued.push(row);
                valences.push(valence);
            }
        }

        let mut offset = text.len();
        let offsets: Vec<usize> = holders
            .iter()
            .enumerate()
            .map(|(slot, holders)| {
                let start = offset;
                offset += holders.len() * slot_tokens(examples, slot);
                start
            })
            .collect();
        let places: Vec<i64> = places
            .into_iter()
            .map(|place| match place {
                Place::Text(row) => row as i64,
                Place::Media(slot, row) => (offsets[slot] + row) as i64,
            })
            .collect();

        let ints = |values: Vec<i64>| {
            let shape = [values.len()];
            Tensor::<1, Int>::from_data(TensorData::new(values, shape), device)
        };
        let pair = |at: Vec<usize>, what: Vec<i64>| (!at.is_empty()).then(|| (at, ints(what)));
        Self {
            size,
            rows,
            length,
            padding,
            num_positions,
            num_supervised: supervised.len(),
            num_labelled: labelled.len(),
            text: ints(text).unsqueeze(),
            media: (0..num_inputs)
                .map(|input| stack(examples, input, device))
                .collect(),
            transcripts: transcripts(examples, device),
            holders,
            places: ints(places),
            supervised: pair(supervised, targets),
            labelled: pair(labelled, labels),
            valued: (!valued.is_empty()).then(|| {
                let shape = [valences.len()];
                let values = Tensor::from_data(TensorData::new(valences, shape), device);
                (valued, values)
            }),
            prompt_ends,
        }
    }

    /// Who may look at whom, for a decoder that reads the batch from left to right.
    pub fn padding(&self) -> &Padding {
        &self.padding
    }

    /// Positions that are computed, padding included.
    pub fn num_slots(&self) -> usize {
        self.rows * self.length
    }
}

#[derive(Clone, Copy)]
enum Place {
    Text(usize),
    Media(usize, usize),
}

fn text_length(compiled: &Compiled) -> usize {
    let of_segment = |segment: &Segment| match segment {
        Segment::Text(ids) => ids.len(),
        Segment::Media { .. } => 0,
    };
    compiled.prompt.iter().map(of_segment).sum::<usize>() + compiled.answer.len()
}

fn slot_tokens(examples: &[Example], wanted: usize) -> usize {
    let segments = examples.iter().flat_map(|example| &example.compiled.prompt);
    segments
        .filter_map(|segment| match segment {
            Segment::Media { input, tokens } if *input == wanted => Some(*tokens),
            _ => None,
        })
        .next()
        .unwrap_or(0)
}

/// The features of one input, of the samples that have it.
fn stack(examples: &[Example], input: usize, device: &Device) -> Option<PerSample> {
    let (samples, rows): (Vec<usize>, Vec<&Features>) = examples
        .iter()
        .enumerate()
        .filter_map(|(sample, example)| Some((sample, example.features[input]?)))
        .unzip();
    let lengths: Vec<usize> = rows.iter().map(|features| features.length).collect();
    let longest = lengths.iter().copied().max()?;
    let dim = rows[0].dim;
    let mut values = vec![0.0f32; rows.len() * longest * dim];
    for (row, features) in rows.iter().enumerate() {
        let start = row * longest * dim;
        values[start..start + features.data.len()].copy_from_slice(&features.data);
    }
    let data = TensorData::new(values, [rows.len(), longest, dim]);
    let values = Tensor::from_data(data, device);
    Some(PerSample {
        samples,
        padded: Padded { values, lengths },
    })
}

fn transcripts(examples: &[Example], device: &Device) -> Option<(Tensor<2, Int>, Words)> {
    let (samples, rows): (Vec<usize>, Vec<&[u32]>) = examples
        .iter()
        .enumerate()
        .map(|(sample, example)| (sample, example.compiled.transcript.as_slice()))
        .filter(|(_, ids)| !ids.is_empty())
        .unzip();
    let lengths: Vec<usize> = rows.iter().map(|ids| ids.len()).collect();
    let longest = lengths.iter().copied().max()?;
    let mut ids = vec![0i64; rows.len() * longest];
    for (row, of_row) in rows.iter().zip(ids.chunks_exact_mut(longest)) {
        for (id, place) in row.iter().zip(of_row) {
            *place = i64::from(*id);
        }
    }
    let ids = Tensor::from_data(TensorData::new(ids, [rows.len(), longest]), device);
    Some((ids, Words { samples, lengths }))
}
