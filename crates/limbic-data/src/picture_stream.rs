//! The pictures of an open file, at given moments.

use std::ops::ControlFlow;
use std::path::Path;

use ffmpeg_next as ffmpeg;

use ffmpeg::codec::packet::side_data::Type as SideData;
use ffmpeg::media::Type;
use ffmpeg::util::frame::video::Video;

use crate::clip::Span;
use crate::error::{DataError, Reason};
use crate::few;
use crate::media::{MAX_DIMENSION, Media, Window};
use crate::picture::{Picture, PictureMaker, quarter_turns};

/// An open file at its pictures.
pub(crate) struct PictureStream<'a> {
    path: &'a Path,
    media: Media,
    index: usize,
    decoder: ffmpeg::decoder::Video,
    pub(crate) window: Window,
    /// Right angles by which pictures are to be turned.
    turns: u32,
    maker: PictureMaker,
}

impl<'a> PictureStream<'a> {
    /// `None` if the file has no video stream.
    pub(crate) fn open(path: &'a Path, span: Span) -> Result<Option<Self>, DataError> {
        let media = Media::open(path)?;
        let Some(stream) = media.stream(Type::Video) else {
            return Ok(None);
        };
        let turns = stream
            .side_data()
            .find(|data| data.kind() == SideData::DisplayMatrix)
            .map_or(0, |data| quarter_turns(data.data()));
        let decoder = media
            .decoder(&stream)?
            .video()
            .map_err(|error| media.undecodable(error))?;
        check_dimensions(path, decoder.width(), decoder.height())?;
        Ok(Some(Self {
            path,
            index: stream.index(),
            window: media.window(span, Reason::NoFrames)?,
            decoder,
            turns,
            maker: PictureMaker::new(),
            media,
        }))
    }

    /// Whether the file says enough about itself for [`few`](Self::few).
    pub(crate) fn is_indexed(&self) -> bool {
        self.media.is_indexed()
    }

    /// The pictures at `times`, where they can be had without the others.
    pub(crate) fn few(&mut self, times: &[f64]) -> Result<Option<Vec<Picture>>, DataError> {
        let Self {
            path,
            media,
            index,
            decoder,
            window,
            turns,
            maker,
        } = self;
        let convert = |frame: &Video| picture_of(path, maker, frame, *turns);
        few::pictures_at(media, *index, decoder, *window, times, convert)
    }

    /// The pictures at `times`, of all that are decoded.
    pub(crate) fn all(self, times: &[f64]) -> Result<Vec<Picture>, DataError> {
        let Self {
            path,
            mut media,
            index,
            mut decoder,
            window,
            turns,
            mut maker,
        } = self;
        let mut pictures: Vec<Picture> = Vec::with_capacity(times.len());
        let mut times = times.iter().peekable();
        // The picture on screen; a picture's end is known only when the next one comes.
        let mut shown = Video::empty();
        let mut has_shown = false;
        media.decode(
            index,
            &mut decoder,
            window,
            &mut Video::empty(),
            |frame, time| {
                check_dimensions(path, frame.width(), frame.height())?;
                // What precedes the first picture is shown by it.
                let on_screen = if has_shown { &shown } else { &*frame };
                let mut is_made = false;
                while times.next_if(|wanted| **wanted < time).is_some() {
                    let picture = match pictures.last() {
                        Some(picture) if is_made => picture.clone(),
                        _ => picture_of(path, &mut maker, on_screen, turns)?,
                    };
                    pictures.push(picture);
                    is_made = true;
                }
                std::mem::swap(&mut shown, frame);
                has_shown = true;
                Ok(if times.peek().is_none() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                })
            },
        )?;
        if !has_shown {
            let detail = format!(
                "no picture between {:.3} s and {:.3} s",
                window.start, window.end
            );
            return Err(DataError::media(path, Reason::NoFrames, detail));
        }
        if times.peek().is_some() {
            let last = picture_of(path, &mut maker, &shown, turns)?;
            pictures.extend(times.map(|_| last.clone()));
        }
        Ok(pictures)
    }
}

fn picture_of(
    path: &Path,
    maker: &mut PictureMaker,
    frame: &Video,
    turns: u32,
) -> Result<Picture, DataError> {
    check_dimensions(path, frame.width(), frame.height())?;
    let picture = maker.picture(frame).map_err(|error| {
        DataError::media(
            path,
            Reason::Decode,
            format!("its pixels cannot be converted: {error}"),
        )
    })?;
    Ok(picture.turned(turns))
}

fn check_dimensions(path: &Path, width: u32, height: u32) -> Result<(), DataError> {
    if width == 0 || height == 0 {
        return Err(DataError::media(
            path,
            Reason::Decode,
            format!("its pictures are {width}x{height} pixels"),
        ));
    }
    if width.max(height) > MAX_DIMENSION {
        let detail = format!(
            "its pictures are {width}x{height} pixels, at most {MAX_DIMENSION} a side; shrink them"
        );
        return Err(DataError::media(path, Reason::TooLarge, detail));
    }
    Ok(())
}
