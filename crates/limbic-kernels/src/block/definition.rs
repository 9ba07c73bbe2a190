//! A small layer whose numbers can be changed one by one, and what it is by definition, number by number in F64.

use super::Block;
use crate::rows::gather;
use crate::vector::tests::numbers;
use crate::{Adapter, BlockShape, Linear, Norm, Rotary, Sequences, Stored};

pub(super) const WIDTH: usize = 24;
pub(super) const INNER: usize = 40;
pub(super) const HEADS: usize = 6;
pub(super) const GROUPS: usize = 2;
pub(super) const HEAD: usize = 4;
pub(super) const RANK: usize = 3;
pub(super) const ROWS: usize = 150;

/// A layer's numbers, in one place each so that they can be changed.
#[derive(Clone)]
pub(super) struct Numbers {
    pub(super) x: Vec<f32>,
    pub(super) norms: [Vec<f32>; 2],
    pub(super) weights: Vec<Vec<f32>>,
    pub(super) biases: Vec<Vec<f32>>,
    pub(super) a: Vec<Vec<f32>>,
    pub(super) b: Vec<Vec<f32>>,
    pub(super) masks: Vec<Vec<f32>>,
    pub(super) cos: Vec<f32>,
    pub(super) sin: Vec<f32>,
}

pub(super) fn sizes() -> [(usize, usize); 7] {
    let (queries, keys) = (HEADS * HEAD, GROUPS * HEAD);
    [
        (WIDTH, queries),
        (WIDTH, keys),
        (WIDTH, keys),
        (queries, WIDTH),
        (WIDTH, INNER),
        (WIDTH, INNER),
        (INNER, WIDTH),
    ]
}

impl Numbers {
    pub(super) fn new() -> Self {
        let scaled = |length, seed, scale: f32| -> Vec<f32> {
            numbers(length, seed).iter().map(|x| x * scale).collect()
        };
        let of = |seed: u32, size: fn((usize, usize)) -> usize, scale: f32| -> Vec<Vec<f32>> {
            let sizes = sizes().into_iter().enumerate();
            sizes
                .map(|(i, s)| scaled(size(s), seed + i as u32, scale))
                .collect()
        };
        let angle = |i: usize| (i / (HEAD / 2)) as f32 * [1.0, 0.1][i % 2];
        Self {
            x: scaled(ROWS * WIDTH, 1, 1.5),
            norms: [2, 3].map(|seed| numbers(WIDTH, seed).iter().map(|x| 1.0 + x / 2.0).collect()),
            weights: of(10, |(input, output)| input * output, 0.5),
            biases: of(20, |(_, output)| output, 0.2),
            a: of(30, |(input, _)| RANK * input, 0.5),
            b: of(40, |(_, output)| RANK * output, 0.5),
            masks: sizes()
                .iter()
                .enumerate()
                .map(|(i, (input, _))| {
                    let kept = numbers(ROWS * input, 50 + i as u32);
                    kept.iter()
                        .map(|x| if *x < -0.6 { 0.0 } else { 1.25 })
                        .collect()
                })
                .collect(),
            cos: (0..ROWS * HEAD / 2).map(|i| angle(i).cos()).collect(),
            sin: (0..ROWS * HEAD / 2).map(|i| angle(i).sin()).collect(),
        }
    }

    pub(super) fn masked(&self, linear: usize, read: Option<&[usize]>) -> Vec<f32> {
        let input = sizes()[linear].0;
        match read.filter(|_| !(1..3).contains(&linear)) {
            None => self.masks[linear].clone(),
            Some(read) => gather(&self.masks[linear], read, input).to_vec(),
        }
    }

    pub(super) fn block<'a>(
        &'a self,
        masks: &'a [Vec<f32>],
        sequences: &'a Sequences,
        read: Option<&'a [usize]>,
    ) -> Block<'a> {
        let norm = |weight: &'a [f32]| Norm {
            weight,
            epsilon: 1e-5,
            is_trained: true,
        };
        let linear = |i: usize| Linear {
            weight: Stored::F32(&self.weights[i]),
            bias: Some(&self.biases[i]),
            input: sizes()[i].0,
            output: sizes()[i].1,
            adapter: Some(Adapter {
                a: &self.a[i],
                b: &self.b[i],
                scale: 0.7,
                mask: Some(&masks[i]),
                is_trained: true,
            }),
            is_trained: true,
        };
        Block {
            shape: BlockShape {
                heads: HEADS,
                groups: GROUPS,
                head_dim: HEAD,
            },
            input_norm: norm(&self.norms[0]),
            post_norm: norm(&self.norms[1]),
            linears: [0, 1, 2, 3, 4, 5, 6].map(linear),
            rotary: Rotary {
                cos: &self.cos,
                sin: &self.sin,
            },
            sequences,
            read,
        }
    }

    pub(super) fn masks(&self, read: Option<&[usize]>) -> Vec<Vec<f32>> {
        (0..7).map(|linear| self.masked(linear, read)).collect()
    }

    pub(super) fn output(&self, sequences: &Sequences, read: Option<&[usize]>) -> Vec<f32> {
        let masks = self.masks(read);
        self.block(&masks, sequences, read)
            .forward(&self.x)
            .0
            .to_vec()
    }
}

