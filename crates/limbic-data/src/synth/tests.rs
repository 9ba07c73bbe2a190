//! Properties of whole sets, with the media decoded again.

use std::collections::BTreeSet;
use std::path::Path;

use ffmpeg_next::{codec, format, frame, media};
use sha2::{Digest, Sha256};

use super::*;
use crate::audio::read_waveform;
use crate::video::{Crop, FrameSampler, read_frames};

fn make(out: &Path, clips: usize, seed: u64) -> Result<SynthReport, DataError> {
    generate(out, &SynthConfig { clips, seed }, &|_| {})
}

/// What a media file holds when decoded.
struct Decoded {
    pictures: usize,
    samples: usize,
    seconds: f64,
    /// SHA-256 of the pictures and of the sound.
    seen: Vec<u8>,
    heard: Vec<u8>,
}

fn decode(path: &Path) -> Decoded {
    let mut input = format::input(path).unwrap();
    let seconds = input.duration() as f64 / 1e6;
    let open = |kind| {
        let stream = input.streams().best(kind).unwrap();
        (
            stream.index(),
            codec::Context::from_parameters(stream.parameters())
                .unwrap()
                .decoder(),
        )
    };
    let (video_index, video) = open(media::Type::Video);
    let (audio_index, audio) = open(media::Type::Audio);
    let (mut video, mut audio) = (video.video().unwrap(), audio.audio().unwrap());
    assert_eq!(
        (video.width(), video.height()),
        (face::SIZE as u32, face::SIZE as u32)
    );
    assert_eq!(
        (audio.rate(), audio.channels()),
        (voice::SAMPLE_RATE as u32, 1)
    );

    let (mut pictures, mut samples) = (0, 0);
    let (mut seen, mut heard) = (Sha256::new(), Sha256::new());
    let mut take_pictures = |video: &mut codec::decoder::Video, hash: &mut Sha256| {
        let mut picture = frame::Video::empty();
        while video.receive_frame(&mut picture).is_ok() {
            pictures += 1;
            let stride = picture.stride(0);
            for line in picture.data(0).chunks(stride) {
                hash.update(&line[..face::SIZE]);
            }
        }
    };
    let mut take_sound = |audio: &mut codec::decoder::Audio, hash: &mut Sha256| {
        let mut sound = frame::Audio::empty();
        while audio.receive_frame(&mut sound).is_ok() {
            samples += sound.samples();
            for sample in sound.plane::<f32>(0) {
                hash.update(sample.to_le_bytes());
            }
        }
    };
    for (stream, packet) in input.packets() {
        if stream.index() == video_index {
            video.send_packet(&packet).unwrap();
            take_pictures(&mut video, &mut seen);
        } else if stream.index() == audio_index {
            audio.send_packet(&packet).unwrap();
            take_sound(&mut audio, &mut heard);
        }
    }
    video.send_eof().unwrap();
    take_pictures(&mut video, &mut seen);
    audio.send_eof().unwrap();
    take_sound(&mut audio, &mut heard);
    Decoded {
        pictures,
        samples,
        seconds,
        seen: seen.finalize().to_vec(),
        heard: heard.finalize().to_vec(),
    }
}

#[test]
fn the_same_settings_give_the_same_set() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, other] = ["one", "two", "other"].map(|name| folder.path().join(name));
    make(&one, 8, 7).unwrap();
    make(&two, 8, 7).unwrap();
    make(&other, 8, 8).unwrap();
    let text = |out: &Path| std::fs::read(out.join("manifest.jsonl")).unwrap();
    assert_eq!(text(&one), text(&two));
    assert_ne!(text(&one), text(&other));
    let mut hashes = BTreeSet::new();
    for index in 0..8 {
        let clip = |out: &Path| {
            let decoded = decode(&out.join(format!("clips/synth-{index:05}.mp4")));
            [decoded.seen, decoded.heard].concat()
        };
        assert_eq!(clip(&one), clip(&two), "clip {index}");
        assert_ne!(clip(&one), clip(&other), "clip {index}");
        hashes.insert(clip(&one));
    }
    assert_eq!(hashes.len(), 8, "every clip is one of its own");
}

#[test]
fn clips_have_both_streams_and_their_declared_length() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("set");
    let report = make(&out, 6, 3).unwrap();
    for clip in Manifest::read(&report.manifest).unwrap().clips {
        let decoded = decode(&clip.video.unwrap());
        assert!(
            (20..=30).contains(&decoded.pictures),
            "{} pictures",
            decoded.pictures
        );
        let seconds = decoded.pictures as f64 * 0.08;
        // AAC comes in blocks of 1024 samples (64 ms), and its decoder may give the priming block as well.
        assert!(
            (decoded.seconds - seconds).abs() < 0.07,
            "{} s, drawn {seconds} s",
            decoded.seconds
        );
        let excess =
            decoded.samples as i64 - (decoded.pictures * writer::SAMPLES_PER_PICTURE) as i64;
        assert!(
            (0..=2048).contains(&excess),
            "{excess} samples more than drawn"
        );
    }
}

