//! Projectors and fusions, with their gradients, against PyTorch and transformers.
//!
//! The numbers in tests/golden/projectors come from scripts/golden/projectors.py.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use limbic_encoders::vision::VisionOutput;
use limbic_encoders::{
    Blip2QFormerConfig, EncoderConfig, Fusion, FusionConfig, Keep, Media, Padded, Projector,
    ProjectorConfig,
};
use limbic_weights::{ModulePath, NamedTensor, Weights};

/// Width of the language model.
const WIDTH: usize = 11;

/// Projectors, by the names of their golden files.
const PROJECTORS: [(&str, &str); 8] = [
    (
        "bert_qformer",
        "{kind: bert_qformer, queries: 4, heads: 3, dim: 15, intermediate: 45, positions: 5, features_per_position: 3}",
    ),
    ("merge", "{kind: merge, tokens: 3, skip: 1}"),
    ("first", "{kind: linear, select: first}"),
    ("attention", "{kind: attention, tokens: 2}"),
    ("attention_softmax", "{kind: attention, softmax: true}"),
    ("mean", "{kind: mean, tokens: 3}"),
    (
        "spatio_temporal",
        "{kind: frame_pool, frames: 3, patches: 5}",
    ),
    (
        "valley",
        "{kind: frame_pool, frames: 3, patches: 4, class_token: true, temporal: class, order: spatial_first}",
    ),
];

/// Fusions, likewise.
const FUSIONS: [(&str, &str); 6] = [
    ("fusion_attention", "{kind: attention, tokens: 2}"),
    (
        "fusion_attention_softmax",
        "{kind: attention, softmax: true}",
    ),
    (
        "fusion_qformer",
        "{kind: qformer, queries: 2, heads: 3, dim: 15, intermediate: 30, positions: 16}",
    ),
    (
        "fusion_cross_modal",
        "{kind: cross_modal, dim: 12, heads: 3, layers: 2, self_layers: 1, mlp_ratio: 2, kernel: 3, tokens: 2}",
    ),
    (
        "fusion_cross_modal_pair",
        "{kind: cross_modal, dim: 6, heads: 3, layers: 1, self_layers: 2, mlp_ratio: 3}",
    ),
    (
        "fusion_conv_attention",
        "{kind: conv_attention, tokens: 5, inner: 10, hidden: 8, output: 7, blocks: 2}",
    ),
];

struct Golden(Weights);

impl Golden {
    fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/projectors");
        let path = folder.join(format!("{name}.safetensors"));
        Self(Weights::read(&path).expect("golden files are part of the repository"))
    }

    fn values(&self, name: &str) -> &[f32] {
        &self.0.tensors[name].values
    }

    fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let NamedTensor { shape, values } = self.0.tensors[name].clone();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn sources(&self) -> Vec<Padded> {
        (0..)
            .take_while(|index| self.0.tensors.contains_key(&format!("lengths.{index}")))
            .map(|index| Padded {
                values: self.tensor(&format!("features.{index}")),
                lengths: self
                    .values(&format!("lengths.{index}"))
                    .iter()
                    .map(|length| *length as usize)
                    .collect(),
            })
            .collect()
    }
}

/// A projector or a fusion: what both must agree with PyTorch in.
#[derive(Module, Debug)]
enum Any {
    Projector(Projector),
    Fusion(Fusion),
}

impl Any {
    fn build(yaml: &str, is_fusion: bool, dims: &[usize]) -> Self {
        let device = Device::flex();
        if is_fusion {
            let config: FusionConfig = serde_yaml::from_str(yaml).expect("a fusion");
            Self::Fusion(config.init(dims, WIDTH, &device))
        } else {
            let config: ProjectorConfig = serde_yaml::from_str(yaml).expect("a projector");
            Self::Projector(config.init(dims[0], WIDTH, &device))
        }
    }

    fn forward(&self, mut sources: Vec<Padded>) -> Tensor<3> {
        match self {
            Self::Projector(projector) => {
                let Padded { values, lengths } = sources.remove(0);
                projector.forward(values, &lengths)
            }
            Self::Fusion(fusion) => fusion.forward(sources),
        }
    }
}

/// The module of a golden file with its weights, changed by `damage`.
fn load(golden: &Golden, yaml: &str, is_fusion: bool, damage: impl Fn(&mut Tensors)) -> Any {
    let dims: Vec<usize> = golden
        .sources()
        .iter()
        .map(|source| source.values.dims()[2])
        .collect();
    let mut weights = golden.0.below("weights.");
    damage(&mut weights.tensors);
    limbic_weights::load(Any::build(yaml, is_fusion, &dims), &weights)
        .expect("every weight, by our names")
}

