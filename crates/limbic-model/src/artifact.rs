//! The saved directory of a model:
//!
//! ```text
//! llm/          config.json, model.safetensors, tokenizer.json     where the run trained the decoder itself
//! llm_adapter/  adapter_config.json, adapter_model.safetensors,    where it trained LoRA; loads in PEFT unchanged
//!               README.md
//! mm/           mm_config.json, projector.safetensors              what is perceived and how; projectors, fusions, head
//! MANIFEST.json                                                    SHA-256 of all of these
//! ```
//!
//! A model with adapters names the folder and the hash of the decoder it adapts, and is refused beside another one.

use std::fs;
use std::path::{Component, Path, PathBuf};

use burn::tensor::Device;
use limbic_data::{LabelSet, PromptCompiler, PromptConfig, Slot, TextTokenizer};
use limbic_encoders::ProjectorConfig;
use limbic_llama::{Llama, LlamaConfig, decoder_digest, read_adapter, write_adapter};
use limbic_weights::{Precision, Weights, load_only};
use serde::{Deserialize, Serialize};

use crate::{
    AlignmentConfig, EmotionLlm, EmotionLlmConfig, FusedConfig, HeadConfig, InputConfig,
    ModelError, Part, Reads, TRANSCRIPT, llama2c, verify_directory,
};

pub(crate) const LLM: &str = "llm";
pub(crate) const ADAPTER: &str = "llm_adapter";
const MM_CONFIG: &str = "mm/mm_config.json";
pub(crate) const PROJECTOR: &str = "mm/projector.safetensors";

/// Where the decoder's own weights lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DecoderSource {
    /// In `llm/` of the artifact.
    Own,
    /// In another folder of Hugging Face's layout.
    Base {
        /// The folder, relative to the artifact where both lie below one directory.
        path: PathBuf,
        /// SHA-256 over its tensors, taken as [`limbic_weights::TensorDigest`] does. The name tells the way: taken in
        /// another one, it needs another name.
        tensors_sha256: String,
    },
}

/// Everything about a model that is not a weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactConfig {
    /// Version of this layout.
    pub format: u32,
    /// Name of the run that made it.
    pub run: String,
    /// Where the decoder's weights lie.
    pub decoder: DecoderSource,
    /// The perceived inputs.
    pub inputs: Vec<InputConfig>,
    /// What is made of several of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fusions: Vec<FusedConfig>,
    /// Whether prompts hold the transcript.
    pub transcript: bool,
    /// Template and instructions.
    pub prompt: PromptConfig,
    /// The labels, where the model knows any.
    pub labels: Option<LabelSet>,
    /// The class head, where it has one.
    pub head: Option<HeadConfig>,
    /// The valence head, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valence: Option<HeadConfig>,
    /// The common space of clips and captions, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<AlignmentConfig>,
    /// Whether it has a mask for tokens of captions.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mask: bool,
    /// Whether it was never taught to answer in words: its heads are all there is to ask.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mute: bool,
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// What is wrong with a `mm_config.json` that names its decoder by the digest that was taken before `tensors_sha256`: that
/// the two differ would say nothing about the decoder.
fn earlier_digest(text: &str) -> Option<String> {
    let config: serde_json::Value = serde_json::from_str(text).ok()?;
    let base = config.pointer("/decoder/base")?;
    let is_earlier = base.get("sha256").is_some() && base.get("tensors_sha256").is_none();
    is_earlier.then(|| {
        "`decoder.base` holds `sha256`, wanted `tensors_sha256`: an earlier limbic wrote it and took the digest of the \
         decoder's tensors in another way, so this one cannot check that the decoder is the one that was trained on; \
         train again with this limbic (`limbic train RECIPE --restart`), or go on using the limbic that wrote it"
            .to_string()
    })
}

/// The version this program writes.
pub const FORMAT: u32 = 1;

