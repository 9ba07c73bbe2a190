use std::path::Path;
use std::sync::Arc;

use limbic_data::{Clip, Reason};
use limbic_model::InputConfig;

use super::{World, device};
use crate::FeatureReader;

/// A second of a tone, as a WAV file.
fn tone(path: &Path) {
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
        FeatureReader::new(&world.config, &device())
            .unwrap()
            .read(&clip)
    };
    let encoded = read(3, "[]").unwrap();
    let [a, b, c] = [0, 1, 2].map(|input| encoded.features[input].clone().unwrap());
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
