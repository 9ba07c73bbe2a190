//! Encodes pictures and samples as MP4: H.264 (MPEG-4 part 2 where FFmpeg was built without x264) and AAC.
//!
//! One encoder thread a clip, so that the bytes do not depend on the number of cores.

use std::path::Path;
use std::sync::Once;

use ffmpeg_next::channel_layout::ChannelLayout;
use ffmpeg_next::codec::{Context, Flags, Id, threading};
use ffmpeg_next::format::{self, Pixel, Sample, context::Output, sample};
use ffmpeg_next::software::scaling;
use ffmpeg_next::{Dictionary, Error, Packet, Rational, encoder, frame};

use super::voice::SAMPLE_RATE;

/// Duration of a picture (s): 12.5 pictures a second.
pub(super) const PICTURE: Rational = Rational(2, 25);

/// Samples that sound while one picture is shown.
pub(super) const SAMPLES_PER_PICTURE: usize = SAMPLE_RATE * 2 / 25;

/// Writes `pictures` (RGB bytes `[size, size, 3]`) and `samples` (mono, at [`SAMPLE_RATE`]) to `path`.
pub(super) fn write_mp4(
    path: &Path,
    size: usize,
    pictures: &[Vec<u8>],
    samples: &[f32],
) -> Result<(), Error> {
    static QUIET: Once = Once::new();
    // Encoders report on standard error, which belongs to the program and not to a library.
    QUIET.call_once(|| ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Quiet));
    let mut output = format::output(path)?;
    let mut video = open_video(size)?;
    let mut audio = open_audio()?;
    output.add_stream_with(&video)?.set_time_base(PICTURE);
    output
        .add_stream_with(&audio)?
        .set_time_base((1, SAMPLE_RATE as i32));
    output.write_header()?;

    let (width, height) = (size as u32, size as u32);
    let mut to_yuv = scaling::Context::get(
        Pixel::RGB24,
        width,
        height,
        Pixel::YUV420P,
        width,
        height,
        scaling::Flags::BILINEAR,
    )?;
    let mut rgb = frame::Video::new(Pixel::RGB24, width, height);
    for (index, picture) in pictures.iter().enumerate() {
        let stride = rgb.stride(0);
        for (line, row) in rgb
            .data_mut(0)
            .chunks_mut(stride)
            .zip(picture.chunks(size * 3))
        {
            line[..row.len()].copy_from_slice(row);
        }
        let mut yuv = frame::Video::empty();
        to_yuv.run(&rgb, &mut yuv)?;
        yuv.set_pts(Some(index as i64));
        video.send_frame(&yuv)?;
        drain(&mut video, &mut output, 0, PICTURE)?;
    }
    video.send_eof()?;
    drain(&mut video, &mut output, 0, PICTURE)?;

    let tick = Rational(1, SAMPLE_RATE as i32);
    let block = audio.frame_size() as usize;
    for (index, part) in samples.chunks(block).enumerate() {
        let mut sound = frame::Audio::new(
            Sample::F32(sample::Type::Planar),
            part.len(),
            ChannelLayout::MONO,
        );
        sound.set_rate(SAMPLE_RATE as u32);
        sound.set_pts(Some((index * block) as i64));
        sound.plane_mut(0).copy_from_slice(part);
        audio.send_frame(&sound)?;
        drain(&mut audio, &mut output, 1, tick)?;
    }
    audio.send_eof()?;
    drain(&mut audio, &mut output, 1, tick)?;
    output.write_trailer()
}

fn open_video(size: usize) -> Result<encoder::video::Encoder, Error> {
    let x264 = encoder::find_by_name("libx264");
    let codec = x264
        .or_else(|| encoder::find(Id::MPEG4))
        .ok_or(Error::EncoderNotFound)?;
    let mut context = Context::new_with_codec(codec);
    context.set_threading(threading::Config::count(1));
    context.set_flags(Flags::GLOBAL_HEADER);
    let mut video = context.encoder().video()?;
    video.set_width(size as u32);
    video.set_height(size as u32);
    video.set_format(Pixel::YUV420P);
    video.set_time_base(PICTURE);
    video.set_frame_rate(Some(PICTURE.invert()));
    let mut options = Dictionary::new();
    if x264.is_some() {
        options.set("preset", "veryfast");
        options.set("crf", "20");
        // Its vector code gives other bits from run to run on pictures of this size when two encoders run at once
        // (seen with x264 0.164), and planning ahead is worth nothing in two seconds.
        options.set("mbtree", "0");
    } else {
        video.set_bit_rate(400_000);
    }
    video.open_with(options)
}

fn open_audio() -> Result<encoder::audio::Encoder, Error> {
    let codec = encoder::find(Id::AAC).ok_or(Error::EncoderNotFound)?;
    let mut context = Context::new_with_codec(codec);
    context.set_threading(threading::Config::count(1));
    context.set_flags(Flags::GLOBAL_HEADER);
    let mut audio = context.encoder().audio()?;
    audio.set_rate(SAMPLE_RATE as i32);
    audio.set_channel_layout(ChannelLayout::MONO);
    audio.set_format(Sample::F32(sample::Type::Planar));
    audio.set_time_base((1, SAMPLE_RATE as i32));
    audio.set_bit_rate(48_000);
    audio.open()
}

/// Moves the packets that the encoder has ready into the file.
fn drain(
    encoder: &mut encoder::Encoder,
    output: &mut Output,
    stream: usize,
    tick: Rational,
) -> Result<(), Error> {
    let target = output
        .stream(stream)
        .map_or(tick, |stream| stream.time_base());
    let mut packet = Packet::empty();
    loop {
        match encoder.receive_packet(&mut packet) {
            Ok(()) => {
                packet.set_stream(stream);
                if packet.duration() == 0 {
                    // x264 leaves it open, and the last picture would be shown for no time.
                    packet.set_duration(1);
                }
                packet.rescale_ts(tick, target);
                packet.write_interleaved(output)?;
            }
            Err(Error::Other {
                errno: ffmpeg_next::error::EAGAIN,
            })
            | Err(Error::Eof) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