impl ArtifactConfig {
    /// What stands around the decoder.
    ///
    /// # Errors
    /// A head without labels.
    pub fn model(&self) -> Result<EmotionLlmConfig, ModelError> {
        let head = match (&self.head, &self.labels) {
            (None, _) => None,
            (Some(head), Some(labels)) => Some((head.clone(), labels.len())),
            (Some(_), None) => {
                return Err(ModelError::Config(
                    "a class head needs a label set; name one under `labels`".into(),
                ));
            }
        };
        for head in self.heads() {
            if let Reads::Fusion(name) = &head.reads
                && self.fusions.iter().all(|fused| fused.name != *name)
            {
                let known: Vec<&str> = std::iter::once("decoder")
                    .chain(self.fusions.iter().map(|fused| fused.name.as_str()))
                    .collect();
                return Err(ModelError::Config(format!(
                    "a head reads `{name}`, which is no fusion in use; wanted one of {}",
                    known.join(", ")
                )));
            }
        }
        Ok(EmotionLlmConfig {
            inputs: self.inputs.clone(),
            fusions: self.fusions.clone(),
            head,
            valence: self.valence.clone(),
            alignment: self.alignment.clone(),
            mask: self.mask,
        })
    }

    /// Reads `mm/mm_config.json` of an artifact.
    ///
    /// # Errors
    /// An unreadable file, or one of another format.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(MM_CONFIG);
        let text = fs::read_to_string(&path).map_err(ModelError::io(&path))?;
        let config: Self = serde_json::from_str(&text).map_err(|error| {
            let earlier = earlier_digest(&text);
            ModelError::directory(&path, earlier.unwrap_or_else(|| error.to_string()))
        })?;
        if config.format != FORMAT {
            return Err(ModelError::directory(
                &path,
                format!(
                    "format {}, wanted {FORMAT}; read it with the version of limbic that wrote it",
                    config.format
                ),
            ));
        }
        Ok(config)
    }

    /// Writes `mm/mm_config.json` of an artifact.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), ModelError> {
        let path = folder.join(MM_CONFIG);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| ModelError::directory(&path, error.to_string()))?;
        fs::write(&path, text + "\n").map_err(ModelError::io(&path))
    }

    /// The folder of the decoder that the artifact in `folder` stands on.
    ///
    /// # Errors
    /// No decoder there.
    pub(crate) fn decoder_of(&self, folder: &Path) -> Result<PathBuf, ModelError> {
        let decoder = match &self.decoder {
            DecoderSource::Own => folder.join(LLM),
            DecoderSource::Base { path, .. } => resolve(&folder.join(path)),
        };
        if decoder.join("config.json").is_file() || llama2c::files(&decoder)?.is_some() {
            return Ok(decoder);
        }
        Err(ModelError::directory(
            folder,
            format!(
                "it stands on the decoder in {}, where there is none; put that back, or train again",
                decoder.display()
            ),
        ))
    }

    /// Checks that `decoder`, whose tensors hash to what `digest` gives, is the one that the artifact in `folder` was trained on.
    ///
    /// # Errors
    /// Another decoder, or one that cannot be read.
    pub(crate) fn check_decoder(
        &self,
        folder: &Path,
        decoder: &Path,
        digest: impl FnOnce() -> Result<String, ModelError>,
    ) -> Result<(), ModelError> {
        let DecoderSource::Base { tensors_sha256, .. } = &self.decoder else {
            return Ok(());
        };
        let got = digest()?;
        if got == *tensors_sha256 {
            return Ok(());
        }
        Err(ModelError::directory(
            decoder,
            format!(
                "the decoder's tensors hash to {got}, but {} was trained on {tensors_sha256}; \
                 put the original decoder back or train again",
                folder.display()
            ),
        ))
    }

    /// The model card that adapter folders carry on a hub.
    pub(crate) fn card(&self, base: &Path) -> String {
        let inputs: Vec<&str> = self
            .inputs
            .iter()
            .map(|input| input.name.as_str())
            .collect();
        format!(
            "---\nlibrary_name: peft\nbase_model: {}\ntags: [lora, emotion]\n---\n\n\
             # {}\n\n\
             LoRA adapter of an emotion LLM, trained by limbic. The adapter alone continues text. What the model \
             perceives ({}) enters through the projectors in `../mm`; `limbic infer` puts all of it together.\n",
            base.display(),
            self.run,
            if inputs.is_empty() {
                "no media".to_string()
            } else {
                inputs.join(", ")
            }
        )
    }

    /// The prompt compiler for these inputs and labels.
    ///
    /// # Errors
    /// A template that does not go with the inputs.
    pub fn compiler(&self) -> Result<PromptCompiler, ModelError> {
        let feeds = |name: &String| {
            self.fusions
                .iter()
                .any(|fused| fused.sources.contains(name))
        };
        let inputs = self.inputs.iter().map(|input| Slot {
            input: input.name.clone(),
            placeholder: input.placeholder.clone(),
            tokens: input
                .projector
                .as_ref()
                .map_or(0, ProjectorConfig::num_tokens),
            optional: feeds(&input.name),
        });
        let fusions = self.fusions.iter().map(|fused| Slot {
            input: fused.name.clone(),
            placeholder: fused.placeholder.clone(),
            tokens: fused.fusion.num_tokens(),
            optional: self.heads_read(&fused.name),
        });
        let slots = inputs.chain(fusions).collect();
        let labels = self
            .labels
            .as_ref()
            .map(LabelSet::names)
            .unwrap_or_default();
        Ok(PromptCompiler::new(self.prompt.clone(), slots, &labels)?)
    }

    /// Whether a head reads the fusion `name`.
    fn heads_read(&self, name: &str) -> bool {
        let reads = |head: &HeadConfig| matches!(&head.reads, Reads::Fusion(of) if of == name);
        self.heads().any(reads)
    }

    /// The heads that read a state.
    fn heads(&self) -> impl Iterator<Item = &HeadConfig> {
        self.head.iter().chain(&self.valence)
    }

    /// Whether a clip that has the inputs marked in `inputs`, and a transcript or not, has all that the heads read.
    pub fn is_judged(&self, inputs: &[bool], transcript: bool) -> bool {
        let present = self.present(inputs, transcript);
        let fusions = self.fusions.iter().zip(&present[self.inputs.len()..]);
        fusions
            .filter(|(fused, _)| self.heads_read(&fused.name))
            .all(|(_, present)| *present)
    }

    /// Which slots of the compiler a clip can fill, that has the inputs marked in `inputs` and a transcript or not: a
    /// fusion wants all of its sources.
    pub fn present(&self, inputs: &[bool], transcript: bool) -> Vec<bool> {
        let has = |name: &String| {
            if name == TRANSCRIPT {
                return transcript;
            }
            let index = self.inputs.iter().position(|input| input.name == *name);
            index.is_some_and(|index| inputs[index])
        };
        let fusions = self.fusions.iter();
        inputs
            .iter()
            .copied()
            .chain(fusions.map(|fused| fused.sources.iter().all(has)))
            .collect()
    }
}

