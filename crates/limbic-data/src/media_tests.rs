//! Video and sound from files that the tests write, damage and read back, and from the published corpora where they lie.

use std::f64::consts::TAU;
use std::fs;
use std::path::{Path, PathBuf};

use ffmpeg_next as ffmpeg;

use ffmpeg::channel_layout::ChannelLayout;
use ffmpeg::codec::{Context, Flags, Id};
use ffmpeg::format::context::Output;
use ffmpeg::format::{Pixel, Sample, sample};
use ffmpeg::frame;
use ffmpeg::media::Type;
use ffmpeg::{Packet, Rational, encoder};
use hound::{SampleFormat, WavSpec, WavWriter};

use crate::audio::{Waveform, read_waveform, resample};
use crate::clip::Span;
use crate::error::{DataError, Reason};
use crate::media::probe;
use crate::picture_stream::PictureStream;
use crate::synth::{SynthConfig, generate};
use crate::video::{Crop, FrameSampler, Frames, read_frames};

const RATE: i32 = 10;
const SOUND_RATE: i32 = 16_000;

/// Writes a 64x48 video of `pictures` evenly gray pictures at ten a second, the first of luma 20 and each 4 brighter than the
/// one before, over and over from the 40th on; and, if `samples` is not empty, 16 kHz PCM sound. The extension chooses the container.
fn write_media(path: &Path, pictures: usize, samples: &[i16]) {
    let mut output = ffmpeg::format::output(path).unwrap();
    let global_header = output
        .format()
        .flags()
        .contains(ffmpeg::format::Flags::GLOBAL_HEADER);
    let context = |id| {
        let mut context = Context::new_with_codec(encoder::find(id).unwrap());
        if global_header {
            context.set_flags(Flags::GLOBAL_HEADER);
        }
        context.encoder()
    };
    let mut video = context(Id::MPEG4).video().unwrap();
    video.set_width(64);
    video.set_height(48);
    video.set_format(Pixel::YUV420P);
    video.set_time_base((1, RATE));
    video.set_frame_rate(Some((RATE, 1)));
    video.set_bit_rate(1_000_000);
    let mut video = video.open().unwrap();
    output
        .add_stream_with(&video)
        .unwrap()
        .set_time_base((1, RATE));
    let mut sound = context(Id::PCM_S16LE).audio().unwrap();
    sound.set_rate(SOUND_RATE);
    sound.set_channel_layout(ChannelLayout::MONO);
    sound.set_format(Sample::I16(sample::Type::Packed));
    sound.set_time_base((1, SOUND_RATE));
    let mut sound = sound.open().unwrap();
    if !samples.is_empty() {
        output
            .add_stream_with(&sound)
            .unwrap()
            .set_time_base((1, SOUND_RATE));
    }
    output.write_header().unwrap();

    for index in 0..pictures {
        let mut picture = frame::Video::new(Pixel::YUV420P, 64, 48);
        picture.data_mut(0).fill(luma(index));
        picture.data_mut(1).fill(128);
        picture.data_mut(2).fill(128);
        picture.set_pts(Some(index as i64));
        video.send_frame(&picture).unwrap();
        drain(&mut video, &mut output, 0, Rational(1, RATE));
        let part = SOUND_RATE as usize / RATE as usize;
        if let Some(samples) = samples.get(index * part..(index + 1) * part) {
            let mut block =
                frame::Audio::new(Sample::I16(sample::Type::Packed), part, ChannelLayout::MONO);
            block.set_rate(SOUND_RATE as u32);
            block.set_pts(Some((index * part) as i64));
            block.plane_mut(0).copy_from_slice(samples);
            sound.send_frame(&block).unwrap();
            drain(&mut sound, &mut output, 1, Rational(1, SOUND_RATE));
        }
    }
    video.send_eof().unwrap();
    drain(&mut video, &mut output, 0, Rational(1, RATE));
    output.write_trailer().unwrap();
}

fn drain(encoder: &mut encoder::Encoder, output: &mut Output, stream: usize, tick: Rational) {
    let target = output.stream(stream).unwrap().time_base();
    let mut packet = Packet::empty();
    while encoder.receive_packet(&mut packet).is_ok() {
        packet.set_stream(stream);
        if packet.duration() == 0 {
            packet.set_duration(1);
        }
        packet.rescale_ts(tick, target);
        packet.write_interleaved(output).unwrap();
    }
}

