use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use limbic_llama::{Dropout, Llama, Padding, Pass, Recompute, Slopes, Tape, read_adapter};
use limbic_weights::{CounterRng, Precision};

use crate::{MODELS, Reference, distance, folder, host, named_gradients, read, track};

/// A loss that reads some states directly and others through the output layer, its slopes, and the one at the embeddings.
#[derive(Clone)]
struct Case {
    llama: Llama,
    embeddings: Tensor<3>,
    padding: Padding,
    positions: Vec<usize>,
    dropout: Dropout,
}

impl Case {
    fn loss(&self, tape: Option<&Tape>) -> (Tensor<2>, Tensor<1>) {
        let dropout = self.dropout;
        let pass = Pass { dropout, tape };
        let embeddings = self.embeddings.clone();
        let states = self
            .llama
            .hidden_at(embeddings, &self.padding, &self.positions, pass);
        let half = self.positions.len() / 2;
        let targets: Vec<i64> = (0..half as i64).map(|i| (i * 7 + 3) % 40).collect();
        let device = states.device().without_autodiff();
        let targets = Tensor::<1, Int>::from_data(targets.as_slice(), &device);
        let told = states.clone().narrow(0, 0, half);
        let tokens = self.llama.cross_entropy_sum(told, targets, dropout);
        let heads = states.clone().narrow(0, half, states.dims()[0] - half);
        (states.clone(), tokens + heads.square().sum())
    }

    fn slopes(&self, slopes: &Slopes, at_embeddings: Vec<f32>) -> BTreeMap<String, Vec<f32>> {
        let mut named = named_gradients(&self.llama, slopes);
        named.insert("embeddings".into(), at_embeddings);
        named
    }

    /// burn's way, operation after operation.
    fn on_burns_tape(&self) -> (Vec<f32>, BTreeMap<String, Vec<f32>>) {
        let (states, loss) = self.loss(None);
        let gradients = loss.backward();
        let at_embeddings = host(self.embeddings.grad(&gradients).unwrap());
        (
            host(states.inner()),
            self.slopes(&gradients.into(), at_embeddings),
        )
    }

    /// Block by block. The embeddings come from a tape of their own, twice as large as here.
    fn by_blocks(&self, recompute: Recompute) -> (Vec<f32>, BTreeMap<String, Vec<f32>>) {
        let tape = Tape::new(recompute);
        let leaf = burn::module::Param::from_tensor(self.embeddings.clone().inner() * 2.0);
        let leaf = burn::module::Param::initialized(leaf.id, leaf.val().autodiff().require_grad());
        let case = Self {
            embeddings: leaf.val() * 0.5,
            ..self.clone()
        };
        let (states, loss) = case.loss(Some(&tape));
        let slopes = tape.backward(loss);
        let at_leaf = slopes.of(&leaf).expect("the loss reads the embeddings") * 2.0;
        (host(states.inner()), case.slopes(&slopes, host(at_leaf)))
    }

    fn compare(&self, what: &str) {
        let (wanted_states, wanted) = self.on_burns_tape();
        for recompute in [Recompute::None, Recompute::Block] {
            let (states, slopes) = self.by_blocks(recompute);
            let off = distance(&states, &wanted_states);
            assert!(off < 1e-5, "{what}, {recompute:?}: states {off}");
            let names = |slopes: &BTreeMap<String, Vec<f32>>| -> Vec<String> {
                slopes.keys().cloned().collect()
            };
            assert_eq!(names(&slopes), names(&wanted), "{what}, {recompute:?}");
            for (name, wanted) in &wanted {
                let off = distance(&slopes[name], wanted);
                assert!(off < 3e-5, "{what}, {recompute:?}: {name} {off}");
            }
        }
    }
}

/// All ways of padding two rows of a model's reference ids.
fn paddings(slots: usize) -> Vec<(Padding, bool)> {
    vec![
        (Padding::Right, false),
        (Padding::Left(vec![2, 0]), false),
        (Padding::BothWays(vec![slots, slots - 3]), false),
        (Padding::Packed(vec![slots - 4, 1, slots + 3]), true),
    ]
}

fn cases(llama: impl Fn(&str) -> Llama, dropout: Dropout, compare: impl Fn(&Case, &str)) {
    for (case, what) in collected(llama) {
        compare(&Case { dropout, ..case }, &what);
    }
}

