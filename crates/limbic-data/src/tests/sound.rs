//! Sound in every depth, and at other rates.

use std::f64::consts::TAU;
use std::fs;

use hound::SampleFormat;

use super::files::{folder, sine, write_wav};
use super::reason;
use crate::audio::{Waveform, read_waveform, resample};
use crate::clip::Span;
use crate::error::Reason;

#[test]
fn every_wav_depth_is_read_and_channels_are_averaged() {
    let (_folder, path) = folder();
    let wanted = sine(16_000, 1600, 300.0);
    for (bits, format, error) in [
        (8, SampleFormat::Int, 1.0 / 128.0),
        (16, SampleFormat::Int, 1.0 / 32_768.0),
        (24, SampleFormat::Int, 1e-6),
        (32, SampleFormat::Int, 1e-6),
        (32, SampleFormat::Float, 0.0),
    ] {
        let file = path("depth.wav");
        write_wav(&file, bits, format, 1, &wanted);
        let got = read_waveform(&file, Span::ALL, 16_000).unwrap().unwrap();
        let largest = got
            .samples
            .iter()
            .zip(&wanted)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(
            got.samples.len() == 1600 && largest <= error,
            "{bits} bits {format:?}: {largest}"
        );
    }
    let stereo = path("stereo.wav");
    write_wav(&stereo, 32, SampleFormat::Float, 2, &[0.5, -0.25, 1.0, 0.0]);
    assert_eq!(
        read_waveform(&stereo, Span::ALL, 16_000)
            .unwrap()
            .unwrap()
            .samples,
        [0.125, 0.5]
    );
    let bad = path("nan.wav");
    write_wav(&bad, 32, SampleFormat::Float, 1, &[0.5, f32::NAN]);
    assert_eq!(
        reason(read_waveform(&bad, Span::ALL, 16_000)),
        Reason::Decode
    );
}

#[test]
fn a_wav_that_hound_does_not_read_goes_to_ffmpeg() {
    let (_folder, path) = folder();
    let file = path("double.wav");
    let samples = [0.25_f64, -0.5, 0.75];
    // A WAV header by hand: format 3 (float), one channel, 16 kHz, 64 bits.
    let mut bytes = b"RIFF\x3c\0\0\0WAVEfmt \x10\0\0\0\x03\0\x01\0".to_vec();
    bytes.extend(16_000_u32.to_le_bytes());
    bytes.extend(128_000_u32.to_le_bytes());
    bytes.extend(b"\x08\0\x40\0data\x18\0\0\0");
    samples
        .iter()
        .for_each(|sample| bytes.extend(sample.to_le_bytes()));
    fs::write(&file, bytes).unwrap();
    assert!(hound::WavReader::open(&file).is_err());
    assert_eq!(
        read_waveform(&file, Span::ALL, 16_000)
            .unwrap()
            .unwrap()
            .samples,
        [0.25, -0.5, 0.75]
    );
}

/// A burst under a Gaussian: it is known at every rate and has no edges.
fn burst(rate: u32, seconds: f64, frequency: f64) -> Waveform {
    let at = |index: usize| {
        let time = index as f64 / f64::from(rate) - seconds / 2.0;
        ((-0.5 * (time / (seconds / 10.0)).powi(2)).exp() * (TAU * frequency * time).sin()) as f32
    };
    let count = (seconds * f64::from(rate)).round() as usize;
    Waveform {
        sample_rate: rate,
        samples: (0..count).map(at).collect(),
    }
}

#[test]
fn resampling_keeps_a_tone_within_minus_60_decibels() {
    for (from, to) in [
        (44_100, 16_000),
        (48_000, 16_000),
        (8_000, 16_000),
        (22_050, 16_000),
        (16_000, 44_100),
    ] {
        let (got, wanted) = (
            resample(&burst(from, 1.0, 1000.0), to),
            burst(to, 1.0, 1000.0),
        );
        assert_eq!(
            (got.samples.len(), got.sample_rate),
            (wanted.samples.len(), to)
        );
        let power = |samples: &mut dyn Iterator<Item = f32>| {
            samples.map(|sample| f64::from(sample).powi(2)).sum::<f64>()
        };
        let error = power(&mut got.samples.iter().zip(&wanted.samples).map(|(a, b)| a - b));
        let decibels = 10.0 * (error / power(&mut wanted.samples.iter().copied())).log10();
        assert!(decibels < -60.0, "{from} to {to} Hz: {decibels:.1} dB");
    }
    let same = burst(16_000, 0.1, 500.0);
    assert_eq!(resample(&same, 16_000), same);
    let odd = Waveform {
        sample_rate: 44_100,
        samples: vec![0.0; 1001],
    };
    // 1001 * 16000 / 44100 = 363.17
    assert_eq!(resample(&odd, 16_000).samples.len(), 363);
}
