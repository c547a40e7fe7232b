//! The lower bound that lets the exact search leave rows out, for a chunk of rows at once. What it means and why it
//! holds is written in `forest::search`; here it is computed, the same f32 operations in the same order on every level.
#![allow(unsafe_code)]

use super::Level;

/// The terms that stand for rounding. [`Slack::PROVEN`] is what the proof asks for; tests drop one at a time, to see that
/// each is needed.
#[derive(Debug, Clone, Copy)]
pub struct Slack {
    /// What E is multiplied with.
    pub error: f32,
    /// Of the sum of the two squares: more than all roundings of the bound together.
    pub squares: f32,
    /// For underflow.
    pub tiny: f32,
}

impl Slack {
    /// The whole of it.
    pub const PROVEN: Slack = Slack {
        error: 1.0,
        squares: 1.0 / (1 << 20) as f32,
        tiny: 1e-30,
    };
}

/// What the bound needs to know of the query.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// What stands for rounding.
    pub slack: Slack,
    /// |t g|^2, the squared norm of the query's code.
    pub square: f32,
    /// 2 t.
    pub twice_scale: f32,
    /// R + F: the distance of points within which a row may still be an answer, and the error of the query's code.
    pub reach: f32,
}

/// Rows of a chunk: dot products of their codes with the query's, and what is stored beside each code.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    /// `<g, c>`.
    pub dots: &'a [i32],
    /// s.
    pub scale: &'a [f32],
    /// |s c|^2.
    pub norm: &'a [f32],
    /// E.
    pub error: &'a [f32],
}

impl Bound {
    /// Above zero, the row can be left out.
    #[inline(always)]
    #[must_use]
    pub fn excess(&self, dot: i32, scale: f32, norm: f32, error: f32) -> f32 {
        let squares = self.square + norm;
        let product = self.twice_scale * (scale * dot as f32);
        let within = self.reach + self.slack.error * error;
        (squares - product - self.slack.squares * squares)
            - (within * within * (1.0 + self.slack.squares) + self.slack.tiny)
    }

    /// The same for a leaf, given its score `norm - 2 s t <g, c>` and its radius.
    #[must_use]
    pub fn excess_of(&self, score: f32, norm: f32, radius: f32) -> f32 {
        let within = self.reach + self.slack.error * radius;
        (self.square + score - self.slack.squares * (self.square + norm))
            - (within * within * (1.0 + self.slack.squares) + self.slack.tiny)
    }
}

