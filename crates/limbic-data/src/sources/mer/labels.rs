//! The label tables of the MER challenges, and the texts that Emotion-LLaMA makes of them.

use std::fs;
use std::path::Path;

use crate::error::DataError;
use crate::sources::table::{Row, Table, no_code, word_of};

/// Stands where a clip has no valence.
const NO_VALENCE: f32 = -10.0;
/// A labelled clip.
pub(in crate::sources) struct Label {
    pub(in crate::sources) line: usize,
    pub(in crate::sources) name: String,
    pub(in crate::sources) emotion: &'static str,
    pub(in crate::sources) valence: Option<f32>,
}

/// Reads a table of `name,discrete,valence`, of which the last may be absent, or a text of name, number of frames, emotion and,
/// in `*_NCEV.txt`, valence.
pub(in crate::sources) fn labels(
    corpus: &'static str,
    path: &Path,
    emotions: &[(&str, &'static str)],
) -> Result<Vec<Label>, DataError> {
    let known = |valence: &f32| *valence != NO_VALENCE;
    if path.extension().is_some_and(|extension| extension == "csv") {
        let table = Table::read(corpus, path, b',')?;
        let has_valence = table.columns().iter().any(|column| column == "valence");
        let label = |row: Row| {
            Ok(Label {
                line: row.line,
                name: row.get("name")?.to_owned(),
                emotion: row.coded("discrete", emotions)?,
                valence: if has_valence {
                    row.number("valence")?.filter(known)
                } else {
                    None
                },
            })
        };
        return table.rows().map(label).collect();
    }
    let text = fs::read_to_string(path).map_err(|error| DataError::io("read", path, error))?;
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let label = |(index, line): (usize, &str)| {
        let refused = |detail: String| DataError::Source {
            corpus,
            path: path.to_path_buf(),
            detail: format!("line {}: {detail}", index + 1),
        };
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (name, emotion, valence) = match fields[..] {
            [name, _, emotion] => (name, emotion, None),
            [name, _, emotion, valence] => (name, emotion, Some(valence)),
            _ => {
                return Err(refused(format!(
                    "it has {} fields, wanted name, number of frames, emotion and perhaps valence",
                    fields.len()
                )));
            }
        };
        let valence = valence.map(|text| {
            let valence = text
                .parse::<f32>()
                .ok()
                .filter(|valence| valence.is_finite());
            valence.ok_or_else(|| refused(format!("the valence is `{text}`, wanted a number")))
        });
        Ok(Label {
            line: index + 1,
            name: name.to_owned(),
            emotion: word_of(emotion, emotions)
                .ok_or_else(|| refused(format!("the emotion is {}", no_code(emotion, emotions))))?,
            valence: valence.transpose()?.filter(known),
        })
    };
    lines.map(label).collect()
}
