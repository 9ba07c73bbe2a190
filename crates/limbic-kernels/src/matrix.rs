//! Matrices in memory, and their product by the crate `gemm`, which chooses its kernels at run time.

use std::ops::Range;

use gemm::Parallelism;

/// A view of numbers as a matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    layout: Layout,
}

/// The same to be written.
#[derive(Debug)]
pub(crate) struct MatrixMut<'a> {
    data: &'a mut [f32],
    layout: Layout,
}

#[derive(Clone, Copy, Debug)]
struct Layout {
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl Layout {
    fn new(length: usize, rows: usize, columns: usize) -> Self {
        assert_eq!(
            Some(length),
            rows.checked_mul(columns),
            "numbers of a {rows} x {columns} matrix"
        );
        Self {
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// How many numbers, from the first, the matrix reaches over.
    fn reach(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

impl<'a> Matrix<'a> {
    /// Rows one after the other.
    ///
    /// # Panics
    /// When `data` has another number of numbers.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self {
            data,
            layout: Layout::new(data.len(), rows, columns),
        }
    }

    /// Rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        let Layout {
            rows,
            columns,
            row_stride,
            column_stride,
        } = self.layout;
        Self {
            data: self.data,
            layout: Layout {
                rows: columns,
                columns: rows,
                row_stride: column_stride,
                column_stride: row_stride,
            },
        }
    }

    /// Some of the rows.
    pub(crate) fn rows(self, range: Range<usize>) -> Self {
        assert!(
            range.end <= self.layout.rows,
            "rows {range:?} of {}",
            self.layout.rows
        );
        Self {
            data: &self.data[(range.start * self.layout.row_stride).min(self.data.len())..],
            layout: Layout {
                rows: range.len(),
                ..self.layout
            },
        }
    }

    /// Some of the columns.
    pub(crate) fn columns(self, range: Range<usize>) -> Self {
        self.transposed().rows(range).transposed()
    }

    /// A row of a matrix whose columns lie side by side.
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        assert_eq!(self.layout.column_stride, 1, "a row must lie in one piece");
        let start = row * self.layout.row_stride;
        &self.data[start..start + self.layout.columns]
    }

    pub(crate) fn height(&self) -> usize {
        self.layout.rows
    }
}

impl<'a> MatrixMut<'a> {
    /// Rows one after the other.
    ///
    /// # Panics
    /// When `data` has another number of numbers.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        let layout = Layout::new(data.len(), rows, columns);
        Self { data, layout }
    }
}

/// Threads of the pool at hand, as `gemm` counts them.
fn parallelism() -> Parallelism {
    match rayon::current_num_threads() {
        0 | 1 => Parallelism::None,
        threads => Parallelism::Rayon(threads),
    }
}

/// `out = factor · a b`, or `out += factor · a b` where `out` is kept.
///
/// # Panics
/// When the shapes do not fit.
pub(crate) fn multiply(out: MatrixMut, keeps: bool, a: Matrix, b: Matrix, factor: f32) {
    product(out, keeps, a, b, factor, parallelism());
}

/// The same on the thread at hand alone: for work that is already shared between threads.
pub(crate) fn multiply_alone(out: MatrixMut, keeps: bool, a: Matrix, b: Matrix, factor: f32) {
    product(out, keeps, a, b, factor, Parallelism::None);
}

#[expect(
    unsafe_code,
    reason = "gemm takes pointers and strides; all of them are checked here"
)]
fn product(
    out: MatrixMut,
    keeps: bool,
    a: Matrix,
    b: Matrix,
    factor: f32,
    parallelism: Parallelism,
) {
    let (m, n, k) = (out.layout.rows, out.layout.columns, a.layout.columns);
    assert!(
        a.layout.rows == m && b.layout.rows == k && b.layout.columns == n,
        "{m} x {n} of {} x {k} times {} x {}",
        a.layout.rows,
        b.layout.rows,
        b.layout.columns
    );
    for (length, layout) in [
        (out.data.len(), &out.layout),
        (a.data.len(), &a.layout),
        (b.data.len(), &b.layout),
    ] {
        assert!(layout.reach() <= length, "{length} numbers for {layout:?}");
    }
    let strides = |layout: &Layout| (layout.column_stride as isize, layout.row_stride as isize);
    let (out_columns, out_rows) = strides(&out.layout);
    let (a_columns, a_rows) = strides(&a.layout);
    let (b_columns, b_rows) = strides(&b.layout);
    // SAFETY: `reach` numbers from each pointer on lie inside its slice, and `out` is borrowed for writing alone.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data.as_mut_ptr(),
            out_columns,
            out_rows,
            keeps,
            a.data.as_ptr(),
            a_columns,
            a_rows,
            b.data.as_ptr(),
            b_columns,
            b_rows,
            1.0f32,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::tests::numbers;

    #[test]
    fn products_of_views_are_sums_of_products() {
        let (a, b) = (numbers(7 * 11, 1), numbers(9 * 11, 2));
        let mut out = numbers(5 * 4, 3);
        let before = out.clone();
        let left = Matrix::new(&a, 7, 11).rows(1..6).columns(2..10);
        let right = Matrix::new(&b, 9, 11).rows(3..7).columns(1..9).transposed();
        multiply(MatrixMut::new(&mut out, 5, 4), true, left, right, 0.5);
        for i in 0..5 {
            for j in 0..4 {
                let sum: f32 = (0..8)
                    .map(|k| a[(i + 1) * 11 + k + 2] * b[(j + 3) * 11 + k + 1])
                    .sum();
                let wanted = before[i * 4 + j] + 0.5 * sum;
                assert!((out[i * 4 + j] - wanted).abs() < 1e-5, "{i} {j}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "3 x 4")]
    fn shapes_that_do_not_fit_are_refused() {
        let mut out = [0.0; 12];
        let a = Matrix::new(&[0.0; 6], 3, 2);
        multiply(MatrixMut::new(&mut out, 3, 4), false, a, a, 1.0);
    }

    /// Large enough for the product to be shared between threads.
    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (m, n, k) = (203, 150, 410);
        let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
        let run = |threads: usize| -> Vec<f32> {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let of = |a: Matrix, b: Matrix| {
                    let mut out = vec![0.0; m * n];
                    multiply(MatrixMut::new(&mut out, m, n), false, a, b, 1.0);
                    out
                };
                let (left, right) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
                let (down, across) = (Matrix::new(&a, k, m), Matrix::new(&b, n, k));
                [
                    of(left, right),
                    of(down.transposed(), right),
                    of(left, across.transposed()),
                    of(down.transposed(), across.transposed()),
                ]
                .concat()
            })
        };
        let one = run(1);
        assert_eq!(one, run(2));
        assert_eq!(one, run(3));
    }
}
