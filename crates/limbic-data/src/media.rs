//! Opening a media file and walking through one of its streams, for pictures and sound alike. Times are seconds since the first
//! packet of the file, so that pictures and sound of one file share a clock. FFmpeg reads local files only, and says nothing on
//! stderr.

use std::fs;
use std::io::Read;
use std::ops::{ControlFlow, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Once;

use ffmpeg_next as ffmpeg;

use ffmpeg::codec::context::Context as Codec;
use ffmpeg::codec::decoder::{Decoder, Opened};
use ffmpeg::format::context::Input;
use ffmpeg::format::stream::{Disposition, Stream};
use ffmpeg::media::Type;
use ffmpeg::util::frame::Frame;
use ffmpeg::util::log;
use ffmpeg::{Dictionary, Packet, Rational};

use crate::clip::Span;
use crate::error::{DataError, Reason};

/// Widest and highest picture that is decoded, in pixels.
pub const MAX_DIMENSION: u32 = 8192;
/// Longest span that is decoded, in seconds.
pub const MAX_SECONDS: f64 = 600.0;

/// Spans that begin later than this are reached by seeking to this much before them, in seconds.
const SEEK_MARGIN: f64 = 10.0;
/// The file may end this much before the asked end without counting as truncated: a share of the span, and at least seconds.
const SLACK_SHARE: f64 = 0.1;
const SLACK_SECONDS: f64 = 0.1;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MediaInfo {
    /// Length in seconds: as the container declares it, or else the end of the last packet.
    pub duration: f64,
    /// Width and height of the pictures in pixels, if there are any; cover art does not count.
    pub video: Option<(u32, u32)>,
    /// Sample rate of the sound in Hz, if there is any.
    pub audio: Option<u32>,
}

/// Looks into a file without decoding it.
///
/// # Errors
/// [`DataError::Media`] if the file is missing, empty or no media.
pub fn probe(path: &Path) -> Result<MediaInfo, DataError> {
    let media = Media::open(path)?;
    let video = match media.stream(Type::Video) {
        Some(stream) => Some(
            media
                .decoder(&stream)?
                .video()
                .map_err(|error| media.undecodable(error))?,
        ),
        None => None,
    };
    let audio = match media.stream(Type::Audio) {
        Some(stream) => Some(
            media
                .decoder(&stream)?
                .audio()
                .map_err(|error| media.undecodable(error))?,
        ),
        None => None,
    };
    Ok(MediaInfo {
        duration: media.duration()?,
        video: video.map(|decoder| (decoder.width(), decoder.height())),
        audio: audio.map(|decoder| decoder.rate()),
    })
}

/// An open media file.
pub(crate) struct Media {
    path: PathBuf,
    input: Input,
    /// Container time of second zero.
    origin: f64,
}

/// A packet with the time from which its picture is on screen.
pub(crate) struct Stored {
    pub(crate) packet: Packet,
    /// In ticks of the stream.
    pub(crate) stamp: i64,
    /// In seconds.
    pub(crate) time: f64,
}

/// The seconds `[start, end)` that are decoded; `wanted_end` is what the manifest or the container promises.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) start: f64,
    pub(crate) end: f64,
    wanted_end: f64,
}

impl Window {
    /// Checks `span` against the bounds and the file's duration, in seconds; `nothing` is the reason if it is empty.
    pub(crate) fn new(
        path: &Path,
        span: Span,
        duration: f64,
        nothing: Reason,
    ) -> Result<Self, DataError> {
        let start = span.start;
        let wanted_end = span.end.unwrap_or(duration);
        let end = wanted_end.min(duration);
        if end <= start {
            let detail = format!(
                "the clip starts at {start} s but the file ends at {duration:.3} s; correct `start`"
            );
            return Err(DataError::media(path, nothing, detail));
        }
        if end - start > MAX_SECONDS {
            let detail = format!(
                "the clip lasts {:.0} s, at most {MAX_SECONDS} s are decoded; give `start` and `end` or cut the file",
                end - start
            );
            return Err(DataError::media(path, Reason::TooLong, detail));
        }
        let window = Window {
            start,
            end,
            wanted_end,
        };
        window.check_reached(path, duration)?;
        Ok(window)
    }

