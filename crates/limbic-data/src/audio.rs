//! Mono sound of a clip at the rate that its encoder asks for. WAV files go through hound, which notices a short data chunk;
//! everything else goes through FFmpeg. Channels are averaged.

use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::Path;

use ffmpeg_next as ffmpeg;

use ffmpeg::format::Sample;
use ffmpeg::media::Type;
use ffmpeg::util::frame::audio::Audio;
use hound::{SampleFormat, WavReader};
use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Resampler};

use crate::clip::Span;
use crate::error::{DataError, Reason};
use crate::media::{Media, Window};

/// Sample rates beyond these, in Hz, come from damaged headers.
const MIN_RATE: u32 = 1_000;
const MAX_RATE: u32 = 768_000;

/// Samples that the resampler transforms at once, at least: more make its filter steeper.
const BLOCK: usize = 1024;

/// Mono sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Waveform {
    /// Samples a second, in Hz.
    pub sample_rate: u32,
    /// Amplitudes, full scale from -1 to 1; finite.
    pub samples: Vec<f32>,
}

/// Decodes the sound within `span`, averages its channels and resamples it to `sample_rate` Hz.
///
/// A file named `.wav` is read by hound; if its content is a kind of WAV that hound does not read (companded, 64-bit float) or no
/// WAV at all, FFmpeg reads it. `None` if the file has no audio stream.
///
/// # Errors
/// [`DataError::Media`] with the [`Reason`] if the sound cannot be had.
pub fn read_waveform(
    path: &Path,
    span: Span,
    sample_rate: u32,
) -> Result<Option<Waveform>, DataError> {
    let is_wav = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("wav"));
    let read = if is_wav { read_wav(path, span)? } else { None };
    let waveform = match read {
        Some(waveform) => waveform,
        None => match read_any(path, span)? {
            Some(waveform) => waveform,
            None => return Ok(None),
        },
    };
    if !waveform.samples.is_empty() && !(MIN_RATE..=MAX_RATE).contains(&waveform.sample_rate) {
        let got = waveform.sample_rate;
        let detail = format!(
            "its sample rate is {got} Hz, wanted {MIN_RATE} to {MAX_RATE}; convert the file again"
        );
        return Err(DataError::media(path, Reason::Decode, detail));
    }
    if waveform.samples.is_empty() {
        let detail = format!("no sample from {} s on; correct `start`", span.start);
        return Err(DataError::media(path, Reason::NoSamples, detail));
    }
    if let Some(index) = waveform
        .samples
        .iter()
        .position(|sample| !sample.is_finite())
    {
        let detail = format!(
            "sample {index} of the clip is {}; convert the file again",
            waveform.samples[index]
        );
        return Err(DataError::media(path, Reason::Decode, detail));
    }
    Ok(Some(resample(&waveform, sample_rate)))
}