#[test]
fn the_readers_of_this_crate_take_the_clips() {
    let folder = tempfile::tempdir().unwrap();
    let report = make(&folder.path().join("set"), 6, 4).unwrap();
    for clip in Manifest::read(&report.manifest).unwrap().clips {
        let path = clip.video.as_deref().unwrap();
        let sampler = FrameSampler::Uniform { count: 4 };
        let frames = read_frames(path, clip.span(), &sampler, 48, &Crop::Squash)
            .unwrap()
            .unwrap();
        assert_eq!(frames.data.len(), 4 * 48 * 48 * 3);
        let waveform = read_waveform(path, clip.span(), 16_000).unwrap().unwrap();
        let seconds = waveform.samples.len() as f64 / 16_000.0;
        assert!((1.5..2.6).contains(&seconds), "{seconds} s of sound");
    }
}

#[test]
fn an_ambiguous_modality_is_the_same_for_both_emotions_of_its_pair() {
    let folder = tempfile::tempdir().unwrap();
    for (index, modality) in Modality::ALL.into_iter().enumerate() {
        for (first, second) in modality.pairs() {
            let [one, other] = [first, second].map(|emotion| {
                let role = Role {
                    id: "clip".to_owned(),
                    split: Split::Train,
                    emotion,
                    speaker: 3,
                    ambiguous: [0, 1, 2].map(|m| m == index),
                };
                let clip = perform(&role, 1, folder.path()).unwrap();
                let decoded = decode(clip.video.as_deref().unwrap());
                let words = clip.transcript.unwrap().into_bytes();
                [decoded.seen, decoded.heard, words]
            });
            for m in 0..3 {
                assert_eq!(
                    one[m] == other[m],
                    m == index,
                    "{modality:?} ambiguous, {:?}",
                    Modality::ALL[m]
                );
            }
        }
    }
}

#[test]
fn the_manifest_tells_what_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("set");
    let report = make(&out, 48, 7).unwrap();
    assert_eq!(
        (report.train, report.validation, report.test, report.existed),
        (32, 8, 8, false)
    );
    let clips = Manifest::read(&report.manifest).unwrap().clips;
    assert_eq!(clips.len(), 48);
    for (clip, role) in clips.iter().zip(cast::deal(48, 7)) {
        assert_eq!(clip.ambiguous, role.ambiguous_names());
        let emotion = clip.emotion.as_deref().unwrap();
        assert_eq!(emotion, role.emotion.name());
        let reason = clip.reason.as_deref().unwrap();
        assert!(
            reason.ends_with(&format!("point to {emotion}.")) && reason.split(' ').count() <= 30,
            "{reason}"
        );
        let video =
            Modality::Video.rendition(role.emotion, clip.ambiguous.contains(&"video".to_owned()));
        assert_eq!(clip.seen.as_deref().unwrap(), Look::of(video).to_string());
        let audio =
            Modality::Audio.rendition(role.emotion, clip.ambiguous.contains(&"audio".to_owned()));
        assert_eq!(clip.heard.as_deref().unwrap(), Tone::of(audio).to_string());
    }
    for split in Split::ALL {
        let speakers: BTreeSet<_> = clips
            .iter()
            .filter(|clip| clip.split == Some(split))
            .map(|clip| &clip.speaker)
            .collect();
        let others: BTreeSet<_> = clips
            .iter()
            .filter(|clip| clip.split != Some(split))
            .map(|clip| &clip.speaker)
            .collect();
        assert!(speakers.is_disjoint(&others), "{split} shares a speaker");
    }
}

#[test]
fn a_finished_set_is_kept_and_a_different_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("set");
    assert!(!make(&out, 6, 1).unwrap().existed);
    let counted = AtomicUsize::new(0);
    let again = generate(&out, &SynthConfig { clips: 6, seed: 1 }, &|_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    assert!(again.unwrap().existed);
    assert_eq!(counted.into_inner(), 0, "a finished set is not made again");

    let seed = make(&out, 6, 2).unwrap_err().to_string();
    assert!(
        seed.contains("holds 6 clips of seed 1") && seed.contains("remove the folder"),
        "{seed}"
    );
    let clips = make(&out, 7, 1).unwrap_err().to_string();
    assert!(clips.contains("asked for were 7"), "{clips}");

    std::fs::remove_file(out.join("clips/synth-00003.mp4")).unwrap();
    let missing = make(&out, 6, 1).unwrap_err().to_string();
    assert!(missing.contains("synth-00003.mp4` is missing"), "{missing}");
}

#[test]
fn foreign_files_and_impossible_sizes_are_refused_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("set");
    let few = make(&out, 5, 1).unwrap_err().to_string();
    assert!(
        few.contains("asked for 5 clips, possible are 6 to"),
        "{few}"
    );
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("thesis.txt"), "mine").unwrap();
    let foreign = make(&out, 6, 1).unwrap_err().to_string();
    assert!(
        foreign.contains("choose an empty or new folder"),
        "{foreign}"
    );
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["set"]);
    std::fs::remove_file(out.join("thesis.txt")).unwrap();
    assert!(
        !make(&out, 6, 1).unwrap().existed,
        "an empty folder is filled"
    );
}