    /// Whether a file that ends at `reached` seconds holds what was wanted of it.
    fn check_reached(&self, path: &Path, reached: f64) -> Result<(), DataError> {
        let slack = (SLACK_SHARE * (self.wanted_end - self.start)).max(SLACK_SECONDS);
        if reached + slack >= self.wanted_end {
            return Ok(());
        }
        let detail = format!(
            "it ends after {reached:.2} s, wanted {:.2} s; copy the file again or correct `end`",
            self.wanted_end
        );
        Err(DataError::media(path, Reason::Truncated, detail))
    }
}

impl Media {
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let size = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(DataError::media(
                    path,
                    Reason::NotMedia,
                    "it is a folder; name a media file",
                ));
            }
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let detail =
                    "there is no such file; media paths are relative to the manifest's folder";
                return Err(DataError::media(path, Reason::Missing, detail));
            }
            Err(error) => return Err(DataError::io("read", path, error)),
        };
        if size == 0 {
            return Err(DataError::media(
                path,
                Reason::Empty,
                "the file has zero bytes; copy or download it again",
            ));
        }
        let input = open_input(path)?;
        let origin = input
            .streams()
            .filter(|stream| is_track(stream))
            .filter_map(|stream| seconds(stream.start_time(), stream.time_base()))
            .reduce(f64::min)
            .unwrap_or(0.0);
        if !input.streams().any(|stream| is_track(&stream)) {
            let detail =
                "it has neither a video nor an audio stream; remove the clip or name another file";
            return Err(DataError::media(path, Reason::NotMedia, detail));
        }
        Ok(Media {
            path: path.to_path_buf(),
            input,
            origin,
        })
    }

    /// The stream of this kind that FFmpeg would play; cover art is no video.
    pub(crate) fn stream(&self, kind: Type) -> Option<Stream<'_>> {
        self.input.streams().best(kind).filter(is_track)
    }

    pub(crate) fn decoder(&self, stream: &Stream<'_>) -> Result<Decoder, DataError> {
        let mut decoder = Codec::from_parameters(stream.parameters())
            .map_err(|error| self.undecodable(error))?
            .decoder();
        decoder.set_packet_time_base(stream.time_base());
        Ok(decoder)
    }

    /// The part of the file that `span` asks for; `nothing` is the reason if that part is empty.
    pub(crate) fn window(&self, span: Span, nothing: Reason) -> Result<Window, DataError> {
        Window::new(&self.path, span, self.duration()?, nothing)
    }

    fn duration(&self) -> Result<f64, DataError> {
        match declared_duration(&self.input) {
            Some(duration) => Ok(duration),
            None => self.measured_duration(),
        }
    }

    /// The end of the last packet, in seconds: the duration of a file that declares none, such as a browser's WebM recording.
    fn measured_duration(&self) -> Result<f64, DataError> {
        let mut media = Media::open(&self.path)?;
        let origin = media.origin;
        let ends = media
            .input
            .packets()
            .filter_map(|(stream, packet)| packet_end(&stream, &packet));
        Ok(ends.fold(0.0, |last, end| last.max(end - origin)))
    }

    /// Decodes stream `index` from shortly before `window.start` and gives each frame with its time to `visit` until that
    /// breaks or the file ends.
    ///
    /// A packet that does not decode is skipped: FFmpeg players do the same, and what is missing in the end is an error here.
    pub(crate) fn decode<F: DerefMut<Target = Frame>>(
        &mut self,
        index: usize,
        decoder: &mut Opened,
        window: Window,
        frame: &mut F,
        mut visit: impl FnMut(&mut F, f64) -> Result<ControlFlow<()>, DataError>,
    ) -> Result<(), DataError> {
        self.approach(window)?;
        let origin = self.origin;
        let (mut reached, mut frames, mut broken) = (0.0_f64, 0_usize, None);
        let mut time = window.start;
        let mut drain =
            |decoder: &mut Opened, time_base: Rational| -> Result<ControlFlow<()>, DataError> {
                while decoder.receive_frame(frame).is_ok() {
                    frames += 1;
                    // A frame without a timestamp is taken to follow its predecessor at once.
                    if let Some(stamp) = frame
                        .timestamp()
                        .and_then(|stamp| seconds(stamp, time_base))
                    {
                        time = stamp - origin;
                    }
                    if visit(frame, time)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            };
        let mut time_base = Rational(1, 1);
        for (stream, packet) in self.input.packets() {
            reached = reached.max(packet_end(&stream, &packet).unwrap_or(origin) - origin);
            if stream.index() != index {
                continue;
            }
            time_base = stream.time_base();
            if let Err(error) = decoder.send_packet(&packet) {
                broken = Some(error);
            }
            if drain(decoder, time_base)?.is_break() {
                return Ok(());
            }
        }
        // Decoders hold frames back until they are told that nothing follows; one that refuses holds none.
        if decoder.send_eof().is_ok() && drain(decoder, time_base)?.is_break() {
            return Ok(());
        }
        window.check_reached(&self.path, reached)?;
        match broken {
            Some(error) if frames == 0 => Err(self.undecodable(error)),
            _ => Ok(()),
        }
    }

    /// Goes to shortly before `window.start`.
    fn approach(&mut self, window: Window) -> Result<(), DataError> {
        if window.start <= SEEK_MARGIN {
            return Ok(());
        }
        let to = ((window.start - SEEK_MARGIN + self.origin) * f64::from(ffmpeg::ffi::AV_TIME_BASE))
            as i64;
        if self.input.seek(to, ..to).is_err() {
            // A failed seek leaves the demuxer anywhere.
            self.input = open_input(&self.path)?;
        }
        Ok(())
    }

    /// Whether the container itself stores the times of all pictures, and which of them are key pictures.
    pub(crate) fn is_indexed(&self) -> bool {
        let format = self.input.format();
        matches!(format.name(), "mov,mp4,m4a,3gp,3g2,mj2" | "matroska,webm")
    }

    /// The packets of stream `index` from shortly before `window.start` until all that can be shown at `last` seconds are
    /// there, in the order of decoding. `None` if they are more than `most` bytes, or one has no time.
    pub(crate) fn packets_until(
        &mut self,
        index: usize,
        window: Window,
        last: f64,
        most: usize,
    ) -> Result<Option<Vec<Stored>>, DataError> {
        self.approach(window)?;
        let origin = self.origin;
        let (mut reached, mut bytes, mut packets) = (0.0_f64, 0, Vec::new());
        let mut is_passed = false;
        for (stream, packet) in self.input.packets() {
            reached = reached.max(packet_end(&stream, &packet).unwrap_or(origin) - origin);
            if stream.index() != index {
                continue;
            }
            let (Some(stamp), Some(decoded)) = (packet.pts(), packet.dts()) else {
                return Ok(None);
            };
            let of = |stamp| seconds(stamp, stream.time_base()).map(|time| time - origin);
            let (Some(time), Some(decoded)) = (of(stamp), of(decoded)) else {
                return Ok(None);
            };
            is_passed |= time > last;
            bytes += packet.size();
            if bytes > most {
                return Ok(None);
            }
            packets.push(Stored {
                packet,
                stamp,
                time,
            });
            // Nothing is shown before it is decoded.
            if decoded > last {
                break;
            }
        }
        if !is_passed {
            window.check_reached(&self.path, reached)?;
        }
        Ok(Some(packets))
    }

    pub(crate) fn undecodable(&self, error: ffmpeg::Error) -> DataError {
        let detail = format!(
            "FFmpeg cannot decode it: {error}; convert it to a common format such as MP4 or WAV"
        );
        DataError::media(&self.path, Reason::Decode, detail)
    }
}

