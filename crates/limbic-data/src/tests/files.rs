//! Media files that tests write.

use std::f64::consts::TAU;
use std::path::{Path, PathBuf};

use ffmpeg_next as ffmpeg;

use ffmpeg::channel_layout::ChannelLayout;
use ffmpeg::codec::{Context, Flags, Id};
use ffmpeg::format::context::Output;
use ffmpeg::format::{Pixel, Sample, sample};
use ffmpeg::frame;
use ffmpeg::{Packet, Rational, encoder};
use hound::{SampleFormat, WavSpec, WavWriter};

const RATE: i32 = 10;
const SOUND_RATE: i32 = 16_000;

/// Writes a 64x48 video of `pictures` evenly gray pictures at ten a second, the first of luma 20 and each 4 brighter than the
/// one before, over and over from the 40th on; and, if `samples` is not empty, 16 kHz PCM sound. The extension chooses the container.
pub(crate) fn write_media(path: &Path, pictures: usize, samples: &[i16]) {
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

pub(super) fn sine(rate: u32, count: usize, frequency: f64) -> Vec<f32> {
    (0..count)
        .map(|index| (0.5 * (TAU * frequency * index as f64 / f64::from(rate)).sin()) as f32)
        .collect()
}

pub(super) fn write_wav(
    path: &Path,
    bits: u16,
    format: SampleFormat,
    channels: u16,
    samples: &[f32],
) {
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

pub(super) fn folder() -> (tempfile::TempDir, impl Fn(&str) -> PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_path_buf();
    (folder, move |name: &str| root.join(name))
}
