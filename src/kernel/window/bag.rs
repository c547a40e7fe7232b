//! Bags of rows: their sum, and a share of an error for each of them. What models need whose inputs are made of several
//! rows that are no window: a word and its n-grams, a document and a context.

use super::lanes::Lanes;
use super::{PAD, Row};
use crate::kernel::Level;

/// The two steps at one instruction-set level, for rows of one stride.
#[derive(Debug, Clone, Copy)]
pub struct Bags {
    stride: usize,
    sum: unsafe fn(&[Row<'_>], f32, Row<'_>, usize),
    share: unsafe fn(&[Row<'_>], f32, Row<'_>, usize),
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
                };
            }
            if level >= Level::Avx2 && Level::Avx2.is_available() {
                return Bags {
                    stride,
                    sum: avx2::sum,
                    share: avx2::share,
                };
            }
        }
        let _ = level;
        Bags { stride, sum, share }
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

unsafe fn sum(rows: &[Row<'_>], factor: f32, into: Row<'_>, stride: usize) {
    // SAFETY: passed on from the caller; the instruction set is the build's own. So for both.
    unsafe { sum_of::<wide::f32x8>(rows, factor, into, stride) }
}

unsafe fn share(rows: &[Row<'_>], factor: f32, error: Row<'_>, stride: usize) {
    // SAFETY: see `sum`.
    unsafe { share_of::<wide::f32x8>(rows, factor, error, stride) }
}

/// Instances with the target features.
#[cfg(target_arch = "x86_64")]
macro_rules! instance {
    ($module:ident, $lanes:ty, $features:literal) => {
        mod $module {
            use super::Row;

            #[target_feature(enable = $features)]
            pub(super) unsafe fn sum(rows: &[Row<'_>], factor: f32, into: Row<'_>, stride: usize) {
                // SAFETY: passed on from the caller, who has checked the processor. So for both.
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
}