fn collected(llama: impl Fn(&str) -> Llama) -> Vec<(Case, String)> {
    let mut cases = Vec::new();
    for name in MODELS {
        let llama = llama(name);
        let embeddings = llama.embed(Reference::read(name).ids());
        let embeddings = embeddings.without_autodiff();
        let [rows, slots, width] = embeddings.dims();
        for (padding, is_packed) in paddings(slots) {
            let embeddings = match is_packed {
                true => embeddings.clone().reshape([1, rows * slots, width]),
                false => embeddings.clone(),
            };
            // Positions inside every padding, the last of each row among them.
            let positions = vec![3, 4, slots - 4, slots + 2, slots + 3, 2 * slots - 4];
            let case = Case {
                llama: llama.clone(),
                embeddings: embeddings.autodiff().require_grad(),
                padding: padding.clone(),
                positions,
                dropout: Dropout::OFF,
            };
            cases.push((case, format!("{name}, {padding:?}")));
        }
    }
    cases
}

/// Without adapters every model runs whole; with DoRA, which one of them has, blocks are replayed on burn's tape.
#[test]
fn blocks_have_the_slopes_of_burns_tape() {
    let all = |name: &str| track(read(name), |name| !name.contains("embed_tokens"));
    cases(all, Dropout::OFF, Case::compare);
    let adapted = |name: &str| {
        let adapted = read_adapter(read(name), &folder(name).join("adapter")).unwrap();
        track(adapted, |name| name.contains(".lora_"))
    };
    cases(adapted, Dropout::OFF, Case::compare);
    cases(adapted, Dropout::keyed(CounterRng::new(5)), Case::compare);
}

#[test]
fn computing_again_changes_not_a_bit() {
    let adapted = |name: &str| {
        let adapted = read_adapter(read(name), &folder(name).join("adapter")).unwrap();
        track(adapted, |name| name.contains(".lora_"))
    };
    let dropout = Dropout::keyed(CounterRng::new(5));
    cases(adapted, dropout, |case, what| {
        let kept = case.by_blocks(Recompute::None);
        // A DoRA is on burn's tape, where it is not replayed in another order of sums.
        if !kept.1.keys().any(|name| name.contains("magnitude")) {
            assert!(kept == case.by_blocks(Recompute::Block), "{what}");
        }
    });
}

/// Frozen matrices in BF16 against the same numbers in F32. Where the machine multiplies BF16, inputs of products are
/// rounded to 8 bits; burn's way rounds results as well, and is to be no nearer. Left are DoRAs, which go burn's way.
#[test]
fn matrices_in_16_bits_give_nearly_the_slopes_of_their_numbers() {
    let rounded = |name: &str| {
        let adapted = read_adapter(read(name), &folder(name).join("adapter")).unwrap();
        adapted.hold_in(Precision::Bf16)
    };
    let tracked = |llama| track(llama, |name| name.contains(".lora_"));
    let (mut worst, mut burns_worst) = (0.0f32, 0.0f32);
    let all = |name: &str| tracked(rounded(name));
    for (case, what) in collected(all) {
        let wide = Case {
            llama: tracked(case.llama.clone().valid().hold_in(Precision::F32)),
            ..case.clone()
        };
        let (wanted_states, wanted) = wide.on_burns_tape();
        if wanted.keys().any(|name| name.contains("magnitude")) {
            continue;
        }
        let off = |(states, slopes): (Vec<f32>, BTreeMap<String, Vec<f32>>)| {
            assert!(distance(&states, &wanted_states) < 0.02, "{what}");
            let of = |(name, wanted): (&String, &Vec<f32>)| distance(&slopes[name], wanted);
            wanted.iter().map(of).fold(0.0f32, f32::max)
        };
        worst = worst.max(off(case.by_blocks(Recompute::None)));
        burns_worst = burns_worst.max(off(case.on_burns_tape()));
    }
    assert!(
        worst > 0.0 && worst < 1.2 * burns_worst,
        "slopes are off by {worst} of the largest at most, burn's by {burns_worst}"
    );
}

/// What the comparison must see: a block that forgets its second residual, here by a norm of another size.
#[test]
fn another_model_has_other_slopes() {
    let tracked = |name: &str| track(read(name), |name| name.contains("_proj"));
    cases(tracked, Dropout::OFF, |case, what| {
        let (states, slopes) = case.by_blocks(Recompute::Block);
        let mut other = case.llama.clone();
        let norm = &mut other.model.layers[0].post_attention_layernorm.weight;
        *norm = burn::module::Param::initialized(norm.id, norm.val() * 1.01);
        let other = Case {
            llama: other,
            ..case.clone()
        };
        let (other_states, other_slopes) = other.on_burns_tape();
        assert!(distance(&states, &other_states) > 1e-4, "{what}");
        let name = "model.layers.0.mlp.up_proj.weight";
        assert!(
            distance(&slopes[name], &other_slopes[name]) > 1e-4,
            "{what}"
        );
    });
}
