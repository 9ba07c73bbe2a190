use std::fs;
use std::path::Path;

use limbic_data::TextTokenizer;
use limbic_llama::LlamaConfig;
use limbic_model::{Artifact, Part, Published, write_decoder, write_directory};
use limbic_weights::{Precision, Weights};

use super::device;
use crate::{Import, Model};

/// A model like configs/models/minigpt-v2.yaml with a decoder of a few thousand values, and a prompt.
fn write_configs(folder: &Path) {
    let texts = ["Voice and words, and an answer.".to_string()];
    let tokenizer = TextTokenizer::train(&texts, 270).unwrap();
    let llama = LlamaConfig {
        bos_token_id: Some(tokenizer.bos),
        eos_token_ids: vec![tokenizer.eos],
        ..LlamaConfig::small(tokenizer.vocab_size(), 8, 2, 2)
    };
    let llama = limbic_weights::seed(llama.init(&device()), 1);
    write_decoder(&llama, &tokenizer, &folder.join("decoder")).unwrap();
    let model = format!(
        "decoder: {{ kind: pretrained, folder: {}/decoder }}\n\
         lora: {{ r: 2, lora_alpha: 4, target_modules: [q_proj, v_proj] }}\n\
         inputs:\n\
         - name: video\n  encoder: {{ kind: log_mel, mel: {{ n_mels: 6 }} }}\n  \
         projector: {{ kind: merge, tokens: 2, group: 4, skip: 1 }}\n\
         - name: audio\n  encoder: {{ kind: log_mel, mel: {{ n_mels: 4 }} }}\n  projector: {{ kind: linear }}\n",
        folder.display()
    );
    fs::write(folder.join("model.yaml"), model).unwrap();
    let prompt = "template: ['See <video>', 'Hear <audio>', '{instruction}']\ninstructions: { describe: ['Tell.'] }\n";
    fs::write(folder.join("prompt.yaml"), prompt).unwrap();
}

#[test]
fn an_imported_checkpoint_is_an_ordinary_artifact() {
    let folder = tempfile::tempdir().unwrap();
    write_configs(folder.path());
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/import");
    let import = Import {
        published: Published::MinigptV2,
        checkpoint: golden.join("minigpt_v2.pth"),
        model: folder.path().join("model.yaml"),
        prompt: folder.path().join("prompt.yaml"),
        labels: None,
        seed: 3,
    };
    let (artifact, imported) = import.run(&device()).unwrap();
    assert_eq!(
        imported.left,
        [
            "projectors.1.body.linear.weight",
            "projectors.1.body.linear.bias"
        ]
    );
    let out = folder.path().join("imported");
    write_directory(&out, |partial| artifact.write(partial, &out)).unwrap();

    let read = Artifact::read(&out, Precision::F32, &device()).unwrap();
    let around = |artifact: &Artifact| {
        Weights::collect_only(&artifact.model, |name| {
            Part::of(name) != Some(Part::Decoder)
        })
    };
    let (got, wanted) = (
        around(&read),
        Weights::read(&golden.join("minigpt_v2.safetensors")).unwrap(),
    );
    for (name, tensor) in &wanted.tensors {
        assert_eq!(&got.tensors[name], tensor, "{name}");
    }
    assert_eq!(got.tensors.len(), wanted.tensors.len() + 2);
    assert_eq!(read.config.run, "model");
    Model::open(&out, &[device()], Precision::F32, &|_| {}).unwrap();
}

#[test]
fn an_import_wants_the_decoder_that_was_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    write_configs(folder.path());
    let model = folder.path().join("model.yaml");
    let text = fs::read_to_string(&model).unwrap();
    let scratch = "decoder: { kind: scratch, vocab_size: 270, hidden_size: 8, intermediate_size: 16, \
                   num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 2, \
                   max_position_embeddings: 64 }";
    let rest = text.split_once('\n').unwrap().1;
    fs::write(&model, format!("{scratch}\n{rest}")).unwrap();
    let import = Import {
        published: Published::MinigptV2,
        checkpoint: folder.path().join("absent.pth"),
        model,
        prompt: folder.path().join("prompt.yaml"),
        labels: None,
        seed: 3,
    };
    let message = import.run(&device()).unwrap_err().to_string();
    assert!(
        message.contains("`decoder` is no pretrained one"),
        "{message}"
    );
}
