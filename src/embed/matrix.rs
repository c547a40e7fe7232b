//! Rows of vectors, each padded to whole cache lines, so that a row never shares a line with another one.
//!
//! A large matrix asks the system for huge pages: training jumps from row to row all over it, and with pages of 4 KB
//! the processor would have to look up nearly every row's page in memory (a third of the time at 70,000 words).

use anyhow::{Result, bail};
use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

use crate::kernel::window::PAD;

/// A cache line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; PAD]);

/// From this size on, in bytes, a matrix has pages of its own.
const LARGE: usize = 4 << 20;

/// Where the floats are. Both begin at a cache line.
#[derive(Debug)]
enum Memory {
    Heap(Vec<Line>),
    Pages(MmapMut),
}

impl Memory {
    /// Zeros; `None` when there is no memory for them.
    fn zeros(n_lines: usize) -> Option<Memory> {
        let n_bytes = n_lines.checked_mul(size_of::<Line>())?;
        if n_bytes >= LARGE {
            // Pages come into being when they are first written; a limit of the system shows here.
            let pages = MmapMut::map_anon(n_bytes).ok()?;
            #[cfg(target_os = "linux")]
            {
                // Systems without huge pages refuse, which does no harm.
                let _ = pages.advise(memmap2::Advice::HugePage);
            }
            return Some(Memory::Pages(pages));
        }
        let mut lines = Vec::new();
        lines.try_reserve_exact(n_lines).ok()?;
        lines.resize(n_lines, Line::zeroed());
        Some(Memory::Heap(lines))
    }

    fn floats(&self) -> &[f32] {
        match self {
            Memory::Heap(lines) => bytemuck::cast_slice(lines),
            Memory::Pages(pages) => bytemuck::cast_slice(pages),
        }
    }

    fn floats_mut(&mut self) -> &mut [f32] {
        match self {
            Memory::Heap(lines) => bytemuck::cast_slice_mut(lines),
            Memory::Pages(pages) => bytemuck::cast_slice_mut(pages),
        }
    }
}

/// `n_rows` vectors of `dim` floats, row-major. What pads a row is zero and stays zero.
#[derive(Debug)]
pub struct Matrix {
    memory: Memory,
    n_rows: usize,
    dim: usize,
}

impl Clone for Matrix {
    /// # Panics
    /// When there is no memory for a second one.
    fn clone(&self) -> Matrix {
        let mut copy = Matrix::zeros(self.n_rows, self.dim).expect("memory for a copy");
        copy.floats_mut().copy_from_slice(self.floats());
        copy
    }
}

impl Matrix {
    /// A matrix of zeros.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn zeros(n_rows: usize, dim: usize) -> Result<Matrix> {
        let memory = n_rows
            .checked_mul(dim.div_ceil(PAD))
            .and_then(Memory::zeros);
        match memory {
            Some(memory) => Ok(Matrix {
                memory,
                n_rows,
                dim,
            }),
            None => bail!(
                "no memory for {n_rows} vectors of {dim} components ({:.1} GB): lower vector_size, or raise min_count",
                n_rows as f64 * dim as f64 * 4e-9
            ),
        }
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
        self.memory.floats()
    }

    /// Whether every component is a number and no infinity.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.floats().iter().all(|x| x.is_finite())
    }

    pub(super) fn floats_mut(&mut self) -> &mut [f32] {
        self.memory.floats_mut()
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
    fn a_large_matrix_is_like_a_small_one() {
        let mut matrix = Matrix::zeros(LARGE / 64 + 1, 3).unwrap();
        assert!(matches!(matrix.memory, Memory::Pages(_)));
        assert!(matrix.floats().iter().all(|&x| x == 0.0));
        assert_eq!(matrix.floats().as_ptr().addr() % 64, 0);
        matrix.row_mut(LARGE / 64).fill(2.0);
        let copy = matrix.clone();
        assert_eq!(copy.row(LARGE / 64), [2.0; 3]);
        assert_eq!(copy.floats(), matrix.floats());
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
