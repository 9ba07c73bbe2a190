//! A few pictures of a stream without decoding the rest.
//!
//! The packets up to the last wanted picture are read first; their time stamps say which of them hold the wanted ones.
//! Decoding then begins anew at the last key picture before each, and leaves out pictures that no other one rests on. What
//! comes out is what decoding everything gives, to the bit. Where a file does not promise enough for that, or anything turns
//! out otherwise than it promised, the answer is `None`, and all of it is to be decoded: with a decoder that does not refuse
//! damage, as this one does from here on.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use ffmpeg_next as ffmpeg;

use ffmpeg::codec::Id;
use ffmpeg::codec::decoder::{Check, Opened};
use ffmpeg::codec::discard::Discard;
use ffmpeg::util::error::{EAGAIN, Error};
use ffmpeg::util::frame::video::Video;

use crate::error::DataError;
use crate::media::{Media, Stored, Window};
use crate::picture::Picture;

/// Most bytes of packets that are held at once.
const MOST_HELD: usize = 64 << 20;

/// The pictures on screen at `times`, ascending seconds, each made by `convert` from its frame; repeated ones are copies.
///
/// # Errors
/// A file that ends before the window does; what `convert` refuses.
pub(crate) fn pictures_at(
    media: &mut Media,
    index: usize,
    decoder: &mut Opened,
    window: Window,
    times: &[f64],
    mut convert: impl FnMut(&Video) -> Result<Picture, DataError>,
) -> Result<Option<Vec<Picture>>, DataError> {
    let Some(last) = times.last() else {
        return Ok(Some(Vec::new()));
    };
    let Some(packets) = media.packets_until(index, window, *last, MOST_HELD)? else {
        return Ok(None);
    };
    let Some(targets) = on_screen(&packets, times) else {
        return Ok(None);
    };
    let Some(frames) = decode(decoder, &packets, &targets, &mut convert)? else {
        return Ok(None);
    };
    let picture = |target: &usize| frames.get(&packets[*target].stamp).cloned();
    Ok(targets.iter().map(picture).collect())
}

/// Which packet holds the picture of each moment; `None` if two packets claim one time.
fn on_screen(packets: &[Stored], times: &[f64]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..packets.len()).collect();
    order.sort_by_key(|packet| packets[*packet].stamp);
    let stamps = order.iter().map(|packet| packets[*packet].stamp);
    if !stamps.is_sorted_by(|a, b| a < b) {
        return None;
    }
    let at = |moment: &f64| {
        let begun = order.partition_point(|packet| packets[*packet].time <= *moment);
        // What precedes the first picture is shown by it.
        order.get(begun.saturating_sub(1)).copied()
    };
    times.iter().map(at).collect()
}

/// The pictures of the packets `targets`, by their stamps. `None` as soon as one of them would not be what it should.
fn decode(
    decoder: &mut Opened,
    packets: &[Stored],
    targets: &[usize],
    convert: &mut impl FnMut(&Video) -> Result<Picture, DataError>,
) -> Result<Option<BTreeMap<i64, Picture>>, DataError> {
    // What stands in for damage is made of whatever was decoded before, which is not the same here.
    decoder.check(Check::EXPLODE);
    // FFmpeg's own decoder leaves a picture out by its header alone. In HEVC, what the header calls no reference is so only
    // for pictures of its own temporal layer.
    let spares = decoder.id() == Id::H264;
    let wanted: BTreeSet<i64> = targets
        .iter()
        .map(|packet| packets[*packet].stamp)
        .collect();
    let mut pictures = BTreeMap::new();
    let mut frame = Video::empty();
    let mut drain = |decoder: &mut Opened| -> Result<bool, DataError> {
        loop {
            match decoder.receive_frame(&mut frame) {
                Ok(()) => (),
                Err(Error::Eof | Error::Other { errno: EAGAIN }) => return Ok(true),
                Err(_) => return Ok(false),
            }
            let stamp = frame.timestamp().filter(|stamp| wanted.contains(stamp));
            let Some(stamp) = stamp else { continue };
            if frame.is_corrupt() {
                return Ok(false);
            }
            pictures.insert(stamp, convert(&frame)?);
        }
    };
    let (mut next, mut first) = (0, i64::MIN);
    for target in targets.iter().copied().collect::<BTreeSet<usize>>() {
        let Some(key) = key_before(packets, target) else {
            return Ok(None);
        };
        if key >= next {
            if next > 0 {
                // Decoders hold pictures back until they are told that nothing follows.
                if decoder.send_eof().is_err() || !drain(decoder)? {
                    return Ok(None);
                }
                decoder.flush();
            }
            (next, first) = (key, packets[key].stamp);
        }
        for stored in &packets[next..=target] {
            // A picture shown before the key picture that it follows rests on what was passed over, and nothing rests on it.
            if stored.stamp < first {
                continue;
            }
            let is_spared = spares && !wanted.contains(&stored.stamp);
            decoder.skip_frame(match is_spared {
                true => Discard::NonReference,
                false => Discard::Default,
            });
            if decoder.send_packet(&stored.packet).is_err() || !drain(decoder)? {
                return Ok(None);
            }
        }
        next = target + 1;
    }
    if decoder.send_eof().is_err() || !drain(decoder)? {
        return Ok(None);
    }
    Ok((pictures.len() == wanted.len()).then_some(pictures))
}

/// The last key picture, in the order of decoding, that the picture of `target` can rest on alone.
fn key_before(packets: &[Stored], target: usize) -> Option<usize> {
    (0..=target).rev().find(|packet| {
        packets[*packet].packet.is_key() && packets[*packet].stamp <= packets[target].stamp
    })
}
