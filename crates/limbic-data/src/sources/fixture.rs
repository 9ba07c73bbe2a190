//! Small corpora that the tests of sources write and import.

use std::fs;
use std::path::Path;

use hound::{SampleFormat, WavSpec, WavWriter};
use tempfile::TempDir;

use crate::clip::{Clip, Split};
use crate::manifest::Manifest;
use crate::media::probe;
use crate::sources::Source;
use crate::tests::write_media;

/// A folder of text files, and of media that are real: a short tone or a gray video, by the extension.
pub(crate) fn corpus(texts: &[(&str, &str)], media: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in texts {
        let path = place(root.path(), name);
        fs::write(path, text).unwrap();
    }
    for name in media {
        let path = place(root.path(), name);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("wav") => tone(&path),
            Some("npy" | "jpg") => fs::write(path, b"not opened").unwrap(),
            _ => write_media(&path, 2, &[]),
        }
    }
    root
}

/// The clips and warnings of an import; every video and sound of a clip opens.
pub(crate) fn import(source: Source, root: &TempDir) -> Result<(Vec<Clip>, Vec<String>), String> {
    let out = tempfile::tempdir().unwrap();
    let report = source.import(root.path(), out.path());
    let report = report.map_err(|error| error.to_string())?;
    let clips = Manifest::read(&report.manifest).unwrap().clips;
    for clip in &clips {
        for path in clip.video.iter().chain(&clip.audio) {
            if path.extension().is_none_or(|extension| extension != "jpg") {
                probe(path).unwrap();
            }
        }
        assert!(
            clip.corpus.is_some() && clip.licence.is_some() && clip.split.is_some(),
            "{clip:?}"
        );
    }
    Ok((clips, report.warnings))
}

/// What an import says against a corpus.
pub(crate) fn refusal(source: Source, root: &TempDir) -> String {
    import(source, root).unwrap_err()
}

/// The clip of this name.
pub(crate) fn clip<'a>(clips: &'a [Clip], id: &str) -> &'a Clip {
    let clip = clips.iter().find(|clip| clip.id == id);
    clip.unwrap_or_else(|| panic!("no `{id}` in {clips:?}"))
}

/// Names of the clips of a split.
pub(crate) fn ids(clips: &[Clip], split: Split) -> Vec<&str> {
    let clips = clips.iter().filter(|clip| clip.split == Some(split));
    clips.map(|clip| clip.id.as_str()).collect()
}

fn place(root: &Path, name: &str) -> std::path::PathBuf {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

/// A tenth of a second at 8 kHz.
fn tone(path: &Path) {
    let spec = WavSpec {
        channels: 1,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: SampleFormat::Int,
    };
    let mut writer = WavWriter::create(path, spec).unwrap();
    for index in 0..800 {
        let sample = (f64::from(index) * 0.3).sin() * 8_000.0;
        writer.write_sample(sample as i16).unwrap();
    }
    writer.finalize().unwrap();
}