/// The definition, number by number in F64, for one row.
pub(super) fn by_definition(
    numbers: &Numbers,
    sequences: &Sequences,
    first: usize,
    row: usize,
    causal: bool,
) -> Vec<f64> {
    let f = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
    let norm = |x: &[f64], weight: &[f32]| -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let weighed = x.iter().zip(weight);
        weighed
            .map(|(x, w)| x / (mean + 1e-5).sqrt() * f64::from(*w))
            .collect()
    };
    let dot = |x: &[f64], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum::<f64>();
    let linear = |x: &[f64], i: usize, row: usize| -> Vec<f64> {
        let (input, output) = sizes()[i];
        let mask = &numbers.masks[i][row * input..][..input];
        let thin: Vec<f64> = x.iter().zip(mask).map(|(x, m)| x * f64::from(*m)).collect();
        let low: Vec<f64> = numbers.a[i].chunks(input).map(|a| dot(&thin, a)).collect();
        (0..output)
            .map(|o| {
                dot(x, &numbers.weights[i][o * input..][..input])
                    + f64::from(numbers.biases[i][o])
                    + f64::from(0.7f32) * dot(&low, &numbers.b[i][o * RANK..][..RANK])
            })
            .collect()
    };
    let turn = |x: Vec<f64>, position: usize| -> Vec<f64> {
        let mut out = x.clone();
        for (head, out) in x.chunks(HEAD).zip(out.chunks_mut(HEAD)) {
            for i in 0..HEAD / 2 {
                let place = position * HEAD / 2 + i;
                let (c, s) = (f64::from(numbers.cos[place]), f64::from(numbers.sin[place]));
                out[i] = head[i] * c - head[i + HEAD / 2] * s;
                out[i + HEAD / 2] = head[i + HEAD / 2] * c + head[i] * s;
            }
        }
        out
    };
    let x = |row: usize| f(&numbers.x[row * WIDTH..][..WIDTH]);
    let normed = |row: usize| norm(&x(row), &numbers.norms[0]);
    let segment = sequences
        .segments
        .iter()
        .find(|s| s.first == first)
        .unwrap();
    let last = if causal {
        row
    } else {
        first + segment.length - 1
    };
    let query = turn(linear(&normed(row), 0, row), row - first);
    let keys: Vec<Vec<f64>> = (first..=last)
        .map(|row| turn(linear(&normed(row), 1, row), row - first))
        .collect();
    let values: Vec<Vec<f64>> = (first..=last)
        .map(|row| linear(&normed(row), 2, row))
        .collect();
    let mut attended = vec![0.0; HEADS * HEAD];
    for head in 0..HEADS {
        let group = head / (HEADS / GROUPS);
        let score = |key: &Vec<f64>| {
            let pairs = query[head * HEAD..][..HEAD]
                .iter()
                .zip(&key[group * HEAD..][..HEAD]);
            (pairs.map(|(q, k)| q * k).sum::<f64>() / (HEAD as f64).sqrt()).exp()
        };
        let scores: Vec<f64> = keys.iter().map(score).collect();
        let total: f64 = scores.iter().sum();
        for (score, value) in scores.iter().zip(&values) {
            for e in 0..HEAD {
                attended[head * HEAD + e] += score / total * value[group * HEAD + e];
            }
        }
    }
    let sum = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
    let middle = sum(&x(row), &linear(&attended, 3, row));
    let normed = norm(&middle, &numbers.norms[1]);
    let (gate, up) = (linear(&normed, 4, row), linear(&normed, 5, row));
    let product: Vec<f64> = gate
        .iter()
        .zip(&up)
        .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
        .collect();
    sum(&middle, &linear(&product, 6, row))
}
