//! What is missing, cut, damaged or beyond the bounds.

use std::fs;

use hound::SampleFormat;

use super::files::{folder, sine, write_media, write_wav};
use super::{frames_of, numbers, reason, span};
use crate::audio::read_waveform;
use crate::clip::Span;
use crate::error::Reason;
use crate::media::probe;

#[test]
fn a_medium_that_is_not_there_is_none() {
    let (_folder, path) = folder();
    let (video, sound, both) = (path("v.mkv"), path("s.wav"), path("b.mkv"));
    write_media(&video, 10, &[]);
    write_wav(
        &sound,
        16,
        SampleFormat::Int,
        1,
        &sine(16_000, 16_000, 440.0),
    );
    write_media(&both, 10, &[1000; 16_000]);
    assert_eq!(read_waveform(&video, Span::ALL, 16_000).unwrap(), None);
    assert_eq!(frames_of(&sound, Span::ALL).unwrap(), None);
    assert!(frames_of(&both, Span::ALL).unwrap().is_some());
    let waveform = read_waveform(&both, Span::ALL, 16_000).unwrap().unwrap();
    assert_eq!(waveform.samples, vec![1000.0 / 32_768.0; 16_000]);

    let info = probe(&both).unwrap();
    assert_eq!((info.video, info.audio), (Some((64, 48)), Some(16_000)));
    assert!((info.duration - 1.0).abs() < 0.05, "{info:?}");
    assert_eq!(
        (probe(&video).unwrap().audio, probe(&sound).unwrap().video),
        (None, None)
    );

    // A browser's recording declares no duration: that of FFmpeg's file becomes a filler.
    let mut bytes = fs::read(&both).unwrap();
    let place = bytes.windows(3).position(|id| id == [0x44, 0x89, 0x88]);
    bytes[place.unwrap()] = 0xec;
    fs::write(&both, bytes).unwrap();
    let info = probe(&both).unwrap();
    assert!((info.duration - 1.0).abs() < 0.15, "{info:?}");
}

#[test]
fn broken_files_have_their_reason() {
    let (_folder, path) = folder();
    let (empty, text) = (path("empty.mp4"), path("text.mp4"));
    fs::write(&empty, b"").unwrap();
    fs::write(
        &text,
        "This is a shopping list: bread, butter, plums.\n".repeat(50),
    )
    .unwrap();
    for (file, wanted) in [
        (path("missing.mp4"), Reason::Missing),
        (empty, Reason::Empty),
        (text.clone(), Reason::NotMedia),
        (path(""), Reason::NotMedia),
    ] {
        assert_eq!(reason(frames_of(&file, Span::ALL)), wanted);
        assert_eq!(reason(read_waveform(&file, Span::ALL, 16_000)), wanted);
        assert_eq!(reason(probe(&file)), wanted);
    }
    let wav = path("text.wav");
    fs::copy(&text, &wav).unwrap();
    assert_eq!(
        reason(read_waveform(&wav, Span::ALL, 16_000)),
        Reason::NotMedia
    );
    assert_eq!(
        reason(read_waveform(&path("missing.wav"), Span::ALL, 16_000)),
        Reason::Missing
    );
}

#[test]
fn cut_files_are_truncated() {
    let (_folder, path) = folder();
    for name in ["a.mp4", "a.mkv", "a.avi"] {
        let whole = path(name);
        // Incompressible sound keeps the file long enough to be cut in the middle; MP4 takes no PCM.
        let noise: Vec<i16> = (0..32_000_u32)
            .map(|index| (index.wrapping_mul(2_654_435_761) >> 18) as i16)
            .collect();
        write_media(&whole, 20, if name == "a.mp4" { &[] } else { &noise });
        let bytes = fs::read(&whole).unwrap();
        let cut = path(&format!("cut-{name}"));
        fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(
            reason(frames_of(&cut, Span::ALL)),
            Reason::Truncated,
            "{name}"
        );
        if name != "a.mp4" {
            assert_eq!(
                reason(read_waveform(&cut, Span::ALL, 16_000)),
                Reason::Truncated,
                "{name}"
            );
            // What lies before the cut is as good as ever.
            assert_eq!(
                numbers(&frames_of(&cut, span(0.0, 0.4)).unwrap().unwrap()),
                [0, 1, 2, 3],
                "{name}"
            );
        }
    }
    let whole = path("a.wav");
    write_wav(
        &whole,
        16,
        SampleFormat::Int,
        1,
        &sine(16_000, 32_000, 440.0),
    );
    let bytes = fs::read(&whole).unwrap();
    for length in [20, 30, 44 + 32_000] {
        let cut = path("cut.wav");
        fs::write(&cut, &bytes[..length]).unwrap();
        assert_eq!(
            reason(read_waveform(&cut, Span::ALL, 16_000)),
            Reason::Truncated,
            "{length} bytes"
        );
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let (_folder, path) = folder();
    let (video, sound) = (path("a.mkv"), path("a.wav"));
    write_media(&video, 10, &[500; 16_000]);
    write_wav(
        &sound,
        16,
        SampleFormat::Int,
        2,
        &sine(16_000, 4_000, 440.0),
    );
    for whole in [video, sound] {
        let bytes = fs::read(&whole).unwrap();
        for seed in 0..60_u64 {
            let mut damaged = bytes.clone();
            for hit in 0..8_u64 {
                let dice = (seed * 8 + hit + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                // The first bytes hold the headers, where damage does most.
                let place = (dice >> 32) as usize % if hit < 4 { 64 } else { damaged.len() };
                damaged[place] = dice as u8;
            }
            let file = whole
                .with_file_name(format!("damaged-{seed}"))
                .with_extension(whole.extension().unwrap());
            fs::write(&file, &damaged).unwrap();
            // Either answer is right; the test is that there is one.
            if let Ok(Some(waveform)) = read_waveform(&file, Span::ALL, 16_000) {
                assert!(waveform.samples.iter().all(|sample| sample.is_finite()));
            }
            if let Ok(Some(frames)) = frames_of(&file, Span::ALL) {
                assert_eq!(frames.count, 4);
            }
        }
    }
}

#[test]
fn bounds_and_spans_are_checked() {
    let (_folder, path) = folder();
    let (wav, video) = (path("a.wav"), path("a.mkv"));
    write_wav(&wav, 8, SampleFormat::Int, 1, &vec![0.0; 16_000 * 601]);
    write_media(&video, 10, &[]);
    assert_eq!(
        reason(read_waveform(&wav, Span::ALL, 16_000)),
        Reason::TooLong
    );
    assert_eq!(
        read_waveform(&wav, span(500.0, 501.5), 16_000)
            .unwrap()
            .unwrap()
            .samples
            .len(),
        24_000
    );
    assert_eq!(
        reason(read_waveform(
            &wav,
            Span {
                start: 700.0,
                end: None
            },
            16_000
        )),
        Reason::NoSamples
    );
    assert_eq!(
        reason(read_waveform(&wav, span(590.0, 620.0), 16_000)),
        Reason::Truncated
    );
    assert_eq!(reason(frames_of(&video, span(0.0, 3.0))), Reason::Truncated);
    assert_eq!(reason(frames_of(&video, span(5.0, 6.0))), Reason::NoFrames);

    let large = path("large.ppm");
    let mut bytes = b"P6\n8200 2\n255\n".to_vec();
    bytes.extend(vec![0; 8200 * 2 * 3]);
    fs::write(&large, bytes).unwrap();
    assert_eq!(reason(frames_of(&large, Span::ALL)), Reason::TooLarge);
}
