//! What is asked about which clip. Draws are pure functions of the sample's number in the run: its order says which clip
//! has that number, and for the clip one task is drawn by the recipe's weights, in one of its wordings.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use limbic_data::{
    Clip, Compiled, LabelSet, PromptCompiler, Segment, Task, TextTokenizer, Turn, prompt,
};
use limbic_encoders::Features;
use limbic_model::{ArtifactConfig, Example};

use crate::features::EncodedClip;
use crate::order::{Due, Order};
use crate::stored::{Held, Stored, hold};
use crate::{Recipe, RunError};

/// The clips of a split with what is asked about them.
#[derive(Debug)]
pub struct Dataset {
    samples: Vec<Sample>,
    tasks: BTreeMap<Task, f64>,
    compiler: PromptCompiler,
    tokenizer: TextTokenizer,
    config: ArtifactConfig,
    vocabulary: usize,
    order: Order,
}

/// A clip that something can be asked about.
#[derive(Debug)]
pub struct Sample {
    /// The clip and its features.
    pub encoded: EncodedClip,
    /// Its class.
    pub label: Option<usize>,
    /// What is seen and heard, in tokens; empty where nothing is told or captions are not learnt from.
    pub caption: Vec<u32>,
    pub(crate) answers: BTreeMap<Task, String>,
    /// Positions of prompt and answer, for each wording of a task.
    pub(crate) lengths: BTreeMap<Task, Vec<usize>>,
}

/// A drawn sample, compiled.
#[derive(Debug)]
pub struct Drawn<'a> {
    /// The clip.
    pub sample: &'a Sample,
    /// What the model sees and answers.
    pub compiled: Compiled,
}

/// Why clips of a split are not used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// No task has an answer for them.
    pub unanswered: usize,
    /// They lack an input of a fusion that a head reads.
    pub unjudged: usize,
    /// Their sample, or their prompt and `evaluation.max_new_tokens`, take more positions than `data.max_tokens`.
    pub too_long: usize,
}

impl Dropped {
    /// In words, with the keys that decided; nothing where nothing was dropped.
    pub(crate) fn told(self, recipe: &Recipe) -> String {
        let mut told = String::new();
        if self.unanswered > 0 {
            told += &format!("; {} clips have no answer to any task", self.unanswered);
        }
        if self.unjudged > 0 {
            told += &format!(
                "; {} clips lack an input of the fusion that a head reads",
                self.unjudged
            );
        }
        if self.too_long > 0 {
            told += &format!(
                "; {} do not fit into data.max_tokens={}, with room for evaluation.max_new_tokens={}",
                self.too_long, recipe.data.max_tokens, recipe.evaluation.max_new_tokens
            );
        }
        told
    }
}

/// What a dataset is made with.
#[derive(Debug, Clone)]
pub struct Questions<'a> {
    /// Tasks and their weights.
    pub tasks: &'a BTreeMap<Task, f64>,
    /// The labels, where there are any.
    pub labels: Option<&'a LabelSet>,
    /// The inputs in use, and whether prompts hold the transcript.
    pub config: &'a ArtifactConfig,
    /// Prompts for them.
    pub compiler: &'a PromptCompiler,
    /// The tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// Number of tokens that the decoder knows.
    pub vocabulary: usize,
    /// Longest sample, and longest prompt with room for an answer.
    pub max_tokens: usize,
    /// The room that an answer needs.
    pub max_new_tokens: usize,
    /// Whether captions are learnt from, whatever the task.
    pub captions: bool,
    /// Names the order and the draws.
    pub seed: u64,
}

impl Drawn<'_> {
    /// The features of each input, which somebody must hold.
    pub(crate) fn held(&self) -> Vec<Option<Arc<Features>>> {
        let features = self.sample.encoded.features.iter();
        let held = |stored: &Option<Stored>| stored.as_ref().map(Stored::held);
        features.map(held).collect()
    }
}

/// Brings the features of `drawn` into memory for as long as the result lives.
///
/// # Errors
/// A clip whose media are not what they were when the run began.
pub(crate) fn hold_drawn(drawn: &[Drawn]) -> anyhow::Result<Held> {
    let clips = drawn.iter().map(|drawn| &drawn.sample.encoded);
    hold(clips.flat_map(|clip| clip.features.iter().flatten()))
}

impl Sample {
    /// How pleasant it is, where that is known.
    pub fn valence(&self) -> Option<f32> {
        self.encoded.clip.valence
    }
}

