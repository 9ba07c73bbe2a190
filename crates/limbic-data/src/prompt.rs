//! The one place where a clip, an instruction and an answer become token ids.
//!
//! Training, evaluation and chat all compile here, so what a model is asked is what it was taught. A template is a
//! list of lines; a line that names a medium or the transcript is left out where the clip has none, so that
//! nothing stands for what is not there. Media are slots of a known number of positions, not tokens. The prompt
//! ends where the answer begins, and the answer (with its end token) is all that is supervised.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Clip, DataError, TextTokenizer};

mod template;
#[cfg(test)]
mod tests;

use template::{check_fields, fill, placeholders, without_unclaimed};

/// What is asked about a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One emotion of a closed set. The answer is its name.
    Emotion,
    /// Evidence, then the emotion. The answer is the clip's `reason`.
    Reason,
    /// What is seen and heard. The answer is made of the clip's `seen` and `heard`.
    Describe,
}

/// A template and the instructions for each task, as configs/prompts/*.yaml holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptConfig {
    /// Lines of the prompt. `{instruction}` must occur; `{transcript}` and the placeholders of the recipe's media may.
    pub template: Vec<String>,
    /// Wordings of each task; training draws one, evaluation takes the first. `{labels}` lists the label set.
    pub instructions: BTreeMap<Task, Vec<String>>,
}

/// A medium's place in a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Name of the input.
    pub input: String,
    /// The text that stands for it in the template, for example `<video>`.
    pub placeholder: String,
    /// How many positions it takes; 0 for an input that has no place in a prompt, as if the template did not name it.
    pub tokens: usize,
    /// Whether the template may do without it: others than the decoder read this input.
    #[serde(default)]
    pub optional: bool,
}

/// A stretch of a compiled prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Token ids.
    Text(Vec<u32>),
    /// The slot of input number `input`, which takes `tokens` positions.
    Media {
        /// Index into the compiler's slots.
        input: usize,
        /// Number of positions.
        tokens: usize,
    },
}

/// A prompt ready for the model: what it sees, and what it is to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The prompt, the begin token first.
    pub prompt: Vec<Segment>,
    /// The supervised ids that follow, the end token last; empty when there is no answer to learn.
    pub answer: Vec<u32>,
    /// The transcript alone, for what reads it outside the prompt; empty where there is none.
    pub transcript: Vec<u32>,
}

impl Compiled {
    /// Positions of the prompt.
    pub fn prompt_length(&self) -> usize {
        let length = |segment: &Segment| match segment {
            Segment::Text(ids) => ids.len(),
            Segment::Media { tokens, .. } => *tokens,
        };
        self.prompt.iter().map(length).sum()
    }

    /// Positions of prompt and answer.
    pub fn length(&self) -> usize {
        self.prompt_length() + self.answer.len()
    }
}

/// One question about one clip.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// What is asked.
    pub instruction: &'a str,
    /// What is said in the clip, if known and used.
    pub transcript: Option<&'a str>,
    /// The answer to learn; `None` to have one generated.
    pub answer: Option<&'a str>,
}

/// Compiles turns for one set of inputs.
#[derive(Debug, Clone)]
pub struct PromptCompiler {
    config: PromptConfig,
    slots: Vec<Slot>,
    labels: String,
}

const TRANSCRIPT: &str = "{transcript}";
const INSTRUCTION: &str = "{instruction}";
const LABELS: &str = "{labels}";

