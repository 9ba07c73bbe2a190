//! The FFmpeg that this program runs with.

use ffmpeg_next::codec::{self, Id};
use ffmpeg_next::software::{resampling, scaling};
use ffmpeg_next::{format, util};

/// A version, and what it cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FfmpegBuild {
    /// Version of libavcodec, for example `59.37.100`.
    pub libavcodec: String,
    /// FFmpeg's own version, of which 59 is 5.
    pub release: u32,
    /// Usual codecs of clips that it was built without.
    pub missing: Vec<&'static str>,
}

/// What videos and recordings of corpora are written in.
const USUAL: [(&str, Id); 10] = [
    ("h264", Id::H264),
    ("hevc", Id::HEVC),
    ("mpeg4", Id::MPEG4),
    ("vp9", Id::VP9),
    ("flv1", Id::FLV1),
    ("aac", Id::AAC),
    ("mp3", Id::MP3),
    ("opus", Id::OPUS),
    ("flac", Id::FLAC),
    ("pcm_s16le", Id::PCM_S16LE),
];

/// Versions of the loaded libraries that pictures and sound pass through: others may decode to other values.
pub fn library_versions() -> [(&'static str, u32); 5] {
    [
        ("avcodec", codec::version()),
        ("avformat", format::version()),
        ("avutil", util::version()),
        ("swresample", resampling::version()),
        ("swscale", scaling::version()),
    ]
}

impl FfmpegBuild {
    /// The one that is loaded.
    pub fn loaded() -> Self {
        let version = codec::version();
        let [_, major, minor, micro] = version.to_be_bytes();
        let major = u32::from(major);
        let missing = USUAL
            .iter()
            .filter(|(_, id)| codec::decoder::find(*id).is_none());
        Self {
            libavcodec: format!("{major}.{minor}.{micro}"),
            // Both have counted up together since libavcodec 57 was FFmpeg 3's.
            release: major.saturating_sub(54),
            missing: missing.map(|(name, _)| *name).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaded_one_is_new_enough_and_whole() {
        let build = FfmpegBuild::loaded();
        assert!(build.release >= 5, "{build:?}");
        assert!(
            build
                .libavcodec
                .starts_with(&format!("{}.", build.release + 54))
        );
        assert_eq!(build.missing, [""; 0]);
        let versions = library_versions();
        assert_eq!(versions[0].1 >> 16, build.release + 54, "{versions:?}");
        assert!(
            versions.iter().all(|(_, version)| *version > 0),
            "{versions:?}"
        );
    }
}
