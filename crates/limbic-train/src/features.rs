//! Encode once: encoders are frozen and nothing is augmented, so a clip's features are a function of clip and config.
//! Before the first step each clip's features are found in the cache, or made by all cores and put there; then they are
//! kept in memory as far as they fit ([`Stored`]). An encoder is built for the first clip that needs it.
//!
//! A clip whose media are damaged is quarantined with its reason, never swapped for another and never zeros; more
//! of them than `data.max_bad` end the run. A clip that lacks a medium goes on without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use burn::tensor::Device;
use limbic_data::{Clip, Reason};
use limbic_encoders::Features;
use limbic_model::{ArtifactConfig, FusedConfig, InputConfig};
use serde::Serialize;

use crate::RunError;
use crate::feature_cache::{CacheReport, FeatureCache};
use crate::perception::{FeatureKey, LateEncoder, Perception, Refusal};
use crate::recipe::CacheRecipe;
use crate::stored::{OnCall, Stored};

mod all;
mod lengths;

use lengths::check_lengths;

/// A clip with its features, one entry an input.
#[derive(Debug, Clone)]
pub struct EncodedClip {
    /// The clip.
    pub clip: Clip,
    /// `None` where the clip lacks the medium. Inputs that perceive alike have the same.
    pub features: Vec<Option<Stored>>,
}

/// A clip that cannot be used, as a line of `quarantine.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// The clip.
    pub id: String,
    /// The kind of damage.
    pub reason: Reason,
    /// What was got and wanted.
    pub detail: String,
}

/// Finds or makes features of clips.
#[derive(Debug)]
pub struct FeatureReader {
    inputs: Vec<InputConfig>,
    fusions: Vec<FusedConfig>,
    /// One for each description of an encoder, however many inputs have it.
    encoders: Vec<LateEncoder>,
    /// One for each way in which an input perceives.
    perceptions: Vec<Perception>,
    /// For each input the number of its perception.
    perception_of: Vec<usize>,
    cache: Option<Arc<FeatureCache>>,
    device: Device,
    /// Bytes of features that may still be kept in memory.
    room: AtomicU64,
    /// Whether entries that are not kept are verified all the same.
    verifies: bool,
}

/// What is known of a clip's features before media are decoded.
enum Look {
    /// They are there, or the clip has nothing of the medium.
    Found(Option<Stored>),
    /// They are to be made.
    Missing(Option<FeatureKey>),
}

