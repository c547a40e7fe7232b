//! The steps of [`window`](super) with AVX2 + FMA and with AVX-512.

use std::arch::x86_64::*;

use super::lanes::{self, Lanes};
use super::{Block, Pairs, Span, Steps};
use crate::kernel::Level;

/// One instance of all steps: the algorithm, inlined into functions with the target features.
macro_rules! instance {
    ($name:ident, $level:expr, $lanes:ty, $module:ident, $features:literal) => {
        pub(super) const $name: Steps = Steps {
            level: $level,
            block: $module::block,
            pairs: $module::pairs,
            gather: $module::gather,
            scatter: $module::scatter,
        };

        mod $module {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) unsafe fn block(b: &mut Block<'_>) {
                // SAFETY: passed on from the caller, who has checked the processor. So for all four.
                unsafe { lanes::block::<$lanes>(b) }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn pairs(p: &mut Pairs<'_>) {
                // SAFETY: see `block`.
                unsafe { lanes::pairs::<$lanes>(p) }
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

    methods! {
        splat(; x: f32) -> Self { _mm256_set1_ps(x) }
        load(; from: *const f32) -> Self { _mm256_loadu_ps(from) }
        store(self; to: *mut f32) { _mm256_storeu_ps(to, self) }
        add(self; other: Self) -> Self { _mm256_add_ps(self, other) }
        sub(self; other: Self) -> Self { _mm256_sub_ps(self, other) }
        mul(self; other: Self) -> Self { _mm256_mul_ps(self, other) }
        div(self; other: Self) -> Self { _mm256_div_ps(self, other) }
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
    }
}

impl Lanes for __m512 {
    const N: usize = 16;
    const MANY: bool = true;

    methods! {
        splat(; x: f32) -> Self { _mm512_set1_ps(x) }
        load(; from: *const f32) -> Self { _mm512_loadu_ps(from) }
        store(self; to: *mut f32) { _mm512_storeu_ps(to, self) }
        add(self; other: Self) -> Self { _mm512_add_ps(self, other) }
        sub(self; other: Self) -> Self { _mm512_sub_ps(self, other) }
        mul(self; other: Self) -> Self { _mm512_mul_ps(self, other) }
        div(self; other: Self) -> Self { _mm512_div_ps(self, other) }
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
    }
}

/// The sum of both halves. No closure and no `map`: those would be functions without the target features.
#[inline(always)]
unsafe fn half(x: __m512) -> __m256 {
    // SAFETY: the caller has AVX-512 DQ.
    unsafe { _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)) }
}
