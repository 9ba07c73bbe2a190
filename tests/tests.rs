//! The binary from outside: what a user types, what comes out, and what lies on the disk afterwards.

/// What the benchmarks print.
mod bench;
/// Features on disk: found, damaged, shared, bounded.
mod cache;
/// Misspelt keys, missing files, wrong values.
mod complaints;
/// Every shipped YAML reads.
mod configs;
/// What the machine has, and what devices get right.
mod doctor;
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
/// How much of what is computed is padding.
mod padding;
/// Frozen weights in BF16.
mod precision;
/// Published models run by themselves.
mod probe;
/// Interrupted, resumed, and run by other numbers of devices.
mod resume;
/// Training on Vulkan, where that is built in.
#[cfg(feature = "wgpu")]
mod wgpu;
/// Where tests run, and what they share.
mod workplace;
