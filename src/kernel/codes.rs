//! Integer arithmetic on byte codes, the inner loops of the forest.
//!
//! A code is a row of bytes, one a dimension, that hold a number in -127..=127 plus 128 (0 never occurs), padded with
//! 128 to a multiple of four. [`row_dots`] and [`gather_dots`] multiply many rows with one signed query code;
//! [`Blocks`] holds leaf centroids sixteen at a time, four dimensions of each side by side, so that one 64-byte load
//! meets a broadcast of four bytes of the row and no horizontal sum is needed.
//!
//! Every sum is an exact `i32` (the largest is 255 * 127 * 65,540 < 2^31), and what follows it is done in f32 one
//! operation at a time and without FMA, so all instruction sets return the same bits: the tree that is built and the
//! leaf that is chosen do not depend on the machine.
#![allow(unsafe_code)]
// Several arrays are walked by one index: registers, rows, blocks.
#![allow(clippy::needless_range_loop)]

use super::Level;
use super::dispatch::prefetch;

#[cfg(target_arch = "x86_64")]
mod x86;

/// Leaves in one block.
pub const LANES: usize = 16;

/// Bytes of one code: `dim` rounded up to a multiple of four.
#[must_use]
pub fn stride(dim: usize) -> usize {
    dim.next_multiple_of(4)
}

/// Centroids, sixteen to a block, with what turns an integer dot product into a score.
///
/// The score of leaf `j` for a row is `norm[j] - factor * (scale[j] * dot)`, in that order, where `factor` is twice
/// the row's scale: the squared distance less the row's own squared norm.
#[derive(Debug, Clone, Copy)]
pub struct Blocks<'a> {
    /// Bytes of one code.
    pub stride: usize,
    /// `[leaves / 16][stride / 4][16][4]`.
    pub codes: &'a [i8],
    /// `[leaves]`, a multiple of sixteen.
    pub scale: &'a [f32],
    /// `[leaves]`; infinite for a leaf that must never be chosen.
    pub norm: &'a [f32],
    /// `[leaves]`, sum of the bytes of each code.
    pub sum: &'a [i32],
}

impl Blocks<'_> {
    /// Number of leaves, a multiple of sixteen.
    #[must_use]
    pub fn leaves(&self) -> usize {
        self.norm.len()
    }

    fn check(&self) {
        let n = self.norm.len();
        assert!(n.is_multiple_of(LANES) && self.stride.is_multiple_of(4));
        assert!(
            self.scale.len() == n && self.sum.len() == n && self.codes.len() == n * self.stride
        );
    }
}

/// Dot products of consecutive rows with one query code.
///
/// `rows` holds `out.len()` rows of `width` bytes, which begin with codes of `query.len()` bytes; `query` is in
/// -127..=127, zero where it pads.
///
/// # Panics
/// When `codes` is too short.
pub fn row_dots(level: Level, rows: &[u8], width: usize, query: &[i8], out: &mut [i32]) {
    assert!(width >= query.len() && rows.len() >= out.len() * width);
    let n = out.len();
    // SAFETY: the assertion above keeps every row of 0..n inside `rows`; the level was detected.
    unsafe { dots(level, rows.as_ptr(), |i| i * width, n, query, out) }
}

/// Dot products of the rows at `positions` with one query code; rows as in [`row_dots`].
///
/// # Panics
/// When a position lies outside `rows` or `out` is shorter than `positions`.
pub fn gather_dots(
    level: Level,
    rows: &[u8],
    width: usize,
    positions: &[u32],
    query: &[i8],
    out: &mut [i32],
) {
    let many = rows.len().checked_div(width).unwrap_or(0);
    assert!(width >= query.len() && positions.len() <= out.len());
    assert!(positions.iter().all(|&p| (p as usize) < many));
    for &p in positions {
        prefetch(&rows[p as usize * width..][..width]);
    }
    let row = |i: usize| positions[i] as usize * width;
    // SAFETY: every position was just checked against the number of rows; the level was detected.
    unsafe { dots(level, rows.as_ptr(), row, positions.len(), query, out) }
}