type Tensors = BTreeMap<String, NamedTensor>;

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn error(got: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(got.len(), wanted.len(), "another number of values");
    got.iter()
        .zip(wanted)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |largest, error| {
            if error.is_finite() {
                largest.max(error)
            } else {
                f32::INFINITY
            }
        })
}

/// Largest difference, as a part of the largest wanted value where that is above 1.
fn relative(got: &[f32], wanted: &[f32]) -> f32 {
    let scale = wanted
        .iter()
        .fold(1.0f32, |most, value| most.max(value.abs()));
    error(got, wanted) / scale
}

fn all() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    let projectors = PROJECTORS.iter().map(|(name, yaml)| (*name, *yaml, false));
    projectors.chain(FUSIONS.iter().map(|(name, yaml)| (*name, *yaml, true)))
}

#[test]
fn outputs_are_pytorchs() {
    for (name, yaml, is_fusion) in all() {
        let golden = Golden::read(name);
        let module = load(&golden, yaml, is_fusion, |_| ());
        let got = host(module.forward(golden.sources()));
        let error = relative(&got, golden.values("output"));
        assert!(error < 2e-5, "{name}: error {error}");
    }
}

/// What stands beyond the end of a row changes nothing: here it is not even zero.
#[test]
fn padding_does_not_matter() {
    for (name, yaml, is_fusion) in all() {
        let golden = Golden::read(name);
        let module = load(&golden, yaml, is_fusion, |_| ());
        let sources = golden.sources();
        if sources.iter().all(|source| {
            source
                .lengths
                .iter()
                .all(|length| *length == source.values.dims()[1])
        }) {
            continue;
        }
        let noisy = sources
            .into_iter()
            .map(|Padded { values, lengths }| {
                let [rows, length, dim] = values.dims();
                let noise: Vec<f32> = (0..rows * length * dim)
                    .map(|place| {
                        let (row, at) = (place / (length * dim), place / dim % length);
                        if at < lengths[row] {
                            0.0
                        } else {
                            3.0 + (place % 7) as f32
                        }
                    })
                    .collect();
                let noise = TensorData::new(noise, [rows, length, dim]);
                Padded {
                    values: values + Tensor::from_data(noise, &Device::flex()),
                    lengths,
                }
            })
            .collect();
        let got = host(module.forward(noisy));
        let error = relative(&got, golden.values("output"));
        assert!(error < 2e-5, "{name}: error {error}");
    }
}

#[test]
fn gradients_are_autograds() {
    for (name, yaml, is_fusion) in all() {
        let golden = Golden::read(name);
        let module = load(&golden, yaml, is_fusion, |_| ()).map(&mut Track);
        let sources: Vec<Padded> = golden
            .sources()
            .into_iter()
            .map(|source| Padded {
                values: source.values.autodiff().require_grad(),
                ..source
            })
            .collect();
        let output = module.forward(sources.clone());
        let mut gradients = (output * golden.tensor("probe")).sum().backward();
        for (index, source) in sources.iter().enumerate() {
            let got = host(source.values.grad(&gradients).expect("tracked"));
            let wanted = golden.values(&format!("features_gradient.{index}"));
            let error = relative(&got, wanted);
            assert!(error < 1e-4, "{name}: source {index}: error {error}");
        }
        let mut compare = Compare {
            case: name,
            path: ModulePath::default(),
            gradients: GradientsParams::from_module(&mut gradients, &module),
            wanted: golden.0.below("gradients.").tensors,
        };
        module.visit(&mut compare);
        assert!(
            compare.wanted.is_empty(),
            "{name}: without gradient: {:?}",
            compare.wanted.keys()
        );
    }
}

struct Track;

impl ModuleMapper for Track {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::initialized(param.id, param.val().autodiff().require_grad())
    }
}

struct Compare {
    case: &'static str,
    path: ModulePath,
    gradients: GradientsParams,
    wanted: Tensors,
}

impl ModuleVisitor for Compare {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        let Some(gradient) = self.gradients.get::<D>(param.id) else {
            return;
        };
        let gradient = if self.path.is_transposed() {
            gradient.swap_dims(0, 1)
        } else {
            gradient
        };
        let wanted = self.wanted.remove(&name);
        let wanted = wanted.unwrap_or_else(|| panic!("{}: `{name}` has a gradient", self.case));
        let error = relative(&host(gradient), &wanted.values);
        assert!(error < 1e-4, "{}: {name}: error {error}", self.case);
    }
}

/// Exchanges the rows that two heads of `size` take of the tensors whose name ends with `suffix`.
fn swap_heads(tensors: &mut Tensors, suffix: &str, size: usize) {
    let mut swapped = 0;
    for (name, NamedTensor { shape, values }) in tensors {
        if name.contains(suffix) {
            let columns = values.len() / shape[0];
            let (first, rest) = values.split_at_mut(size * columns);
            first.swap_with_slice(&mut rest[..size * columns]);
            swapped += 1;
        }
    }
    assert!(swapped > 0, "nothing is called {suffix}");
}

