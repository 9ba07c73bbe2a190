//! Every word of every shipped label set must be understood in an answer.

use limbic_data::LabelSet;
use limbic_eval::parse_answer;
use std::path::Path;

#[test]
fn every_name_and_alias_is_parsed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/labels");
    let mut words = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let set = LabelSet::read(&path).unwrap();
        for (index, label) in set.labels.iter().enumerate() {
            for word in std::iter::once(&label.name).chain(&label.aliases) {
                let place = format!("{word} in {}", path.display());
                let parse = |answer: String| parse_answer(&answer, &set);
                assert_eq!(parse(word.to_uppercase()), Some(index), "{place}");
                assert_eq!(parse(format!("I hear {word}.")), Some(index), "{place}");
                assert_eq!(
                    parse(format!("The signs point to {word}.")),
                    Some(index),
                    "{place}"
                );
                assert_eq!(parse(format!("It is not {word}.")), None, "{place}");
                words += 1;
            }
        }
    }
    assert!(words > 0, "no label set in {}", folder.display());
}