/// # Safety
/// At `row(i)` for `i < n` a code must begin, the processor must have `level`, `n <= out.len()`.
#[inline(always)]
unsafe fn dots(
    level: Level,
    codes: *const u8,
    row: impl Fn(usize) -> usize,
    n: usize,
    query: &[i8],
    out: &mut [i32],
) {
    debug_assert!(level.is_available());
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller's promises.
        Level::Avx512 => unsafe { x86::dots_avx512(codes, row, n, query, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller's promises.
        Level::Avx2 => unsafe { x86::dots_avx2(codes, row, n, query, out) },
        _ => {
            for (i, o) in out[..n].iter_mut().enumerate() {
                // SAFETY: the caller promises that the row lies inside the codes.
                let r = unsafe { std::slice::from_raw_parts(codes.add(row(i)), query.len()) };
                *o = r
                    .iter()
                    .zip(query)
                    .map(|(&c, &g)| (i32::from(c) - 128) * i32::from(g))
                    .sum();
            }
        }
    }
}

/// Scores of all leaves for one row: `out[j]` as documented at [`Blocks`].
///
/// # Panics
/// When lengths do not fit.
pub fn leaf_scores(level: Level, blocks: &Blocks, row: &[u8], factor: f32, out: &mut [f32]) {
    blocks.check();
    assert!(row.len() == blocks.stride && out.len() == blocks.leaves());
    let all = blocks.leaves() / LANES;
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: lengths were checked above; the level was detected.
        Level::Avx512 => unsafe { x86::scores_avx512(blocks, all, |b| b, row, factor, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => unsafe { x86::scores_avx2(blocks, all, |b| b, row, factor, out) },
        _ => {
            for (b, out) in out.chunks_exact_mut(LANES).enumerate() {
                let dots = block_dots(blocks, b, row);
                for j in 0..LANES {
                    let leaf = b * LANES + j;
                    out[j] = score(blocks, leaf, dots[j], factor);
                }
            }
        }
    }
}

/// Rows that [`row_scores`] likes to have at once.
pub const TILE: usize = 4;

/// Scores of all leaves for some rows, `[factors.len()][leaves]`.
///
/// # Panics
/// When lengths do not fit.
pub fn row_scores(level: Level, blocks: &Blocks, rows: &[u8], factors: &[f32], out: &mut [f32]) {
    blocks.check();
    assert_eq!(rows.len(), factors.len() * blocks.stride);
    assert_eq!(out.len(), factors.len() * blocks.leaves());
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 && factors.len() == TILE {
        // SAFETY: lengths were checked above; the level was detected.
        unsafe { x86::tile_scores_avx512(blocks, rows, factors, out) };
        return;
    }
    for ((row, &factor), out) in rows
        .chunks_exact(blocks.stride)
        .zip(factors)
        .zip(out.chunks_exact_mut(blocks.leaves()))
    {
        leaf_scores(level, blocks, row, factor, out);
    }
}

/// Scores of the leaves of some blocks for one row: sixteen for each of `which`, which may be in any order.
///
/// # Panics
/// When lengths do not fit or a block does not exist.
pub fn block_scores(
    level: Level,
    blocks: &Blocks,
    which: &[u32],
    row: &[u8],
    factor: f32,
    out: &mut [f32],
) {
    blocks.check();
    let all = blocks.leaves() / LANES;
    assert!(which.iter().all(|&b| (b as usize) < all) && out.len() == which.len() * LANES);
    assert_eq!(row.len(), blocks.stride);
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: lengths and blocks were checked above; the level was detected.
        Level::Avx512 => unsafe {
            x86::scores_avx512(blocks, which.len(), |i| which[i] as usize, row, factor, out);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => unsafe {
            x86::scores_avx2(blocks, which.len(), |i| which[i] as usize, row, factor, out);
        },
        _ => {
            for (&b, out) in which.iter().zip(out.chunks_exact_mut(LANES)) {
                let dots = block_dots(blocks, b as usize, row);
                for j in 0..LANES {
                    out[j] = score(blocks, b as usize * LANES + j, dots[j], factor);
                }
            }
        }
    }
}

/// The score of one leaf for one row.
///
/// # Panics
/// When lengths do not fit.
#[must_use]
pub fn leaf_score(blocks: &Blocks, leaf: usize, row: &[u8], factor: f32) -> f32 {
    blocks.check();
    assert_eq!(row.len(), blocks.stride);
    let codes = &blocks.codes[leaf / LANES * LANES * blocks.stride..][..LANES * blocks.stride];
    let mut dot = 0;
    for (four, r) in codes.chunks_exact(64).zip(row.chunks_exact(4)) {
        for (c, r) in four[leaf % LANES * 4..][..4].iter().zip(r) {
            dot += (i32::from(*r) - 128) * i32::from(*c);
        }
    }
    score(blocks, leaf, dot, factor)
}

/// For each row the leaf with the smallest score, the first of equals.
///
/// `rows` holds `factors.len()` codes; `out[i]` is the leaf of row `i`, and 0 when no leaf has a finite score.
///
/// # Panics
/// When lengths do not fit.
pub fn nearest_leaves(
    level: Level,
    blocks: &Blocks,
    rows: &[u8],
    factors: &[f32],
    out: &mut [u32],
) {
    blocks.check();
    assert!(rows.len() == factors.len() * blocks.stride && out.len() == factors.len());
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: lengths were checked above; the level was detected.
        Level::Avx512 => unsafe { x86::nearest_avx512(blocks, rows, factors, out) },
        _ => {
            let mut scores = vec![0.0; blocks.leaves()];
            for ((row, &factor), out) in rows.chunks_exact(blocks.stride).zip(factors).zip(out) {
                leaf_scores(level, blocks, row, factor, &mut scores);
                let (mut best, mut at) = (f32::INFINITY, 0);
                for (j, &s) in scores.iter().enumerate() {
                    if s < best {
                        (best, at) = (s, j as u32);
                    }
                }
                *out = at;
            }
        }
    }
}

/// A row and its residual, for [`second_leaf`].
#[derive(Debug, Clone, Copy)]
pub struct Second<'a> {
    /// The row's code.
    pub row: &'a [u8],
    /// Twice the row's scale.
    pub factor: f32,
    /// The code of the unit residual r: the direction from the first leaf's centroid to the row.
    pub residual: &'a [u8],
    /// Its scale.
    pub residual_scale: f32,
    /// `<r, x>` for the row x.
    pub along: f32,
    /// The row's score with its first leaf: that leaf, and any with the same centroid, is out of the question.
    pub own: f32,
}

