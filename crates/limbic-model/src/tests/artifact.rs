use std::path::{Path, PathBuf};

use limbic_llama::Pass;
use limbic_weights::Precision;
use limbic_weights::Weights;

use super::{Fixture, device, host};
use crate::{Artifact, Asked, DecoderSource, ModelError, Part, write_directory};

fn write(artifact: &Artifact, target: &Path) {
    write_directory(target, |folder| artifact.write(folder, target)).unwrap();
}

/// Everything the model of `artifact` says about the fixture's clips.
fn logits(fixture: &Fixture, artifact: &Artifact) -> (Vec<f32>, Vec<f32>) {
    let batch = fixture.batch(&fixture.two(), &[0, 1]);
    let readout = artifact.model.forward(&batch, Asked::ALL, Pass::PLAIN);
    (
        host(readout.tokens.unwrap().states),
        host(readout.classes.unwrap().0),
    )
}

/// A saved decoder in `root/base`, and in `root/tuned` adapters on it.
fn tuned(root: &Path) -> (Fixture, PathBuf) {
    let base = Fixture::new(1);
    write(&base.artifact, &root.join("base"));
    let tensors_sha256 = Weights::collect(&base.artifact.model.llama).sha256();
    let mut fixture = base.with_lora();
    fixture.artifact.decoder = root.join("base/llm");
    fixture.artifact.config.decoder = DecoderSource::Base {
        path: root.join("base/llm"),
        tensors_sha256,
    };
    let folder = root.join("runs/tuned");
    std::fs::create_dir_all(root.join("runs")).unwrap();
    write(&fixture.artifact, &folder);
    (fixture, folder)
}

#[test]
fn a_model_with_its_own_decoder_reads_back_bit_for_bit() {
    let root = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(1);
    let folder = root.path().join("own");
    write(&fixture.artifact, &folder);
    assert!(folder.join("llm/model.safetensors").is_file() && !folder.join("llm_adapter").exists());
    let read = Artifact::read(&folder, Precision::F32, &device()).unwrap();
    assert_eq!(logits(&fixture, &read), logits(&fixture, &fixture.artifact));
    assert_eq!(read.config, fixture.artifact.config);
    assert_eq!(
        read.tokenizer.encode("happy").unwrap(),
        fixture.artifact.tokenizer.encode("happy").unwrap()
    );
}

#[test]
fn what_is_read_in_bf16_is_what_was_read_and_rounded() {
    let root = tempfile::tempdir().unwrap();
    let (_, folder) = tuned(root.path());
    assert!(Artifact::is_adapted(&folder) && !Artifact::is_adapted(&root.path().join("base")));
    let read = |precision| Artifact::read(&folder, precision, &device()).unwrap().model;
    let mut rounded = read(Precision::F32);
    rounded.llama = rounded.llama.hold_in(Precision::Bf16);
    let narrow = read(Precision::Bf16);
    assert_eq!(Weights::collect(&narrow), Weights::collect(&rounded));
    assert_ne!(
        Weights::collect(&narrow),
        Weights::collect(&read(Precision::F32))
    );
}

#[test]
fn adapters_name_their_decoder_and_move_with_it() {
    let root = tempfile::tempdir().unwrap();
    let (fixture, folder) = tuned(&root.path().join("here"));
    assert!(
        !folder.join("llm").exists(),
        "the frozen decoder is not copied"
    );
    let read = Artifact::read(&folder, Precision::F32, &device()).unwrap();
    assert_eq!(logits(&fixture, &read), logits(&fixture, &fixture.artifact));
    let DecoderSource::Base { path, .. } = &read.config.decoder else {
        panic!("{:?}", read.config.decoder)
    };
    assert_eq!(path, Path::new("../../base/llm"));

    std::fs::rename(root.path().join("here"), root.path().join("there")).unwrap();
    let read = Artifact::read(
        &root.path().join("there/runs/tuned"),
        Precision::F32,
        &device(),
    )
    .unwrap();
    assert_eq!(logits(&fixture, &read), logits(&fixture, &fixture.artifact));
}

#[test]
fn another_decoder_is_refused_with_both_hashes() {
    let root = tempfile::tempdir().unwrap();
    let (fixture, folder) = tuned(root.path());
    let DecoderSource::Base { tensors_sha256, .. } = &fixture.artifact.config.decoder else {
        unreachable!()
    };
    let other = Fixture::new(2).artifact.model.llama;
    let weights = Weights::collect_only(&other, |name| Part::of(name) == Some(Part::Decoder));
    weights
        .write(&root.path().join("base/llm/model.safetensors"))
        .unwrap();
    let message = Artifact::read(&folder, Precision::F32, &device())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains(tensors_sha256) && message.contains(&Weights::collect(&other).sha256()),
        "{message}"
    );
}

#[test]
fn a_digest_of_an_earlier_version_is_no_other_decoder() {
    let root = tempfile::tempdir().unwrap();
    let (_, folder) = tuned(root.path());
    // Written again as a whole, since every file is hashed in `MANIFEST.json`.
    let earlier = root.path().join("runs/earlier");
    write_directory(&earlier, |copy| -> Result<(), ModelError> {
        for file in [
            "llm_adapter/adapter_config.json",
            "llm_adapter/adapter_model.safetensors",
            "mm/mm_config.json",
            "mm/projector.safetensors",
        ] {
            std::fs::create_dir_all(copy.join(file).parent().unwrap()).unwrap();
            std::fs::copy(folder.join(file), copy.join(file)).unwrap();
        }
        let config = copy.join("mm/mm_config.json");
        let text = std::fs::read_to_string(&config).unwrap();
        assert!(text.contains("\"tensors_sha256\""), "{text}");
        std::fs::write(&config, text.replace("tensors_sha256", "sha256")).unwrap();
        Ok(())
    })
    .unwrap();
    let message = Artifact::read(&earlier, Precision::F32, &device())
        .unwrap_err()
        .to_string();
    for part in [
        "mm_config.json",
        "`tensors_sha256`",
        "earlier limbic",
        "train again",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn damage_and_absence_are_named() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("own");
    write(&Fixture::new(1).artifact, &folder);
    let projectors = folder.join("mm/projector.safetensors");
    let mut bytes = std::fs::read(&projectors).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&projectors, bytes).unwrap();
    let message = Artifact::read(&folder, Precision::F32, &device())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("projector.safetensors") && message.contains("SHA-256"),
        "{message}"
    );
    let absent = Artifact::read(&root.path().join("nowhere"), Precision::F32, &device());
    assert!(matches!(absent, Err(ModelError::Io { .. })));
}
