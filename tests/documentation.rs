use std::collections::BTreeSet;

use limbic_train::Recipe;
use serde_yaml::Value;

use crate::workplace::root;

/// Recipes that between them open every mapping a recipe can hold.
const RECIPES: [&str; 2] = [
    "
name: all
seed: 1
init_from: runs/x
inputs: [video]
labels: { name: two, labels: [{ name: happy, aliases: [glad] }] }
prompt: { template: ['{instruction}'], instructions: { emotion: ['?'] } }
model:
  decoder: { kind: scratch, vocab_size: 300, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1,
             num_attention_heads: 1, num_key_value_heads: 1, max_position_embeddings: 9 }
  lora: { r: 1, lora_alpha: 1, target_modules: [q_proj] }
  head: { hidden: 1 }
  valence: { hidden: 1 }
  alignment: { dim: 1 }
  inputs:
    - name: a
      placeholder: <a>
      encoder: { kind: vit, image_size: 8, patch_size: 8, dim: 8, depth: 0, mean: [0, 0, 0], std: [1, 1, 1] }
      projector: { kind: qformer, queries: 1, layers: 1, heads: 1, dim: 8, intermediate: 8, max_length: 9 }
      frames: { kind: uniform, count: 1 }
      crop: { kind: squash }
    - { name: b, placeholder: <b>, encoder: { kind: log_mel, mel: {} }, projector: { kind: linear, tokens: 1 } }
    - name: d
      placeholder: <d>
      encoder: { kind: audio_transformer, seed: 1, dim: 8, depth: 1, heads: 1, intermediate: 8, front_end: { mel: {} } }
      projector: { kind: linear, tokens: 1 }
    - { name: c, placeholder: <c>, encoder: { kind: mfcc, mel: {} }, projector: { kind: mean_pool, hidden: 1 } }
    - name: e
      encoder:
        kind: blip2
        weights: x
        qformer: {}
        vision: { model: clip, weights: x, output: tokens, layer: -1, dim: 8, image_size: 8, mean: [0, 0, 0], std: [1, 1, 1] }
      projector: { kind: bert_qformer, queries: 1, positions: 1 }
    - { name: f, encoder: { kind: mfcc, mel: {} }, projector: { kind: merge, tokens: 1 } }
    - { name: g, encoder: { kind: mfcc, mel: {} }, projector: { kind: attention } }
    - { name: h, encoder: { kind: mfcc, mel: {} }, projector: { kind: mean } }
    - { name: i, encoder: { kind: mfcc, mel: {} }, projector: { kind: frame_pool, frames: 1, patches: 1 } }
  fusions:
    - { name: j, placeholder: <j>, sources: [c, f], fusion: { kind: attention } }
    - { name: k, sources: [c, f], fusion: { kind: qformer } }
    - { name: l, sources: [c, f], fusion: { kind: cross_modal, dim: 8, heads: 1 } }
    - { name: m, sources: [c, f], fusion: { kind: conv_attention } }
data: { manifest: m, tasks: { emotion: 1 } }
train: { steps: 1, batch_size: 4, learning_rate: { head: 1 }, loss: { valence: {} } }
evaluation: {}
run: {}
cache: {}
",
    "
name: other
model: { decoder: { kind: pretrained, folder: x } }
data: { manifest: m, tasks: { emotion: 1 } }
train: { steps: 1, batch_size: 4, learning_rate: { head: 1 } }
",
];

const UNKNOWN: &str = "no_such_key";

/// Puts an unknown key into each mapping of `whole` in turn and collects what serde says it expected there. Keys and
/// indices of `path` lead to the value to look at.
fn known_keys(whole: &Value, path: &[Value], keys: &mut BTreeSet<String>) {
    let mut changed = whole.clone();
    match path
        .iter()
        .fold(&mut changed, |place, step| match step.as_u64() {
            Some(index) => &mut place[index as usize],
            None => &mut place[step],
        }) {
        Value::Mapping(mapping) => {
            let below: Vec<Value> = mapping.keys().cloned().collect();
            mapping.insert(UNKNOWN.into(), 1.into());
            let error = serde_yaml::from_value::<Recipe>(changed)
                .expect_err(&format!("a mapping that is not strict at {path:?}"))
                .to_string();
            let quoted: Vec<&str> = error.split('`').skip(1).step_by(2).collect();
            assert_eq!(quoted.first(), Some(&UNKNOWN), "at {path:?}: {error}");
            keys.extend(quoted[1..].iter().map(|key| key.to_string()));
            for key in below {
                known_keys(whole, &[path, &[key]].concat(), keys);
            }
        }
        Value::Sequence(items) => {
            for index in 0..items.len() {
                known_keys(whole, &[path, &[Value::from(index)]].concat(), keys);
            }
        }
        _ => {}
    }
}

#[test]
fn every_key_of_a_recipe_is_documented() {
    let mut keys = BTreeSet::new();
    for recipe in RECIPES {
        let value: Value = serde_yaml::from_str(recipe).unwrap();
        serde_yaml::from_value::<Recipe>(value.clone()).unwrap();
        known_keys(&value, &[], &mut keys);
    }
    for known in [
        "seed",
        "lora_dropout",
        "max_skipped",
        "lora_plus",
        "mask_share",
        "ccc",
        "reads",
        "standardise",
        "n_fft",
        "keep",
        "memory_gib",
        "aliases",
        "reason",
    ] {
        assert!(keys.contains(known), "{known} not among {keys:?}");
    }
    let page = root().join("docs/recipes.md");
    let text = std::fs::read_to_string(&page)
        .unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let missing: Vec<&String> = keys
        .iter()
        .filter(|key| !text.contains(&format!("`{key}`")) && !text.contains(&format!(".{key}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/recipes.md lacks the keys {missing:?}"
    );
}
