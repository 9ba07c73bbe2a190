//! The subtitles of the MER challenges: Chinese as recognised, and English as translated.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::clip::Clip;
use crate::error::DataError;
use crate::sources::media::first_file;
use crate::sources::mer::PLACES;
use crate::sources::table::Table;

/// Tables of subtitles, the checked ones first.
const SUBTITLES: [&str; 8] = [
    "subtitle_chieng.csv",
    "track1_subtitle_chieng.csv",
    "transcription-engchi-polish.csv",
    "label-transcription.csv",
    "transcription_en_all.csv",
    "transcription_all_new.csv",
    "transcription-merge.csv",
    "transcription.csv",
];

/// What is said in the clips, in English and Chinese, where it is known.
#[derive(Default)]
pub(in crate::sources) struct Subtitles {
    path: Option<PathBuf>,
    texts: HashMap<String, [String; 2]>,
}

impl Subtitles {
    /// Reads the table of subtitles; all of them empty if there is none.
    pub(in crate::sources) fn read(corpus: &'static str, from: &Path) -> Result<Self, DataError> {
        let Some(path) = first_file(from, &PLACES, &SUBTITLES) else {
            return Ok(Self::default());
        };
        let table = Table::read(corpus, &path, b',')?;
        // In `transcription_en_all.csv` the one column of sentences is English; elsewhere it is what was recognised, Chinese.
        let english_only = path.ends_with("transcription_en_all.csv");
        let mut texts = HashMap::new();
        for row in table.rows() {
            let sentence = row.find("sentence").unwrap_or_default();
            let english = row.find("english").or(row.find("sentence_en"));
            let english = english.unwrap_or(if english_only { sentence } else { "" });
            let chinese = row
                .find("chinese")
                .unwrap_or(if english_only { "" } else { sentence });
            let said = |text: &str| {
                if text == "nan" {
                    String::new()
                } else {
                    text.to_owned()
                }
            };
            texts.insert(row.get("name")?.to_owned(), [said(english), said(chinese)]);
        }
        Ok(Subtitles {
            path: Some(path),
            texts,
        })
    }

    /// Puts the English subtitle into `transcript`, or the Chinese one where it alone is there; the Chinese one also into
    /// `meta.transcript_zh`.
    pub(in crate::sources) fn add_to(&self, name: &str, clip: &mut Clip) {
        let Some([english, chinese]) = self.texts.get(name) else {
            return;
        };
        let said = [(english, "en"), (chinese, "zh")];
        if let Some((text, language)) = said.into_iter().find(|(text, _)| !text.is_empty()) {
            clip.transcript = Some(text.clone());
            clip.language = Some(language.to_owned());
        }
        if !chinese.is_empty() {
            clip.meta.insert("transcript_zh".to_owned(), json!(chinese));
        }
    }

    /// Says what is missing.
    pub(in crate::sources) fn report(&self, clips: &[Clip], warnings: &mut Vec<String>) {
        let Some(path) = &self.path else {
            warnings.push(format!(
                "no table of subtitles is there (`{}`): no transcripts",
                SUBTITLES[0]
            ));
            return;
        };
        let count = |language: Option<&str>| {
            let clips = clips.iter();
            clips
                .filter(|clip| clip.language.as_deref() == language)
                .count()
        };
        let path = path.display();
        for (count, lack) in [
            (
                count(Some("zh")),
                "no English subtitle in it, so their transcript is Chinese",
            ),
            (count(None), "no subtitle in it, and so no transcript"),
        ] {
            if count > 0 {
                warnings.push(format!("`{path}`: {count} clips have {lack}"));
            }
        }
    }
}
