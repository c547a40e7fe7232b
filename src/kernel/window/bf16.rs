//! The step of a [`Block`] with AVX-512 and its products of bf16: two multiplications a lane.
//!
//! A bf16 is the upper half of an f32, 8 bits of precision. The factors x, o and g in the formulas of [`window`](super)
//! become bf16: x and o by dropping the lower half, which makes them .3 % smaller on average, g rounded to the nearest.
//! Sums and the rows themselves stay f32, so no small step is lost.
//!
//! `vdpbf16ps` adds, in each lane of 32 bits, the products of both halves. So two numbers share a lane:
//! * for the scores two columns of a row: their products belong to the same score;
//! * for the update of an input the same column of two outputs, times both their g; for that of an output the same column
//!   of two inputs.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over constant bounds, which unroll; several arrays share each index"
)]

use std::arch::x86_64::*;
use std::mem::transmute;

use super::ahead::Soon;
use super::lanes::{Lanes, exclude};
use super::{Block, INPUTS, LANES, OUTPUTS, PAD, Steps, x86};
use crate::kernel::Level;

pub(super) const STEPS: Steps = Steps {
    block,
    ..x86::AVX512
};

/// Floats of a register.
const N: usize = 16;
const _: () = assert!(PAD == N && INPUTS.is_multiple_of(4));

/// Whether the processor has what `block` needs.
pub(super) fn is_available() -> bool {
    Level::Avx512.is_available() && is_x86_feature_detected!("avx512bf16")
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
unsafe fn block(b: &mut Block<'_>) {
    // SAFETY: passed on from the caller, who has checked the processor. Everything below is inlined into this function.
    unsafe {
        match b.n_outputs {
            1 => block_of::<1>(b),
            2 => block_of::<2>(b),
            3 => block_of::<3>(b),
            4 => block_of::<4>(b),
            5 => block_of::<5>(b),
            _ => block_of::<6>(b),
        }
    }
}

#[inline(always)]
unsafe fn block_of<const K: usize>(b: &mut Block<'_>) {
    // SAFETY: passed on from the caller.
    unsafe {
        // An odd last input is paired with itself, and `errors` gives that no error.
        let n = b.n_inputs;
        (b.inputs[n], b.sinks[n]) = (b.inputs[n - 1], b.sinks[n - 1]);
        let mut soon = Soon::of(&b.ahead, b.stride, n.div_ceil(4) + b.stride.div_ceil(2 * N));
        soon.fetch::<__m512>(&b.ahead, b.stride);
        match n {
            ..=2 => scores::<K, 2, FRESH>(b, 0),
            3..=4 => scores::<K, 4, FRESH>(b, 0),
            _ => {
                scores::<K, 4, KEPT>(b, 0);
                let mut i = 4;
                while i < n {
                    soon.fetch::<__m512>(&b.ahead, b.stride);
                    match n - i {
                        ..=2 => scores::<K, 2, READ>(b, i),
                        _ => scores::<K, 4, READ>(b, i),
                    }
                    i += 4;
                }
            }
        }
        errors::<K>(b);
        let mut column = 0;
        while column + 2 * N <= b.stride {
            soon.fetch::<__m512>(&b.ahead, b.stride);
            update::<K, 2>(b, column);
            column += 2 * N;
        }
        if column < b.stride {
            soon.fetch::<__m512>(&b.ahead, b.stride);
            update::<K, 1>(b, column);
        }
        soon.done(&mut b.ahead);
    }
}

/// Where packed outputs come from: made, made and kept for the next inputs, or read.
const FRESH: u8 = 0;
const KEPT: u8 = 1;
const READ: u8 = 2;

/// The upper halves of the lanes of two registers, side by side.
#[inline(always)]
unsafe fn pack(high: __m512, low: __m512) -> __m512i {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(low));
        let upper = _mm512_set1_epi32(UPPER);
        _mm512_ternarylogic_epi32::<OR_AND>(low, _mm512_castps_si512(high), upper)
    }
}

/// The same for half a register.
#[inline(always)]
unsafe fn pack_half(high: __m256i, low: __m256i) -> __m256i {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let low = _mm256_srli_epi32::<16>(low);
        _mm256_ternarylogic_epi32::<OR_AND>(low, high, _mm256_set1_epi32(UPPER))
    }
}