/// A model with all that is needed to ask it.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// What it is.
    pub config: ArtifactConfig,
    /// Its weights.
    pub model: EmotionLlm,
    /// Its words.
    pub tokenizer: TextTokenizer,
    /// The folder with the decoder's `config.json` and `tokenizer.json`.
    pub decoder: PathBuf,
}

impl Artifact {
    /// Writes the artifact into `folder`, which [`crate::write_directory`] makes appear as `target`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path, target: &Path) -> Result<(), ModelError> {
        let mut config = self.config.clone();
        match &mut config.decoder {
            DecoderSource::Own => {
                write_decoder(&self.model.llama, &self.tokenizer, &folder.join(LLM))?;
            }
            DecoderSource::Base { path, .. } => *path = relative(&self.decoder, target)?,
        }
        if self.model.llama.lora().is_some() {
            let adapter = folder.join(ADAPTER);
            // PEFT looks for the base model from the folder that Python runs in, as limbic does.
            let base = match &config.decoder {
                DecoderSource::Own => target.join(LLM),
                DecoderSource::Base { .. } => self.decoder.clone(),
            };
            write_adapter(&self.model.llama, &adapter, &base.to_string_lossy())?;
            let path = adapter.join("README.md");
            fs::write(&path, config.card(&base)).map_err(ModelError::io(&path))?;
        }
        let mm = folder.join("mm");
        fs::create_dir_all(&mm).map_err(ModelError::io(&mm))?;
        config.write(folder)?;
        let weights = Weights::collect_only(&self.model, is_multimodal);
        Ok(rename(&weights, |name| name_on_disk(name, &config)).write(&folder.join(PROJECTOR))?)
    }

    /// Whether the decoder of the artifact in `folder` has adapters.
    pub fn is_adapted(folder: &Path) -> bool {
        folder.join(ADAPTER).is_dir()
    }

    /// Reads a directory that [`Artifact::write`] made, on the plain `device`, with the decoder's matrices in `precision`:
    /// they are never there in another one.
    ///
    /// # Errors
    /// Files that are missing, damaged or do not fit; a base decoder that is not the one the model was trained on.
    pub fn read(folder: &Path, precision: Precision, device: &Device) -> Result<Self, ModelError> {
        verify_directory(folder)?;
        let config = ArtifactConfig::read(folder)?;
        let decoder = config.decoder_of(folder)?;
        config.check_decoder(folder, &decoder, || decoder_hash(&decoder, device))?;
        let (mut llama, tokenizer) = read_decoder(&decoder, precision, device)?;
        if Self::is_adapted(folder) {
            llama = read_adapter(llama, &folder.join(ADAPTER))?;
        }
        let model = config.model()?.init_blank(llama, device)?;
        let path = folder.join(PROJECTOR);
        let weights = rename(&Weights::read(&path)?, |name| name_in_model(name, &config));
        let model = load_only(model, &weights, is_multimodal)
            .map_err(|error| ModelError::directory(&path, error.to_string()))?;
        Ok(Self {
            config,
            model,
            tokenizer,
            decoder,
        })
    }
}

