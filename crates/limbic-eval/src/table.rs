//! Scores as aligned plain text.

use crate::Scores;

/// The per-class scores, one line of overall scores, and the confusion matrix with its Unparsed column.
///
/// Columns are as wide as their longest cell counted in characters; lines end without spaces, the text with a newline.
pub fn table(scores: &Scores) -> String {
    let confusion = &scores.confusion;

    let mut classes = vec![row(
        "class",
        ["precision", "recall", "f1", "support", "predicted"],
    )];
    classes.extend(scores.per_class.iter().map(|class| {
        row(
            &class.label,
            [
                format!("{:.3}", class.precision),
                format!("{:.3}", class.recall),
                format!("{:.3}", class.f1),
                class.support.to_string(),
                class.predicted.to_string(),
            ],
        )
    }));

    let overall = format!(
        "n {}, accuracy {:.3}, UAR {:.3}, weighted F1 {:.3}, macro F1 {:.3}, kappa {:.3}, unparsed {:.1} %",
        scores.n,
        scores.accuracy,
        scores.uar,
        scores.weighted_f1,
        scores.macro_f1,
        scores.kappa,
        100.0 * scores.unparsed_rate,
    );

    let mut matrix = vec![row(
        "truth \\ answer",
        confusion
            .labels
            .iter()
            .map(String::as_str)
            .chain(["unparsed"]),
    )];
    matrix.extend(
        confusion
            .labels
            .iter()
            .zip(&confusion.counts)
            .map(|(label, counts)| row(label, counts.iter().map(u64::to_string))),
    );

    format!("{}\n{overall}\n\n{}", align(&classes), align(&matrix))
}

fn row(head: &str, cells: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    std::iter::once(head.to_string())
        .chain(cells.into_iter().map(Into::into))
        .collect()
}

/// The first column to the left, numbers to the right, two spaces between.
fn align(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        text.push_str(&format!("{:<1$}", row[0], widths[0]));
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            text.push_str(&format!("  {cell:>width$}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Confusion;

    #[test]
    fn shows_classes_overall_and_matrix() {
        let mut confusion = Confusion::new(["happy", "sad"]);
        confusion.counts = vec![vec![3, 1, 0], vec![0, 10, 2]];
        let expected = "\
class  precision  recall     f1  support  predicted
happy      1.000   0.750  0.857        4          3
sad        0.909   0.833  0.870       12         11

n 16, accuracy 0.812, UAR 0.792, weighted F1 0.866, macro F1 0.863, kappa 0.571, unparsed 12.5 %

truth \\ answer  happy  sad  unparsed
happy               3    1         0
sad                 0   10         2
";
        assert_eq!(table(&Scores::new(confusion)), expected);
    }

    #[test]
    fn a_label_set_without_labels_is_only_headings() {
        let text = table(&Scores::new(Confusion::new(Vec::<String>::new())));
        assert!(text.starts_with("class  precision"), "{text}");
        assert!(text.ends_with("truth \\ answer  unparsed\n"), "{text}");
    }
}
