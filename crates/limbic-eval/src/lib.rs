//! Metrics of emotion recognition, with unparsed answers as a column of their own.
//!
//! From text to a number in four steps, each a file:
//!
//! 1. [`parse_answer`] turns the text a model generated into a label index, or into `None` (Unparsed), never into a
//!    class that stands for "something else".
//! 2. [`Confusion`] counts truth against prediction; Unparsed has its own column.
//! 3. [`Scores`] are accuracy, UAR, F1 and the rest, defined as scikit-learn defines them.
//! 4. [`bootstrap`] says how far the scores can be trusted, [`majority`] what a constant answer would reach, and
//!    [`table`] lays all of it out as text.
//!
//! [`Regression`] does the same for numbers, such as valence.
//!
//! Every function is pure and deterministic: no clock, no global random stream, no file.
//!
//! Deliberately absent: fuzzy matching and language-model judges, which would make a score depend on another model.

mod answer;
mod bootstrap;
mod confusion;
mod error;
mod negation;
mod regression;
mod scores;
mod table;
mod words;

pub use answer::parse_answer;
pub use bootstrap::{Bootstrap, Interval, bootstrap};
pub use confusion::Confusion;
pub use error::EvalError;
pub use regression::Regression;
pub use scores::{ClassScores, Scores, majority};
pub use table::table;
