//! The published corpora, where they lie.

use std::fs;
use std::path::Path;

use crate::audio::{Waveform, read_waveform};
use crate::clip::Span;
use crate::video::{Crop, FrameSampler, read_frames};

#[test]
fn faces_and_voices_of_crema_d_are_read() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/crema-d");
    if !corpus.is_dir() {
        eprintln!("skipped: no CREMA-D in ../shared/data");
        return;
    }
    let sampler = FrameSampler::Uniform { count: 4 };
    let mut videos = 0;
    for entry in fs::read_dir(corpus.join("VideoFlash")).unwrap() {
        let path = entry.unwrap().path();
        let frames = read_frames(&path, Span::ALL, &sampler, 96, &Crop::Face { margin: 0.2 })
            .unwrap()
            .unwrap();
        assert_eq!(
            (frames.count, frames.faces_found, frames.data.len()),
            (4, 4, 4 * 96 * 96 * 3),
            "{path:?}"
        );
        let squashed = read_frames(&path, Span::ALL, &sampler, 96, &Crop::Squash)
            .unwrap()
            .unwrap();
        assert_ne!(frames.data, squashed.data);
        // The sound of the video is that of the WAV beside it, shortened by MP3's block length at most.
        let own = read_waveform(&path, Span::ALL, 16_000).unwrap().unwrap();
        let wav = corpus
            .join("AudioWAV")
            .join(path.with_extension("wav").file_name().unwrap());
        let published = read_waveform(&wav, Span::ALL, 16_000).unwrap().unwrap();
        let seconds = |waveform: &Waveform| waveform.samples.len() as f64 / 16_000.0;
        assert!(
            (seconds(&own) - seconds(&published)).abs() < 0.2,
            "{} {}",
            seconds(&own),
            seconds(&published)
        );
        videos += 1;
    }
    assert_eq!(videos, 6);
    for entry in fs::read_dir(corpus.join("AudioMP3")).unwrap() {
        let waveform = read_waveform(&entry.unwrap().path(), Span::ALL, 16_000)
            .unwrap()
            .unwrap();
        assert!(
            waveform.samples.len() > 16_000
                && waveform.samples.iter().any(|sample| sample.abs() > 0.01)
        );
    }
}

#[test]
fn every_clip_of_emodb_is_read() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/emodb/wav");
    if !corpus.is_dir() {
        eprintln!("skipped: no EMO-DB in ../shared/data");
        return;
    }
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let waveform = read_waveform(&path, Span::ALL, 16_000).unwrap().unwrap();
        assert!(waveform.samples.len() > 8_000, "{path:?}");
    }
}
