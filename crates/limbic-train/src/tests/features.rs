use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use limbic_data::{Clip, Reason};
use limbic_model::InputConfig;
use serde_json::json;

use super::{World, device};
use crate::stored::hold;
use crate::{CacheRecipe, CacheReport, FeatureReader};

/// A second of a tone, as a WAV file.
pub(super) fn tone(path: &Path) {
    let samples: Vec<i16> = (0..16_000)
        .map(|i| (8000.0 * (f64::from(i) * 0.2).sin()) as i16)
        .collect();
    let data: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + data.len() as u32).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16u32.to_le_bytes());
    // PCM, one channel, rate, bytes a second, bytes and bits a sample.
    for field in [1u16, 1] {
        bytes.extend(field.to_le_bytes());
    }
    for field in [16_000u32, 32_000] {
        bytes.extend(field.to_le_bytes());
    }
    for field in [2u16, 16] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(b"data");
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    std::fs::write(path, bytes).unwrap();
}

/// Three inputs that hear the same, and one that hears otherwise.
const INPUTS: &str = r#"[
  {"name": "a", "placeholder": "<a>", "encoder": {"kind": "log_mel", "mel": {"n_mels": 4}},
   "projector": {"kind": "mean"}},
  {"name": "b", "placeholder": "<b>", "encoder": {"kind": "log_mel", "mel": {"n_mels": 8}},
   "projector": {"kind": "mean"}},
  {"name": "c", "placeholder": "<c>", "encoder": {"kind": "log_mel", "mel": {"n_mels": 4}}},
  {"name": "d", "placeholder": "<d>", "encoder": {"kind": "log_mel", "mel": {"n_mels": 4}},
   "projector": {"kind": "merge", "tokens": 50, "group": 2}}
]"#;

fn world(inputs: usize, fusions: &str) -> World {
    let mut world = World::new();
    let all: Vec<InputConfig> = serde_json::from_str(INPUTS).unwrap();
    world.config.inputs = all.into_iter().take(inputs).collect();
    world.config.fusions = serde_json::from_str(fusions).unwrap();
    world
}

fn off() -> CacheRecipe {
    CacheRecipe {
        enabled: false,
        ..CacheRecipe::default()
    }
}

#[test]
fn inputs_that_read_the_same_are_encoded_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tone.wav");
    tone(&path);
    let clip = Clip {
        id: "tone".into(),
        audio: Some(path),
        ..Clip::default()
    };
    let read = |inputs, fusions| {
        let world = world(inputs, fusions);
        FeatureReader::new(&world.config, &device(), &off())
            .unwrap()
            .read(&clip)
            .unwrap()
    };
    let encoded = read(3, "[]").unwrap();
    let [a, b, c] = [0, 1, 2].map(|input| encoded.features[input].as_ref().unwrap().held());
    assert!(Arc::ptr_eq(&a, &c) && !Arc::ptr_eq(&a, &b));
    assert_eq!((a.dim, b.dim), (4, 8));

    // A second is 101 frames: one more than fifty pairs, and more than a short fusion takes of two sources.
    let refused = read(4, "[]").unwrap_err();
    assert_eq!(refused.reason, Reason::WrongLength);
    assert!(
        refused.detail.contains("101 features for input `d`"),
        "{refused:?}"
    );
    let short = r#"[{"name": "f", "placeholder": "<f>", "sources": ["a", "b"],
                     "fusion": {"kind": "qformer", "positions": 201}}]"#;
    let refused = read(3, short).unwrap_err();
    assert_eq!(refused.reason, Reason::TooLong);
    assert!(
        refused.detail.contains("202 features for fusion `f`"),
        "{refused:?}"
    );
    assert!(read(3, &short.replace("201", "202")).is_ok());
}

/// What a reader gave, and what it took.
struct Got {
    features: Vec<Vec<f32>>,
    built: usize,
    report: CacheReport,
}