impl Dataset {
    /// Takes the clips that some task has an answer for, in their order.
    ///
    /// # Errors
    /// A task without instructions, a text that cannot be compiled.
    pub fn new(clips: Vec<EncodedClip>, questions: &Questions) -> anyhow::Result<(Self, Dropped)> {
        let mut dropped = Dropped::default();
        let mut dataset = Self {
            samples: Vec::new(),
            tasks: questions.tasks.clone(),
            compiler: questions.compiler.clone(),
            tokenizer: questions.tokenizer.clone(),
            config: questions.config.clone(),
            vocabulary: questions.vocabulary,
            order: Order::shuffled(questions.seed, 0),
        };
        let wordings: BTreeMap<Task, Vec<String>> = questions
            .tasks
            .keys()
            .map(|task| Ok((*task, questions.compiler.instructions(*task)?)))
            .collect::<anyhow::Result<_>>()?;
        for encoded in clips {
            let label = questions.labels.and_then(|labels| {
                let emotion = encoded.clip.emotion.as_ref()?;
                labels.index(emotion)
            });
            let name = label.and_then(|index| Some(questions.labels?.names()[index]));
            let answers: BTreeMap<Task, String> = questions
                .tasks
                .iter()
                .filter(|(_, weight)| **weight > 0.0)
                .filter_map(|(task, _)| Some((*task, prompt::answer(*task, &encoded.clip, name)?)))
                .collect();
            if answers.is_empty() {
                dropped.unanswered += 1;
                continue;
            }
            let inputs: Vec<bool> = encoded.features.iter().map(Option::is_some).collect();
            if !dataset
                .config
                .is_judged(&inputs, dataset.words(&encoded.clip).is_some())
            {
                dropped.unjudged += 1;
                continue;
            }
            let caption = prompt::answer(Task::Describe, &encoded.clip, None)
                .filter(|_| questions.captions)
                .map(|caption| questions.tokenizer.encode(&format!(" {}", caption.trim())))
                .transpose()?
                .unwrap_or_default();
            dataset.check_ids(&caption, &encoded.clip)?;
            let mut sample = Sample {
                encoded,
                label,
                caption,
                answers,
                lengths: BTreeMap::new(),
            };
            let slots = questions.compiler.slots().iter().map(|slot| slot.tokens);
            // The longest sequence that a caption is part of: a begin token and all media stand before it.
            let mut longest = if sample.caption.is_empty() {
                0
            } else {
                1 + slots.sum::<usize>() + sample.caption.len()
            };
            let mut lengths: BTreeMap<Task, Vec<usize>> = BTreeMap::new();
            for (task, answer) in &sample.answers {
                for wording in &wordings[task] {
                    let compiled = dataset.compile(&sample, wording, Some(answer))?;
                    let room = compiled.prompt_length() + questions.max_new_tokens;
                    longest = longest.max(compiled.length()).max(room);
                    lengths.entry(*task).or_default().push(compiled.length());
                }
            }
            sample.lengths = lengths;
            if longest > questions.max_tokens {
                dropped.too_long += 1;
            } else {
                dataset.samples.push(sample);
            }
        }
        dataset.order = Order::shuffled(questions.seed, dataset.samples.len());
        Ok((dataset, dropped))
    }

    /// The same, but samples of like length come in the same steps, which have `step` samples each.
    pub fn grouped(self, step: usize) -> Self {
        Self {
            order: self.order.grouped(step),
            ..self
        }
    }

    /// Number of samples of an epoch.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The samples in the manifest's order.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Epoch and place in it of sample number `number` of the run.
    pub fn position(&self, number: u64) -> (u64, u64) {
        self.order.position(number)
    }

