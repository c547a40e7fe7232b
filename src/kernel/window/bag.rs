//! Bags of rows: their sum, and a share of an error for each of them. What models need whose inputs are made of several
//! rows that are no window: a word and its n-grams, a document and a context.

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
/// Rows of `stride` floats, a multiple of [`PAD`].
#[inline(always)]
unsafe fn sum(rows: &[Row<'_>], factor: f32, into: Row<'_>, stride: usize) {
    for column in (0..stride).step_by(PAD) {
        let mut sum = [0.0f32; PAD];
        for row in rows {
            for (lane, sum) in sum.iter_mut().enumerate() {
                // SAFETY: within the row.
                *sum += unsafe { row.start.add(column + lane).read() };
            }
        }
        for (lane, sum) in sum.into_iter().enumerate() {
            // SAFETY: within the row.
            unsafe { into.start.add(column + lane).write(sum * factor) };
        }
    }
}

/// # Safety
/// As for `sum`.
#[inline(always)]
unsafe fn share(rows: &[Row<'_>], factor: f32, error: Row<'_>, stride: usize) {
    for row in rows {
        for column in (0..stride).step_by(PAD) {
            // Read as a whole before anything is written: the compiler can't know that the rows are apart.
            let mut line = [0.0f32; PAD];
            for (lane, x) in line.iter_mut().enumerate() {
                // SAFETY: within the rows.
                *x = unsafe {
                    row.start.add(column + lane).read()
                        + factor * error.start.add(column + lane).read()
                };
            }
            for (lane, x) in line.into_iter().enumerate() {
                // SAFETY: within the row.
                unsafe { row.start.add(column + lane).write(x) };
            }
        }
    }
}

/// Instances: the same loops, compiled for more.
#[cfg(target_arch = "x86_64")]
macro_rules! instance {
    ($module:ident, $features:literal) => {
        mod $module {
            use super::Row;

            #[target_feature(enable = $features)]
            pub(super) unsafe fn sum(rows: &[Row<'_>], factor: f32, into: Row<'_>, stride: usize) {
                // SAFETY: passed on from the caller, who has checked the processor. So for both.
                unsafe { super::sum(rows, factor, into, stride) }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn share(
                rows: &[Row<'_>],
                factor: f32,
                error: Row<'_>,
                stride: usize,
            ) {
                // SAFETY: see `sum`.
                unsafe { super::share(rows, factor, error, stride) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instance!(avx2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
instance!(avx512, "avx512f,avx512dq,avx2,fma");

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
