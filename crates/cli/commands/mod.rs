//! One command a file.

pub(crate) mod bench;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod extract;
pub(crate) mod fetch;
pub(crate) mod import;
pub(crate) mod import_model;
pub(crate) mod infer;
pub(crate) mod probe;
pub(crate) mod synth;
pub(crate) mod train;
