//! One matrix under several threads: the only place where training gives up what Rust guarantees.
//!
//! Threads of a training read and write the same rows without locks (Hogwild: Recht, Ré, Wright, Niu, 2011). Each word
//! touches a few rows out of many, so two threads seldom meet; when they do, one may lose the other's small step, which
//! the method tolerates: it is noise among noise.
//!
//! In the language's terms this is a data race as soon as `threads` > 1. Relaxed atomics would make it a defined one,
//! but exist for single words only: a row would be read float by float, and training would be as slow as without SIMD.
//! So the rows are reached through raw pointers, and what makes it hold in practice is this:
//! * No Rust reference to the floats exists while [`Shared`] lives: it borrows the matrix mutably and gives out [`Row`]s
//!   (raw pointers) only, so the compiler is never told that the floats stand still, or that they don't overlap.
//! * The floats are read and written by loads and stores of vectors, at odd ends of single floats, in `kernel::window`
//!   only, each once a step, behind function pointers. On x86-64 and aarch64 these are plain accesses that never tear a
//!   4-byte lane, and every bit pattern is an f32. No float is ever used as an index, a length or a condition.
//! * Addresses depend on ids alone, and ids come from structures that don't change: a race can't lead outside.
//! * The threads are joined before the matrix is read again.
//!
//! With `threads` = 1 there is one thread, no race, and the same bytes every run.

#![allow(unsafe_code)]

use std::marker::PhantomData;

use crate::embed::matrix::Matrix;
use crate::kernel::window::{Bags, Row, Rows};

/// A matrix that all threads of a training write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared<'a> {
    start: *mut f32,
    n_rows: usize,
    stride: usize,
    lives: PhantomData<&'a mut Matrix>,
}

// SAFETY: the pointer is good on every thread for 'a; what several threads do with it is argued above.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(super) fn new(matrix: &'a mut Matrix) -> Shared<'a> {
        Shared {
            n_rows: matrix.n_rows(),
            stride: matrix.stride(),
            start: matrix.floats_mut().as_mut_ptr(),
            lives: PhantomData,
        }
    }

    /// All rows.
    pub(super) fn rows(&self) -> Rows<'a> {
        // SAFETY: they are the matrix, which stays borrowed for 'a.
        unsafe { Rows::new(self.start, self.n_rows, self.stride) }
    }

    /// Floats of a row.
    #[inline]
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// The row of an id.
    ///
    /// # Panics
    /// When there is no such row.
    #[inline]
    pub(super) fn row(&self, id: u32) -> Row<'a> {
        assert!((id as usize) < self.n_rows, "row {id} of {}", self.n_rows);
        // SAFETY: the row lies in the matrix, which stays borrowed for 'a; all blocks have the matrix's stride.
        unsafe { Row::new(self.start.add(id as usize * self.stride)) }
    }

    /// A row = the first n floats of each of these, one behind the other.
    ///
    /// # Panics
    /// When they are more than fit, or n is larger than their stride.
    #[inline]
    pub(super) fn join(&self, id: u32, rows: &[Row<'_>], n: usize, bags: &Bags) {
        let row = self.row(id);
        assert!(rows.len() * n <= self.stride);
        // SAFETY: there is room in the row for all of them.
        unsafe { bags.join(rows, n, row) }
    }

    /// The inverse: adds to each of these rows its n floats of a row.
    ///
    /// # Panics
    /// As for `join`.
    #[inline]
    pub(super) fn part(&self, id: u32, rows: &[Row<'_>], n: usize, bags: &Bags) {
        let row = self.row(id);
        assert!(rows.len() * n <= self.stride);
        // SAFETY: as for `join`.
        unsafe { bags.part(rows, n, row) }
    }
}