impl FeatureReader {
    /// For the inputs of `config`, with encoders on `device`, none of which is built yet.
    ///
    /// # Errors
    /// An encoder that cannot be built, as far as its description tells, or whose files cannot be read, with its input.
    pub fn new(
        config: &ArtifactConfig,
        device: &Device,
        cache: &CacheRecipe,
    ) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self::build_reader(config, device, cache)?))
    }

    /// The same, to fill the cache: nothing is kept in memory, and every entry that is found is verified.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn verifying(
        config: &ArtifactConfig,
        device: &Device,
        cache: &CacheRecipe,
    ) -> anyhow::Result<Arc<Self>> {
        let mut reader = Self::build_reader(config, device, cache)?;
        reader.room = AtomicU64::new(0);
        reader.verifies = true;
        Ok(Arc::new(reader))
    }

    fn build_reader(
        config: &ArtifactConfig,
        device: &Device,
        cache: &CacheRecipe,
    ) -> anyhow::Result<Self> {
        let room = cache.memory_gib * (1u64 << 30) as f64;
        let cache = FeatureCache::new(cache).map(Arc::new);
        let mut reader = Self {
            inputs: config.inputs.clone(),
            fusions: config.fusions.clone(),
            encoders: Vec::new(),
            perceptions: Vec::new(),
            perception_of: Vec::new(),
            device: device.clone(),
            room: AtomicU64::new(room as u64),
            verifies: false,
            cache,
        };
        for input in &config.inputs {
            let place = || format!("encoder of input `{}`", input.name);
            input.encoder.check().with_context(place)?;
            let mut known = reader.perceptions.iter();
            let number = match known.position(|perception| perception.is_of(input)) {
                Some(number) => number,
                None => {
                    let mut perception = Perception::new(input, reader.encoder(input));
                    if let Some(cache) = &reader.cache {
                        let identified = perception.identify(&cache.digests, device);
                        identified.with_context(place)?;
                    }
                    reader.perceptions.push(perception);
                    reader.perceptions.len() - 1
                }
            };
            reader.perception_of.push(number);
        }
        Ok(reader)
    }

    /// The number of the encoder of `input`.
    fn encoder(&mut self, input: &InputConfig) -> usize {
        let mut known = self.encoders.iter();
        known
            .position(|encoder| encoder.is_of(&input.encoder))
            .unwrap_or_else(|| {
                self.encoders.push(LateEncoder::new(&input.encoder));
                self.encoders.len() - 1
            })
    }

    /// How many encoders were built so far: none where all features were found.
    pub fn encoders_built(&self) -> usize {
        let built = |encoder: &&LateEncoder| encoder.built().is_some();
        self.encoders.iter().filter(built).count()
    }

    /// What the cache was good for since this was last called; `None` where it is turned off.
    pub fn report(&self) -> Option<CacheReport> {
        self.cache.as_ref().map(|cache| cache.report())
    }

    /// The cache, where it is not turned off.
    pub(crate) fn cache(&self) -> Option<Arc<FeatureCache>> {
        self.cache.clone()
    }

    /// Features of one clip, or why it is unusable: damaged, or longer than a projector or fusion takes.
    ///
    /// # Errors
    /// An encoder that cannot be built.
    pub fn read(self: &Arc<Self>, clip: &Clip) -> anyhow::Result<Result<EncodedClip, Quarantined>> {
        let shared = Arc::new(clip.clone());
        let looks = self.look_up(&shared);
        for (number, look) in looks.iter().enumerate() {
            if matches!(look, Look::Missing(_)) {
                self.build(number)?;
            }
        }
        self.complete(&shared, looks)
    }

    /// What is known of each perception of `clip`.
    fn look_up(self: &Arc<Self>, clip: &Arc<Clip>) -> Vec<Look> {
        let numbers = 0..self.perceptions.len();
        numbers.map(|number| self.look(clip, number)).collect()
    }

    fn look(self: &Arc<Self>, clip: &Arc<Clip>, number: usize) -> Look {
        if self.perceptions[number].media(clip).is_none() {
            return Look::Found(None);
        }
        let key = self.key(clip, number);
        let hash = key.as_ref().and_then(|key| key.key.as_deref());
        let Some((cache, hash)) = self.cache.as_ref().zip(hash) else {
            return Look::Missing(key);
        };
        let found = match cache.shape(hash) {
            Some(None) => Some(None),
            Some(Some(shape)) if self.take_room(shape) => {
                let features = cache.get(hash).flatten();
                if features.is_none() {
                    self.give_room_back(shape);
                }
                features.map(|features| Some(Stored::from(features)))
            }
            Some(Some(_)) if self.verifies && cache.get(hash).is_none() => None,
            Some(Some(shape)) => Some(Some(self.on_call(clip, number, key.clone(), shape))),
            None => None,
        };
        found.map_or(Look::Missing(key), |found| {
            cache.count_found();
            Look::Found(found)
        })
    }

    /// Makes what is missing and puts a clip together.
    fn complete(
        self: &Arc<Self>,
        clip: &Arc<Clip>,
        looks: Vec<Look>,
    ) -> anyhow::Result<Result<EncodedClip, Quarantined>> {
        let quarantined = |(reason, detail): Refusal| Quarantined {
            id: clip.id.clone(),
            reason,
            detail,
        };
        let mut perceived: Vec<Option<Stored>> = Vec::with_capacity(looks.len());
        for (number, look) in looks.into_iter().enumerate() {
            let key = match look {
                Look::Found(stored) => {
                    perceived.push(stored);
                    continue;
                }
                Look::Missing(key) => key,
            };
            match self.make(clip, number, key.as_ref())? {
                Err(refusal) => return Ok(Err(quarantined(refusal))),
                Ok(made) => perceived.push(made.map(|features| {
                    let shape = (features.length, features.dim);
                    if self.take_room(shape) {
                        Stored::from(features)
                    } else {
                        self.on_call(clip, number, key, shape)
                    }
                })),
            }
        }
        let of_input = |number: &usize| perceived[*number].clone();
        let features: Vec<Option<Stored>> = self.perception_of.iter().map(of_input).collect();
        let checked = check_lengths(&self.inputs, &self.fusions, &features);
        Ok(match checked {
            Err(refusal) => Err(quarantined(refusal)),
            Ok(()) => Ok(EncodedClip {
                clip: (**clip).clone(),
                features,
            }),
        })
    }

    fn on_call(
        self: &Arc<Self>,
        clip: &Arc<Clip>,
        perception: usize,
        key: Option<FeatureKey>,
        shape: (usize, usize),
    ) -> Stored {
        Stored::OnCall(Arc::new(OnCall {
            reader: Arc::clone(self),
            clip: Arc::clone(clip),
            perception,
            key,
            shape,
            now: Default::default(),
        }))
    }

    /// What features of `clip` would be made of, where it has the medium and it can be read.
    pub(crate) fn key(&self, clip: &Clip, perception: usize) -> Option<FeatureKey> {
        let digests = self.cache.as_ref().map(|cache| &cache.digests);
        self.perceptions[perception].key(clip, digests)
    }

    /// The features under `key`, where the cache has them.
    pub(crate) fn find(&self, key: &FeatureKey) -> Option<Features> {
        self.cache.as_ref()?.get(key.key.as_deref()?).flatten()
    }

    /// Builds the encoder of a perception, if that was not done before.
    ///
    /// # Errors
    /// It cannot be built, or would be of other weights than the cache was told.
    pub(crate) fn build(&self, perception: usize) -> anyhow::Result<()> {
        let Perception { input, encoder, .. } = &self.perceptions[perception];
        let are_same = || match &self.cache {
            None => Ok(true),
            Some(cache) => {
                let mut sharing = self.perceptions.iter().filter(|it| it.encoder == *encoder);
                sharing.try_fold(true, |same, perception| {
                    Ok(same && perception.is_same(&cache.digests, &self.device)?)
                })
            }
        };
        self.encoders[*encoder]
            .build(&self.device, are_same)
            .map_err(|error| RunError::recipe(format!("encoder of input `{input}`: {error:#}")))
    }

    /// Decodes and encodes a medium of `clip`, and puts the result under `key`; `None` without the medium.
    ///
    /// # Errors
    /// A medium that could be decoded though none could when encoders were built.
    pub(crate) fn make(
        &self,
        clip: &Clip,
        number: usize,
        key: Option<&FeatureKey>,
    ) -> anyhow::Result<Result<Option<Features>, Refusal>> {
        let perception = &self.perceptions[number];
        let features = match perception.decode(clip) {
            Err(refusal) => return Ok(Err(refusal)),
            Ok(None) => None,
            Ok(Some(medium)) => {
                let encoder = self.encoders[perception.encoder].built();
                let encoder = encoder.with_context(|| {
                    format!("clip {} changed while it was read; start again", clip.id)
                })?;
                match perception.encode(clip, &medium, encoder) {
                    Err(refusal) => return Ok(Err(refusal)),
                    Ok(features) => Some(features),
                }
            }
        };
        // Had the file changed since it was hashed, its features would lie under another's name.
        if let (Some(cache), Some(key), Some(path)) = (&self.cache, key, perception.media(clip))
            && let Some(hash) = &key.key
            && key.still_holds(path)
        {
            cache.put(hash, features.as_ref());
        }
        Ok(Ok(features))
    }

    fn take_room(&self, (length, dim): (usize, usize)) -> bool {
        let bytes = bytes_of(length, dim);
        let take = |room: u64| room.checked_sub(bytes);
        self.room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    fn give_room_back(&self, (length, dim): (usize, usize)) {
        self.room
            .fetch_add(bytes_of(length, dim), Ordering::Relaxed);
    }
}

fn bytes_of(length: usize, dim: usize) -> u64 {
    (length * dim * size_of::<f32>()) as u64
}
