use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor};
use limbic_llama::{End, Generation, Prompt, Sampling, generate};
use limbic_weights::Precision;
use serde_json::Value;

use crate::{read_decoder, write_decoder};

/// The published checkpoint, where it is at hand.
fn stories() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/stories260K");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no stories260K in ../shared/data");
    None
}

/// What scripts/golden/llama2c.py computed with numpy from the same files.
fn reference() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/llama2c.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn the_small_model_tells_its_story() {
    let Some(folder) = stories() else { return };
    let device = Device::flex();
    let (llama, tokenizer) = read_decoder(&folder, Precision::F32, &device).unwrap();
    let story = &reference()["story"];
    let wanted = ids(&story["tokens"]);
    assert!(wanted.len() > 150);

    // Also as the folder of Hugging Face's layout that it becomes.
    let copy = tempfile::tempdir().unwrap();
    write_decoder(&llama, &tokenizer, copy.path()).unwrap();
    let (again, tokenizer_again) = read_decoder(copy.path(), Precision::F32, &device).unwrap();
    assert_eq!(
        tokenizer_again.to_json().unwrap(),
        tokenizer.to_json().unwrap()
    );
    for llama in [llama, again] {
        let begin = Tensor::<2, Int>::from_data([[tokenizer.bos as i32]], &device);
        let prompt = Prompt {
            id: 0,
            content: Vec::new(),
            embeddings: llama.embed(begin).squeeze_dim(0),
        };
        let stop = &llama.config().eos_token_ids;
        let told = generate(&llama, &[prompt], wanted.len(), stop, &Sampling::GREEDY).unwrap();
        let Generation { tokens, end } = &told[0];
        assert_eq!(tokens, &wanted);
        assert_eq!(*end, End::Length);
        let text = tokenizer.decode(tokens).unwrap();
        assert!(text.starts_with("Once upon a time, "), "{text}");
        assert_eq!(text, story["text"].as_str().unwrap());
    }
}

#[test]
fn its_tokenizer_splits_as_llama2c_does() {
    let Some(folder) = stories() else { return };
    let (_, tokenizer) = read_decoder(&folder, Precision::F32, &Device::flex()).unwrap();
    let reference = reference();
    let encodings = reference["encodings"].as_array().unwrap();
    assert_eq!(encodings.len(), 200);
    for encoding in encodings {
        let text = encoding["text"].as_str().unwrap();
        assert_eq!(
            tokenizer.encode(text).unwrap(),
            ids(&encoding["ids"]),
            "{text:?}"
        );
        assert_eq!(tokenizer.decode(&ids(&encoding["ids"])).unwrap(), text);
    }
}

#[test]
fn a_folder_must_hold_one_model() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tok.bin", "a.bin", "b.bin"] {
        std::fs::write(folder.path().join(name), "x").unwrap();
    }
    let message = read_decoder(folder.path(), Precision::F32, &Device::flex())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("2 checkpoints and 1 tokenizers"),
        "{message}"
    );
}
