//! The emotions of a task and the words they go by. One YAML file a set, so that a recipe, an evaluation and an answer
//! parser mean the same class by the same index.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// One emotion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The word that the model is taught to answer.
    pub name: String,
    /// Other words that mean the same class.
    #[serde(default)]
    pub aliases: Vec<String>,
}

/// The closed set of emotions of a task; a label's index is its place in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelSet {
    /// Name of the set, for example `emodb-4`.
    pub name: String,
    /// The labels, in class order.
    pub labels: Vec<Label>,
}

impl LabelSet {
    /// Reads and checks a label set from YAML.
    ///
    /// # Errors
    /// [`DataError::Io`] if the file cannot be read; [`DataError::Labels`] for bad YAML, an unknown key, an empty set or name, or
    /// a word that stands for two labels.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let text = fs::read_to_string(path)
            .map_err(|error| DataError::io("read the label set", path, error))?;
        let refused = |detail: String| DataError::Labels {
            path: path.to_path_buf(),
            detail,
        };
        let set: LabelSet =
            serde_yaml::from_str(&text).map_err(|error| refused(error.to_string()))?;
        set.check().map_err(refused)?;
        Ok(set)
    }

    /// Says what makes a set unusable.
    ///
    /// # Errors
    /// No labels, an empty word, a word that stands for two labels.
    pub fn check(&self) -> Result<(), String> {
        if self.labels.is_empty() {
            return Err("it has no labels: list at least one under `labels`".to_owned());
        }
        let mut owners: HashMap<String, &str> = HashMap::new();
        for label in &self.labels {
            for word in std::iter::once(&label.name).chain(&label.aliases) {
                if key(word).is_empty() {
                    return Err(format!(
                        "label `{}` has an empty name or alias: remove it",
                        label.name
                    ));
                }
                if let Some(owner) = owners.insert(key(word), &label.name) {
                    return Err(format!(
                        "`{word}` stands for both `{owner}` and `{}`: a word may name one label, once; remove it from one",
                        label.name
                    ));
                }
            }
        }
        Ok(())
    }

    /// The class that `word` names, by name or alias; surrounding space and case do not matter.
    pub fn index(&self, word: &str) -> Option<usize> {
        let word = key(word);
        self.labels.iter().position(|label| {
            std::iter::once(&label.name)
                .chain(&label.aliases)
                .any(|known| key(known) == word)
        })
    }

    /// The labels' names, in class order.
    pub fn names(&self) -> Vec<&str> {
        self.labels
            .iter()
            .map(|label| label.name.as_str())
            .collect()
    }

    /// How many classes there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no classes; never so for a set that was read.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

fn key(word: &str) -> String {
    word.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<LabelSet, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.yaml");
        fs::write(&path, text).unwrap();
        LabelSet::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_aliases_find_their_class() {
        let set = read_text(
            "name: two\nlabels:\n  - {name: happy, aliases: [joy, Happiness]}\n  - {name: sad}\n",
        )
        .unwrap();
        assert_eq!(set.names(), ["happy", "sad"]);
        assert_eq!(set.index(" HAPPINESS "), Some(0));
        assert_eq!(set.index("sad"), Some(1));
        assert_eq!(set.index("sa"), None);
        assert_eq!(set.len(), 2);
    }

    #[test]
    fn unusable_sets_are_refused() {
        let cases = [
            ("name: a\nlabels: []\n", "no labels"),
            (
                "name: a\nlabels: [{name: b, alias: [c]}]\n",
                "unknown field `alias`",
            ),
            ("name: a\nlabels: [{name: ' '}]\n", "empty name"),
            (
                "name: a\nlabels: [{name: b, aliases: [X]}, {name: c, aliases: [x ]}]\n",
                "stands for both `b` and `c`",
            ),
        ];
        for (text, wanted) in cases {
            let message = read_text(text).unwrap_err();
            assert!(
                message.contains(wanted) && message.contains("set.yaml"),
                "{message}"
            );
        }
    }

    #[test]
    fn shipped_sets_are_named_after_their_files() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/labels");
        let mut count = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let set = LabelSet::read(&path).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let labels = name.rsplit('-').next().unwrap();
            assert_eq!(
                (set.name.as_str(), set.len().to_string().as_str()),
                (name, labels)
            );
            count += 1;
        }
        assert!(count >= 15, "{count}");
    }
}
