//! EmoPrefer and EmoPrefer V2 of MER 2026: two descriptions of a clip, and which of them people prefer.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::clip::{Clip, Preference, Preferred, Split};
use crate::error::DataError;
use crate::sources::media::first_file;
use crate::sources::mer;
use crate::sources::table::Table;

const CORPUS: &str = "emo-prefer";

/// Tables with what `meta.raters` says of them: the majority of three people, or one.
const TABLES: [(&str, u8); 2] = [("track3_emoprefer.csv", 3), ("track3_emopreferv2.csv", 1)];

pub(super) fn clips(from: &Path, warnings: &mut Vec<String>) -> Result<Vec<Clip>, DataError> {
    let mut media = mer::media(from)?;
    let subtitles = mer::Subtitles::read(CORPUS, from)?;
    let (mut clips, mut found) = (Vec::new(), false);
    let mut pairs: BTreeMap<String, usize> = BTreeMap::new();
    for (name, raters) in TABLES {
        let Some(path) = first_file(from, &[""], &[name]) else {
            warnings.push(format!("`{name}` is absent"));
            continue;
        };
        found = true;
        for row in Table::read(CORPUS, &path, b',')?.rows() {
            let video = row.get("name")?;
            let preferred = match row.get("preference")? {
                "a1" => Preferred::First,
                "a2" => Preferred::Second,
                "same" => Preferred::Either,
                other => {
                    let detail = format!("`preference` is `{other}`, wanted one of a1, a2, same");
                    return Err(row.refused(detail));
                }
            };
            let (first, second) = (row.get("a1")?, row.get("a2")?);
            if first.is_empty() || second.is_empty() {
                return Err(row.refused("a description is empty, wanted both `a1` and `a2`"));
            }
            // A video may have several pairs of descriptions.
            let pair = pairs.entry(video.to_owned()).or_default();
            *pair += 1;
            let mut clip = mer::blank(CORPUS, &format!("{video}_pair{pair}"), Split::Train);
            clip.preference = Some(Preference {
                first: first.to_owned(),
                second: second.to_owned(),
                preferred,
            });
            clip.meta.insert("name".to_owned(), json!(video));
            clip.meta.insert("raters".to_owned(), json!(raters));
            subtitles.add_to(video, &mut clip);
            clips.extend(media.give(video, clip));
        }
    }
    if !found {
        let [(first, _), (second, _)] = TABLES;
        return Err(DataError::Source {
            corpus: CORPUS,
            path: from.to_path_buf(),
            detail: format!(
                "it holds neither `{first}` nor `{second}`; give the folder that holds them"
            ),
        });
    }
    subtitles.report(&clips, warnings);
    media.report(CORPUS, from, clips, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Source;
    use crate::sources::fixture::{clip, corpus, import, refusal};

    #[test]
    fn pairs_of_one_video_are_clips_of_their_own() {
        let root = corpus(
            &[
                (
                    "track3_emoprefer.csv",
                    "name,a1,a2,preference\na,He is sad.,He is glad.,a2\nlost,x,y,a1\n",
                ),
                (
                    "track3_emopreferv2.csv",
                    "name,a1,a2,preference\na,\"Calm, still.\",Angry.,same\n",
                ),
                ("subtitle_chieng.csv", "name,chinese,english\na,喂,Hey.\n"),
            ],
            &["video/a.mp4", "audio/a.wav"],
        );
        let (clips, warnings) = import(Source::EmoPrefer, &root).unwrap();
        assert_eq!(clips.len(), 2);
        let first = clip(&clips, "a_pair1");
        let wanted = Preference {
            first: "He is sad.".into(),
            second: "He is glad.".into(),
            preferred: Preferred::Second,
        };
        assert_eq!(
            (first.preference.as_ref(), first.transcript.as_deref()),
            (Some(&wanted), Some("Hey."))
        );
        assert_eq!(
            (&first.meta["raters"], &first.meta["name"]),
            (&json!(3), &json!("a"))
        );
        let second = clip(&clips, "a_pair2").preference.as_ref().unwrap();
        assert_eq!(second.preferred, Preferred::Either);
        assert_eq!(
            warnings,
            ["1 labelled clips are left out, for they have no media file: `lost_pair1`"]
        );
    }

    #[test]
    fn bad_tables_are_refused() {
        for (text, wanted) in [
            (
                "name,a1,a2,preference\na,x,y,a3\n",
                "line 2: `preference` is `a3`, wanted one of a1, a2, same",
            ),
            (
                "name,a1,a2,preference\na,x,,a1\n",
                "line 2: a description is empty",
            ),
            ("name,a1,a2\na,x,y\n", "no column `preference`"),
            ("name,a1,a2,preference\na,x\n", "line: 2"),
        ] {
            let root = corpus(&[("track3_emoprefer.csv", text)], &["video/a.mp4"]);
            let message = refusal(Source::EmoPrefer, &root);
            assert!(message.contains(wanted), "{wanted}: {message}");
        }
        assert!(
            refusal(Source::EmoPrefer, &corpus(&[], &[]))
                .contains("it holds neither `track3_emoprefer.csv`")
        );
    }
}