/// Two clips and a folder for their features.
struct Place {
    folder: tempfile::TempDir,
    clips: Vec<Clip>,
    cache: CacheRecipe,
    encoder: serde_json::Value,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clip = |number: usize| {
            let path = folder.path().join(format!("{number}.wav"));
            tone(&path);
            Clip {
                id: format!("c{number}"),
                audio: Some(path),
                start: (number == 1).then_some(0.25),
                ..Clip::default()
            }
        };
        Self {
            clips: vec![clip(0), clip(1)],
            cache: CacheRecipe {
                directory: folder.path().join("cache"),
                ..CacheRecipe::default()
            },
            encoder: json!({
                "kind": "audio_transformer", "seed": 1, "dim": 8, "depth": 1, "heads": 2, "intermediate": 8,
                "front_end": {"mel": {"n_mels": 8}},
            }),
            folder,
        }
    }

    fn try_read(&self) -> anyhow::Result<Got> {
        let mut world = World::new();
        world.config.inputs = serde_json::from_value(json!([
            {"name": "a", "placeholder": "<a>", "encoder": self.encoder, "projector": {"kind": "mean"}},
        ]))
        .unwrap();
        let reader = FeatureReader::new(&world.config, &device(), &self.cache)?;
        let clips: Vec<&Clip> = self.clips.iter().collect();
        let stop = AtomicBool::new(false);
        let (encoded, _) = reader.read_all(&clips, 1.0, &|_| {}, &stop)?;
        let stored = encoded
            .iter()
            .map(|clip| clip.features[0].as_ref().unwrap());
        let _held = hold(stored.clone())?;
        Ok(Got {
            features: stored.map(|stored| stored.held().data.clone()).collect(),
            built: reader.encoders_built(),
            report: reader.report().unwrap_or_default(),
        })
    }

    fn read(&self) -> Got {
        self.try_read().unwrap()
    }

    fn entries(&self) -> Vec<PathBuf> {
        let below = |folder: PathBuf| {
            let entries = std::fs::read_dir(folder).unwrap();
            entries.map(|entry| entry.unwrap().path())
        };
        let mut entries: Vec<PathBuf> = below(self.cache.directory.join("features"))
            .flat_map(below)
            .collect();
        entries.sort();
        entries
    }
}

#[test]
fn features_are_the_same_off_cold_warm_and_on_call() {
    let mut place = Place::new();
    let cold = place.read();
    assert_eq!((cold.report.found, cold.report.made, cold.built), (0, 2, 1));
    let warm = place.read();
    assert_eq!((warm.report.found, warm.report.made), (2, 0));
    assert_eq!(warm.built, 0, "no encoder is built where all is found");
    place.cache.memory_gib = 0.0;
    let on_call = place.read();
    assert_eq!((on_call.report.found, on_call.built), (2, 0));
    place.cache.enabled = false;
    let each_time = place.read();
    assert_eq!(each_time.built, 1);
    place.cache.memory_gib = 1.0;
    let off = place.read();
    for got in [warm, on_call, each_time, off] {
        assert_eq!(got.features, cold.features);
    }
    assert_ne!(
        cold.features[0], cold.features[1],
        "a part of a clip is another clip"
    );
}

#[test]
fn a_flipped_byte_is_noticed_and_the_features_made_again() {
    for memory_gib in [1.0, 0.0] {
        let mut place = Place::new();
        place.cache.memory_gib = memory_gib;
        let wanted = place.read().features;
        let path = &place.entries()[0];
        let whole = std::fs::read(path).unwrap();
        let mut flipped = whole.clone();
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        for bytes in [flipped, whole[..whole.len() / 2].to_vec(), Vec::new()] {
            std::fs::write(path, bytes).unwrap();
            let got = place.read();
            assert_eq!(got.features, wanted);
            assert_eq!((got.report.made, got.report.damaged.count), (1, 1));
            assert_eq!(std::fs::read(path).unwrap(), whole, "it is whole again");
        }
    }
}

#[test]
fn other_media_and_other_encoders_are_not_found() {
    let mut place = Place::new();
    let first = place.read().features;
    // The same bytes elsewhere are the same clip.
    let moved = place.folder.path().join("moved.wav");
    std::fs::rename(place.clips[0].audio.as_ref().unwrap(), &moved).unwrap();
    place.clips[0].audio = Some(moved.clone());
    let got = place.read();
    assert_eq!((got.report.found, &got.features), (2, &first));
    let mut bytes = std::fs::read(&moved).unwrap();
    bytes[10_000] ^= 0x40;
    std::fs::write(&moved, bytes).unwrap();
    let got = place.read();
    assert_eq!((got.report.found, got.report.made), (1, 1));
    assert_ne!(got.features[0], first[0]);
    place.encoder["seed"] = json!(2);
    assert_eq!(place.read().report.found, 0);
}

#[test]
fn weights_are_known_by_what_they_hold() {
    let mut place = Place::new();
    let seed = place.encoder.as_object_mut().unwrap().remove("seed");
    assert_eq!(seed, Some(json!(1)));
    let message = format!("{:#}", place.try_read().err().unwrap());
    assert!(
        message.contains("neither `weights` nor `seed`"),
        "{message}"
    );
    let path = place.folder.path().join("w.safetensors");
    place.encoder["weights"] = json!(path);
    let message = format!("{:#}", place.try_read().err().unwrap());
    assert!(
        message.contains("w.safetensors") && message.contains("input `a`"),
        "{message}"
    );
    // Where all is found nobody looks into the file, but it must be the same one: another is another encoder.
    std::fs::write(&path, b"no weights at all").unwrap();
    let message = format!("{:#}", place.try_read().err().unwrap());
    assert!(message.contains("encoder of input `a`"), "{message}");
}