/// Appends the indices of the rows that can't be left out.
pub fn within(level: Level, bound: &Bound, chunk: &Chunk, out: &mut Vec<u32>) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was detected.
        Level::Avx512 => unsafe { within_avx512(bound, chunk, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level was detected.
        Level::Avx2 => unsafe { within_avx2(bound, chunk, out) },
        _ => any(bound, chunk, out),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn within_avx512(bound: &Bound, chunk: &Chunk, out: &mut Vec<u32>) {
    use std::arch::x86_64::*;
    let n = chunk.dots.len();
    let (scale, norm, error) = (&chunk.scale[..n], &chunk.norm[..n], &chunk.error[..n]);
    let square = _mm512_set1_ps(bound.square);
    let twice_scale = _mm512_set1_ps(bound.twice_scale);
    let reach = _mm512_set1_ps(bound.reach);
    let (slack, more) = (
        _mm512_set1_ps(bound.slack.squares),
        _mm512_set1_ps(1.0 + bound.slack.squares),
    );
    let (tiny, zero) = (_mm512_set1_ps(bound.slack.tiny), _mm512_setzero_ps());
    let by = _mm512_set1_ps(bound.slack.error);
    let mut i = 0;
    while i < n {
        let lanes = (n - i).min(16);
        let mask = ((1u32 << lanes) - 1) as u16;
        // SAFETY: only the lanes of the mask are read, and they lie within the slices.
        let (dot, s, x, e) = unsafe {
            (
                _mm512_maskz_loadu_epi32(mask, chunk.dots.as_ptr().add(i)),
                _mm512_maskz_loadu_ps(mask, scale.as_ptr().add(i)),
                _mm512_maskz_loadu_ps(mask, norm.as_ptr().add(i)),
                _mm512_maskz_loadu_ps(mask, error.as_ptr().add(i)),
            )
        };
        let squares = _mm512_add_ps(square, x);
        let product = _mm512_mul_ps(twice_scale, _mm512_mul_ps(s, _mm512_cvtepi32_ps(dot)));
        let reached = _mm512_add_ps(reach, _mm512_mul_ps(by, e));
        let left = _mm512_sub_ps(
            _mm512_sub_ps(squares, product),
            _mm512_mul_ps(slack, squares),
        );
        let right = _mm512_add_ps(_mm512_mul_ps(_mm512_mul_ps(reached, reached), more), tiny);
        let out_of_reach = _mm512_cmp_ps_mask(_mm512_sub_ps(left, right), zero, _CMP_GT_OQ);
        let mut keep = mask & !out_of_reach;
        while keep != 0 {
            out.push(i as u32 + keep.trailing_zeros());
            keep &= keep - 1;
        }
        i += 16;
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn within_avx2(bound: &Bound, chunk: &Chunk, out: &mut Vec<u32>) {
    any(bound, chunk, out);
}

#[inline(always)]
fn any(bound: &Bound, chunk: &Chunk, out: &mut Vec<u32>) {
    const GROUP: usize = 32;
    let n = chunk.dots.len();
    let (scale, norm, error) = (&chunk.scale[..n], &chunk.norm[..n], &chunk.error[..n]);
    let mut from = 0;
    while from < n {
        let to = (from + GROUP).min(n);
        let mut excess = [1.0f32; GROUP];
        let mut least = [1.0f32; 16];
        for i in from..to {
            excess[i - from] = bound.excess(chunk.dots[i], scale[i], norm[i], error[i]);
        }
        for half in excess.chunks_exact(16) {
            for (l, &e) in least.iter_mut().zip(half) {
                // NaN is not above zero: it must keep the row.
                *l = if e > 0.0 { *l } else { -1.0 };
            }
        }
        if least
            .iter()
            .fold(1.0, |a: f32, &b| if b < a { b } else { a })
            < 0.0
        {
            for (i, &e) in excess[..to - from].iter().enumerate() {
                if e > 0.0 {
                    continue;
                }
                out.push((from + i) as u32);
            }
        }
        from = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_keeps_the_rows_that_one_by_one_are_kept_and_nan_is_kept() {
        let mut state = 9u64;
        let mut float = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        for n in 0..=100 {
            let dots: Vec<i32> = (0..n).map(|_| (float() * 2e4) as i32 - 10_000).collect();
            let scale: Vec<f32> = (0..n).map(|_| float() * 1e-2).collect();
            let norm: Vec<f32> = (0..n)
                .map(|i| if i % 17 == 3 { f32::NAN } else { float() })
                .collect();
            let error: Vec<f32> = (0..n).map(|_| float() * 1e-2).collect();
            for reach in [0.0, 0.3, 1.0, f32::INFINITY] {
                let bound = Bound {
                    slack: Slack::PROVEN,
                    square: 0.5,
                    twice_scale: 0.013,
                    reach,
                };
                let want: Vec<u32> = (0..n)
                    .filter(|&i| {
                        let e = bound.excess(dots[i], scale[i], norm[i], error[i]);
                        e.is_nan() || e <= 0.0
                    })
                    .map(|i| i as u32)
                    .collect();
                for level in Level::ALL.into_iter().filter(|l| l.is_available()) {
                    let mut got = Vec::new();
                    let chunk = Chunk {
                        dots: &dots,
                        scale: &scale,
                        norm: &norm,
                        error: &error,
                    };
                    within(level, &bound, &chunk, &mut got);
                    assert_eq!(got, want, "{level:?} {n} {reach}");
                }
            }
        }
    }
}
