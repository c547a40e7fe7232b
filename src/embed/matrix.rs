//! Rows of vectors, each padded to whole cache lines, so that a row never shares a line with another one.

use anyhow::{Result, bail};
use bytemuck::{Pod, Zeroable};

use crate::kernel::window::PAD;

/// A cache line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; PAD]);

/// `n_rows` vectors of `dim` floats, row-major. What pads a row is zero and stays zero.
#[derive(Debug, Clone)]
pub struct Matrix {
    lines: Vec<Line>,
    n_rows: usize,
    dim: usize,
}

impl Matrix {
    /// A matrix of zeros.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn zeros(n_rows: usize, dim: usize) -> Result<Matrix> {
        let mut lines: Vec<Line> = Vec::new();
        let n = n_rows.checked_mul(dim.div_ceil(PAD));
        match n {
            Some(n) if lines.try_reserve_exact(n).is_ok() => lines.resize(n, Line::zeroed()),
            _ => bail!(
                "no memory for {n_rows} vectors of {dim} components ({:.1} GB): lower vector_size, or raise min_count",
                n_rows as f64 * dim as f64 * 4e-9
            ),
        }
        Ok(Matrix { lines, n_rows, dim })
    }

    /// Number of rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Components of a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Floats from the start of one row to the next, a multiple of [`PAD`].
    #[must_use]
    pub fn stride(&self) -> usize {
        self.dim.next_multiple_of(PAD)
    }

    /// One vector.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn row(&self, i: usize) -> &[f32] {
        let stride = self.stride();
        &self.floats()[i * stride..][..self.dim]
    }

    /// One vector, to write.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        let (stride, dim) = (self.stride(), self.dim);
        &mut self.floats_mut()[i * stride..][..dim]
    }

    /// All rows with their padding.
    #[must_use]
    pub fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(&self.lines)
    }

    pub(super) fn floats_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_aligned_and_apart() {
        for dim in [1, 15, 16, 17, 100] {
            let mut matrix = Matrix::zeros(3, dim).unwrap();
            matrix.row_mut(1).fill(1.0);
            assert_eq!(matrix.row(0), vec![0.0; dim]);
            assert_eq!(matrix.row(1), vec![1.0; dim]);
            assert_eq!(matrix.row(2), vec![0.0; dim]);
            assert_eq!(matrix.floats().iter().sum::<f32>(), dim as f32);
            for i in 0..3 {
                assert_eq!(matrix.row(i).as_ptr().addr() % 64, 0);
            }
        }
    }

    #[test]
    fn a_matrix_too_large_for_memory_is_an_error() {
        let message = Matrix::zeros(usize::MAX / 64, 65_536)
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("no memory for"), "{message}");
        assert!(Matrix::zeros(1 << 40, 65_536).is_err());
    }
}