/// Reads a decoder folder with its tokenizer: one of Hugging Face's layout, or one of llama2.c with a checkpoint and a
/// tokenizer (`stories260K.bin` and `tok512.bin`). Matrices are held in `precision`.
///
/// # Errors
/// Files that are missing, damaged or do not fit each other.
pub fn read_decoder(
    folder: &Path,
    precision: Precision,
    device: &Device,
) -> Result<(Llama, TextTokenizer), ModelError> {
    if let Some(files) = llama2c::files(folder)? {
        let (llama, tokenizer) = files.read(device)?;
        return Ok((llama.hold_in(precision), tokenizer));
    }
    let llama = Llama::read_as(folder, Some(precision.float_dtype()), device)?;
    let (bos, eos) = special_ids(llama.config())?;
    let tokenizer = TextTokenizer::read(&folder.join("tokenizer.json"), bos, eos)?;
    Ok((llama, tokenizer))
}

/// SHA-256 over the tensors of the decoder in `folder` as F32: what artifacts that stand on it are held against.
///
/// # Errors
/// Files that cannot be read.
pub fn decoder_hash(folder: &Path, device: &Device) -> Result<String, ModelError> {
    match llama2c::files(folder)? {
        Some(files) => Ok(Weights::collect(&files.read(device)?.0).sha256()),
        None => Ok(decoder_digest(folder)?),
    }
}