fn drop_values(tensors: &mut Tensors, suffix: &str) {
    let mut dropped = 0;
    for (name, tensor) in tensors {
        if name.ends_with(suffix) {
            tensor.values.fill(0.0);
            dropped += 1;
        }
    }
    assert!(dropped > 0, "nothing is called {suffix}");
}

/// The comparison sees each of these, far above its tolerance.
#[test]
fn damage_is_seen() {
    let heads: fn(&mut Tensors) = |tensors| swap_heads(tensors, ".query.", 5);
    let pair_heads: fn(&mut Tensors) =
        |tensors| swap_heads(tensors, "pairs.0.layers.0.attn.query.", 4);
    let bias: fn(&mut Tensors) = |tensors| drop_values(tensors, "fc_att.bias");
    let positions: fn(&mut Tensors) = |tensors| drop_values(tensors, "body.positions");
    let norms: fn(&mut Tensors) = |tensors| drop_values(tensors, "output_query.LayerNorm.bias");
    let conv: fn(&mut Tensors) = |tensors| drop_values(tensors, "conv_blocks.0.bias");
    let attention: fn(&mut Tensors) = |tensors| drop_values(tensors, "attention_mlp.bias");
    let groups: fn(&mut Tensors) = |tensors| {
        // The first two patches of each token change places.
        let weight = tensors.get_mut("body.linear.weight").expect("a weight");
        let columns = weight.shape[1];
        for row in weight.values.chunks_exact_mut(columns) {
            let (first, rest) = row.split_at_mut(columns / 4);
            first.swap_with_slice(&mut rest[..columns / 4]);
        }
    };
    let cases = [
        ("bert_qformer", heads),
        ("bert_qformer", positions),
        ("bert_qformer", norms),
        ("merge", groups),
        ("attention", attention),
        ("fusion_attention", bias),
        ("fusion_qformer", heads),
        ("fusion_qformer", positions),
        ("fusion_cross_modal", pair_heads),
        ("fusion_conv_attention", conv),
        ("fusion_conv_attention", bias),
    ];
    for (case, damage) in cases {
        let golden = Golden::read(case);
        let (_, yaml, is_fusion) = all().find(|(name, ..)| *name == case).expect("a case");
        let module = load(&golden, yaml, is_fusion, damage);
        let error = relative(
            &host(module.forward(golden.sources())),
            golden.values("output"),
        );
        assert!(error > 1e-3, "{case}: damage goes unseen: error {error}");
    }
    // Another order of the sources is another fusion.
    let golden = Golden::read("fusion_cross_modal");
    let (_, yaml, _) = all()
        .find(|(name, ..)| *name == "fusion_cross_modal")
        .expect("a case");
    let module = load(&golden, yaml, true, |tensors| {
        for part in ["query", "key", "value", "proj"] {
            for end in ["weight", "bias"] {
                let names =
                    [0, 1].map(|pair| format!("body.pairs.{pair}.layers.0.attn.{part}.{end}"));
                let first = tensors[&names[0]].clone();
                let second = tensors.insert(names[1].clone(), first).expect("a weight");
                tensors.insert(names[0].clone(), second);
            }
        }
    });
    let error = relative(
        &host(module.forward(golden.sources())),
        golden.values("output"),
    );
    assert!(error > 1e-3, "pairs exchanged: error {error}");
}

const BLIP2: Blip2QFormerConfig = Blip2QFormerConfig {
    queries: 5,
    layers: 3,
    heads: 3,
    dim: 15,
    intermediate: 22,
    cross_attention_every: 2,
};

/// `weights` as LAVIS' `blip2_pretrained_*.pth` calls them, among what that holds beside them.
fn lavis(weights: &Weights) -> Weights {
    let renamed = |name: &str| {
        name.replace("qformer.layernorm.", "Qformer.bert.embeddings.LayerNorm.")
            .replace("qformer.", "Qformer.bert.")
            .replace("attention.attention.", "attention.self.")
    };
    let one = || NamedTensor {
        shape: vec![1],
        values: vec![1.0],
    };
    let mut tensors: Tensors = weights
        .tensors
        .iter()
        .map(|(name, tensor)| (renamed(name), tensor.clone()))
        .collect();
    for extra in [
        "Qformer.bert.embeddings.word_embeddings.weight",
        "Qformer.bert.embeddings.position_ids",
        "Qformer.bert.encoder.layer.1.intermediate.dense.weight",
        "Qformer.bert.encoder.layer.1.output.LayerNorm.bias",
        "Qformer.cls.predictions.bias",
        "t5_proj.weight",
        "itm_head.bias",
        "temp",
    ] {
        tensors.insert(extra.into(), one());
    }
    Weights { tensors }
}

