//! Draws and voices its own clips: a data set with real media files that needs no download and no permission.
//!
//! 1. Every clip is dealt a split, a speaker, an emotion and the modalities that are ambiguous.
//! 2. Each modality shows one of nine renditions ([`emotion`]): the six emotions, and three that two emotions share.
//! 3. A rendition is a row of attribute levels (brows, eyes, mouth, head; pitch, movement, loudness, tempo, timbre) or a
//!    store of sentences. A face is drawn, a voice synthesised and a sentence drawn from it.
//! 4. Captions and the rationale are read off the levels that are shown.
//!
//! A modality is ambiguous in every second clip. Then it has the same distribution for both emotions of its pair, so
//! whoever sees that modality alone is right about three clips in four at best, and whoever sees all three can always be
//! right. Everything else that varies (identity, position, timing, noise, the opening words) is drawn without regard to
//! the emotion.
//!
//! The clips are a function of the settings alone; bytes may differ between versions of FFmpeg.

mod canvas;
mod cast;
mod dice;
pub mod emotion;
mod face;
mod folder;
mod levels;
mod script;
mod speaker;
mod voice;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use self::cast::Role;
use self::dice::Dice;
use self::emotion::Modality;
use self::face::Face;
use self::levels::{Look, Tone};
use self::script::Script;
use self::speaker::Speaker;
use crate::clip::{Clip, Split};
use crate::error::DataError;
use crate::manifest::Manifest;

/// Fewest clips that leave every split with one.
const FEWEST: usize = 6;

/// Most clips that five-digit ids can name.
const MOST: usize = 100_000;

/// What to synthesise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynthConfig {
    /// Number of clips, 6 to 100 000: four sixths for training, one sixth each for validation and test.
    pub clips: usize,
    /// Seed of everything that is drawn at random.
    pub seed: u64,
}

/// What [`generate`] leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynthReport {
    /// The manifest of the set.
    pub manifest: PathBuf,
    /// Number of clips for training.
    pub train: usize,
    /// Number of clips for validation.
    pub validation: usize,
    /// Number of clips for test.
    pub test: usize,
    /// Whether the folder held this very set already, so that nothing was written.
    pub existed: bool,
}

/// Writes `out/clips/*.mp4` (96 by 96 pixels, 12.5 pictures/s, 1.6 to 2.4 s, with mono sound at 16 kHz) and
/// `out/manifest.jsonl`. `progress` is told how many clips are done, from several threads.
///
/// `out` appears whole or not at all. If it holds the same set already, that is reported and nothing is written.
///
/// # Errors
/// [`DataError::Synth`] if the settings are out of range, `out` holds anything else, or FFmpeg cannot encode;
/// [`DataError::Io`] if a file cannot be written.
pub fn generate(
    out: &Path,
    config: &SynthConfig,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<SynthReport, DataError> {
    if !(FEWEST..=MOST).contains(&config.clips) {
        let detail = format!(
            "asked for {} clips, possible are {FEWEST} to {MOST}",
            config.clips
        );
        return Err(DataError::Synth {
            path: out.to_path_buf(),
            detail,
        });
    }
    let existed = folder::holds(out, config)?;
    if !existed {
        folder::write_whole(out, config, |staging| {
            let done = AtomicUsize::new(0);
            let clips = cast::deal(config.clips, config.seed)
                .par_iter()
                .map(|role| {
                    let clip = perform(role, config.seed, &staging.join(folder::CLIPS))?;
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                    Ok(clip)
                })
                .collect::<Result<Vec<Clip>, DataError>>()?;
            let path = staging.join(folder::MANIFEST);
            Manifest {
                path: path.clone(),
                clips,
            }
            .write(&path)
        })?;
    }
    Ok(SynthReport {
        manifest: out.join(folder::MANIFEST),
        train: cast::share(Split::Train, config.clips),
        validation: cast::share(Split::Validation, config.clips),
        test: cast::share(Split::Test, config.clips),
        existed,
    })
}

/// Draws, voices and writes one clip.
fn perform(role: &Role, seed: u64, folder: &Path) -> Result<Clip, DataError> {
    let mut dice = Dice::new(seed, &["clip", &role.id]);
    let [seen, heard, said] =
        [0, 1, 2].map(|m| Modality::ALL[m].rendition(role.emotion, role.ambiguous[m]));
    let (look, tone) = (Look::of(seen), Tone::of(heard));
    let script = Script::draw(said, role.split, &mut dice);
    let speaker = Speaker::new(seed, role.speaker);

    // The length is drawn without regard to the tempo, which would otherwise show in the number of pictures.
    let count = 20 + dice.below(11);
    let duration = count as f32 * 0.08;
    let mut face = Face::new(&speaker, look, seed, &role.id);
    let pictures: Vec<Vec<u8>> = (0..count)
        .map(|index| face.draw(index as f32 * 0.08, duration))
        .collect();
    let samples = voice::speak(
        &speaker,
        tone,
        &script.opening,
        count * writer::SAMPLES_PER_PICTURE,
        seed,
        &role.id,
    );

    let video = folder.join(format!("{}.mp4", role.id));
    writer::write_mp4(&video, face::SIZE, &pictures, &samples).map_err(|error| {
        DataError::Synth {
            path: video.clone(),
            detail: format!("FFmpeg cannot encode clip `{}`: {error}", role.id),
        }
    })?;
    Ok(Clip {
        id: role.id.clone(),
        video: Some(video),
        transcript: Some(script.text()),
        emotion: Some(role.emotion.name().to_owned()),
        valence: Some(role.emotion.valence()),
        speaker: Some(speaker.name),
        licence: Some("CC0-1.0".to_owned()),
        language: Some("en".to_owned()),
        split: Some(role.split),
        reason: Some(rationale(
            look,
            tone,
            script::topic(said),
            role.emotion.name(),
        )),
        seen: Some(look.to_string()),
        heard: Some(tone.to_string()),
        ambiguous: role.ambiguous_names(),
        ..Clip::default()
    })
}

/// Why the clip shows this emotion: evidence from each modality, then the conclusion.
fn rationale(look: Look, tone: Tone, topic: &str, emotion: &str) -> String {
    let Look {
        brows, eyes, mouth, ..
    } = look;
    let Tone {
        pitch,
        loudness,
        timbre,
        ..
    } = tone;
    format!(
        "The {brows} brows, {eyes} eyes and {mouth} mouth, the {pitch} {loudness} {timbre} voice \
         and the words about {topic} point to {emotion}."
    )
}

#[cfg(test)]
mod tests;
