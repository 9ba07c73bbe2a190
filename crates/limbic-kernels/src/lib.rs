//! What a decoder block computes on CPU, forward and backward, on slices of F32.

#![warn(missing_docs)]