impl PromptCompiler {
    /// A compiler for the inputs in `slots` and the label names `labels`.
    ///
    /// A placeholder of none of them is left out of every prompt, and its line with it if that has no other: a template
    /// serves models that perceive less.
    ///
    /// # Errors
    /// A template without `{instruction}`, or in which a slot's placeholder is missing or stands twice; a placeholder
    /// that is not of the form `<name>`, or of two slots; a task without a wording.
    pub fn new(
        mut config: PromptConfig,
        slots: Vec<Slot>,
        labels: &[&str],
    ) -> Result<Self, DataError> {
        let is_claimed = |name: &str| {
            slots
                .iter()
                .any(|slot| slot.tokens > 0 && slot.placeholder == name)
        };
        config.template = config
            .template
            .iter()
            .filter_map(|line| without_unclaimed(line, is_claimed))
            .collect();
        let text = config.template.join("\n");
        for (index, slot) in slots.iter().enumerate() {
            if !placeholders(&slot.placeholder).eq([slot.placeholder.as_str()]) {
                return Err(prompt_error(format!(
                    "input `{}` has the placeholder {:?}, wanted one like <{}>: small letters, digits and _ in angle brackets",
                    slot.input, slot.placeholder, slot.input
                )));
            }
            if let Some(other) = slots[..index]
                .iter()
                .find(|other| other.placeholder == slot.placeholder)
            {
                return Err(prompt_error(format!(
                    "the inputs `{}` and `{}` have the same placeholder `{}`; give each one of its own",
                    other.input, slot.input, slot.placeholder
                )));
            }
        }
        check_fields("the template", &config.template, &[TRANSCRIPT, INSTRUCTION])?;
        for wordings in config.instructions.values() {
            check_fields("a wording", wordings, &[LABELS])?;
        }
        for (name, what, optional) in slots
            .iter()
            .map(|slot| {
                (
                    slot.placeholder.as_str(),
                    format!(" of input `{}`", slot.input),
                    slot.optional || slot.tokens == 0,
                )
            })
            .chain([(INSTRUCTION, String::new(), false)])
        {
            let count = text.matches(name).count();
            if count != 1 && !(optional && count == 0) {
                return Err(prompt_error(format!(
                    "the template holds `{name}`{what} {count} times, wanted once \
                     (lines with a placeholder of no input in use do not count)"
                )));
            }
        }
        if let Some((task, _)) = config
            .instructions
            .iter()
            .find(|(_, wordings)| wordings.is_empty())
        {
            return Err(prompt_error(format!(
                "task {task:?} has no wording in `instructions`"
            )));
        }
        Ok(Self {
            config,
            slots,
            labels: labels.join(", "),
        })
    }

    /// The inputs, in the order of the indices in [`Segment::Media`].
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The wordings of `task`, the labels filled in.
    ///
    /// # Errors
    /// When the prompt file has none.
    pub fn instructions(&self, task: Task) -> Result<Vec<String>, DataError> {
        let wordings = self.config.instructions.get(&task).ok_or_else(|| {
            prompt_error(format!(
                "no wording for task {task:?} in `instructions`; add one to the prompt file"
            ))
        })?;
        Ok(wordings
            .iter()
            .map(|wording| wording.replace(LABELS, &self.labels))
            .collect())
    }

    /// Every text a tokenizer should know before it meets a clip: the template and all wordings.
    pub fn texts(&self) -> Vec<String> {
        let wordings = self.config.instructions.values().flatten();
        let filled = wordings.map(|wording| wording.replace(LABELS, &self.labels));
        self.config.template.iter().cloned().chain(filled).collect()
    }

