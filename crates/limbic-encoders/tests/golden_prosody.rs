//! Prosody against librosa and numpy.
//!
//! The numbers in tests/golden/audio/prosody.safetensors come from scripts/golden/prosody.py.

use std::f64::consts::{PI, TAU};
use std::path::Path;

use burn::tensor::Device;
use limbic_encoders::{EncoderConfig, Media};
use limbic_weights::Weights;

/// `babble` of scripts/golden/prosody.py.
fn babble(samples: u64, seed: u64, level: f64) -> Vec<f32> {
    let sample = |number: u64| {
        let mut word = (number * 2_654_435_761 + seed * 974_711) % (1 << 32);
        word ^= word >> 16;
        word = (word * 2_246_822_519) % (1 << 32);
        word ^= word >> 13;
        let noise = word as f64 / (1u64 << 32) as f64 - 0.5;
        let time = number as f64 / 16_000.0;
        let phase = TAU * (110.0 + 15.0 * seed as f64 + 30.0 * time) * time;
        let envelope = (PI * time / 0.3).sin().powi(2);
        let tone = phase.sin() + 0.6 * (2.0 * phase).sin() + 0.4 * (3.0 * phase).sin();
        (0.3 * envelope * tone + level * noise) as f32
    };
    (0..samples).map(sample).collect()
}

fn assert_prosody(name: &str, samples: &[f32]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/audio");
    let golden = Weights::read(&folder.join("prosody.safetensors"))
        .expect("golden files are part of the repository");
    let golden = &golden.tensors[name];
    let config: EncoderConfig =
        serde_yaml::from_str("{kind: prosody, deltas: 2}").expect("a config of this crate");
    let media = Media::Waveform {
        samples,
        sample_rate: 16_000,
    };
    let encoder = config.init(&Device::flex()).expect("valid");
    let features = encoder.encode(&media).expect("a sound");
    assert_eq!([features.length, features.dim], golden.shape[..]);

    let rows = || features.data.chunks(12).zip(golden.values.chunks(12));
    let voiced = rows().filter(|(_, wanted)| wanted[0] > 0.0).count();
    assert!(voiced > 50, "only {voiced} frames of {name} are voiced");
    let mut errors = [0.0f32; 12];
    for (column, error) in errors.iter_mut().enumerate() {
        let largest = rows().fold(0.0f32, |largest, row| largest.max(row.1[column].abs()));
        for (got, wanted) in rows() {
            // Pitch and energy are compared value by value, voicing and slopes by the largest of their column.
            let scale = match column {
                0 | 1 if wanted[column] > 0.0 => wanted[column],
                _ => largest,
            };
            *error = error.max((got[column] - wanted[column]).abs() / scale);
        }
    }
    for (column, error) in errors.into_iter().enumerate() {
        assert!(
            error <= 1e-4,
            "{name}, column {column}: relative error {error}"
        );
    }
}

#[test]
fn a_clear_voice_is_librosas() {
    assert_prosody("clear", &babble(28_000, 3, 0.01));
}

#[test]
fn a_noisy_voice_is_librosas() {
    assert_prosody("noisy", &babble(20_123, 7, 0.3));
}