/// Luma of picture `index` in studio range.
fn luma(index: usize) -> u8 {
    20 + 4 * (index % 40) as u8
}

/// The number of the picture that a gray value came from; studio range spreads 219 levels over 255.
fn number_of(gray: u8) -> usize {
    let luma = f64::from(gray) * 219.0 / 255.0 + 16.0;
    ((luma - 20.0) / 4.0).round() as usize
}

fn numbers(frames: &Frames) -> Vec<usize> {
    (0..frames.count)
        .map(|index| number_of(frames.picture(index)[0]))
        .collect()
}

fn span(start: f64, end: f64) -> Span {
    Span {
        start,
        end: Some(end),
    }
}

fn reason<T>(result: Result<T, DataError>) -> Reason {
    match result.map(drop) {
        Err(DataError::Media { reason, detail, .. }) => {
            assert!(!detail.is_empty());
            reason
        }
        other => panic!("wanted a media error, got {other:?}"),
    }
}

fn frames_of(path: &Path, span: Span) -> Result<Option<Frames>, DataError> {
    read_frames(
        path,
        span,
        &FrameSampler::Uniform { count: 4 },
        16,
        &Crop::Squash,
    )
}

fn sine(rate: u32, count: usize, frequency: f64) -> Vec<f32> {
    (0..count)
        .map(|index| (0.5 * (TAU * frequency * index as f64 / f64::from(rate)).sin()) as f32)
        .collect()
}

fn write_wav(path: &Path, bits: u16, format: SampleFormat, channels: u16, samples: &[f32]) {
    let spec = WavSpec {
        channels,
        sample_rate: 16_000,
        bits_per_sample: bits,
        sample_format: format,
    };
    let mut writer = WavWriter::create(path, spec).unwrap();
    for sample in samples {
        match format {
            SampleFormat::Float => writer.write_sample(*sample).unwrap(),
            SampleFormat::Int => {
                let full_scale = 2.0_f64.powi(i32::from(bits) - 1);
                writer
                    .write_sample((f64::from(*sample) * full_scale).round() as i32)
                    .unwrap();
            }
        }
    }
    writer.finalize().unwrap();
}

fn folder() -> (tempfile::TempDir, impl Fn(&str) -> PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_path_buf();
    (folder, move |name: &str| root.join(name))
}

#[test]
fn pictures_are_chosen_by_time() {
    let (_folder, path) = folder();
    for name in ["a.mp4", "a.mkv", "a.avi"] {
        let path = path(name);
        write_media(&path, 20, &[]);
        // Picture i is on screen from i/10 s on; the quarters' centres are 0.25, 0.75, 1.25 and 1.75 s.
        let frames = frames_of(&path, Span::ALL).unwrap().unwrap();
        assert_eq!(
            (numbers(&frames), frames.data.len()),
            (vec![2, 7, 12, 17], 4 * 16 * 16 * 3),
            "{name}"
        );
        assert_eq!(
            numbers(&frames_of(&path, span(1.0, 1.4)).unwrap().unwrap()),
            [10, 11, 12, 13],
            "{name}"
        );
        let one = |sampler| {
            numbers(
                &read_frames(&path, span(0.55, 1.15), &sampler, 8, &Crop::CenterSquare)
                    .unwrap()
                    .unwrap(),
            )
        };
        assert_eq!(
            (one(FrameSampler::First), one(FrameSampler::Middle)),
            (vec![5], vec![8]),
            "{name}"
        );
    }
}

/// Files that store which pictures are key pictures, one of them (where FFmpeg has its encoder) H.264 with pictures that rest
/// on later ones.
#[test]
fn few_pictures_are_those_of_all_pictures() {
    let (_folder, path) = folder();
    let long = ["a.mp4", "a.mkv"].map(&path);
    long.iter().for_each(|path| write_media(path, 100, &[]));
    let config = SynthConfig { clips: 6, seed: 1 };
    generate(&path("synth"), &config, &|_| ()).unwrap();
    let synth = path("synth/clips/synth-00000.mp4");
    for path in long.iter().chain([&synth]) {
        let length = probe(path).unwrap().duration;
        for (start, end) in [
            (0.0, 1.0),
            (0.0, 0.03),
            (0.21, 0.22),
            (0.34, 0.97),
            (0.99, 1.0),
        ] {
            let span = span(start * length, end * length);
            for count in [1, 2, 3, 8, 60] {
                let open = || PictureStream::open(path, span).unwrap().unwrap();
                let times = FrameSampler::Uniform { count }.times(open().window);
                let few = open().few(&times).unwrap();
                let all = open().all(&times).unwrap();
                // Not compared by `assert_eq`, which would print them.
                assert!(few == Some(all), "{} {span:?} {count}", path.display());
            }
        }
    }
}

