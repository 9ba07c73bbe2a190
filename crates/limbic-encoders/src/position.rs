//! Fixed position embeddings, computed rather than learned.

/// Sine-cosine embeddings of a square grid, as masked autoencoders use them (He et al. 2021,
/// `get_2d_sincos_pos_embed`): the first half of each vector tells the column, the second the row;
/// each half holds all sines, then all cosines. `dim` is a multiple of 4.
///
/// Returns `[side * side, dim]`, row-major.
pub(crate) fn grid(dim: usize, side: usize) -> Vec<f32> {
    let half = dim / 2;
    let places = (0..side).flat_map(|row| (0..side).flat_map(move |column| [column, row]));
    places
        .flat_map(|place| {
            waves(place as f64, half, |i| {
                10_000f64.powf(-2.0 * i / half as f64)
            })
        })
        .collect()
}

/// Sinusoids of a sequence, as Whisper's encoder uses them: all sines, then all cosines, with
/// periods in geometric steps from 2 π to 20000 π. `dim` is a multiple of 2, at least 4.
///
/// Returns `[length, dim]`, row-major.
pub(crate) fn sequence(dim: usize, length: usize) -> Vec<f32> {
    let last = (dim / 2 - 1) as f64;
    (0..length)
        .flat_map(|place| waves(place as f64, dim, |i| (-(10_000f64.ln()) * i / last).exp()))
        .collect()
}

fn waves(place: f64, dim: usize, frequency: impl Fn(f64) -> f64) -> Vec<f32> {
    let angles: Vec<f64> = (0..dim / 2).map(|i| place * frequency(i as f64)).collect();
    let sines = angles.iter().map(|angle| angle.sin() as f32);
    sines
        .chain(angles.iter().map(|angle| angle.cos() as f32))
        .collect()
}
