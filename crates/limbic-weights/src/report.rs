//! How weights and a module fit together, for people.

use std::collections::BTreeSet;
use std::fmt;

use crate::stored::StoredDtype;

/// So many of each kind are named, and the rest counted.
const SHOWN: usize = 20;

/// How far the names and shapes of weights are those of a module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Names that fit in every respect.
    pub matched: Vec<String>,
    /// Parameters that the weights lack.
    pub missing: Vec<Misfit>,
    /// Tensors that the module has no parameter for.
    pub unexpected: Vec<Misfit>,
    /// Names that are in both with different shapes.
    pub wrong_shape: Vec<Misfit>,
    /// Tensors that a parameter is called like, whose values are no floats.
    pub wrong_dtype: Vec<(String, StoredDtype)>,
    /// Tensors that were left out on purpose.
    pub ignored: Vec<Ignored>,
    /// Values of the file that are no tensors.
    pub passed_over: usize,
}

/// A name that does not fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Misfit {
    /// PyTorch's name of the parameter or tensor.
    pub name: String,
    /// The tensor's shape, where there is one.
    pub got: Option<Vec<usize>>,
    /// The parameter's shape, where there is one.
    pub wanted: Option<Vec<usize>>,
    /// The name on the other side that is most like this one, for the first of each kind.
    pub nearest: Option<String>,
}

/// Tensors that were left out, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Ignored {
    /// As the model's file states it.
    pub reason: &'static str,
    /// What was left out.
    pub names: Vec<String>,
}

impl Report {
    /// Whether loading would succeed.
    pub fn fits(&self) -> bool {
        self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.wrong_shape.is_empty()
            && self.wrong_dtype.is_empty()
    }

    /// All that does not fit, in one line.
    pub fn problems(&self) -> String {
        let missing = self.missing.iter().map(|misfit| {
            let wanted = misfit.wanted.as_deref().unwrap_or_default();
            let nearest = hint(&misfit.nearest, "file");
            format!("missing `{}` {wanted:?}{nearest}", misfit.name)
        });
        let wrong_shape = self.wrong_shape.iter().map(|misfit| {
            let (got, wanted) = (
                misfit.got.as_deref().unwrap_or_default(),
                misfit.wanted.as_deref().unwrap_or_default(),
            );
            let nearest = hint(&misfit.nearest, "file, of the wanted shape");
            format!(
                "`{}` has shape {got:?}, wanted {wanted:?}{nearest}",
                misfit.name
            )
        });
        let wrong_dtype = self
            .wrong_dtype
            .iter()
            .map(|(name, got)| format!("`{name}` has dtype {got}, wanted F64, F32, F16 or BF16"));
        let unexpected = self.unexpected.iter().map(|misfit| {
            let got = misfit.got.as_deref().unwrap_or_default();
            let nearest = hint(&misfit.nearest, "model");
            format!("unexpected `{}` {got:?}{nearest}", misfit.name)
        });
        let kinds = [
            shorten(missing, "missing"),
            shorten(wrong_shape, "of another shape"),
            shorten(wrong_dtype, "of another dtype"),
            shorten(unexpected, "unexpected"),
        ];
        kinds.concat().join("; ")
    }

    /// Finds the nearest names for those misfits that will be shown.
    pub(crate) fn find_nearest(&mut self) {
        let of_file: Vec<(String, Vec<usize>)> = leftovers(&self.unexpected, |misfit| &misfit.got);
        let of_model = leftovers(&self.missing, |misfit| &misfit.wanted);
        for misfit in self.missing.iter_mut().take(SHOWN) {
            misfit.nearest = nearest(&misfit.name, of_file.iter().map(|(name, _)| name));
        }
        for misfit in self.unexpected.iter_mut().take(SHOWN) {
            misfit.nearest = nearest(&misfit.name, of_model.iter().map(|(name, _)| name));
        }
        for misfit in self.wrong_shape.iter_mut().take(SHOWN) {
            let wanted = misfit.wanted.as_ref();
            let alike = of_file.iter().filter(|(_, shape)| Some(shape) == wanted);
            misfit.nearest = nearest(&misfit.name, alike.map(|(name, _)| name));
        }
    }
}

