//! Which pictures are read.

use std::fs;

use ffmpeg_next as ffmpeg;

use ffmpeg::media::Type;

use super::files::{folder, write_media};
use super::{frames_of, numbers, span};
use crate::clip::Span;
use crate::media::probe;
use crate::picture_stream::PictureStream;
use crate::synth::{SynthConfig, generate};
use crate::video::{Crop, FrameSampler, read_frames};

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
