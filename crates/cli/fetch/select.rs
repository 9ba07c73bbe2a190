//! Which files of a repository are fetched. Repositories hold the same weights in several formats; one of them is enough.

/// The names that match one of `include`, or the usual files where that is empty.
pub(super) fn select(names: Vec<String>, include: &[&str]) -> Vec<String> {
    let mut chosen: Vec<String> = match include {
        [] => usual(names),
        patterns => {
            let wanted = |name: &String| patterns.iter().any(|pattern| matches(pattern, name));
            names.into_iter().filter(wanted).collect()
        }
    };
    chosen.sort();
    chosen
}

/// Whether a file holds weights.
pub(super) fn is_weights(name: &str) -> bool {
    [".safetensors", ".bin", ".pth", ".pt"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// Configs and tokenizers of the top folder, and the weights in the first of the formats that limbic reads.
fn usual(names: Vec<String>) -> Vec<String> {
    let top: Vec<&String> = names.iter().filter(|name| !name.contains('/')).collect();
    let formats: [&[&str]; 5] = [
        &["model.safetensors", "model-?????-of-?????.safetensors"],
        &["*.safetensors"],
        &["pytorch_model.bin", "pytorch_model-?????-of-?????.bin"],
        &["*.bin"],
        &["*.pth", "*.pt"],
    ];
    let of = |format: &[&str]| -> Vec<&String> {
        let fits = |name: &&&String| format.iter().any(|pattern| matches(pattern, name));
        let used = |name: &&&String| !name.starts_with("training_args");
        top.iter().filter(fits).filter(used).copied().collect()
    };
    let weights = formats
        .iter()
        .map(|format| of(format))
        .find(|found| !found.is_empty());
    let Some(weights) = weights else {
        return Vec::new();
    };
    let is_kept = |name: &&&String| {
        if name.ends_with(".index.json") {
            // The index of the format that was chosen.
            let format = name.trim_end_matches(".index.json").rsplit('.').next();
            return weights.len() > 1 && weights[0].rsplit('.').next() == format;
        }
        [".json", ".txt", ".model", ".jinja"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    let others = top.iter().filter(is_kept).copied();
    others.chain(weights.iter().copied()).cloned().collect()
}

/// `*` stands for any characters, `?` for one; as in Python's `fnmatch`, both may be a slash.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pattern_rest = pattern.chars();
    match pattern_rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = pattern_rest.as_str();
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.into_iter().any(|at| matches(rest, &name[at..]))
        }
        Some(wanted) => {
            let mut name_rest = name.chars();
            let got = name_rest.next();
            got.is_some_and(|got| wanted == '?' || wanted == got)
                && matches(pattern_rest.as_str(), name_rest.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], include: &[&str]) -> Vec<String> {
        select(names.iter().map(|name| name.to_string()).collect(), include)
    }

    #[test]
    fn one_format_of_the_weights_is_enough() {
        let llama = [
            ".gitattributes",
            "README.md",
            "config.json",
            "generation_config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "original/consolidated.00.pth",
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model-00002-of-00002.bin",
            "pytorch_model.bin.index.json",
            "tokenizer.json",
            "tokenizer.model",
        ];
        assert_eq!(
            chosen(&llama, &[]),
            [
                "config.json",
                "generation_config.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "tokenizer.json",
                "tokenizer.model"
            ]
        );
        let hubert = [
            "chinese-hubert-large-fairseq-ckpt.pt",
            "config.json",
            "preprocessor_config.json",
            "pytorch_model.bin",
        ];
        assert_eq!(chosen(&hubert, &[]), hubert[1..]);
        assert_eq!(chosen(&["config.json", "tf_model.h5"], &[]), [""; 0]);
        assert_eq!(
            chosen(&llama, &["*.pth", "READ??.md"]),
            ["README.md", "original/consolidated.00.pth"]
        );
    }
}
