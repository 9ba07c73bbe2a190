use std::path::{Path, PathBuf};

use burn::tensor::Device;
use limbic_data::{LabelSet, PromptConfig};
use limbic_encoders::EncoderConfig;
use limbic_model::{Part, Trainables};
use limbic_train::{DecoderRecipe, ModelRecipe};

use crate::workplace::root;

/// Every YAML below a folder of the repository, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn every_shipped_config_reads_strictly() {
    let configs = files(&root().join("configs"));
    assert!(configs.len() >= 8, "{configs:?}");
    for path in configs {
        let kind = path
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let result = match kind.as_str() {
            "backbones" => serde_yaml::from_str::<DecoderRecipe>(&text)
                .map(drop)
                .map_err(|e| e.to_string()),
            "encoders" => serde_yaml::from_str::<EncoderConfig>(&text)
                .map(drop)
                .map_err(|e| e.to_string()),
            "labels" => LabelSet::read(&path).map(drop).map_err(|e| e.to_string()),
            "prompts" => serde_yaml::from_str::<PromptConfig>(&text)
                .map(drop)
                .map_err(|e| e.to_string()),
            "models" => serde_yaml::from_str::<ModelRecipe>(&text)
                .map(drop)
                .map_err(|e| e.to_string()),
            other => panic!("configs/{other} is read by no test"),
        };
        result.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// Trained values of each part, of every model in configs/models: from shapes alone, without any weights. Where a number
/// was published, it is this one.
#[test]
fn every_shipped_model_has_the_published_number_of_parameters() {
    // LoRA, projectors, fusions.
    let wanted = [
        ("affectgpt-v1", [0, 44_959_744, 0]),
        ("affectgpt-v2", [40_370_176, 9_187_586, 7_610_882]),
        ("affectgpt-v2-qformer", [40_370_176, 46_899_200, 24_555_776]),
        ("cross-modal", [11_272_192, 0, 9_187_328]),
        ("emotion-llama", [33_554_432, 41_439_232, 0]),
        ("emotion-llama-v2", [33_554_432, 34_091_008, 3_890_947]),
        ("minigpt-v2", [33_554_432, 23_072_768, 0]),
        ("pandagpt", [33_554_432, 8_396_800, 0]),
        ("valley", [0, 4_198_400, 0]),
        ("video-chatgpt", [0, 4_198_400, 0]),
        ("video-llama", [0, 44_959_744, 0]),
        ("videochat-embed", [0, 108_372_480, 0]),
    ];
    let files = files(Path::new("configs/models"));
    let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    assert_eq!(files.len(), wanted.len(), "{files:?}");
    let device = Device::flex();
    for path in &files {
        let (name, counts) = *wanted
            .iter()
            .find(|(wanted, _)| *wanted == name(path))
            .unwrap_or_else(|| panic!("{} has no number to hold", path.display()));
        let model = ModelRecipe::read(path)
            .and_then(|model| model.blank(0, &device))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let parts = [Part::Lora, Part::Projectors, Part::Fusions];
        let trained = Trainables::of(&model, &parts);
        let got = parts.map(|part| trained.num_values_of(part));
        assert_eq!(got, counts, "{name}: LoRA, projectors, fusions");
        // Published sums: AffectGPT v2 around its LoRA, in both variants, and Emotion-LLaMA as a whole.
        let [lora, projectors, fusions] = got;
        match name {
            "affectgpt-v2" => assert_eq!(projectors + fusions, 16_798_468),
            "affectgpt-v2-qformer" => assert_eq!(projectors + fusions, 71_454_976),
            "emotion-llama" => assert_eq!(lora + projectors, 74_993_664),
            _ => {}
        }
    }
}

/// AffectGPT's table of ranks, and what Emotion-LLaMA's checkpoint holds beside what is trained.
#[test]
fn ranks_and_the_dead_head_have_the_published_number_of_parameters() {
    let mut model = ModelRecipe::read(Path::new("configs/models/affectgpt-v2.yaml")).unwrap();
    for (rank, wanted) in [(8, 20_185_088), (32, 80_740_352)] {
        model.lora.as_mut().unwrap().r = rank;
        let model = model.blank(0, &Device::flex()).unwrap();
        let trained = Trainables::of(&model, &[Part::Lora]);
        assert_eq!(trained.num_values(), wanted, "rank {rank}");
    }
    // The layers of the head that Emotion-LLaMA builds, saves and never runs: three networks on features of 1024, four on
    // tokens of 4096, one on what those give, and two layers after it.
    let linear = |input: usize, output: usize| input * output + output;
    let network = |input| linear(input, 256) + linear(256, 128);
    let head =
        3 * network(1024) + 4 * network(4096) + network(7 * 128) + linear(128, 7) + linear(128, 6);
    assert_eq!(head, 5_477_005);
    assert_eq!(74_993_664 + head, 80_470_669);
}

#[test]
fn every_shipped_recipe_reads_strictly() {
    // Tests run in the root of the package, from where recipes take their paths.
    assert_eq!(std::env::current_dir().unwrap(), root());
    let recipes = files(Path::new("recipes"));
    let mut names: Vec<String> = recipes
        .iter()
        .map(|path| {
            limbic_train::read_recipe(path, &[])
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
                .name
        })
        .collect();
    for wanted in ["quickstart-stage1", "quickstart-stage2"] {
        assert!(
            names.iter().any(|name| name == wanted),
            "{wanted} not among {names:?}"
        );
    }
    names.sort();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "two recipes would share a run: {names:?}");
}
