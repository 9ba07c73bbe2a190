use burn::tensor::Tensor;

/// The sum of the shards' gradients in one fixed binary tree over their numbers.
///
/// Floating-point addition is not associative: only because the tree depends on the number of shards alone do 1, 2 and 4
/// devices give the same bits.
pub fn tree_sum(mut leaves: Vec<Tensor<1>>) -> Option<Tensor<1>> {
    while leaves.len() > 1 {
        let mut pairs = leaves.into_iter();
        let mut sums = Vec::with_capacity(pairs.len().div_ceil(2));
        while let Some(left) = pairs.next() {
            sums.push(match pairs.next() {
                Some(right) => left + right,
                None => left,
            });
        }
        leaves = sums;
    }
    leaves.pop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn neighbours_are_added_first() {
        let device = Device::flex();
        let leaf = |value: f32| Tensor::<1>::from_data([value], &device);
        // In F32 1e8 + 1 = 1e8: from the left the ones vanish, in the tree one pair of them survives as 2 and is lost last.
        let leaves = [1e8, 1.0, 4.0, 4.0].map(leaf).to_vec();
        let sum: f32 = tree_sum(leaves).unwrap().into_scalar();
        assert_eq!(sum, (1e8f32 + 1.0) + (4.0f32 + 4.0));
        assert_ne!(sum, ((1e8f32 + 1.0) + 4.0) + 4.0);
        assert!(tree_sum(Vec::new()).is_none());
        let odd: f32 = tree_sum([1.0, 2.0, 3.0].map(leaf).to_vec())
            .unwrap()
            .into_scalar();
        assert_eq!(odd, 6.0);
    }
}
