use std::path::{Path, PathBuf};

use limbic_data::{LabelSet, PromptConfig};
use limbic_encoders::EncoderConfig;
use limbic_train::DecoderRecipe;

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
            other => panic!("configs/{other} is read by no test"),
        };
        result.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
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
