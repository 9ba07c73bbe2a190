//! A few rows with a weight, on CPU and off the tape: by limbic-kernels, which reads the weight once and as it is stored.

use burn::backend::Flex;
use burn::tensor::{DType, Tensor, TensorData, bf16, f16};
use limbic_kernels::{MOST_THIN_ROWS, Stored, thin_product};

/// `x Wᵀ` in F32, where this is the way to compute it.
///
/// # Shapes
/// `[rows, in]` and `[out, in]` to `[rows, out]`.
pub(crate) fn product(x: &Tensor<2>, weight: &Tensor<2>) -> Option<Tensor<2>> {
    let ([rows, input], output) = (x.dims(), weight.dims()[0]);
    if rows > MOST_THIN_ROWS || x.is_autodiff() || weight.is_autodiff() || x.dtype() != DType::F32 {
        return None;
    }
    let device = x.device();
    let [x, weight] = [x, weight].map(|tensor| tensor.clone().try_into_primitive::<Flex>().ok());
    let (x, weight) = (x?.to_contiguous(), weight?);
    let weight = match weight.dtype() {
        DType::F32 => Stored::F32(weight.as_slice()?),
        DType::BF16 => Stored::Bf16(weight.as_slice::<bf16>()?),
        DType::F16 => Stored::F16(weight.as_slice::<f16>()?),
        _ => return None,
    };
    let mut out = vec![0.0; rows * output];
    thin_product(&mut out, x.as_slice()?, weight, [output, input]);
    Some(Tensor::from_data(
        TensorData::new(out, [rows, output]),
        &device,
    ))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, FloatDType, Int};

    use super::*;

    fn numbers(shape: [usize; 2], device: &Device) -> Tensor<2> {
        let count = (shape[0] * shape[1]) as i64;
        let places = Tensor::<1, Int>::arange(0..count, device).float();
        (places * 0.7).sin().reshape(shape)
    }

    fn off(a: Tensor<2>, b: Tensor<2>) -> f32 {
        (a - b).abs().max().into_scalar()
    }

    #[test]
    fn it_is_the_product_in_each_precision() {
        let device = Device::flex();
        let (x, weight) = (numbers([3, 50], &device), numbers([70, 50], &device));
        let wanted = x.clone().matmul(weight.clone().transpose());
        let got = product(&x, &weight).unwrap();
        assert!(off(got.clone(), wanted) < 1e-4);
        for dtype in [FloatDType::BF16, FloatDType::F16] {
            let stored = weight.clone().cast(dtype);
            let wide = stored.clone().cast(FloatDType::F32);
            let wanted = x.clone().matmul(wide.transpose());
            assert!(off(product(&x, &stored).unwrap(), wanted.clone()) < 1e-4);
            assert!(
                off(got.clone(), wanted) > 1e-4,
                "the stored weights are rounded"
            );
        }
        // A row of a batch, as the last slot of each prompt is.
        let row = x.clone().slice([1..2, 0..50]);
        assert_eq!(
            product(&row, &weight).unwrap().into_data(),
            got.slice([1..2, 0..70]).into_data()
        );
    }

    #[test]
    fn what_has_a_tape_or_many_rows_goes_another_way() {
        let device = Device::flex();
        let (x, weight) = (numbers([3, 50], &device), numbers([70, 50], &device));
        assert!(product(&x.clone().autodiff(), &weight).is_none());
        assert!(product(&x, &weight.clone().autodiff().require_grad()).is_none());
        assert!(product(&numbers([MOST_THIN_ROWS + 1, 50], &device), &weight).is_none());
        assert!(product(&x, &numbers([50, 70], &device).transpose()).is_none());
    }
}