const UPPER: i32 = 0xFFFF_0000u32 as i32;
/// a | (b & c)
const OR_AND: i32 = 0xF8;

/// sum + a * b, lane by lane the products of both halves.
#[inline(always)]
unsafe fn dot(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: the caller has AVX-512 BF16; registers of the same size, in which every pattern is a number.
    unsafe {
        _mm512_dpbf16_ps(
            sum,
            transmute::<__m512i, __m512bh>(a),
            transmute::<__m512i, __m512bh>(b),
        )
    }
}

/// Of two rows' first 16 columns, the same from zero: half a register, and zeros.
#[inline(always)]
unsafe fn dot_half(a: __m256i, b: __m256i) -> __m512 {
    // SAFETY: as for `dot`.
    unsafe {
        let (a, b) = (
            transmute::<__m256i, __m256bh>(a),
            transmute::<__m256i, __m256bh>(b),
        );
        _mm512_zextps256_ps512(_mm256_dpbf16_ps(_mm256_setzero_ps(), a, b))
    }
}

/// Lanes of a packed row, in whole cache lines.
const fn half(stride: usize) -> usize {
    (stride / 2).next_multiple_of(N)
}

/// The first 16 columns of a row that has an odd number of registers.
#[inline(always)]
unsafe fn pack_first(row: *const f32) -> __m256i {
    // SAFETY: the row has 16 floats.
    unsafe {
        pack_half(
            _mm256_loadu_si256(row.add(8).cast()),
            _mm256_loadu_si256(row.cast()),
        )
    }
}

/// The next 32.
#[inline(always)]
unsafe fn pack_columns(row: *const f32) -> __m512i {
    // SAFETY: the row has 32 floats from here on.
    unsafe { pack(__m512::load(row.add(N)), __m512::load(row)) }
}

/// The scores of R inputs with all K outputs.
#[inline(always)]
unsafe fn scores<const K: usize, const R: usize, const PACKED: u8>(
    b: &mut Block<'_>,
    first: usize,
) {
    // SAFETY: every pointer is a row of `stride` floats, a multiple of 16.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); K]; R];
        let mut inputs = [b.inputs[first].start; R];
        for r in 0..R {
            inputs[r] = b.inputs[first + r].start;
        }
        let mut outputs = [b.outputs[0].start; K];
        let mut packed = [b.packed.as_mut_ptr().cast::<f32>(); K];
        let (stride, half) = (b.stride, half(b.stride));
        for k in 0..K {
            outputs[k] = b.outputs[k].start;
            packed[k] = packed[k].add(k * half);
        }
        let (mut column, mut at) = (0, 0);
        if !stride.is_multiple_of(2 * N) {
            let mut x = [_mm256_setzero_si256(); R];
            for r in 0..R {
                x[r] = pack_first(inputs[r]);
            }
            for k in 0..K {
                let at = packed[k];
                let o = if PACKED == READ {
                    _mm256_loadu_si256(at.cast())
                } else {
                    pack_first(outputs[k])
                };
                if PACKED == KEPT {
                    _mm256_storeu_si256(at.cast(), o);
                }
                for r in 0..R {
                    sums[r][k] = dot_half(x[r], o);
                }
            }
            column = N;
            at = N;
        }
        while column < stride {
            let mut x = [_mm512_setzero_si512(); R];
            for r in 0..R {
                x[r] = pack_columns(inputs[r].add(column));
            }
            for k in 0..K {
                let at = packed[k].add(at);
                let o = if PACKED == READ {
                    _mm512_loadu_si512(at.cast())
                } else {
                    pack_columns(outputs[k].add(column))
                };
                if PACKED == KEPT {
                    _mm512_storeu_si512(at.cast(), o);
                }
                for r in 0..R {
                    sums[r][k] = dot(sums[r][k], x[r], o);
                }
            }
            column += 2 * N;
            at += N;
        }
        for r in 0..R / 2 {
            let to = b
                .scores
                .0
                .as_mut_ptr()
                .cast::<f32>()
                .add((first + 2 * r) * LANES);
            fold::<K>(&sums[2 * r], &sums[2 * r + 1]).store(to);
        }
    }
}

