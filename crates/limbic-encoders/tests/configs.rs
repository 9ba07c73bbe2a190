//! Every shipped encoder config is read, built and run.

use std::path::Path;

use burn::tensor::Device;
use limbic_encoders::{EncoderConfig, Media, Modality};

#[test]
fn every_shipped_config_encodes_a_second() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/encoders");
    let (mut tried, mut absent) = (0, 0);
    for entry in std::fs::read_dir(folder).expect("configs are part of the repository") {
        let path = entry.expect("a readable folder").path();
        let yaml = std::fs::read_to_string(&path).expect("a readable file");
        let config: EncoderConfig = serde_yaml::from_str(&yaml)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let encoder = match (config.init(&Device::flex()), config.weights()) {
            (Ok(encoder), _) => encoder,
            // Published weights are not part of the repository: the refusal says where they were looked for.
            (Err(error), Some(weights)) => {
                let (message, weights) = (error.to_string(), weights.display().to_string());
                assert!(message.contains(&weights), "{}: {message}", path.display());
                absent += 1;
                continue;
            }
            (Err(error), None) => panic!("{}: {error}", path.display()),
        };
        let size = config.image_size().unwrap_or_default();
        let pixels: Vec<u8> = (0..size * size * 3).map(|i| (i * 7 % 256) as u8).collect();
        let sound: Vec<f32> = (0..16_000).map(|i| (i as f32 * 0.2).sin()).collect();
        let media = match config.modality() {
            Modality::Video => Media::Frames {
                data: &pixels,
                count: 1,
                size,
            },
            Modality::Audio => Media::Waveform {
                samples: &sound,
                sample_rate: 16_000,
            },
        };
        let features = encoder
            .encode(&media)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(features.dim, config.feature_dim(), "{}", path.display());
        assert_eq!(
            features.data.len(),
            features.length * features.dim,
            "{}",
            path.display()
        );
        assert!(
            features.data.iter().all(|value| value.is_finite()),
            "{}",
            path.display()
        );
        assert_eq!(
            encoder.encode(&media).expect("as before"),
            features,
            "{}",
            path.display()
        );
        tried += 1;
    }
    assert!(tried >= 6, "only {tried} configs found");
    assert!(
        absent >= 17,
        "only {absent} configs of pretrained encoders found"
    );
}

#[test]
fn the_other_medium_is_refused() {
    let config: EncoderConfig = serde_yaml::from_str("kind: log_mel").expect("defaults");
    let encoder = config.init(&Device::flex()).expect("valid");
    let error = encoder
        .encode(&Media::Frames {
            data: &[0; 12],
            count: 1,
            size: 2,
        })
        .expect_err("frames");
    assert!(
        error
            .to_string()
            .contains("got video for an encoder of audio"),
        "{error}"
    );
}

#[test]
fn misspelt_keys_are_refused_at_every_depth() {
    for yaml in [
        "{kind: log_mel, stacks: 2}",
        "{kind: mfcc, mel: {n_mel: 2}}",
        "{kind: vit, sise: 2}",
    ] {
        let error = serde_yaml::from_str::<EncoderConfig>(yaml)
            .expect_err("a misspelt key")
            .to_string();
        assert!(error.contains("unknown field"), "{error}");
    }
}
