//! One layer of a LLaMA: norm, attention, norm, SwiGLU, with a residual connection around each pair.
//!
//! Letters: T rows, N rows that are read, D width, H heads, K key-value heads, E width of a head, F width of the SwiGLU
//! layer. Keys and values are needed of every row; everything else only of those that somebody reads, which after the last
//! layer are the few that are supervised.

use crate::attention::{Attention, AttentionSlopes, Sequences};
use crate::linear::add;
use crate::rows::{gather, put, scatter_add};
use crate::swiglu::{swiglu, swiglu_backward};
use crate::{Buffer, Linear, LinearGradients, Norm, Rotary};

/// The number of the layer after the product.
const DOWN: usize = 6;

/// Sizes of heads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockShape {
    /// H
    pub heads: usize,
    /// K
    pub groups: usize,
    /// E
    pub head_dim: usize,
}

/// A layer's numbers. The linear layers are in the order of [`BlockGradients::linears`].
#[derive(Debug)]
pub struct Block<'a> {
    /// Sizes of heads.
    pub shape: BlockShape,
    /// Before attention.
    pub input_norm: Norm<'a>,
    /// Before the SwiGLU layer.
    pub post_norm: Norm<'a>,
    /// Query, key, value, output of attention; gate, up, down.
    pub linears: [Linear<'a>; 7],
    /// Angles of positions.
    pub rotary: Rotary<'a>,
    /// Who sees whom.
    pub sequences: &'a Sequences,
    /// The rows that are read, ascending; all if absent.
    pub read: Option<&'a [usize]>,
}

/// What the way back needs of the way there.
#[derive(Debug)]
pub struct Kept {
    input_scales: Buffer,
    query: Buffer,
    key: Buffer,
    value: Buffer,
    attended: Buffer,
    log_sums: Buffer,
    /// After attention, `[N, D]`.
    middle: Buffer,
    post_scales: Buffer,
    gate: Buffer,
    up: Buffer,
    /// What the adapters' first factors gave.
    low: [Buffer; 7],
}

/// What earlier passes over the same sequences gave a layer.
#[derive(Debug)]
pub struct Past<'a> {
    /// Which of the T rows are new, ascending: those of x.
    pub rows: &'a [usize],
    /// Keys, turned to their positions, `[T, K·E]`; anything in the new rows.
    pub key: Buffer,
    /// Values, likewise.
    pub value: Buffer,
}

/// Slopes at a layer's numbers, of those that are trained.
#[derive(Debug)]
pub struct BlockGradients {
    /// Of the norm before attention.
    pub input_norm: Option<Vec<f32>>,
    /// Of the norm before the SwiGLU layer.
    pub post_norm: Option<Vec<f32>>,
    /// Query, key, value, output of attention; gate, up, down.
    pub linears: [LinearGradients; 7],
}

