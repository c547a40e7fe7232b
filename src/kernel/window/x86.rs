//! The steps of [`window`](super) with AVX2 + FMA and with AVX-512.

use std::arch::x86_64::*;

use super::lanes::{self, Lanes};
use super::paths::{self, Path, Paths};
use super::{Block, Pairs, Span, Steps};
use crate::kernel::Level;

/// One instance of all steps: the algorithm, inlined into functions with the target features.
macro_rules! instance {
    ($name:ident, $level:expr, $lanes:ty, $module:ident, $features:literal) => {
        pub(super) const $name: Steps = Steps {
            level: $level,
            block: $module::block,
            pairs: $module::pairs,
            path: $module::path,
            gather: $module::gather,
            scatter: $module::scatter,
        };

        mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) unsafe fn block(b: &mut Block<'_>) {
                // SAFETY: passed on from the caller, who has checked the processor. So for all.
                unsafe { lanes::block::<$lanes>(b) }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn pairs(p: &mut Pairs<'_>) {
                // SAFETY: see `block`.
                unsafe { lanes::pairs::<$lanes>(p) }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn path(p: &mut Paths<'_>, path: &Path<'_, '_>) {
                // SAFETY: see `block`.
                unsafe { paths::path::<$lanes>(p, path) }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn gather(span: &mut Span<'_>) {
                // SAFETY: see `block`.
                unsafe { lanes::gather::<$lanes>(span) }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn scatter(span: &mut Span<'_>) {
                // SAFETY: see `block`.
                unsafe { lanes::scatter::<$lanes>(span) }
            }
        }
    };
}

instance!(AVX2, Level::Avx2, __m256, avx2, "avx2,fma");
instance!(
    AVX512,
    Level::Avx512,
    __m512,
    avx512,
    "avx512f,avx512dq,avx2,fma"
);

/// Methods of a few intrinsics each, all unsafe for the same reasons.
macro_rules! methods {
    ($($name:ident($($me:ident)? $(; $argument:ident: $type:ty)*) $(-> $result:ty)? { $($body:tt)* })*) => {
        $(
            #[inline(always)]
            unsafe fn $name($($me,)? $($argument: $type),*) $(-> $result)? {
                // SAFETY: the caller has the instruction set, and as many valid floats behind a pointer as `Lanes` asks.
                unsafe { $($body)* }
            }
        )*
    };
}

impl Lanes for __m256 {
    const N: usize = 8;
    const MANY: bool = false;

    #[inline(always)]
    fn fetch(line: *const f32) {
        // Not for writing: not all processors with AVX2 know that.
        // SAFETY: SSE is part of x86-64, and a prefetch touches no memory that the program could tell.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }

    methods! {
        splat(; x: f32) -> Self { _mm256_set1_ps(x) }
        load(; from: *const f32) -> Self { _mm256_loadu_ps(from) }
        load_eight(; from: *const f32) -> Self { _mm256_loadu_ps(from) }
        store(self; to: *mut f32) { _mm256_storeu_ps(to, self) }
        add(self; other: Self) -> Self { _mm256_add_ps(self, other) }
        sub(self; other: Self) -> Self { _mm256_sub_ps(self, other) }
        mul(self; other: Self) -> Self { _mm256_mul_ps(self, other) }
        reciprocal(self) -> Self {
            // 12 bits, doubled by one step of Newton's: y (2 - x y).
            let y = _mm256_rcp_ps(self);
            _mm256_mul_ps(y, _mm256_fnmadd_ps(self, y, _mm256_set1_ps(2.0)))
        }
        mul_add(self; a: Self; b: Self) -> Self { _mm256_fmadd_ps(self, a, b) }
        clamp(self; bound: f32) -> Self {
            _mm256_max_ps(_mm256_min_ps(self, _mm256_set1_ps(bound)), _mm256_set1_ps(-bound))
        }
        round(self) -> Self { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self) }
        exp2_of_integer(self) -> Self {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(self), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
        store_sums(; r: [Self; 8]; to: *mut f32) {
            // `hadd` adds neighbours and interleaves: after two rounds each half of a register has, in order, what four
            // registers sum up to in that half.
            let abcd = _mm256_hadd_ps(_mm256_hadd_ps(r[0], r[1]), _mm256_hadd_ps(r[2], r[3]));
            let efgh = _mm256_hadd_ps(_mm256_hadd_ps(r[4], r[5]), _mm256_hadd_ps(r[6], r[7]));
            let low = _mm256_permute2f128_ps::<0x20>(abcd, efgh);
            let high = _mm256_permute2f128_ps::<0x31>(abcd, efgh);
            _mm256_storeu_ps(to, _mm256_add_ps(low, high));
        }
        store_four_sums(; r: [Self; 4]; to: *mut f32) {
            let sums = _mm256_hadd_ps(_mm256_hadd_ps(r[0], r[1]), _mm256_hadd_ps(r[2], r[3]));
            _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums)));
        }
    }
}

impl Lanes for __m512 {
    const N: usize = 16;
    const MANY: bool = true;