fn leftovers(
    misfits: &[Misfit],
    shape: impl Fn(&Misfit) -> &Option<Vec<usize>>,
) -> Vec<(String, Vec<usize>)> {
    let named = |misfit: &Misfit| {
        (
            misfit.name.clone(),
            shape(misfit).clone().unwrap_or_default(),
        )
    };
    misfits.iter().map(named).collect()
}

fn hint(nearest: &Option<String>, place: &str) -> String {
    let nearest = nearest.as_ref();
    nearest.map_or(String::new(), |name| {
        format!(" (nearest in the {place}: `{name}`)")
    })
}

/// The first few, then how many more there are.
fn shorten(problems: impl ExactSizeIterator<Item = String>, kind: &str) -> Vec<String> {
    let more = problems.len().saturating_sub(SHOWN);
    let mut shown: Vec<String> = problems.take(SHOWN).collect();
    if more > 0 {
        shown.push(format!("and {more} more {kind}"));
    }
    shown
}

fn nearest<'a>(name: &str, others: impl Iterator<Item = &'a String>) -> Option<String> {
    // A file can be crafted to hold names that would take minutes to compare.
    const MOST: usize = 5_000;
    const LONGEST: usize = 256;
    others
        .filter(|other| other.len() <= LONGEST && name.len() <= LONGEST)
        .take(MOST)
        .map(|other| (strsim::normalized_levenshtein(name, other), other))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other.clone())
}

/// A name with its numbers left out: the layers of a stack look alike.
fn pattern(name: &str) -> String {
    let part = |part: &str| match part.parse::<u64>() {
        Ok(_) => "*".to_string(),
        Err(_) => part.to_string(),
    };
    let parts: Vec<String> = name.split('.').map(part).collect();
    parts.join(".")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "matched: {}", self.matched.len())?;
        for (kind, misfits) in [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("wrong shape", &self.wrong_shape),
        ] {
            writeln!(f, "{kind}: {}", misfits.len())?;
            for misfit in misfits.iter().take(SHOWN) {
                write!(f, "  {}", misfit.name)?;
                match (&misfit.got, &misfit.wanted) {
                    (Some(got), Some(wanted)) => write!(f, " {got:?}, wanted {wanted:?}")?,
                    (Some(shape), None) | (None, Some(shape)) => write!(f, " {shape:?}")?,
                    (None, None) => {}
                }
                if let Some(nearest) = &misfit.nearest {
                    write!(f, ", nearest: {nearest}")?;
                }
                writeln!(f)?;
            }
            write_more(f, misfits.len())?;
        }
        if !self.wrong_dtype.is_empty() {
            writeln!(f, "wrong dtype: {}", self.wrong_dtype.len())?;
            for (name, got) in self.wrong_dtype.iter().take(SHOWN) {
                writeln!(f, "  {name} {got}, wanted F64, F32, F16 or BF16")?;
            }
            write_more(f, self.wrong_dtype.len())?;
        }
        for ignored in &self.ignored {
            writeln!(f, "ignored, {}: {}", ignored.reason, ignored.names.len())?;
            let patterns: BTreeSet<String> =
                ignored.names.iter().map(|name| pattern(name)).collect();
            for pattern in patterns.iter().take(SHOWN) {
                writeln!(f, "  {pattern}")?;
            }
            write_more(f, patterns.len())?;
        }
        if self.passed_over > 0 {
            writeln!(f, "no tensors, passed over: {}", self.passed_over)?;
        }
        Ok(())
    }
}

fn write_more(f: &mut fmt::Formatter<'_>, count: usize) -> fmt::Result {
    match count.saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(f, "  and {more} more"),
    }
}