fn open_input(path: &Path) -> Result<Input, DataError> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| log::set_level(log::Level::Quiet));
    let Some(text) = path.to_str() else {
        return Err(DataError::media(
            path,
            Reason::NotMedia,
            "its path is not UTF-8; rename it",
        ));
    };
    // The prefix keeps a name such as `http:x.mp4` from being taken for an address, the list keeps playlists off the network.
    let mut options = Dictionary::new();
    options.set("protocol_whitelist", "file");
    ffmpeg::format::input_with_dictionary(&format!("file:{text}"), options).map_err(|error| {
        // Some of FFmpeg's errors have no words.
        let why = match error.to_string() {
            why if why.is_empty() => String::new(),
            why => format!(" ({why})"),
        };
        match fs::File::open(path).and_then(container) {
            Err(error) => DataError::io("read", path, error),
            Ok(Some(name)) => {
                let detail = format!(
                    "it begins like {name} but FFmpeg cannot open it{why}; copy the file again"
                );
                DataError::media(path, Reason::Truncated, detail)
            }
            Ok(None) => {
                let detail =
                    format!("FFmpeg does not know its format{why}; name an audio or video file");
                DataError::media(path, Reason::NotMedia, detail)
            }
        }
    })
}

/// The container that the file's first bytes announce. An MP4 file whose index at the end is cut off is known only by them.
fn container(file: fs::File) -> std::io::Result<Option<&'static str>> {
    let mut head = Vec::new();
    file.take(12).read_to_end(&mut head)?;
    let starts = |offset: usize, magic: &[u8]| {
        head.get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    Ok(match () {
        () if starts(4, b"ftyp") => Some("an MP4 file"),
        () if starts(0, b"RIFF") => Some("a WAV or AVI file"),
        () if starts(0, b"FLV") => Some("an FLV file"),
        () if starts(0, &[0x1a, 0x45, 0xdf, 0xa3]) => Some("a Matroska or WebM file"),
        () if starts(0, b"OggS") => Some("an Ogg file"),
        () if starts(0, b"fLaC") => Some("a FLAC file"),
        () if starts(0, b"ID3") => Some("an MP3 file"),
        () => None,
    })
}

