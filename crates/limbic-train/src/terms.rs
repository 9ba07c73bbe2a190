//! The losses by name, and numbers beside each.

use std::ops::{AddAssign, Index, IndexMut};

/// One of the losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Term {
    /// Cross-entropy of the answer's tokens.
    Lm,
    /// Cross-entropy of the class head.
    Class,
    /// Error of the valence head.
    Valence,
    /// Contrast of clips and captions.
    Contrastive,
    /// Cross-entropy of hidden tokens of captions.
    Masked,
}

impl Term {
    /// All, in the order in which they are told.
    pub const ALL: [Self; 5] = [
        Self::Lm,
        Self::Class,
        Self::Valence,
        Self::Contrastive,
        Self::Masked,
    ];

    /// Its name in lines for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lm => "lm",
            Self::Class => "class",
            Self::Valence => "valence",
            Self::Contrastive => "contrastive",
            Self::Masked => "masked",
        }
    }

    /// Its name in metrics.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Lm => "lm_loss",
            Self::Class => "class_loss",
            Self::Valence => "valence_loss",
            Self::Contrastive => "contrastive_loss",
            Self::Masked => "masked_loss",
        }
    }
}

/// A value a term.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PerTerm<T>([T; 5]);

impl<T> PerTerm<T> {
    /// The value that `of` gives each.
    pub fn from_fn(of: impl FnMut(Term) -> T) -> Self {
        Self(Term::ALL.map(of))
    }
}

impl<T> Index<Term> for PerTerm<T> {
    type Output = T;

    fn index(&self, term: Term) -> &T {
        &self.0[term as usize]
    }
}

impl<T> IndexMut<Term> for PerTerm<T> {
    fn index_mut(&mut self, term: Term) -> &mut T {
        &mut self.0[term as usize]
    }
}

impl<T: AddAssign> AddAssign for PerTerm<T> {
    fn add_assign(&mut self, other: Self) {
        for (mine, its) in self.0.iter_mut().zip(other.0) {
            *mine += its;
        }
    }
}

/// What the sums of a step are divided by: tokens, samples (of their labels' weights, where labels have some), samples
/// with a valence, pairs, hidden tokens.
pub type Divisors = PerTerm<f64>;

/// Sums over a shard, to be divided by the step's [`Divisors`].
pub type LossSums = PerTerm<f64>;

/// Mean losses of a step or a split.
#[derive(Debug, Clone, PartialEq)]
pub struct LossMeans {
    /// The weighted sum.
    pub total: f64,
    /// The losses that are in it, in the order of [`Term::ALL`].
    pub terms: Vec<(Term, f64)>,
}

impl LossMeans {
    /// Of `sums` over `divisors`, for the terms in `active`.
    pub fn new(
        active: &[Term],
        sums: &LossSums,
        divisors: &Divisors,
        weights: &PerTerm<f64>,
    ) -> Self {
        let mean = |term: Term| {
            let divisor = divisors[term];
            sums[term] / if divisor > 0.0 { divisor } else { 1.0 }
        };
        let terms: Vec<(Term, f64)> = active.iter().map(|term| (*term, mean(*term))).collect();
        Self {
            total: terms.iter().map(|(term, mean)| weights[*term] * mean).sum(),
            terms,
        }
    }
}
