//! Features are a function of the clip, not of the machine: they are cached under a hash.

use burn::tensor::Device;
use limbic_encoders::{EncoderConfig, Features, Media};

fn with_threads(threads: usize, encode: impl Fn() -> Features + Send + Sync) -> Vec<u32> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads");
    let features = pool.install(encode);
    features.data.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn vision_features_are_the_same_bits_on_any_number_of_threads() {
    let yaml = "{kind: vit, image_size: 64, patch_size: 8, dim: 96, depth: 2, heads: 3, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25], seed: 3}";
    let config: EncoderConfig = serde_yaml::from_str(yaml).expect("a config of this crate");
    let data: Vec<u8> = (0..12 * 64 * 64 * 3usize)
        .map(|i| (i * i % 253) as u8)
        .collect();
    let encode = || {
        let encoder = config.init(&Device::flex()).expect("a config that works");
        encoder
            .encode(&Media::Frames {
                data: &data,
                count: 12,
                size: 64,
            })
            .expect("twelve frames")
    };
    let one = with_threads(1, encode);
    for threads in [2, 3] {
        assert!(with_threads(threads, encode) == one, "{threads} threads");
    }
}

#[test]
fn audio_features_are_the_same_bits_on_any_number_of_threads() {
    let yaml = "{kind: audio_transformer, front_end: {stack: 2}, dim: 96, depth: 2, heads: 3, intermediate: 384, seed: 3}";
    let config: EncoderConfig = serde_yaml::from_str(yaml).expect("a config of this crate");
    let samples: Vec<f32> = (0..100_000).map(|i| (i as f32 * 0.13).sin()).collect();
    let encode = || {
        let encoder = config.init(&Device::flex()).expect("a config that works");
        encoder
            .encode(&Media::Waveform {
                samples: &samples,
                sample_rate: 16_000,
            })
            .expect("six seconds")
    };
    let one = with_threads(1, encode);
    for threads in [2, 3] {
        assert!(with_threads(threads, encode) == one, "{threads} threads");
    }
}
