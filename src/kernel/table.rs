//! The function table: every kernel of one instruction-set level, as plain safe functions.

use super::{Level, level, portable, rerank};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use half::f16;

/// What a cosine needs, from one pass over two vectors.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Parts<T> {
    /// Inner product of `a` and `b`.
    pub dot: T,
    /// Squared norm of `a`.
    pub aa: T,
    /// Squared norm of `b`.
    pub bb: T,
}

/// Sums over two vectors of one length, for one element type. See [`Kernels`] for the contract.
#[derive(Debug, Clone, Copy)]
pub struct Pairwise<T, S> {
    /// Inner product.
    pub dot: fn(&[T], &[T]) -> S,
    /// Squared euclidean distance (no root).
    pub squared_l2: fn(&[T], &[T]) -> S,
    /// Sum of absolute differences.
    pub l1: fn(&[T], &[T]) -> S,
    /// Inner product and both squared norms in one pass.
    pub cosine: fn(&[T], &[T]) -> Parts<S>,
}

/// One f64 score for each row against one query: `(query, rows, scores)`.
pub type Scorer = fn(&[f32], &[&[f32]], &mut [f64]);

/// `(query, rows, inner products, squared norms of the rows)`.
pub type DotAndNorm = fn(&[f32], &[&[f32]], &mut [f64], &mut [f64]);

/// Exact f64 scores of several rows at once, with the bits of [`crate::vector::exact`] on every level.
#[derive(Debug, Clone, Copy)]
pub struct Rerank {
    /// Inner products.
    pub dot: Scorer,
    /// Inner products, and the squared norms of the rows.
    pub dot_and_norm: DotAndNorm,
    /// Squared euclidean distances (no root).
    pub squared_l2: Scorer,
    /// Sums of absolute differences.
    pub l1: Scorer,
}

/// The kernels of one level.
///
/// Contract of the pairwise kernels: both slices have the same length (checked in debug builds; in release builds the
/// shorter length counts), need no alignment, and may be empty. Float kernels sum in f32, in an order that differs
/// between levels: their error is that of recursive f32 summation at most, and a sum above `f32::MAX` is infinite.
/// Integer kernels are exact for every length.
#[derive(Debug)]
pub struct Kernels {
    /// The level these functions need.
    pub level: Level,
    /// f32 components, f32 sums.
    pub f32: Pairwise<f32, f32>,
    /// Inner product of two f32 vectors and squared norm of the second: what a cosine needs when the first one's is known.
    pub dot_and_norm: fn(&[f32], &[f32]) -> [f32; 2],
    /// f16 components, widened to f32, f32 sums.
    pub f16: Pairwise<f16, f32>,
    /// Signed bytes, exact sums.
    pub i8: Pairwise<i8, i64>,
    /// Number of bits that differ, in bytes.
    pub hamming: fn(&[u8], &[u8]) -> u64,
    /// Exact f64 scores of several rows.
    pub rerank: Rerank,
}

impl Kernels {
    /// The kernels of `level`, or `None` when this processor does not have it.
    #[must_use]
    pub fn at(level: Level) -> Option<&'static Kernels> {
        // The functions of a higher level are only ever handed out here, after the check they rely on.
        level.is_available().then_some(match level {
            Level::Portable => &PORTABLE,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => &avx2::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => &avx512::KERNELS,
            #[cfg(not(target_arch = "x86_64"))]
            _ => &PORTABLE,
        })
    }
}

/// The kernels of the level in use in this process ([`level`]).
pub fn kernels() -> &'static Kernels {
    Kernels::at(level()).unwrap_or(&PORTABLE)
}

static PORTABLE: Kernels = Kernels {
    level: Level::Portable,
    f32: Pairwise {
        dot: portable::dot::<f32>,
        squared_l2: portable::squared_l2::<f32>,
        l1: portable::l1::<f32>,
        cosine: portable::cosine::<f32>,
    },
    dot_and_norm: portable::dot_and_norm,
    f16: Pairwise {
        dot: portable::dot::<f16>,
        squared_l2: portable::squared_l2::<f16>,
        l1: portable::l1::<f16>,
        cosine: portable::cosine::<f16>,
    },
    i8: Pairwise {
        dot: portable::dot_i8,
        squared_l2: portable::squared_l2_i8,
        l1: portable::l1_i8,
        cosine: portable::cosine_i8,
    },
    hamming: portable::hamming,
    rerank: rerank::PORTABLE,
};

/// Makes `KERNELS` of a module's `*_inner` functions, which need an instruction set: a safe door to each, reachable
/// through the table alone, which [`Kernels::at`] hands out after asking the processor.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_kernels {
    ($level:expr) => {
        pub(super) static KERNELS: crate::kernel::Kernels = crate::kernel::Kernels {
            level: $level,
            f32: crate::kernel::Pairwise {
                dot: dot::<f32>,
                squared_l2: squared_l2::<f32>,
                l1: l1::<f32>,
                cosine: cosine::<f32>,
            },
            dot_and_norm,
            f16: crate::kernel::Pairwise {
                dot: dot::<f16>,
                squared_l2: squared_l2::<f16>,
                l1: l1::<f16>,
                cosine: cosine::<f16>,
            },
            i8: crate::kernel::Pairwise {
                dot: dot_i8,
                squared_l2: squared_l2_i8,
                l1: l1_i8,
                cosine: cosine_i8,
            },
            hamming,
            rerank: crate::kernel::rerank::AVX2,
        };

        x86_kernels! { doors
            dot<T: Lane>(T) -> f32 = dot_inner;
            squared_l2<T: Lane>(T) -> f32 = squared_l2_inner;
            l1<T: Lane>(T) -> f32 = l1_inner;
            cosine<T: Lane>(T) -> Parts<f32> = cosine_inner;
            dot_and_norm(f32) -> [f32; 2] = dot_and_norm_inner;
            dot_i8(i8) -> i64 = dot_i8_inner;
            squared_l2_i8(i8) -> i64 = squared_l2_i8_inner;
            l1_i8(i8) -> i64 = l1_i8_inner;
            cosine_i8(i8) -> Parts<i64> = cosine_i8_inner;
            hamming(u8) -> u64 = hamming_inner;
        }
    };
    (doors $($door:ident $(<$t:ident: $bound:ident>)? ($e:ty) -> $r:ty = $inner:ident;)*) => {$(
        fn $door $(<$t: $bound>)? (a: &[$e], b: &[$e]) -> $r {
            debug_assert_eq!(a.len(), b.len());
            // SAFETY: KERNELS alone holds this function, and `Kernels::at` asks the processor before handing it out.
            unsafe { $inner(a, b) }
        }
    )*};
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86_kernels;