/// The second leaf c of a row x by the loss |x - c|^2 + <r, x - c>^2 (Sun et al. 2023, "SOAR", lambda 1): near, and
/// wrong in another direction than the first. `u32::MAX` when there is no other leaf.
///
/// # Panics
/// When lengths do not fit.
#[must_use]
pub fn second_leaf(level: Level, blocks: &Blocks, s: &Second) -> u32 {
    blocks.check();
    assert!(s.row.len() == blocks.stride && s.residual.len() == blocks.stride);
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: lengths were checked above; the level was detected.
        Level::Avx512 => unsafe { x86::second_avx512(blocks, s) },
        _ => {
            let (mut best, mut at) = (f32::INFINITY, u32::MAX);
            let (mut scores, mut sides) = (vec![0.0; blocks.leaves()], vec![0.0; blocks.leaves()]);
            leaf_scores(level, blocks, s.row, s.factor, &mut scores);
            // <r, c> comes from the same function: with zero norms the score is what is taken off.
            let zero = vec![0.0; blocks.leaves()];
            let bare = Blocks {
                norm: &zero,
                ..*blocks
            };
            leaf_scores(level, &bare, s.residual, s.residual_scale, &mut sides);
            for (j, (&score, &side)) in scores.iter().zip(&sides).enumerate() {
                let side = s.along + side;
                let loss = score + side * side;
                if score != s.own && loss < best {
                    (best, at) = (loss, j as u32);
                }
            }
            at
        }
    }
}

fn block_dots(blocks: &Blocks, block: usize, row: &[u8]) -> [i32; LANES] {
    let mut acc = [0i32; LANES];
    let codes = &blocks.codes[block * LANES * blocks.stride..][..LANES * blocks.stride];
    for (four, r) in codes.chunks_exact(64).zip(row.chunks_exact(4)) {
        for (lane, c) in four.chunks_exact(4).enumerate() {
            for k in 0..4 {
                acc[lane] += (i32::from(r[k]) - 128) * i32::from(c[k]);
            }
        }
    }
    acc
}

