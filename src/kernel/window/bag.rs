//! Bags of rows: their sum, and a share of an error for each of them. What models need whose inputs are made of several
//! rows that are no window: a word and its n-grams, a document and a context. Rows can also be joined, one behind the
//! other, and each be given its part of the error.

use wide::f32x8;

use super::lanes::Lanes;
use super::{PAD, Row};
use crate::kernel::Level;

/// The steps at one instruction-set level, for rows of one stride.
#[derive(Debug, Clone, Copy)]
pub struct Bags {
    stride: usize,
    sum: unsafe fn(&[Row<'_>], f32, Row<'_>, usize),
    share: unsafe fn(&[Row<'_>], f32, Row<'_>, usize),
    join: unsafe fn(&[Row<'_>], Row<'_>, usize),
    part: unsafe fn(&[Row<'_>], Row<'_>, usize),
}

impl Bags {
    /// The steps at this level, or at the best one below it that the processor has.
    ///
    /// # Panics
    /// When `stride` is not a multiple of [`PAD`].
    #[must_use]
    pub fn at(level: Level, stride: usize) -> Bags {
        assert!(
            stride.is_multiple_of(PAD),
            "rows are padded to a multiple of {PAD} floats"
        );
        #[cfg(target_arch = "x86_64")]
        {
            if level >= Level::Avx512 && Level::Avx512.is_available() {
                return Bags {
                    stride,
                    sum: avx512::sum,
                    share: avx512::share,
                    join: avx512::join,
                    part: avx512::part,
                };
            }
            if level >= Level::Avx2 && Level::Avx2.is_available() {
                return Bags {
                    stride,
                    sum: avx2::sum,
                    share: avx2::share,
                    join: avx2::join,
                    part: avx2::part,
                };
            }
        }
        let _ = level;
        Bags {
            stride,
            sum,
            share,
            join,
            part,
        }
    }

    /// `into` = factor * sum of the rows; zero if there are none.
    #[inline]
    pub fn sum(&self, rows: &[Row<'_>], factor: f32, into: Row<'_>) {
        // SAFETY: the rows are valid for the stride by the promise of `Row::new`, and `at` hands out only instances the
        // processor can run.
        unsafe { (self.sum)(rows, factor, into, self.stride) }
    }

    /// Each row += factor * `error`; a row that comes twice receives it twice.
    #[inline]
    pub fn share(&self, rows: &[Row<'_>], factor: f32, error: Row<'_>) {
        // SAFETY: as for `sum`.
        unsafe { (self.share)(rows, factor, error, self.stride) }
    }

    /// `into` = the first n floats of each row, one behind the other, without what pads the rows.
    ///
    /// # Panics
    /// When n is larger than the stride.
    ///
    /// # Safety
    /// `into` has n floats for each row.
    #[inline]
    pub unsafe fn join(&self, rows: &[Row<'_>], n: usize, into: Row<'_>) {
        assert!(n <= self.stride, "rows have {} floats", self.stride);
        // SAFETY: as for `sum`, and promised by the caller.
        unsafe { (self.join)(rows, into, n) }
    }

    /// The inverse: the first n floats of row i += n floats of `error`, from i n on. A row that comes twice receives both.
    ///
    /// # Panics
    /// When n is larger than the stride.
    ///
    /// # Safety
    /// `error` has n floats for each row.
    #[inline]
    pub unsafe fn part(&self, rows: &[Row<'_>], n: usize, error: Row<'_>) {
        assert!(n <= self.stride, "rows have {} floats", self.stride);
        // SAFETY: as for `join`.
        unsafe { (self.part)(rows, error, n) }
    }

    /// `row` = 0.
    #[inline]
    pub fn clear(&self, row: Row<'_>) {
        self.sum(&[], 0.0, row);
    }
}

/// # Safety
/// Rows of `stride` floats, a multiple of [`PAD`], and the instruction set of `V`.
#[inline(always)]
unsafe fn sum_of<V: Lanes>(rows: &[Row<'_>], factor: f32, into: Row<'_>, stride: usize) {
    // SAFETY: within the rows.
    unsafe {
        let mut column = 0;
        while column < stride {
            let mut sum = V::splat(0.0);
            for row in rows {
                sum = sum.add(V::load(row.start.add(column)));
            }
            sum.mul(V::splat(factor)).store(into.start.add(column));
            column += V::N;
        }
    }
}

/// # Safety
/// As for `sum_of`.
#[inline(always)]
unsafe fn share_of<V: Lanes>(rows: &[Row<'_>], factor: f32, error: Row<'_>, stride: usize) {
    // SAFETY: within the rows.
    unsafe {
        let mut column = 0;
        while column < stride {
            // Product and sum apart: the same bits on every level.
            let share = V::load(error.start.add(column)).mul(V::splat(factor));
            for row in rows {
                let at = row.start.add(column);
                V::load(at).add(share).store(at);
            }
            column += V::N;
        }
    }
}

/// # Safety
/// Rows of n floats, as many in `into` for each, and the instruction set of `V`.
#[inline(always)]
unsafe fn join_of<V: Lanes>(rows: &[Row<'_>], into: Row<'_>, n: usize) {
    for (i, row) in rows.iter().enumerate() {
        // SAFETY: within the rows.
        unsafe { move_of::<V, false>(row.start, into.start.add(i * n), n) }
    }
}

/// # Safety
/// As for `join_of`.
#[inline(always)]
unsafe fn part_of<V: Lanes>(rows: &[Row<'_>], error: Row<'_>, n: usize) {
    for (i, row) in rows.iter().enumerate() {
        // SAFETY: within the rows.
        unsafe { move_of::<V, true>(error.start.add(i * n), row.start, n) }
    }
}

/// n floats: `to` = `from`, or `to` += `from`.
///
/// # Safety
/// n floats at both, which do not overlap, and the instruction set of `V`.
#[inline(always)]
unsafe fn move_of<V: Lanes, const ADD: bool>(from: *const f32, to: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut column = 0;
        while column + V::N <= n {
            lanes_of::<V, ADD>(from.add(column), to.add(column));
            column += V::N;
        }
        while column + f32x8::N <= n {
            lanes_of::<f32x8, ADD>(from.add(column), to.add(column));
            column += f32x8::N;
        }
        while column < n {
            let x = *from.add(column);
            let to = to.add(column);
            *to = if ADD { *to + x } else { x };
            column += 1;
        }
    }
}

/// [`move_of`] for the lanes of one register.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn lanes_of<V: Lanes, const ADD: bool>(from: *const f32, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let x = V::load(from);
        if ADD { V::load(to).add(x) } else { x }.store(to);
    }
}

unsafe fn sum(rows: &[Row<'_>], factor: f32, into: Row<'_>, stride: usize) {
    // SAFETY: passed on from the caller; the instruction set is the build's own. So for all.
    unsafe { sum_of::<f32x8>(rows, factor, into, stride) }
}

unsafe fn share(rows: &[Row<'_>], factor: f32, error: Row<'_>, stride: usize) {
    // SAFETY: see `sum`.
    unsafe { share_of::<f32x8>(rows, factor, error, stride) }
}

unsafe fn join(rows: &[Row<'_>], into: Row<'_>, n: usize) {
    // SAFETY: see `sum`.
    unsafe { join_of::<f32x8>(rows, into, n) }
}

unsafe fn part(rows: &[Row<'_>], error: Row<'_>, n: usize) {
    // SAFETY: see `sum`.
    unsafe { part_of::<f32x8>(rows, error, n) }
}

/// Instances with the target features.
#[cfg(target_arch = "x86_64")]
macro_rules! instance {
    ($module:ident, $lanes:ty, $features:literal) => {
        mod $module {
            use super::Row;

            #[target_feature(enable = $features)]
            pub(super) unsafe fn sum(rows: &[Row<'_>], factor: f32, into: Row<'_>, stride: usize) {
                // SAFETY: passed on from the caller, who has checked the processor. So for all.
                unsafe { super::sum_of::<$lanes>(rows, factor, into, stride) }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn share(
                rows: &[Row<'_>],
                factor: f32,
                error: Row<'_>,
                stride: usize,
            ) {
                // SAFETY: see `sum`.
                unsafe { super::share_of::<$lanes>(rows, factor, error, stride) }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn join(rows: &[Row<'_>], into: Row<'_>, n: usize) {
                // SAFETY: see `sum`.
                unsafe { super::join_of::<$lanes>(rows, into, n) }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn part(rows: &[Row<'_>], error: Row<'_>, n: usize) {
                // SAFETY: see `sum`.
                unsafe { super::part_of::<$lanes>(rows, error, n) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instance!(avx2, std::arch::x86_64::__m256, "avx2,fma");
#[cfg(target_arch = "x86_64")]
instance!(
    avx512,
    std::arch::x86_64::__m512,
    "avx512f,avx512dq,avx2,fma"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_adds_and_shares_alike() {
        for level in [Level::Portable, Level::Avx2, Level::Avx512] {
            for stride in [16, 48, 112] {
                let mut floats: Vec<f32> = (0..4 * stride).map(|i| (i % 37) as f32).collect();
                let before = floats.clone();
                let start = floats.as_mut_ptr();
                // SAFETY: four rows of the vector, which is not touched otherwise while they are used.
                let row = |i: usize| unsafe { Row::new(start.add(i * stride)) };
                let bags = Bags::at(level, stride);
                bags.sum(&[row(0), row(1), row(0)], 0.5, row(3));
                bags.share(&[row(0), row(2), row(0)], -2.0, row(3));
                for i in 0..stride {
                    let mean = (2.0 * before[i] + before[stride + i]) * 0.5;
                    assert_eq!(floats[3 * stride + i], mean, "{level:?}");
                    assert_eq!(floats[i], before[i] - 4.0 * mean, "{level:?}");
                    assert_eq!(floats[2 * stride + i], before[2 * stride + i] - 2.0 * mean);
                    assert_eq!(floats[stride + i], before[stride + i]);
                }
            }
        }
    }

    #[test]
    fn rows_are_joined_without_their_padding_and_receive_their_parts() {
        for level in [Level::Portable, Level::Avx2, Level::Avx512] {
            for n in [1usize, 7, 8, 16, 24, 29, 45, 64] {
                let stride = n.next_multiple_of(PAD);
                let mut floats: Vec<f32> = (0..3 * stride).map(|i| (i % 37) as f32).collect();
                // One float more, which stays.
                let mut joined = vec![-1.0f32; 4 * n + 1];
                let before = floats.clone();
                let start = floats.as_mut_ptr();
                // SAFETY: three rows of the vector, which is not touched otherwise while they are used.
                let row = |i: usize| unsafe { Row::new(start.add(i * stride)) };
                let rows = [row(0), row(2), row(1), row(0)];
                let bags = Bags::at(level, stride);
                // SAFETY: n floats for each of four rows, used by nobody else meanwhile.
                unsafe {
                    let all = Row::new(joined.as_mut_ptr());
                    bags.join(&rows, n, all);
                    bags.part(&rows, n, all);
                }
                for (i, times) in [3.0, 2.0, 2.0].into_iter().enumerate() {
                    for column in 0..stride {
                        let old = before[i * stride + column];
                        let expected = if column < n { times * old } else { old };
                        assert_eq!(floats[i * stride + column], expected, "{level:?} {n}");
                    }
                }
                for (part, i) in joined.chunks_exact(n).zip([0, 2, 1, 0]) {
                    assert_eq!(part, &before[i * stride..][..n], "{level:?} {n}");
                }
                assert_eq!(joined[4 * n], -1.0);
            }
        }
    }
}