#[test]
fn blip2s_qformer_is_transformers_in_either_naming() {
    let golden = Golden::read("blip2");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = golden.0.below("weights.");
    let (norm, theirs) = (weights.below("ln_vision."), weights);
    let tokens = normed(golden.tensor("features"), &norm);
    let forward = |weights: &Weights| {
        let path = folder.path().join("model.safetensors");
        weights.write(&path).expect("a writable folder");
        let model = BLIP2.load(&path, 10, &Device::flex());
        model.map(|model| model.forward(&tokens, Keep::All))
    };
    for weights in [&theirs, &lavis(&theirs)] {
        let states = forward(weights).expect("published names");
        assert_eq!(states.hidden.len(), BLIP2.layers + 1);
        for (layer, state) in states.hidden.into_iter().enumerate() {
            let wanted = golden.values(&format!("hidden.{layer}"));
            let error = error(&host(state), wanted);
            assert!(error < 2e-5, "layer {layer}: error {error}");
        }
        let error = error(
            &host(states.last_hidden_state),
            golden.values("last_hidden_state"),
        );
        assert!(error < 2e-5, "error {error}");
    }
    let mut damaged = theirs.clone();
    swap_heads(
        &mut damaged.tensors,
        "layer.2.crossattention.attention.key.",
        5,
    );
    let states = forward(&damaged).expect("all names");
    let error = error(
        &host(states.last_hidden_state),
        golden.values("last_hidden_state"),
    );
    assert!(error > 1e-3, "swapped heads go unseen: error {error}");
    let mut strange = theirs.clone();
    let one = strange.tensors["query_tokens"].clone();
    strange
        .tensors
        .insert("qformer.pooler.dense.weight".into(), one);
    let message = forward(&strange)
        .expect_err("an unknown tensor")
        .to_string();
    assert!(message.contains("qformer.pooler.dense.weight"), "{message}");
}

/// From the pixels of frames to queries, through a folder of transformers' layout that holds both parts.
#[test]
fn blip2_reads_frames_as_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/projectors/blip2");
    let yaml = format!(
        "{{kind: blip2, weights: {0}/model.safetensors,
          qformer: {{queries: 5, layers: 3, heads: 3, dim: 15, intermediate: 22}},
          vision: {{model: eva_clip_g, weights: {0}, output: tokens, layer: -1, dim: 12, image_size: 28,
                    mean: [0.48, 0.45, 0.41], std: [0.26, 0.25, 0.27]}}}}",
        folder.display()
    );
    let config: EncoderConfig = serde_yaml::from_str(&yaml).expect("an encoder");
    let encoder = config.init(&Device::flex()).expect("weights of both parts");
    let golden = Golden(Weights::read(&folder.join("reference.safetensors")).expect("golden"));
    let frames = golden.values("frames").iter().map(|value| *value as u8);
    let media = Media::Frames {
        data: &frames.collect::<Vec<u8>>(),
        count: 3,
        size: 28,
    };
    let features = encoder.encode(&media).expect("three frames");
    assert_eq!(
        [features.length, features.dim],
        [3 * 5, config.feature_dim()]
    );
    let error = error(&features.data, golden.values("features"));
    assert!(error < 2e-5, "error {error}");
    // What would not have been normed as the Q-Former learnt it is refused.
    let EncoderConfig::Blip2(mut config) = config else {
        unreachable!()
    };
    config.vision.output = VisionOutput::Patches;
    let refused = EncoderConfig::Blip2(config).init(&Device::flex());
    let message = refused.expect_err("patches alone").to_string();
    assert!(message.contains("`tokens`"), "{message}");
}

/// 12 layers of width 768 on pictures' tokens of width 1408, without the text branch.
#[test]
fn blip2s_qformer_has_the_published_number_of_parameters() {
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 += param.lazy_shape().num_elements();
        }
    }
    let model = Blip2QFormerConfig::default().init(1408, &Device::flex());
    let mut count = Count(0);
    model.expect("published sizes").visit(&mut count);
    assert_eq!(count.0, 105_137_664 + 32 * 768);
}

/// `ln_vision`, which belongs to the vision encoder.
fn normed(features: Tensor<3>, norm: &Weights) -> Tensor<3> {
    let vector = |name: &str| {
        Tensor::<1>::from_data(norm.tensors[name].values.as_slice(), &Device::flex())
            .unsqueeze::<3>()
    };
    let centred = features.clone() - features.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    centred / (variance + 1e-5).sqrt() * vector("weight") + vector("bias")
}