    /// Samples number `first` to `first + count` of the run.
    ///
    /// # Errors
    /// A text that cannot be compiled.
    pub fn draw(&self, first: u64, count: usize) -> anyhow::Result<Vec<Drawn<'_>>> {
        let numbers = first..first + count as u64;
        let length = |due: Due| {
            let (task, wording) = self.question(due);
            self.samples[due.index].lengths[&task][wording]
        };
        let due = self.order.due(numbers, length).into_iter();
        due.map(|due| self.draw_sample(due)).collect()
    }

    fn draw_sample(&self, due: Due) -> anyhow::Result<Drawn<'_>> {
        let sample = &self.samples[due.index];
        let (task, wording) = self.question(due);
        let wording = &self.compiler.instructions(task)?[wording];
        Ok(Drawn {
            sample,
            compiled: self.compile(
                sample,
                wording,
                sample.answers.get(&task).map(String::as_str),
            )?,
        })
    }

    /// The task, and the number of its wording, that are drawn for a sample that is due.
    fn question(&self, due: Due) -> (Task, usize) {
        let lengths = &self.samples[due.index].lengths;
        let weight = |task: &Task| self.tasks[task];
        let total: f64 = lengths.keys().map(weight).sum();
        let mut left = due.rng.uniform(0) * total;
        let mut tasks = lengths.iter().peekable();
        loop {
            let (task, wordings) = tasks.next().expect("a sample has at least one answer");
            left -= weight(task);
            if left < 0.0 || tasks.peek().is_none() {
                return (*task, (due.rng.uniform(1) * wordings.len() as f64) as usize);
            }
        }
    }

    /// Asks `task` about `sample` in its first wording; with its answer to score, or without to have one generated.
    ///
    /// # Errors
    /// A task without instructions, a text that cannot be compiled.
    pub fn ask<'a>(
        &'a self,
        sample: &'a Sample,
        task: Task,
        answered: bool,
    ) -> anyhow::Result<Drawn<'a>> {
        let wording = &self.compiler.instructions(task)?[0];
        let answer = sample.answers.get(&task).filter(|_| answered);
        Ok(Drawn {
            sample,
            compiled: self.compile(sample, wording, answer.map(String::as_str))?,
        })
    }

    /// Asks about `sample` in words of one's own.
    ///
    /// # Errors
    /// A text that cannot be compiled.
    pub fn ask_freely<'a>(&self, sample: &'a Sample, question: &str) -> anyhow::Result<Drawn<'a>> {
        Ok(Drawn {
            sample,
            compiled: self.compile(sample, question, None)?,
        })
    }

    /// What is said, where it is read and not empty.
    fn words<'a>(&self, clip: &'a Clip) -> Option<&'a str> {
        let words = clip.transcript.as_deref().map(str::trim);
        words.filter(|words| self.config.transcript && !words.is_empty())
    }

    /// Number of tokens that the decoder knows.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Refuses tokens of a clip's texts that the decoder has no row for.
    fn check_ids(&self, ids: &[u32], clip: &Clip) -> anyhow::Result<()> {
        match ids.iter().find(|id| **id as usize >= self.vocabulary) {
            None => Ok(()),
            Some(id) => Err(RunError::Data(format!(
                "clip {}: a text holds token {id} ({:?}), but the decoder knows {} tokens; its tokenizer is another \
                 model's, or was given tokens that the decoder was not",
                clip.id,
                self.tokenizer.decode(&[*id])?,
                self.vocabulary
            ))
            .into()),
        }
    }

    /// The tokenizer in use.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    fn compile(
        &self,
        sample: &Sample,
        instruction: &str,
        answer: Option<&str>,
    ) -> anyhow::Result<Compiled> {
        let clip = &sample.encoded.clip;
        let turn = Turn {
            instruction,
            transcript: clip
                .transcript
                .as_deref()
                .filter(|_| self.config.transcript),
            answer,
        };
        let inputs: Vec<bool> = sample
            .encoded
            .features
            .iter()
            .map(Option::is_some)
            .collect();
        let present = self.config.present(&inputs, self.words(clip).is_some());
        let compiled = self
            .compiler
            .compile(&turn, &present, &self.tokenizer)
            .with_context(|| format!("clip {}", clip.id))?;
        for segment in &compiled.prompt {
            if let Segment::Text(ids) = segment {
                self.check_ids(ids, clip)?;
            }
        }
        self.check_ids(&compiled.answer, clip)?;
        self.check_ids(&compiled.transcript, clip)?;
        Ok(compiled)
    }
}

/// The model's view of drawn samples.
pub(crate) fn with_examples<R>(drawn: &[Drawn], use_them: impl FnOnce(&[Example]) -> R) -> R {
    let held: Vec<Vec<Option<Arc<Features>>>> = drawn.iter().map(Drawn::held).collect();
    let features: Vec<Vec<_>> = held
        .iter()
        .map(|features| features.iter().map(Option::as_deref).collect())
        .collect();
    let examples: Vec<Example> = drawn
        .iter()
        .zip(&features)
        .map(|(drawn, features)| Example {
            compiled: &drawn.compiled,
            features,
            label: drawn.sample.label,
            valence: drawn.sample.valence(),
        })
        .collect();
    use_them(&examples)
}