#[inline(always)]
fn score(blocks: &Blocks, leaf: usize, dot: i32, factor: f32) -> f32 {
    blocks.norm[leaf] - factor * (blocks.scale[leaf] * dot as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels() -> impl Iterator<Item = Level> {
        Level::ALL.into_iter().filter(|l| l.is_available())
    }

    fn byte(state: &mut u64) -> u8 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (*state >> 56) as u8
    }

    #[test]
    fn dots_of_codes_are_the_plain_sum_on_every_level() {
        let mut state = 1;
        for stride in (4..=260).step_by(4).chain([65_540]) {
            let n = if stride > 1000 { 5 } else { 11 };
            // The extremes as well: all codes and queries at their ends.
            for extreme in [false, true] {
                let codes: Vec<u8> = (0..n * stride)
                    .map(|_| {
                        if extreme {
                            255
                        } else {
                            byte(&mut state).max(1)
                        }
                    })
                    .collect();
                let query: Vec<i8> = (0..stride)
                    .map(|_| {
                        if extreme {
                            -127
                        } else {
                            (byte(&mut state) as i8).max(-127)
                        }
                    })
                    .collect();
                let plain = |row: usize| -> i32 {
                    let r = &codes[row * stride..][..stride];
                    r.iter()
                        .zip(&query)
                        .map(|(&c, &g)| (i32::from(c) - 128) * i32::from(g))
                        .sum()
                };
                let positions: Vec<u32> = (0..n as u32).rev().collect();
                for level in levels() {
                    let mut out = vec![0; n];
                    row_dots(level, &codes, stride, &query, &mut out);
                    assert!((0..n).all(|i| out[i] == plain(i)), "{level:?} {stride}");
                    gather_dots(level, &codes, stride, &positions, &query, &mut out);
                    assert!(
                        (0..n).all(|i| out[i] == plain(n - 1 - i)),
                        "{level:?} {stride}"
                    );
                }
            }
        }
    }

    #[test]
    fn leaf_scores_and_the_nearest_leaf_are_the_same_bits_on_every_level() {
        let mut state = 7;
        for stride in [4, 8, 52, 100, 128, 784] {
            for leaves in [16, 32, 64, 80, 144] {
                let codes: Vec<i8> = (0..leaves * stride)
                    .map(|_| (byte(&mut state) as i8).max(-127))
                    .collect();
                let mut float = || f32::from(byte(&mut state)) / 77.0;
                let scale: Vec<f32> = (0..leaves).map(|_| float()).collect();
                let mut norm: Vec<f32> = (0..leaves).map(|_| float() * 1e4).collect();
                norm[leaves - 1] = f32::INFINITY;
                let factors: Vec<f32> = (0..9).map(|_| float()).collect();
                let sum: Vec<i32> = (0..leaves)
                    .map(|leaf| {
                        let block = &codes[leaf / LANES * LANES * stride..][..LANES * stride];
                        let lane =
                            |k: usize| i32::from(block[k / 4 * 64 + leaf % LANES * 4 + k % 4]);
                        (0..stride).map(lane).sum()
                    })
                    .collect();
                let rows: Vec<u8> = (0..9 * stride).map(|_| byte(&mut state).max(1)).collect();
                let blocks = Blocks {
                    stride,
                    codes: &codes,
                    scale: &scale,
                    norm: &norm,
                    sum: &sum,
                };
                let mut nearest = Vec::new();
                for level in levels() {
                    for (row, &factor) in rows.chunks(stride).zip(&factors) {
                        let mut want = vec![0.0; leaves];
                        for (leaf, want) in want.iter_mut().enumerate() {
                            *want = score(
                                &blocks,
                                leaf,
                                block_dots(&blocks, leaf / LANES, row)[leaf % LANES],
                                factor,
                            );
                        }
                        let mut got = vec![0.0; leaves];
                        leaf_scores(level, &blocks, row, factor, &mut got);
                        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                        assert_eq!(bits(&got), bits(&want), "{level:?} {stride} {leaves}");
                        let all: Vec<u32> = (0..(leaves / LANES) as u32).rev().collect();
                        block_scores(level, &blocks, &all, row, factor, &mut got);
                        let back = got.rchunks(LANES).flatten().copied().collect::<Vec<_>>();
                        assert_eq!(bits(&back), bits(&want), "{level:?} {stride} {leaves}");
                    }
                    let mut out = vec![0; 9];
                    nearest_leaves(level, &blocks, &rows, &factors, &mut out);
                    let (four, mut tile) = (TILE * stride, vec![0.0; TILE * leaves]);
                    row_scores(level, &blocks, &rows[..four], &factors[..TILE], &mut tile);
                    for (i, got) in tile.chunks(leaves).enumerate() {
                        let mut want = vec![0.0; leaves];
                        let row = &rows[i * stride..][..stride];
                        leaf_scores(Level::Portable, &blocks, row, factors[i], &mut want);
                        assert_eq!(got, want, "{level:?} {stride} {leaves}");
                    }
                    let dot = block_dots(&blocks, 0, &rows[..stride])[3];
                    let second = Second {
                        row: &rows[..stride],
                        factor: factors[0],
                        residual: &rows[stride..2 * stride],
                        residual_scale: 1e-3,
                        along: 0.7,
                        own: score(&blocks, 3, dot, factors[0]),
                    };
                    out.push(second_leaf(level, &blocks, &second));
                    assert_ne!(out[9], 3, "{level:?}: the first leaf again");
                    nearest.push(out);
                }
                assert!(
                    nearest.windows(2).all(|w| w[0] == w[1]),
                    "{stride} {leaves}: {nearest:?}"
                );
            }
        }
    }
}