impl Block<'_> {
    /// The layer's output for the rows that are read, `[N, D]`, and what the way back needs.
    ///
    /// # Shapes
    /// `x [T, D]`
    pub fn forward(&self, x: &[f32]) -> (Buffer, Kept) {
        self.down_from_product(self.up_to_product(x, None))
    }

    /// The layer's output for the rows that are read, with the keys, turned to their positions, and the values of x.
    ///
    /// Of a layer that goes on after earlier passes x holds the new rows, which `read` counts among themselves.
    ///
    /// # Shapes
    /// `x [M, D]` with M new rows; the output `[N, D]`, keys and values `[M, K·E]`.
    pub fn forward_after(&self, x: &[f32], past: Past) -> (Buffer, [Buffer; 2]) {
        let (y, kept) = self.down_from_product(self.up_to_product(x, Some(past)));
        (y, [kept.key, kept.value])
    }

    /// What the way back needs, once more, without the output.
    ///
    /// # Shapes
    /// `x [T, D]`
    pub fn again(&self, x: &[f32]) -> Kept {
        let mut kept = self.up_to_product(x, None);
        let product = swiglu(&kept.gate, &kept.up);
        kept.low[DOWN] = self.linears[DOWN].low(&product);
        kept
    }

    fn down_from_product(&self, mut kept: Kept) -> (Buffer, Kept) {
        let product = swiglu(&kept.gate, &kept.up);
        let (mut y, down_low) = self.linears[DOWN].forward(&product);
        add(&mut y, &kept.middle);
        kept.low[DOWN] = down_low;
        (y, kept)
    }

    fn up_to_product(&self, x: &[f32], past: Option<Past>) -> Kept {
        let [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, _] = &self.linears;
        let rows = match &past {
            None => self.all_rows(),
            Some(past) => past.rows.to_vec(),
        };
        let read = self.read_of(&rows);
        let (normed, input_scales) = self.input_norm.forward(x);
        let (mut key, key_low) = k_proj.forward(&normed);
        let (value, value_low) = v_proj.forward(&normed);
        let (mut query, query_low) = match self.read {
            None => q_proj.forward(&normed),
            Some(read) => q_proj.forward(&gather(&normed, read, q_proj.input)),
        };
        drop(normed);
        self.turn(&mut query, self.shape.heads, &read, 1.0);
        self.turn(&mut key, self.shape.groups, &rows, 1.0);

        let attention = self.attention(&read);
        let (attended, log_sums) = match past {
            None => attention.forward(&query, &key, &value),
            Some(mut past) => {
                put(&mut past.key, &key, &rows, k_proj.output);
                put(&mut past.value, &value, &rows, v_proj.output);
                attention.forward(&query, &past.key, &past.value)
            }
        };
        let (mut middle, attended_low) = o_proj.forward(&attended);
        match self.read {
            None => add(&mut middle, x),
            Some(read) => add(&mut middle, &gather(x, read, q_proj.input)),
        }

        let (normed, post_scales) = self.post_norm.forward(&middle);
        let (gate, gate_low) = gate_proj.forward(&normed);
        let (up, up_low) = up_proj.forward(&normed);
        Kept {
            input_scales,
            query,
            key,
            value,
            attended,
            log_sums,
            middle,
            post_scales,
            gate,
            up,
            low: [
                query_low,
                key_low,
                value_low,
                attended_low,
                gate_low,
                up_low,
                Buffer::default(),
            ],
        }
    }

    /// The slope at x, where it is asked for, and those at the layer's numbers, given the one at the output.
    ///
    /// # Shapes
    /// `x [T, D]`, `y_slope [N, D]`.
    pub fn backward(
        &self,
        x: &[f32],
        kept: Kept,
        mut y_slope: Buffer,
        wants_x: bool,
    ) -> (Option<Buffer>, BlockGradients) {
        let [
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            gate_proj,
            up_proj,
            down_proj,
        ] = &self.linears;
        let [
            query_low,
            key_low,
            value_low,
            attended_low,
            gate_low,
            up_low,
            down_low,
        ] = &kept.low;
        let width = q_proj.input;
        let (mut gate, mut up) = (kept.gate, kept.up);

        let product = swiglu(&gate, &up);
        let mut product_slope = Buffer::stale(product.len());
        let at_product = Some(&mut *product_slope);
        let down = down_proj.backward(&y_slope, &product, down_low, at_product, false);
        drop(product);
        swiglu_backward(&mut gate, &mut up, &product_slope);
        drop(product_slope);
        let (gate_slope, up_slope) = (gate, up);
        let normed = self.post_norm.again(&kept.middle, &kept.post_scales);
        let mut normed_slope = Buffer::stale(normed.len());
        let at_normed = Some(&mut *normed_slope);
        let gate = gate_proj.backward(&gate_slope, &normed, gate_low, at_normed, false);
        drop(gate_slope);
        let at_normed = Some(&mut *normed_slope);
        let up = up_proj.backward(&up_slope, &normed, up_low, at_normed, true);
        drop((up_slope, normed));
        let post_norm =
            self.post_norm
                .weight_gradient(&normed_slope, &kept.middle, &kept.post_scales);
        // From here on the slope after attention.
        self.post_norm
            .backward(&mut y_slope, &normed_slope, &kept.middle, &kept.post_scales);
        drop(normed_slope);

        let mut attended_slope = Buffer::stale(kept.attended.len());
        let at_attended = Some(&mut *attended_slope);
        let output = o_proj.backward(&y_slope, &kept.attended, attended_low, at_attended, false);
        let rows = self.all_rows();
        let read = self.read_of(&rows);
        let AttentionSlopes {
            query: mut query_slope,
            key: mut key_slope,
            value: value_slope,
        } = self.attention(&read).backward(
            [&kept.query, &kept.key, &kept.value],
            &kept.attended,
            &kept.log_sums,
            &attended_slope,
        );
        drop(attended_slope);
        self.turn(&mut query_slope, self.shape.heads, &read, -1.0);
        self.turn(&mut key_slope, self.shape.groups, &rows, -1.0);

        let needs_slope = wants_x || self.input_norm.is_trained;
        let normed = self.input_norm.again(x, &kept.input_scales);
        let mut normed_slope = Buffer::stale(if needs_slope { normed.len() } else { 0 });
        let mut wanted = needs_slope.then_some(&mut *normed_slope);
        let at_normed = wanted.as_deref_mut();
        let key = k_proj.backward(&key_slope, &normed, key_low, at_normed, false);
        let at_normed = wanted.as_deref_mut();
        let value = v_proj.backward(&value_slope, &normed, value_low, at_normed, true);
        let query = match self.read {
            None => q_proj.backward(&query_slope, &normed, query_low, wanted, true),
            Some(read) => {
                let normed = gather(&normed, read, width);
                let mut slope = Buffer::stale(if needs_slope { normed.len() } else { 0 });
                let of_read = needs_slope.then_some(&mut *slope);
                let query = q_proj.backward(&query_slope, &normed, query_low, of_read, false);
                if let Some(wanted) = wanted {
                    scatter_add(wanted, &slope, read, width);
                }
                query
            }
        };
        let input_norm = self
            .input_norm
            .weight_gradient(&normed_slope, x, &kept.input_scales);
        let x_slope = wants_x.then(|| {
            let mut slope = match self.read {
                None => y_slope,
                Some(read) => {
                    let mut slope = Buffer::zeros(x.len());
                    scatter_add(&mut slope, &y_slope, read, width);
                    slope
                }
            };
            self.input_norm
                .backward(&mut slope, &normed_slope, x, &kept.input_scales);
            slope
        });
        let gradients = BlockGradients {
            input_norm,
            post_norm,
            linears: [query, key, value, output, gate, up, down],
        };
        (x_slope, gradients)
    }

    fn all_rows(&self) -> Vec<usize> {
        (0..self.sequences.rows()).collect()
    }

    /// Those of x's `rows` that are read.
    fn read_of(&self, rows: &[usize]) -> Vec<usize> {
        match self.read {
            None => rows.to_vec(),
            Some(read) => read.iter().map(|row| rows[*row]).collect(),
        }
    }

    fn attention<'b>(&'b self, read: &'b [usize]) -> Attention<'b> {
        Attention {
            shape: &self.shape,
            sequences: self.sequences,
            read,
        }
    }

    /// Turns the heads of some rows' queries or keys to their positions, or back.
    fn turn(&self, x: &mut [f32], heads: usize, rows: &[usize], direction: f32) {
        let (width, positions) = (self.shape.head_dim, self.sequences.positions());
        let positions: Vec<usize> = rows.iter().map(|row| positions[*row]).collect();
        self.rotary
            .turn(x, heads * width, width, &positions, direction);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::tests::numbers;
    use crate::{Adapter, Segment, Stored};

    const WIDTH: usize = 24;
    const INNER: usize = 40;
    const HEADS: usize = 6;
    const GROUPS: usize = 2;
    const HEAD: usize = 4;
    const RANK: usize = 3;
    const ROWS: usize = 150;

    /// A layer's numbers, in one place each so that they can be changed.
    #[derive(Clone)]
    struct Numbers {
        x: Vec<f32>,
        norms: [Vec<f32>; 2],
        weights: Vec<Vec<f32>>,
        biases: Vec<Vec<f32>>,
        a: Vec<Vec<f32>>,
        b: Vec<Vec<f32>>,
        masks: Vec<Vec<f32>>,
        cos: Vec<f32>,
        sin: Vec<f32>,
    }

    fn sizes() -> [(usize, usize); 7] {
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
        fn new() -> Self {
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
                norms: [2, 3]
                    .map(|seed| numbers(WIDTH, seed).iter().map(|x| 1.0 + x / 2.0).collect()),
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

        fn masked(&self, linear: usize, read: Option<&[usize]>) -> Vec<f32> {
            let input = sizes()[linear].0;
            match read.filter(|_| !(1..3).contains(&linear)) {
                None => self.masks[linear].clone(),
                Some(read) => gather(&self.masks[linear], read, input).to_vec(),
            }
        }

        fn block<'a>(
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

        fn masks(&self, read: Option<&[usize]>) -> Vec<Vec<f32>> {
            (0..7).map(|linear| self.masked(linear, read)).collect()
        }

        fn output(&self, sequences: &Sequences, read: Option<&[usize]>) -> Vec<f32> {
            let masks = self.masks(read);
            self.block(&masks, sequences, read)
                .forward(&self.x)
                .0
                .to_vec()
        }
    }

    /// The definition, number by number in F64, for one row.
    fn by_definition(
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
        let dot =
            |x: &[f64], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum::<f64>();
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
        let sum =
            |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
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

    fn sequences(is_causal: bool) -> Sequences {
        // The second is longer than a block of queries; between the two lies a row of padding.
        let segments = [(0, 37), (38, 112)];
        let segments = segments.map(|(first, length)| Segment { first, length });
        Sequences::new(ROWS, segments.to_vec(), is_causal)
    }

    #[test]
    fn rows_are_those_of_the_definition() {
        let numbers = Numbers::new();
        for is_causal in [true, false] {
            let sequences = sequences(is_causal);
            let read = [5, 36, 38, 40, 110, 149];
            let all = numbers.output(&sequences, None);
            let some = numbers.output(&sequences, Some(&read));
            for (place, row) in read.into_iter().enumerate() {
                let first = if row < 37 { 0 } else { 38 };
                let wanted = by_definition(&numbers, &sequences, first, row, is_causal);
                for (d, wanted) in wanted.iter().enumerate() {
                    for got in [all[row * WIDTH + d], some[place * WIDTH + d]] {
                        let error = (f64::from(got) - wanted).abs();
                        assert!(error < 2e-5, "row {row}, {d}: {got} {wanted}");
                    }
                }
            }
        }
    }

    /// The loss is a sum of the outputs with fixed factors, so that its slope at them is those factors.
    #[test]
    fn slopes_are_those_of_finite_differences() {
        let numbers = Numbers::new();
        let read = [0, 20, 38, 70, 71, 149];
        for (is_causal, read) in [(true, None), (false, None), (true, Some(&read[..]))] {
            let sequences = sequences(is_causal);
            let masks = numbers.masks(read);
            let block = numbers.block(&masks, &sequences, read);
            let (y, kept) = block.forward(&numbers.x);
            let factors = crate::vector::tests::numbers(y.len(), 77);
            let (x_slope, gradients) =
                block.backward(&numbers.x, kept, Buffer::copy(&factors), true);
            let x_slope = x_slope.unwrap().to_vec();
            let loss = |changed: &Numbers| -> f64 {
                let y = changed.output(&sequences, read);
                y.iter().zip(&factors).map(|(y, f)| f64::from(y * f)).sum()
            };
            type Place = Box<dyn Fn(&mut Numbers) -> &mut Vec<f32>>;
            let mut checks: Vec<(String, Place, Vec<f32>)> = vec![
                ("x".into(), Box::new(|n| &mut n.x), x_slope),
                (
                    "input norm".into(),
                    Box::new(|n| &mut n.norms[0]),
                    gradients.input_norm.unwrap(),
                ),
                (
                    "post norm".into(),
                    Box::new(|n| &mut n.norms[1]),
                    gradients.post_norm.unwrap(),
                ),
            ];
            for (i, of) in gradients.linears.into_iter().enumerate() {
                let LinearGradients { weight, bias, a, b } = of;
                let name = |what: &str| format!("{what} of {i}");
                checks.push((
                    name("weight"),
                    Box::new(move |n| &mut n.weights[i]),
                    weight.unwrap(),
                ));
                checks.push((
                    name("bias"),
                    Box::new(move |n| &mut n.biases[i]),
                    bias.unwrap(),
                ));
                checks.push((name("A"), Box::new(move |n| &mut n.a[i]), a.unwrap()));
                checks.push((name("B"), Box::new(move |n| &mut n.b[i]), b.unwrap()));
            }
            for (name, place, slopes) in checks {
                // Along the slope itself, where the change is largest against rounding.
                let length = slopes.iter().map(|s| f64::from(s * s)).sum::<f64>().sqrt();
                let step = 5e-3 / length.max(1.0);
                let moved = |sign: f64| {
                    let mut moved = numbers.clone();
                    for (value, slope) in place(&mut moved).iter_mut().zip(&slopes) {
                        *value += (sign * step * f64::from(*slope)) as f32;
                    }
                    loss(&moved)
                };
                let got = (moved(1.0) - moved(-1.0)) / (2.0 * step);
                let wanted = length * length;
                assert!(
                    (got - wanted).abs() < 2e-3 * wanted.max(1.0),
                    "{name}, causal {is_causal}, read {read:?}: {got} {wanted}"
                );
            }
        }
    }

    #[test]
    fn rows_that_go_on_are_those_of_one_pass() {
        let numbers = Numbers::new();
        let sequences = sequences(true);
        let masks = numbers.masks(None);
        let (whole, kept) = numbers.block(&masks, &sequences, None).forward(&numbers.x);
        let widths = sizes().map(|(input, _)| input);
        // The ends of both segments; the whole of the first, where the second has nothing new.
        for rows in [
            (30..37).chain(60..150).collect::<Vec<usize>>(),
            (0..37).collect(),
        ] {
            let of_rows = |x: &[f32], width: usize| gather(x, &rows, width).to_vec();
            let x = of_rows(&numbers.x, WIDTH);
            for read in [None, Some(vec![2, rows.len() - 1])] {
                let masks: Vec<Vec<f32>> = (0..7)
                    .map(|linear| {
                        let of_rows = of_rows(&numbers.masks[linear], widths[linear]);
                        match read.as_deref().filter(|_| !(1..3).contains(&linear)) {
                            None => of_rows,
                            Some(read) => gather(&of_rows, read, widths[linear]).to_vec(),
                        }
                    })
                    .collect();
                // What stands in the new rows is nobody's.
                let hidden = |x: &[f32]| {
                    let mut x = Buffer::copy(x);
                    let nothing = vec![f32::NAN; rows.len() * GROUPS * HEAD];
                    put(&mut x, &nothing, &rows, GROUPS * HEAD);
                    x
                };
                let past = Past {
                    rows: &rows,
                    key: hidden(&kept.key),
                    value: hidden(&kept.value),
                };
                let block = numbers.block(&masks, &sequences, read.as_deref());
                let (y, [key, value]) = block.forward_after(&x, past);
                let of_rows_read = match &read {
                    None => of_rows(&whole, WIDTH),
                    Some(read) => gather(&of_rows(&whole, WIDTH), read, WIDTH).to_vec(),
                };
                for (got, wanted) in [
                    (&*y, of_rows_read),
                    (&*key, of_rows(&kept.key, GROUPS * HEAD)),
                    (&*value, of_rows(&kept.value, GROUPS * HEAD)),
                ] {
                    assert_eq!(got.len(), wanted.len());
                    for (got, wanted) in got.iter().zip(&wanted) {
                        assert!((got - wanted).abs() < 2e-5, "{read:?}: {got} {wanted}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let numbers = Numbers::new();
        let sequences = sequences(true);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let masks = numbers.masks(None);
                let block = numbers.block(&masks, &sequences, None);
                let (y, kept) = block.forward(&numbers.x);
                let (slope, gradients) = block.backward(&numbers.x, kept, Buffer::copy(&y), true);
                let a = gradients.linears.into_iter().map(|of| of.a.unwrap());
                (y.to_vec(), slope.unwrap().to_vec(), a.collect::<Vec<_>>())
            })
        };
        assert_eq!(run(1), run(3));
    }
}