/// The sums over the lanes of K registers each: those of the first in lanes 0.., of the second in lanes 8...
#[inline(always)]
unsafe fn fold<const K: usize>(a: &[__m512; K], b: &[__m512; K]) -> __m512 {
    // SAFETY: the caller has AVX-512.
    unsafe {
        // Half the width first: what follows then costs half as much.
        let mut x = [_mm256_setzero_ps(); OUTPUTS];
        let mut y = x;
        for k in 0..K {
            x[k] = halved(a[k]);
            y[k] = halved(b[k]);
        }
        // Four sums, each in two parts.
        let ab = both_halves(
            fold_four(x[0], x[1], x[2], x[3]),
            fold_four(y[0], y[1], y[2], y[3]),
        );
        if K <= 4 {
            // Lanes 0..4 and 8..12.
            return _mm512_castpd_ps(_mm512_permutexvar_pd(
                _mm512_setr_epi64(0, 1, 0, 0, 2, 3, 2, 2),
                _mm512_castps_pd(_mm512_castps256_ps512(ab)),
            ));
        }
        let rest = fold_four(x[4], x[5], y[4], y[5]);
        let rest = _mm_add_ps(
            _mm256_castps256_ps128(rest),
            _mm256_extractf128_ps::<1>(rest),
        );
        let (ab, rest) = (_mm512_castps256_ps512(ab), _mm512_castps128_ps512(rest));
        let places = _mm512_setr_epi64(0, 1, 8, 8, 2, 3, 9, 9);
        _mm512_castpd_ps(_mm512_permutex2var_pd(
            _mm512_castps_pd(ab),
            places,
            _mm512_castps_pd(rest),
        ))
    }
}

#[inline(always)]
unsafe fn halved(x: __m512) -> __m256 {
    // SAFETY: the caller has AVX-512.
    unsafe { _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)) }
}

/// The sums of four registers within each half.
#[inline(always)]
unsafe fn fold_four(a: __m256, b: __m256, c: __m256, d: __m256) -> __m256 {
    // SAFETY: the caller has AVX2.
    unsafe {
        let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        let (ab, cd) = (_mm256_castps_pd(ab), _mm256_castps_pd(cd));
        _mm256_add_ps(
            _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)),
            _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)),
        )
    }
}

/// The halves of two registers added up, side by side.
#[inline(always)]
unsafe fn both_halves(a: __m256, b: __m256) -> __m256 {
    // SAFETY: the caller has AVX2.
    unsafe {
        _mm256_add_ps(
            _mm256_permute2f128_ps::<0x20>(a, b),
            _mm256_permute2f128_ps::<0x31>(a, b),
        )
    }
}

/// sigma(x), to 1e-4: less than what the rounding of the factors does.
#[inline(always)]
unsafe fn sigmoid<const R: usize>(x: [__m512; R]) -> [__m512; R] {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let mut n = x;
        let mut f = x;
        let mut p = x;
        for r in 0..R {
            f[r] = x[r]
                .mul(__m512::splat(-std::f32::consts::LOG2_E))
                .clamp(87.0);
        }
        for r in 0..R {
            n[r] = f[r].round();
            f[r] = f[r].sub(n[r]);
        }
        // 2^f for |f| <= 1/2
        const L: f32 = std::f32::consts::LN_2;
        for r in 0..R {
            let ff = f[r].mul(f[r]);
            let a = f[r].mul_add(__m512::splat(L), __m512::splat(1.0));
            let c = f[r].mul_add(__m512::splat(L * L * L / 6.0), __m512::splat(L * L / 2.0));
            let c = ff.mul_add(__m512::splat(L * L * L * L / 24.0), c);
            p[r] = _mm512_scalef_ps(ff.mul_add(c, a), n[r]);
        }
        for r in 0..R {
            p[r] = _mm512_rcp14_ps(_mm512_add_ps(p[r], __m512::splat(1.0)));
        }
        p
    }
}