    /// Compiles one turn for a clip that has the inputs marked in `present`, one mark a slot.
    ///
    /// # Errors
    /// Media that do not match the slots: an instruction, transcript or answer that spells a placeholder, or marks that are not one a slot.
    pub fn compile(
        &self,
        turn: &Turn,
        present: &[bool],
        tokenizer: &TextTokenizer,
    ) -> Result<Compiled, DataError> {
        if present.len() != self.slots.len() {
            return Err(prompt_error(format!(
                "media for {} inputs, but the prompt has {} slots",
                present.len(),
                self.slots.len()
            )));
        }
        self.refuse_placeholders("the instruction", turn.instruction)?;
        for (what, text) in [
            ("the transcript", turn.transcript),
            ("the answer", turn.answer),
        ] {
            self.refuse_placeholders(what, text.unwrap_or_default())?;
        }
        let mut prompt = vec![Segment::Text(vec![tokenizer.bos])];
        let mut text = String::new();
        let mut lines = self
            .config
            .template
            .iter()
            .filter(|line| self.is_shown(line, turn, present))
            .peekable();
        while let Some(line) = lines.next() {
            let mut rest = line.as_str();
            while let Some((start, index)) = self.first_slot(rest) {
                let slot = &self.slots[index];
                text.push_str(&fill(&rest[..start], turn));
                if present[index] {
                    flush(&mut text, &mut prompt, tokenizer)?;
                    prompt.push(Segment::Media {
                        input: index,
                        tokens: slot.tokens,
                    });
                }
                rest = &rest[start + slot.placeholder.len()..];
            }
            text.push_str(&fill(rest, turn));
            if lines.peek().is_some() {
                text.push('\n');
            }
        }
        flush(&mut text, &mut prompt, tokenizer)?;
        let answer = match turn.answer {
            None => Vec::new(),
            // The space keeps the answer's first word the token it is inside a sentence.
            Some(answer) => {
                let mut ids = tokenizer.encode(&format!(" {}", answer.trim()))?;
                ids.push(tokenizer.eos);
                ids
            }
        };
        let transcript = match turn.transcript.map(str::trim) {
            None | Some("") => Vec::new(),
            Some(words) => tokenizer.encode(words)?,
        };
        Ok(Compiled {
            prompt,
            answer,
            transcript,
        })
    }

    fn refuse_placeholders(&self, what: &str, text: &str) -> Result<(), DataError> {
        match self
            .slots
            .iter()
            .find(|slot| text.contains(&slot.placeholder))
        {
            None => Ok(()),
            Some(slot) => Err(prompt_error(format!(
                "{what} spells `{}`, the placeholder of input `{}`: media stand where the template says; \
                 take it out of {text:?}",
                slot.placeholder, slot.input
            ))),
        }
    }

    /// A line is for its media: it is left out when the clip has none of them.
    fn is_shown(&self, line: &str, turn: &Turn, present: &[bool]) -> bool {
        let mut of_line = self
            .slots
            .iter()
            .zip(present)
            .filter(|(slot, _)| line.contains(&slot.placeholder))
            .map(|(_, present)| *present)
            .peekable();
        let has_media = of_line.peek().is_none() || of_line.any(|present| present);
        has_media && (turn.transcript.is_some() || !line.contains(TRANSCRIPT))
    }

    fn first_slot(&self, text: &str) -> Option<(usize, usize)> {
        let places = self.slots.iter().enumerate();
        places
            .filter_map(|(index, slot)| Some((text.find(&slot.placeholder)?, index)))
            .min()
    }
}

fn flush(
    text: &mut String,
    prompt: &mut Vec<Segment>,
    tokenizer: &TextTokenizer,
) -> Result<(), DataError> {
    if text.is_empty() {
        return Ok(());
    }
    let ids = tokenizer.encode(text)?;
    text.clear();
    match prompt.last_mut() {
        Some(Segment::Text(last)) => last.extend(ids),
        _ => prompt.push(Segment::Text(ids)),
    }
    Ok(())
}

/// The answer that `clip` gives to `task`, or `None` where it has none.
pub fn answer(task: Task, clip: &Clip, label: Option<&str>) -> Option<String> {
    match task {
        Task::Emotion => label.map(str::to_owned),
        Task::Reason => clip.reason.clone(),
        Task::Describe => {
            let seen = clip.seen.as_ref().map(|seen| format!("Face: {seen}."));
            let heard = clip.heard.as_ref().map(|heard| format!("Voice: {heard}."));
            let parts: Vec<String> = seen.into_iter().chain(heard).collect();
            (!parts.is_empty()).then(|| parts.join(" "))
        }
    }
}

fn prompt_error(detail: String) -> DataError {
    DataError::Prompt { detail }
}
