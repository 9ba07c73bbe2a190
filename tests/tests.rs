//! The binary from outside: what a user types, what comes out, and what lies on the disk afterwards.

/// What the benchmarks print.
mod bench;
/// Misspelt keys, missing files, wrong values.
mod complaints;
/// Every shipped YAML reads.
mod configs;
/// Every key of a recipe is documented.
mod documentation;
/// Exports, converted, merged, verified.
mod export;
/// Downloads, from a hub that the test plays.
mod fetch;
/// A finished run, scored, asked and exported.
mod finished;
/// What must not be lost, and what must not go unsaid.
mod guards;
/// Clips that are damaged, empty, no media, or silent.
mod media;
/// Published models run by themselves.
mod probe;
/// Interrupted, resumed, and run by other numbers of devices.
mod resume;
/// Where tests run, and what they share.
mod workplace;