/// From scores to g, in pairs of outputs and in pairs of inputs.
#[inline(always)]
unsafe fn errors<const K: usize>(b: &mut Block<'_>) {
    // SAFETY: passed on from the caller.
    unsafe {
        let label = __m512::load_eight(b.labels.as_ptr());
        let rate = __m512::load_eight(b.weights.as_ptr()).mul(__m512::splat(b.alpha));
        // No error for outputs that are not there.
        let rate = _mm512_maskz_mov_ps(((1 << K) - 1) * 0x101, rate);
        let n = b.n_inputs.div_ceil(2);
        let mut first = 0;
        while first < n {
            match n - first {
                1 => errors_of::<1>(b, first, label, rate),
                2 => errors_of::<2>(b, first, label, rate),
                3 => errors_of::<3>(b, first, label, rate),
                _ => errors_of::<4>(b, first, label, rate),
            }
            first += 4;
        }
    }
}

/// The same for R pairs of inputs.
#[inline(always)]
unsafe fn errors_of<const R: usize>(b: &mut Block<'_>, first: usize, label: __m512, rate: __m512) {
    // SAFETY: scores and errors hold a register for each pair of inputs, `g_of_outputs` half of one for each pair, and
    // `g_of_inputs` too.
    unsafe {
        let mut scores = [label; R];
        for r in 0..R {
            scores[r] = __m512::load(b.scores.0[2 * (first + r)].as_ptr());
        }
        let sigma = sigmoid(scores);
        for r in 0..R {
            let pair = first + r;
            let mut rate = rate;
            if 2 * pair + 1 == b.n_inputs {
                rate = _mm512_maskz_mov_ps(0x00FF, rate);
            }
            let mut g = label.sub(sigma[r]).mul(rate);
            if b.any_excluded {
                g.store(b.errors.0[2 * pair].as_mut_ptr());
                exclude(b);
                g = __m512::load(b.errors.0[2 * pair].as_ptr());
            }
            let g = _mm512_add_epi32(_mm512_castps_si512(g), _mm512_set1_epi32(0x8000));
            let halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(g));
            _mm256_storeu_si256(b.g_of_outputs.0[2 * pair].as_mut_ptr().cast(), halves);
            let both = pack_half(_mm512_extracti64x4_epi64::<1>(g), _mm512_castsi512_si256(g));
            _mm256_storeu_si256(b.g_of_inputs.0[pair].as_mut_ptr().cast(), both);
        }
    }
}

/// The update of C registers of columns.
#[inline(always)]
unsafe fn update<const K: usize, const C: usize>(b: &mut Block<'_>, first: usize) {
    // SAFETY: as for `scores`; a sink is such a row, too.
    unsafe {
        let zero = _mm512_setzero_ps();
        let mut after = [[zero; C]; K];
        let mut pairs = [[_mm512_setzero_si512(); C]; OUTPUTS / 2];
        for k in 0..K {
            for c in 0..C {
                after[k][c] = __m512::load(b.outputs[k].start.add(first + c * N));
            }
        }
        for k in 0..K.div_ceil(2) {
            for c in 0..C {
                let high = if 2 * k + 1 < K {
                    after[2 * k + 1][c]
                } else {
                    zero
                };
                pairs[k][c] = pack(high, after[2 * k][c]);
            }
        }
        let mut i = 0;
        while i < b.n_inputs {
            let mut x = [[zero; C]; 2];
            for r in 0..2 {
                for c in 0..C {
                    x[r][c] = __m512::load(b.inputs[i + r].start.add(first + c * N));
                }
            }
            let mut both = [_mm512_setzero_si512(); C];
            for c in 0..C {
                both[c] = pack(x[1][c], x[0][c]);
            }
            for k in 0..K {
                let g = _mm512_set1_epi32(b.g_of_inputs.0[i / 2][k] as i32);
                for c in 0..C {
                    after[k][c] = dot(after[k][c], both[c], g);
                }
            }
            // One after the other: they may be the same row.
            for r in 0..2 {
                let to = b.sinks[i + r].start.add(first);
                let mut sink = [zero; C];
                for c in 0..C {
                    sink[c] = __m512::load(to.add(c * N));
                }
                for k in 0..K.div_ceil(2) {
                    let g = _mm512_set1_epi32(b.g_of_outputs.0[i + r][k] as i32);
                    for c in 0..C {
                        sink[c] = dot(sink[c], pairs[k][c], g);
                    }
                }
                for c in 0..C {
                    sink[c].store(to.add(c * N));
                }
            }
            i += 2;
        }
        for k in 0..K {
            for c in 0..C {
                after[k][c].store(b.outputs[k].start.add(first + c * N));
            }
        }
    }
}