/// The same sound at another rate: `round(n * to / from)` samples, without delay.
///
/// # Panics
/// If a rate is 0.
pub fn resample(waveform: &Waveform, sample_rate: u32) -> Waveform {
    let (from, to) = (waveform.sample_rate, sample_rate);
    assert!(from > 0 && to > 0, "sample rates are {from} and {to} Hz");
    if from == to || waveform.samples.is_empty() {
        return Waveform {
            sample_rate,
            samples: waveform.samples.clone(),
        };
    }
    let length = waveform.samples.len();
    let wanted = (length as f64 * f64::from(to) / f64::from(from)).round() as usize;
    // The resampler's delay is half a block. Blocks are multiples of the reduced rate; an even multiple makes the delay a whole
    // number of samples at both rates, so that all of it can be removed.
    let reduced = (from / greatest_common_divisor(from, to)) as usize;
    let block = 2 * reduced * BLOCK.div_ceil(2 * reduced);
    // Rates and block are not zero, and buffers are as long as they say: nothing that could fail depends on the file.
    let mut resampler = Fft::<f32>::new(from as usize, to as usize, block, 1, FixedSync::Both)
        .unwrap_or_else(|error| panic!("resampler from {from} to {to} Hz: {error}"));
    let input = SequentialSlice::new(&waveform.samples, 1, length)
        .unwrap_or_else(|error| panic!("{length} samples as one channel: {error}"));
    let output = resampler
        .process_all(&input, length, None)
        .unwrap_or_else(|error| {
            panic!("resampling {length} samples from {from} to {to} Hz: {error}")
        });
    let mut samples = output.take_data();
    // The resampler rounds the length up.
    samples.resize(wanted, 0.0);
    Waveform {
        sample_rate,
        samples,
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// `None` if hound does not read this kind of file.
fn read_wav(path: &Path, span: Span) -> Result<Option<Waveform>, DataError> {
    let Ok(file) = File::open(path) else {
        // FFmpeg's path says which of missing, empty and unreadable it is.
        return Ok(None);
    };
    let mut reader = match WavReader::new(BufReader::new(file)) {
        Ok(reader) => reader,
        Err(_) => return Ok(None),
    };
    let spec = reader.spec();
    let rate = f64::from(spec.sample_rate);
    if rate == 0.0 {
        return Err(DataError::media(
            path,
            Reason::Decode,
            "its sample rate is 0 Hz; convert the file again",
        ));
    }
    let declared = f64::from(reader.duration()) / rate;
    let window = Window::new(path, span, declared, Reason::NoSamples)?;
    let first = ((window.start * rate).round() as u32).min(reader.duration());
    let count = ((window.end * rate).round() as u32).saturating_sub(first) as usize;
    reader
        .seek(first)
        .map_err(|error| DataError::io("read", path, error))?;
    let channels = usize::from(spec.channels);
    let wanted = count * channels;
    let interleaved = match spec.sample_format {
        SampleFormat::Float => reader
            .samples::<f32>()
            .take(wanted)
            .collect::<Result<Vec<f32>, _>>(),
        SampleFormat::Int => {
            let full_scale = 2.0_f32.powi(i32::from(spec.bits_per_sample) - 1);
            let samples = reader.samples::<i32>().take(wanted);
            samples
                .map(|sample| sample.map(|sample| sample as f32 / full_scale))
                .collect()
        }
    };
    let interleaved = match interleaved {
        Ok(samples) => samples,
        Err(hound::Error::IoError(_)) => {
            let detail = format!(
                "its header promises {declared:.2} s of sound, the file is shorter; copy it again"
            );
            return Err(DataError::media(path, Reason::Truncated, detail));
        }
        Err(_) => return Ok(None),
    };
    let mean = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
    let samples = interleaved.chunks_exact(channels).map(mean).collect();
    Ok(Some(Waveform {
        sample_rate: spec.sample_rate,
        samples,
    }))
}

/// `None` if the file has no audio stream.
fn read_any(path: &Path, span: Span) -> Result<Option<Waveform>, DataError> {
    let mut media = Media::open(path)?;
    let Some(stream) = media.stream(Type::Audio) else {
        return Ok(None);
    };
    let index = stream.index();
    let mut decoder = media
        .decoder(&stream)?
        .audio()
        .map_err(|error| media.undecodable(error))?;
    let window = media.window(span, Reason::NoSamples)?;

    let mut sample_rate = 0;
    let mut samples = Vec::new();
    media.decode(index, &mut decoder, window, &mut Audio::empty(), |frame, time| {
        let rate = f64::from(frame.rate());
        if sample_rate == 0 {
            sample_rate = frame.rate();
        }
        if frame.rate() != sample_rate || rate == 0.0 {
            let detail = format!("its sample rate changes from {sample_rate} to {rate} Hz; convert the file to one rate");
            return Err(DataError::media(path, Reason::Decode, detail));
        }
        let position = |moment: f64| ((moment - time) * rate).round().clamp(0.0, frame.samples() as f64) as usize;
        let (first, last) = (position(window.start), position(window.end));
        for sample in first..last {
            samples.push(mean_of_channels(frame, sample).ok_or_else(|| {
                let detail = format!("its sample format {:?} is unknown; convert it to WAV", frame.format());
                DataError::media(path, Reason::Decode, detail)
            })?);
        }
        Ok(if time >= window.end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(Some(Waveform {
        sample_rate,
        samples,
    }))
}

/// The mean of one moment's channels, full scale from -1 to 1; `None` for a sample format that is none of FFmpeg's.
fn mean_of_channels(frame: &Audio, index: usize) -> Option<f32> {
    let channels = usize::from(frame.channels());
    let bytes = frame.format().bytes();
    let mut sum = 0.0_f64;
    for channel in 0..channels {
        let (plane, place) = if frame.is_planar() {
            (channel, index)
        } else {
            (0, index * channels + channel)
        };
        let raw = frame.data(plane).get(place * bytes..(place + 1) * bytes)?;
        sum += match frame.format() {
            Sample::U8(_) => (f64::from(raw[0]) - 128.0) / 128.0,
            Sample::I16(_) => f64::from(i16::from_ne_bytes(raw.try_into().ok()?)) / 32_768.0,
            Sample::I32(_) => f64::from(i32::from_ne_bytes(raw.try_into().ok()?)) / 2_147_483_648.0,
            Sample::I64(_) => {
                i64::from_ne_bytes(raw.try_into().ok()?) as f64 / 9_223_372_036_854_775_808.0
            }
            Sample::F32(_) => f64::from(f32::from_ne_bytes(raw.try_into().ok()?)),
            Sample::F64(_) => f64::from_ne_bytes(raw.try_into().ok()?),
            Sample::None => return None,
        };
    }
    (channels > 0).then(|| (sum / channels as f64) as f32)
}
