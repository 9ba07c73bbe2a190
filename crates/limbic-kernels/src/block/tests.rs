use super::definition::*;
use super::*;
use crate::Segment;

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
        let (x_slope, gradients) = block.backward(&numbers.x, kept, Buffer::copy(&factors), true);
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