/// Writes the decoder's own weights, without its adapters, and its tokenizer as a folder of Hugging Face's layout; what
/// was read from llama2.c becomes a folder that transformers loads.
///
/// # Errors
/// When a file cannot be written.
pub fn write_decoder(
    llama: &Llama,
    tokenizer: &TextTokenizer,
    folder: &Path,
) -> Result<(), ModelError> {
    fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
    llama.config().write_json(&folder.join("config.json"))?;
    let weights = Weights::collect_only(llama, |name| Part::of(name) == Some(Part::Decoder));
    weights.write(&folder.join("model.safetensors"))?;
    let path = folder.join("tokenizer.json");
    fs::write(&path, tokenizer.to_json()?).map_err(ModelError::io(&path))
}

fn special_ids(config: &LlamaConfig) -> Result<(u32, u32), ModelError> {
    match (config.bos_token_id, config.eos_token_ids.first()) {
        (Some(bos), Some(eos)) => Ok((bos, *eos)),
        _ => Err(ModelError::Config(
            "the decoder's config.json names no `bos_token_id` or no `eos_token_id`; prompts need both".into(),
        )),
    }
}

fn is_multimodal(name: &str) -> bool {
    matches!(Part::of(name), Some(Part::Head))
        || ["projectors.", "fusions."]
            .iter()
            .any(|part| name.starts_with(part))
}

/// `projectors.0.query` on disk is `projectors.<input>.query`, and so for fusions: a file is read without counting.
fn name_on_disk(name: &str, config: &ArtifactConfig) -> String {
    rename_counted(name, |part, index| {
        let index: usize = index.parse().ok()?;
        names(part, config).get(index).map(|name| name.to_string())
    })
}

fn name_in_model(name: &str, config: &ArtifactConfig) -> String {
    rename_counted(name, |part, name| {
        let index = names(part, config)
            .iter()
            .position(|other| *other == name)?;
        Some(index.to_string())
    })
}

fn names<'a>(part: &str, config: &'a ArtifactConfig) -> Vec<&'a str> {
    if part == "projectors" {
        config
            .inputs
            .iter()
            .map(|input| input.name.as_str())
            .collect()
    } else {
        config
            .fusions
            .iter()
            .map(|fused| fused.name.as_str())
            .collect()
    }
}

fn rename_counted(name: &str, key: impl Fn(&str, &str) -> Option<String>) -> String {
    let renamed = ["projectors", "fusions"].iter().find_map(|part| {
        let rest = name.strip_prefix(part)?.strip_prefix('.')?;
        let (first, rest) = rest.split_once('.')?;
        Some(format!("{part}.{}.{rest}", key(part, first)?))
    });
    renamed.unwrap_or_else(|| name.to_string())
}

fn rename(weights: &Weights, name: impl Fn(&str) -> String) -> Weights {
    Weights {
        tensors: weights
            .tensors
            .iter()
            .map(|(old, tensor)| (name(old), tensor.clone()))
            .collect(),
    }
}

/// `path` in its shortest form, where that leads to the same place: behind symbolic links `a/../` is no detour.
fn resolve(path: &Path) -> PathBuf {
    let short = tidy(path);
    match (fs::canonicalize(&short), fs::canonicalize(path)) {
        (Ok(a), Ok(b)) if a == b => short,
        _ => path.to_path_buf(),
    }
}

/// `path` without `a/../`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for component in path.components() {
        let last = tidy.components().next_back();
        if component == Component::ParentDir && matches!(last, Some(Component::Normal(_))) {
            tidy.pop();
        } else {
            tidy.push(component);
        }
    }
    tidy
}

/// `path` as seen from the directory `from`, which need not exist yet.
pub(crate) fn relative(path: &Path, from: &Path) -> Result<PathBuf, ModelError> {
    let path = fs::canonicalize(path).map_err(ModelError::io(path))?;
    let from = std::path::absolute(from).map_err(ModelError::io(from))?;
    let existing = from
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(&from);
    let rest = from.strip_prefix(existing).unwrap_or(Path::new(""));
    let from = fs::canonicalize(existing)
        .map_err(ModelError::io(existing))?
        .join(rest);
    let shared = path
        .components()
        .zip(from.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    let down = path.components().skip(shared);
    Ok(up.chain(down).collect())
}