    #[inline(always)]
    fn fetch(line: *const f32) {
        // For writing: where another thread has the line, it gives it up now, and not when the step stores.
        // SAFETY: all processors with AVX-512 have this instruction; as a prefetch it touches nothing.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
    }

    methods! {
        splat(; x: f32) -> Self { _mm512_set1_ps(x) }
        load(; from: *const f32) -> Self { _mm512_loadu_ps(from) }
        load_eight(; from: *const f32) -> Self { _mm512_broadcast_f32x8(_mm256_loadu_ps(from)) }
        store(self; to: *mut f32) { _mm512_storeu_ps(to, self) }
        add(self; other: Self) -> Self { _mm512_add_ps(self, other) }
        sub(self; other: Self) -> Self { _mm512_sub_ps(self, other) }
        mul(self; other: Self) -> Self { _mm512_mul_ps(self, other) }
        reciprocal(self) -> Self {
            // 14 bits, doubled by one step of Newton's: y (2 - x y).
            let y = _mm512_rcp14_ps(self);
            _mm512_mul_ps(y, _mm512_fnmadd_ps(self, y, _mm512_set1_ps(2.0)))
        }
        mul_add(self; a: Self; b: Self) -> Self { _mm512_fmadd_ps(self, a, b) }
        clamp(self; bound: f32) -> Self {
            _mm512_max_ps(_mm512_min_ps(self, _mm512_set1_ps(bound)), _mm512_set1_ps(-bound))
        }
        round(self) -> Self { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self) }
        exp2_of_integer(self) -> Self { _mm512_scalef_ps(_mm512_set1_ps(1.0), self) }
        store_sums(; r: [Self; 8]; to: *mut f32) {
            // Folded to half the width, the rest is as with AVX2.
            let halves = [
                half(r[0]), half(r[1]), half(r[2]), half(r[3]), half(r[4]), half(r[5]), half(r[6]), half(r[7]),
            ];
            <__m256 as Lanes>::store_sums(halves, to);
        }
        store_four_sums(; r: [Self; 4]; to: *mut f32) {
            let halves = [half(r[0]), half(r[1]), half(r[2]), half(r[3])];
            <__m256 as Lanes>::store_four_sums(halves, to);
        }
        store_sums_of_two(; r: [[Self; 8]; 2]; to: *mut f32) {
            // Each round folds two registers into one, the sums of the first in the lanes of clear bits and of the second
            // in those of set bits: halves, then quarters, pairs, and single lanes.
            let a = [
                fold_halves(r[0][0], r[1][0]), fold_halves(r[0][1], r[1][1]),
                fold_halves(r[0][2], r[1][2]), fold_halves(r[0][3], r[1][3]),
                fold_halves(r[0][4], r[1][4]), fold_halves(r[0][5], r[1][5]),
                fold_halves(r[0][6], r[1][6]), fold_halves(r[0][7], r[1][7]),
            ];
            let b = [
                fold_quarters(a[0], a[4]), fold_quarters(a[1], a[5]),
                fold_quarters(a[2], a[6]), fold_quarters(a[3], a[7]),
            ];
            let c = [fold_pairs(b[0], b[2]), fold_pairs(b[1], b[3])];
            _mm512_storeu_ps(to, fold_lanes(c[0], c[1]));
        }
    }
}

/// Functions that fold the lanes of two registers into one: `kept` and `moved` lanes of both, added.
macro_rules! folds {
    ($($name:ident, $what:literal, $mask:literal, |$both:ident| $moved:expr;)*) => {
        $(
            #[doc = concat!("Lanes of ", $what, " apart are added; those of the first register stay where the mask is clear.")]
            #[inline(always)]
            unsafe fn $name(first: __m512, second: __m512) -> __m512 {
                // SAFETY: the caller has AVX-512 F.
                unsafe {
                    let kept = _mm512_mask_blend_ps($mask, first, second);
                    // The other lanes of each, which have to change places.
                    let $both = (first, second);
                    _mm512_add_ps(kept, $moved)
                }
            }
        )*
    };
}

folds! {
    fold_halves, "8", 0xFF00, |x| _mm512_shuffle_f32x4::<0b01_00_11_10>(x.0, x.1);
    fold_quarters, "4", 0xF0F0, |x| {
        let other = _mm512_mask_blend_ps(0xF0F0, x.1, x.0);
        _mm512_shuffle_f32x4::<0b10_11_00_01>(other, other)
    };
    fold_pairs, "2", 0xCCCC, |x| _mm512_castpd_ps(_mm512_shuffle_pd::<0b0101_0101>(
        _mm512_castps_pd(x.0), _mm512_castps_pd(x.1)));
    fold_lanes, "1", 0xAAAA, |x| {
        let other = _mm512_mask_blend_ps(0xAAAA, x.1, x.0);
        _mm512_permute_ps::<0b10_11_00_01>(other)
    };
}

/// The sum of both halves. No closure and no `map`: those would be functions without the target features.
#[inline(always)]
unsafe fn half(x: __m512) -> __m256 {
    // SAFETY: the caller has AVX-512 DQ.
    unsafe { _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)) }
}