/// Whether the stream is sound or moving pictures.
fn is_track(stream: &Stream<'_>) -> bool {
    matches!(stream.parameters().medium(), Type::Video | Type::Audio)
        && stream.parameters().id() != ffmpeg::codec::Id::None
        && !stream.disposition().contains(Disposition::ATTACHED_PIC)
}

/// The duration that the container promises, in seconds.
///
/// Raw MP3 and AAC streams promise none: FFmpeg guesses one from the bit rate, which is far off for some files. Where an AVI
/// file's index is cut off it guesses from the file's size, so the header's count of pictures is asked.
fn declared_duration(input: &Input) -> Option<f64> {
    match input.format().name() {
        "mp3" | "aac" => None,
        "avi" => {
            let promised =
                |stream: Stream<'_>| stream.frames() as f64 / f64::from(stream.avg_frame_rate());
            let video = input
                .streams()
                .best(Type::Video)
                .map(promised)
                .filter(|seconds| seconds.is_finite());
            duration(input).into_iter().chain(video).reduce(f64::max)
        }
        _ => duration(input),
    }
}

fn duration(input: &Input) -> Option<f64> {
    (input.duration() > 0).then(|| input.duration() as f64 / f64::from(ffmpeg::ffi::AV_TIME_BASE))
}

/// The end of a packet in container time; one that declares no duration is taken to last one frame.
fn packet_end(stream: &Stream<'_>, packet: &Packet) -> Option<f64> {
    let start = seconds(packet.pts().or(packet.dts())?, stream.time_base())?;
    let rate = f64::from(stream.avg_frame_rate());
    let length = match packet.duration() {
        ticks if ticks > 0 => seconds(ticks, stream.time_base())?,
        _ if rate.is_finite() && rate > 0.0 => 1.0 / rate,
        _ => 0.0,
    };
    Some(start + length)
}

fn seconds(ticks: i64, time_base: Rational) -> Option<f64> {
    (ticks != ffmpeg::ffi::AV_NOPTS_VALUE).then(|| ticks as f64 * f64::from(time_base))
}
