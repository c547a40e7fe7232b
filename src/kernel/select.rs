//! The smallest of many numbers, without sorting: a threshold found by bisection, then the places below it.
//!
//! Counting how many of a few thousand scores lie below a value costs a vector compare for each sixteen; a dozen
//! guesses bracket the r-th smallest closely, where quickselect would move everything several times.
#![allow(unsafe_code)]

use super::Level;

/// How many values are at most `limit`.
#[must_use]
pub fn count(level: Level, values: &[f32], limit: f32) -> usize {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was detected.
        Level::Avx512 => unsafe { x86::count_avx512(values, limit) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was detected.
        Level::Avx2 => unsafe { x86::count_avx2(values, limit) },
        _ => count_any(values, limit),
    }
}

#[inline(always)]
fn count_any(values: &[f32], limit: f32) -> usize {
    values.iter().map(|&v| u32::from(v <= limit)).sum::<u32>() as usize
}

/// Appends the places of the values that are at most `limit`, plus `base`, in order. NaN is never among them.
pub fn places(level: Level, values: &[f32], limit: f32, base: u32, out: &mut Vec<u32>) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            // A store of sixteen needs sixteen free places, however few of them count.
            out.reserve(values.len() + 16);
            // SAFETY: the room was just reserved; the level was detected.
            unsafe { x86::places_avx512(values, limit, base, out) }
        }
        _ => {
            for (i, &v) in values.iter().enumerate() {
                if v <= limit {
                    out.push(base + i as u32);
                }
            }
        }
    }
}

/// A limit with at least `least` of the values at or below it and, where ties allow, at most `most`; infinite when
/// there are no more than `most` values. NaN counts as larger than everything.
///
/// The answer depends on the values alone, not on the level.
#[must_use]
pub fn limit_for(level: Level, values: &[f32], least: usize, most: usize) -> f32 {
    if values.len() <= most {
        return f32::INFINITY;
    }
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    // A sample brackets the answer: its extremes are good first guesses, and the loop widens them where they are not.
    for v in values.iter().step_by((values.len() / 64).max(1)) {
        if v.is_finite() {
            low = low.min(*v);
            high = high.max(*v);
        }
    }
    if low > high {
        return f32::INFINITY;
    }
    let spread = (high - low).max(high.abs() * 1e-6).max(1e-30);
    let mut widen = spread;
    while count(level, values, low) > most && widen.is_finite() {
        high = low;
        low -= widen;
        widen *= 4.0;
    }
    widen = spread;
    while count(level, values, high) < least {
        if !widen.is_finite() {
            return f32::INFINITY;
        }
        low = high;
        high += widen;
        widen *= 4.0;
    }
    for _ in 0..24 {
        let n = count(level, values, high);
        if n <= most {
            break;
        }
        let middle = low + (high - low) * 0.5;
        if middle <= low || middle >= high {
            break;
        }
        if count(level, values, middle) >= least {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,popcnt")]
    pub(super) fn count_avx512(values: &[f32], limit: f32) -> usize {
        let limit16 = _mm512_set1_ps(limit);
        let (blocks, tail) = values.as_chunks::<16>();
        let (mut n, one) = (_mm512_setzero_si512(), _mm512_set1_epi32(1));
        for block in blocks {
            // SAFETY: sixteen floats.
            let v = unsafe { _mm512_loadu_ps(block.as_ptr()) };
            n = _mm512_mask_add_epi32(n, _mm512_cmp_ps_mask(v, limit16, _CMP_LE_OQ), n, one);
        }
        _mm512_reduce_add_epi32(n) as usize + super::count_any(tail, limit)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn count_avx2(values: &[f32], limit: f32) -> usize {
        super::count_any(values, limit)
    }

    /// # Safety
    /// `out` must have room for sixteen more than `values.len()`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,popcnt")]
    pub(super) unsafe fn places_avx512(values: &[f32], limit: f32, base: u32, out: &mut Vec<u32>) {
        let limit16 = _mm512_set1_ps(limit);
        let (blocks, tail) = values.as_chunks::<16>();
        let mut at = _mm512_add_epi32(
            _mm512_set1_epi32(base as i32),
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        );
        let step = _mm512_set1_epi32(16);
        let mut len = out.len();
        // SAFETY: no more places are written than there are values, and the last store has sixteen to spare.
        unsafe {
            for block in blocks {
                let v = _mm512_loadu_ps(block.as_ptr());
                let mask = _mm512_cmp_ps_mask(v, limit16, _CMP_LE_OQ);
                let packed = _mm512_maskz_compress_epi32(mask, at);
                _mm512_storeu_si512(out.as_mut_ptr().add(len).cast(), packed);
                len += mask.count_ones() as usize;
                at = _mm512_add_epi32(at, step);
            }
            out.set_len(len);
        }
        let done = values.len() - tail.len();
        for (i, &v) in tail.iter().enumerate() {
            if v <= limit {
                out.push(base + (done + i) as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_brackets_the_smallest_and_places_lists_them_on_every_level() {
        let mut state = 3u64;
        let mut float = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        for n in [0, 1, 5, 16, 17, 100, 1000, 4099] {
            for shape in 0..5 {
                let values: Vec<f32> = (0..n)
                    .map(|i| match shape {
                        0 => float(),
                        1 => float().powi(40) * 1e20 - 5.0,
                        2 => (float() * 3.0).floor(),
                        3 if i % 7 == 0 => f32::NAN,
                        4 if i % 3 == 0 => f32::INFINITY,
                        _ => 1e6 + float(),
                    })
                    .collect();
                for least in [1, 10, n / 3 + 1] {
                    let most = least + least / 4 + 4;
                    let mut answers = Vec::new();
                    for level in Level::ALL.into_iter().filter(|l| l.is_available()) {
                        let limit = limit_for(level, &values, least, most);
                        let mut got = vec![7];
                        places(level, &values, limit, 100, &mut got);
                        let want: Vec<u32> = (0..n)
                            .filter(|&i| values[i] <= limit)
                            .map(|i| 100 + i as u32)
                            .collect();
                        assert_eq!(got[1..], want, "{level:?} {n} {shape}");
                        assert_eq!(count(level, &values, limit), want.len());
                        let numbers = values.iter().filter(|v| !v.is_nan()).count();
                        assert!(
                            want.len() >= least.min(numbers),
                            "{n} {shape} {least}: {}",
                            want.len()
                        );
                        if shape == 0 {
                            assert!(want.len() <= most, "{n} {least}: {}", want.len());
                        }
                        answers.push(limit.to_bits());
                    }
                    assert!(answers.windows(2).all(|w| w[0] == w[1]));
                }
            }
        }
    }
}