/// What stands in for damage is made of other pictures, and not all of them are decoded.
#[test]
fn few_pictures_of_a_damaged_stream_are_those_of_all_pictures() {
    let (_folder, path) = folder();
    let long = path("a.mp4");
    write_media(&long, 100, &[]);
    let config = SynthConfig { clips: 6, seed: 1 };
    generate(&path("synth"), &config, &|_| ()).unwrap();
    let synth = path("synth/clips/synth-00000.mp4");
    let file = path("damaged.mp4");
    for whole in [long, synth] {
        let bytes = fs::read(&whole).unwrap();
        let mut input = ffmpeg::format::input(&whole).unwrap();
        let is_picture = |stream: &ffmpeg::Stream<'_>| stream.parameters().medium() == Type::Video;
        let packets: Vec<(usize, usize)> = input
            .packets()
            .filter(|(stream, _)| is_picture(stream))
            .map(|(_, packet)| (packet.position() as usize, packet.size()))
            .collect();
        let mut refused = 0;
        for (place, size) in packets {
            let mut damaged = bytes.clone();
            for byte in &mut damaged[place + size / 2..][..3.min(size / 2)] {
                *byte ^= 0x5a;
            }
            fs::write(&file, &damaged).unwrap();
            for count in [2, 8] {
                let open = || PictureStream::open(&file, Span::ALL).unwrap().unwrap();
                let times = FrameSampler::Uniform { count }.times(open().window);
                let Some(few) = open().few(&times).unwrap() else {
                    refused += 1;
                    continue;
                };
                let all = open().all(&times).unwrap();
                assert!(few == all, "{} {place} {count}", whole.display());
            }
        }
        assert!(refused > 0, "{}: no damage was noticed", whole.display());
    }
}

#[test]
fn late_spans_are_reached_by_seeking() {
    let (_folder, path) = folder();
    for name in ["long.mp4", "long.mkv"] {
        let path = path(name);
        // 40 brightnesses repeat, so that 14.0 s shows number 140 % 40 = 20.
        write_media(&path, 160, &[]);
        assert_eq!(
            numbers(&frames_of(&path, span(14.0, 14.4)).unwrap().unwrap()),
            [20, 21, 22, 23],
            "{name}"
        );
    }
}

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

#[test]
fn samplers_and_crops_are_strict_yaml() {
    let sampler =
        |text: &str| serde_yaml::from_str::<FrameSampler>(text).map_err(|error| error.to_string());
    assert_eq!(
        sampler("{kind: uniform, count: 4}"),
        Ok(FrameSampler::Uniform { count: 4 })
    );
    assert_eq!(sampler("{kind: first}"), Ok(FrameSampler::First));
    for (text, wanted) in [
        ("{kind: middle, count: 4}", "`count` belongs to"),
        ("{kind: uniform}", "needs `count`"),
        ("{kind: uniform, count: 0}", "wanted 1 to 256"),
        ("{kind: uniform, cuont: 4}", "unknown field `cuont`"),
        ("{kind: last}", "unknown variant `last`"),
    ] {
        let message = sampler(text).unwrap_err();
        assert!(message.contains(wanted), "{message}");
    }
    let crop = |text: &str| serde_yaml::from_str::<Crop>(text).map_err(|error| error.to_string());
    for wanted in [
        Crop::Squash,
        Crop::CenterSquare,
        Crop::Face { margin: 0.25 },
    ] {
        assert_eq!(crop(&serde_yaml::to_string(&wanted).unwrap()), Ok(wanted));
    }
    assert!(crop("{kind: face}").unwrap_err().contains("needs `margin`"));
    assert!(
        crop("{kind: face, margin: -1}")
            .unwrap_err()
            .contains("from 0 to 2")
    );
    assert!(
        crop("{kind: squash, margin: 1}")
            .unwrap_err()
            .contains("belongs to")
    );
}

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
