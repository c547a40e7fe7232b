//! The steps of [`window`](super) on the `wide` crate: SSE2 on x86-64, NEON on aarch64.

use wide::{f32x8, i32x8};

use super::lanes::{self, Lanes};
use super::paths::{self, Path, Paths};
use super::{Block, Pairs, Span, Steps};
use crate::kernel::Level;

pub(super) const STEPS: Steps = Steps {
    level: Level::Portable,
    block,
    pairs,
    path,
    gather,
    scatter,
};

unsafe fn block(b: &mut Block<'_>) {
    // SAFETY: passed on from the caller; the instruction set is the build's own. So for all.
    unsafe { lanes::block::<f32x8>(b) }
}

unsafe fn pairs(p: &mut Pairs<'_>) {
    // SAFETY: see `block`.
    unsafe { lanes::pairs::<f32x8>(p) }
}

unsafe fn path(p: &mut Paths<'_>, path: &Path<'_, '_>) {
    // SAFETY: see `block`.
    unsafe { paths::path::<f32x8>(p, path) }
}

unsafe fn gather(span: &mut Span<'_>) {
    // SAFETY: see `block`.
    unsafe { lanes::gather::<f32x8>(span) }
}

unsafe fn scatter(span: &mut Span<'_>) {
    // SAFETY: see `block`.
    unsafe { lanes::scatter::<f32x8>(span) }
}

impl Lanes for f32x8 {
    const N: usize = 8;
    const MANY: bool = false;

    #[inline(always)]
    fn fetch(line: *const f32) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: SSE is part of x86-64, and a prefetch touches no memory that the program could tell.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        f32x8::splat(x)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises 8 valid floats.
        f32x8::new(unsafe { from.cast::<[f32; 8]>().read() })
    }

    #[inline(always)]
    unsafe fn load_eight(from: *const f32) -> Self {
        // SAFETY: passed on from the caller.
        unsafe { Self::load(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises 8 valid floats.
        unsafe { to.cast::<[f32; 8]>().write(self.to_array()) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self + other
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self - other
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self * other
    }

    #[inline(always)]
    unsafe fn reciprocal(self) -> Self {
        f32x8::splat(1.0) / self
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // Two roundings: a fused one without the instruction is a call into libm.
        self * a + b
    }

    #[inline(always)]
    unsafe fn clamp(self, bound: f32) -> Self {
        self.fast_min(f32x8::splat(bound))
            .fast_max(f32x8::splat(-bound))
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // Below 2^22 the sum with 1.5 * 2^23 has no room for a fraction.
        let magic = f32x8::splat(12_582_912.0);
        (self + magic) - magic
    }

    #[inline(always)]
    unsafe fn exp2_of_integer(self) -> Self {
        // In 1.5 * 2^23 + n the low bits are n; moved into the exponent, beside its bias.
        let bits: i32x8 = bytemuck::cast(self + f32x8::splat(12_582_912.0 + 127.0));
        bytemuck::cast(bits << 23)
    }

    #[inline(always)]
    unsafe fn store_sums(registers: [Self; 8], to: *mut f32) {
        let [a, b, c, d, e, f, g, h] = f32x8::transpose(registers);
        let sums = ((a + b) + (c + d)) + ((e + f) + (g + h));
        // SAFETY: the caller promises 8 valid floats.
        unsafe { sums.store(to) }
    }
}
