//! What a probe found, to be looked at or to be written.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Tensor};
use limbic_weights::{NamedTensor, Weights, WeightsError};

/// Values that a line of the table begins with.
const FIRST: usize = 4;

/// Named tensors in the order in which the model made them.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Vec<(String, NamedTensor)>);

impl Numbers {
    pub(crate) fn push<const D: usize>(&mut self, name: impl Into<String>, tensor: Tensor<D>) {
        let shape = tensor.dims().to_vec();
        let data = tensor.into_data().convert_dtype(DType::F32);
        let values = data.try_into_vec().expect("converted to F32 above");
        self.0.push((name.into(), NamedTensor { shape, values }));
    }

    /// Writes all of them as F32.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn write(self, path: &Path) -> Result<(), WeightsError> {
        let tensors = BTreeMap::from_iter(self.0);
        Weights { tensors }.write(path)
    }

    /// A line for each: name, shape, least, greatest, mean and deviation, and the first values.
    pub(crate) fn table(&self) -> String {
        let header = ["", "shape", "min", "max", "mean", "std", "first"].map(String::from);
        let rows: Vec<[String; 7]> = std::iter::once(header)
            .chain(self.0.iter().map(|(name, tensor)| row(name, tensor)))
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..7).map(width).collect();
        let mut table = String::new();
        for row in &rows {
            let mut line = format!("{:<1$}", row[0], widths[0]);
            line += &format!("  {:<1$}", row[1], widths[1]);
            for column in 2..6 {
                line += &format!("  {:>1$}", row[column], widths[column]);
            }
            line += &format!("  {}", row[6]);
            table += line.trim_end();
            table.push('\n');
        }
        table
    }
}

fn row(name: &str, tensor: &NamedTensor) -> [String; 7] {
    let values = &tensor.values;
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2));
    let std = (variance.sum::<f64>() / count).sqrt();
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let first: Vec<String> = values
        .iter()
        .take(FIRST)
        .map(|v| format!("{v:.5}"))
        .collect();
    [
        name.to_string(),
        format!("{:?}", tensor.shape),
        format!("{least:.5}"),
        format!("{greatest:.5}"),
        format!("{mean:.5}"),
        format!("{std:.5}"),
        first.join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned() {
        let tensor = |shape: &[usize], values: &[f32]| NamedTensor {
            shape: shape.to_vec(),
            values: values.to_vec(),
        };
        let numbers = Numbers(vec![
            ("logits".into(), tensor(&[1, 2, 1], &[-1.0, 3.0])),
            ("hidden.0".into(), tensor(&[5], &[0.0, 1.0, 2.0, 3.0, 4.0])),
        ]);
        assert_eq!(
            numbers.table(),
            "          shape           min      max     mean      std  first\n\
             logits    [1, 2, 1]  -1.00000  3.00000  1.00000  2.00000  -1.00000 3.00000\n\
             hidden.0  [5]         0.00000  4.00000  2.00000  1.41421  0.00000 1.00000 2.00000 3.00000\n"
        );
    }
}