#[test]
fn unusable_clips_are_looked_at_anew_and_need_no_encoder() {
    let place = Place::new();
    place.read();
    let path = place.clips[0].audio.as_ref().unwrap();
    std::fs::write(path, b"RIFF and no more").unwrap();
    let read = || {
        let world = world(1, "[]");
        let reader = FeatureReader::new(&world.config, &device(), &place.cache).unwrap();
        let clips: Vec<&Clip> = place.clips.iter().collect();
        let stop = AtomicBool::new(false);
        let (encoded, bad) = reader.read_all(&clips, 1.0, &|_| {}, &stop).unwrap();
        assert_eq!(encoded.len(), 1);
        (bad, reader.encoders_built())
    };
    let (cold, built) = read();
    assert_eq!(built, 1);
    let (warm, built) = read();
    assert_eq!(built, 0);
    assert_eq!(warm, cold);
    assert_eq!(warm[0].id, "c0");
}

#[test]
fn what_changes_after_the_start_is_told() {
    let mut place = Place::new();
    place.cache.memory_gib = 0.0;
    let world = world(1, "[]");
    let reader = FeatureReader::new(&world.config, &device(), &place.cache).unwrap();
    let encoded = reader.read(&place.clips[0]).unwrap().unwrap();
    let stored = encoded.features[0].as_ref();
    std::fs::remove_dir_all(&place.cache.directory).unwrap();
    assert!(hold(stored).is_ok(), "what the cache lost is made again");
    std::fs::remove_dir_all(&place.cache.directory).unwrap();
    tone(place.clips[0].audio.as_ref().unwrap());
    assert!(hold(stored).is_ok(), "the same bytes");
    std::fs::remove_dir_all(&place.cache.directory).unwrap();
    std::fs::remove_file(place.clips[0].audio.as_ref().unwrap()).unwrap();
    let message = hold(stored).unwrap_err().to_string();
    assert!(
        message.contains("clip c0 is no longer what it was"),
        "{message}"
    );
}

#[test]
fn a_file_under_another_ending_is_read_anew() {
    let place = Place::new();
    let [wav, dat] = ["cut.wav", "cut.dat"].map(|name| place.folder.path().join(name));
    // The header promises two seconds, of which one is there: hound refuses that, and FFmpeg does not.
    tone(&wav);
    let mut bytes = std::fs::read(&wav).unwrap();
    bytes[4..8].copy_from_slice(&(36u32 + 64_000).to_le_bytes());
    bytes[40..44].copy_from_slice(&64_000u32.to_le_bytes());
    for path in [&wav, &dat] {
        std::fs::write(path, &bytes).unwrap();
    }
    let world = world(1, "[]");
    let clip = |path: &Path| Clip {
        audio: Some(path.to_path_buf()),
        ..Clip::default()
    };
    let is_usable = |path| {
        let reader = FeatureReader::new(&world.config, &device(), &place.cache).unwrap();
        reader.read(&clip(path)).unwrap().is_ok()
    };
    let cold = [&wav, &dat].map(|path| is_usable(path));
    assert_eq!(cold, [false, true]);
    assert_eq!([&wav, &dat].map(|path| is_usable(path)), cold, "warm");
}

#[test]
fn repeated_media_are_encoded_once() {
    let mut place = Place::new();
    let again = |clip: &Clip, number: usize| Clip {
        id: format!("again{number}"),
        ..clip.clone()
    };
    let clips = place.clips.clone();
    place
        .clips
        .extend((0..6).map(|number| again(&clips[number % 2], number)));
    for memory_gib in [1.0, 0.0] {
        place.cache.memory_gib = memory_gib;
        let got = place.read();
        assert_eq!((got.report.made, got.report.found), (2, 6));
        for (number, features) in got.features.iter().enumerate() {
            assert_eq!(*features, got.features[number % 2]);
        }
        std::fs::remove_dir_all(&place.cache.directory).unwrap();
    }
}

#[test]
fn what_changes_without_a_cache_is_told_too() {
    let mut place = Place::new();
    place.cache.memory_gib = 0.0;
    place.cache.enabled = false;
    let world = world(1, "[]");
    let reader = FeatureReader::new(&world.config, &device(), &place.cache).unwrap();
    let encoded = reader.read(&place.clips[0]).unwrap().unwrap();
    let stored = encoded.features[0].as_ref();
    assert!(hold(stored).is_ok());
    let path = place.clips[0].audio.as_ref().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    bytes[10_000] ^= 0x40;
    // A moment later than the clock's last tick.
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(path, bytes).unwrap();
    let message = hold(stored).unwrap_err().to_string();
    assert!(message.contains("its media file is another"), "{message}");
}
