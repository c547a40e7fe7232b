//! Four bits a dimension: the first look of exact search at every row, in one sequential stream.
//!
//! ```text
//! block   32 rows: [dim / 8][2][16 rows][4] bytes, then u16 [32] scale, u16 [32] squares, u16 [32] error
//! byte j of a row's four: dimension 8 g + j in the low half, 8 g + 4 + j in the high half
//! value   (2 c - 15) s for c in 0..=15; `scale` is s as bf16 bits, which s is chosen to be exactly
//! squares the sum of (2 c - 15)^2, shifted right by `shift(dim)`: times s^2 a lower bound of the code's squared norm
//! error   the distance of the point from its code as bf16 bits, rounded up
//! ```
//!
//! A 64-byte line is multiplied with eight bytes of the query, broadcast, and needs no horizontal sum. With g the bytes of
//! the query the code's inner product is `2 sum(g c) - 15 sum(g)`, an exact i32 on every level (it is at most
//! 15 * 127 * 65,544 < 2^27, sixteen times that where the high half is not shifted down first). The factors stand behind the
//! rows of their block, so memory is read front to back: from RAM the scan runs at the speed of memory with one query, and
//! several share each byte that comes.
//!
//! The bound is that of [`super::bound`], in the same operations on every level.
#![allow(unsafe_code)]

use super::Level;
use super::bound::Bound;
use super::dispatch::{self, Task};

#[cfg(target_arch = "x86_64")]
mod x86;

/// Rows of a block.
pub const ROWS: usize = 32;
/// Bytes of a block behind its rows.
const FACTORS: usize = 3 * 2 * ROWS;
/// How far ahead of its use memory is asked for: the next page is begun in time. Not farther: what the processor itself
/// fetches ahead comes into the second cache by a wider way than prefetches, which wait for one of the few buffers of the first
/// (Zen 4: 23 to 25 GB/s up to 512, 18 to 21 from 640 on).
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 512;
/// Most queries that share one pass.
pub const TOGETHER: usize = 8;

/// Groups of eight dimensions.
#[must_use]
pub fn groups(dim: usize) -> usize {
    dim.div_ceil(8)
}

/// Bytes of a block.
#[must_use]
pub fn block_bytes(dim: usize) -> usize {
    groups(dim) * 4 * ROWS + FACTORS
}

/// How far sums of squares are shifted down to fit 16 bits.
#[must_use]
pub fn shift(dim: usize) -> u32 {
    let largest = groups(dim) * 8 * 225;
    (largest.ilog2() + 1).saturating_sub(16)
}

/// What a block holds of a row beside its code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Factors {
    /// s, bf16 bits.
    pub scale: u16,
    /// Shifted sum of squares of the code.
    pub squares: u16,
    /// E, bf16 bits.
    pub error: u16,
}

/// f32 from the upper half of its bits.
#[inline(always)]
#[must_use]
pub fn wide(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// bf16 bits of a number that is not negative, rounded up.
#[must_use]
pub fn narrow_up(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits >> 16) as u16 + u16::from(bits & 0xffff != 0 && x < f32::INFINITY)
}

/// The code of a point, four bytes for each group, and what stands beside it except the error, with the sum of squares of
/// the rest. The scale is the best of five clips, then that of least squares.
#[must_use]
pub fn encode(level: Level, p: &[f32], code: &mut [[u8; 4]]) -> (Factors, f64) {
    debug_assert_eq!(code.len(), groups(p.len()));
    dispatch::run(level, Encode { p, code })
}

struct Encode<'a> {
    p: &'a [f32],
    code: &'a mut [[u8; 4]],
}

/// The steps of the largest component that are tried as the end of the grid, in sixteenths.
const CLIPS: [u8; 5] = [7, 9, 11, 13, 16];

/// The odd number nearest to `p / s` in -15..=15, where `by = 1 / (2 s)`.
#[inline(always)]
fn odd(p: f32, by: f32) -> f32 {
    // Adding and taking off 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let c = ((p * by - 0.5) + ROUND) - ROUND;
    2.0 * c.clamp(-8.0, 7.0) + 1.0
}

impl Task for Encode<'_> {
    type Output = (Factors, f64);
    #[inline(always)]
    fn run(self) -> (Factors, f64) {
        let p = self.p;
        let largest = dispatch::largest(p);
        let mut scale = 0.0f32;
        // Below this the whole point goes into the error.
        if largest >= 1e-30 {
            let mut best = f32::INFINITY;
            for clip in CLIPS {
                let s = largest * (f32::from(clip) / 240.0);
                let (dot, squares, loss) = products(p, s, 0.5 / s);
                if loss < best {
                    best = loss;
                    scale = s;
                    let least = dot / squares;
                    if least > 0.0 && least.is_finite() {
                        scale = least;
                    }
                }
            }
        }
        let bits = (scale.to_bits() >> 16) as u16 + (scale.to_bits() >> 15 & 1) as u16;
        let scale = wide(bits);
        let by = if scale > 0.0 { 0.5 / scale } else { 0.0 };
        // A code as the last bits of a float: 0..=15 with 2^23 added.
        let nibble = |v: f32| (((v + 15.0) * 0.5 + 8_388_608.0).to_bits() & 15) as u8;
        let (mut sum, mut rest) = (0u32, [0.0f64; 8]);
        let mut eight = |p: &[f32; 8], out: &mut [u8; 4], n: usize| {
            // What pads has code 8: the smallest step.
            let mut c = [8u8; 8];
            for k in 0..n {
                let v = odd(p[k], by);
                c[k] = nibble(v);
                let e = f64::from(p[k]) - f64::from(scale) * f64::from(v);
                rest[k] += e * e;
            }
            for k in 0..4 {
                out[k] = c[k] | c[k + 4] << 4;
            }
            // From the code, since `v` is not finite where a damaged file's vector is not.
            for c in c {
                let v = 2 * i32::from(c) - 15;
                sum += (v * v) as u32;
            }
        };
        let (whole, tail) = p.as_chunks::<8>();
        for (p, out) in whole.iter().zip(self.code.iter_mut()) {
            eight(p, out, 8);
        }
        if let Some(out) = self.code.get_mut(whole.len()) {
            let mut p = [0.0; 8];
            p[..tail.len()].copy_from_slice(tail);
            eight(&p, out, tail.len());
        }
        // What pads is worth s in each dimension; the query is zero there, so the code is that of the point and them.
        let pads = (self.code.len() * 8 - p.len()) as u32;
        let squares = (sum - pads) >> shift(p.len());
        let factors = Factors {
            scale: bits,
            squares: squares as u16,
            error: 0,
        };
        (factors, rest.iter().sum())
    }
}

/// Of the grid with half step `s`: inner product of point and code, squared norm of the code, squared error.
#[inline(always)]
fn products(p: &[f32], s: f32, by: f32) -> (f32, f32, f32) {
    const N: usize = 16;
    let (mut dot, mut squares, mut loss) = ([0.0f32; N], [0.0f32; N], [0.0f32; N]);
    let mut add = |k: usize, p: f32| {
        let v = odd(p, by);
        let e = p - s * v;
        dot[k] += p * v;
        squares[k] += v * v;
        loss[k] += e * e;
    };
    let (whole, tail) = p.as_chunks::<N>();
    for p in whole {
        for (k, &p) in p.iter().enumerate() {
            add(k, p);
        }
    }
    for (k, &p) in tail.iter().enumerate() {
        add(k, p);
    }
    let sum = |a: [f32; N]| a.iter().sum();
    (sum(dot), sum(squares), sum(loss))
}

/// Lays up to [`ROWS`] rows out as a block, which must be zero. `row(i)` gives the code and the factors of row `i`.
pub fn pack<'r>(block: &mut [u8], rows: usize, row: impl Fn(usize) -> (&'r [[u8; 4]], Factors)) {
    let (codes, factors) = block.split_at_mut(block.len() - FACTORS);
    for i in 0..rows {
        let (code, f) = row(i);
        for (line, four) in codes.chunks_exact_mut(4 * ROWS).zip(code) {
            line[4 * i..][..4].copy_from_slice(four);
        }
        for (part, value) in [f.scale, f.squares, f.error].into_iter().enumerate() {
            factors[(part * ROWS + i) * 2..][..2].copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// A query as the scan takes it.
#[derive(Debug, Clone)]
pub struct NibbleQuery {
    /// Bytes in -127..=127, zero where they pad.
    code: Vec<i8>,
    /// 15 times their sum.
    offset: i32,
    /// What of a row is to be kept. To be set anew whenever the k-th best distance changes.
    pub bound: Bound,
}

impl NibbleQuery {
    /// From a byte code (any padding zero).
    #[must_use]
    pub fn new(dim: usize, code: &[i8], bound: Bound) -> Self {
        let mut padded = code[..dim].to_vec();
        padded.resize(groups(dim) * 8, 0);
        NibbleQuery {
            offset: 15 * code[..dim].iter().map(|&g| i32::from(g)).sum::<i32>(),
            code: padded,
            bound,
        }
    }
}

/// Appends to `out[i]` the numbers of those rows that query `i` can't leave out; the first row of `blocks` has number
/// `first`. At most [`TOGETHER`] queries; rows that only pad the last block may be among them.
///
/// # Panics
/// When `blocks` is not whole blocks of dimension `dim`, a query is of another dimension, or there are too many.
pub fn scan(
    level: Level,
    dim: usize,
    blocks: &[u8],
    first: u32,
    queries: &[&NibbleQuery],
    out: &mut [&mut Vec<u32>],
) {
    let size = block_bytes(dim);
    assert!(blocks.len().is_multiple_of(size) && queries.len() <= TOGETHER);
    assert!(queries.len() == out.len());
    assert!(queries.iter().all(|q| q.code.len() == groups(dim) * 8));
    debug_assert!(level.is_available());
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: lengths were checked above; the level was detected.
        Level::Avx512 => unsafe { x86::scan_avx512(dim, blocks, first, queries, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => unsafe { x86::scan_avx2(dim, blocks, first, queries, out) },
        _ => {
            for (b, block) in blocks.chunks_exact(size).enumerate() {
                for (query, out) in queries.iter().zip(out.iter_mut()) {
                    let dots = dots(block, query);
                    keep(dim, block, query, &dots, first + (b * ROWS) as u32, out);
                }
            }
        }
    }
}

/// Inner products `sum(g c)` of a block.
fn dots(block: &[u8], query: &NibbleQuery) -> [i32; ROWS] {
    let mut dots = [0i32; ROWS];
    for (line, g) in block.chunks_exact(4 * ROWS).zip(query.code.chunks_exact(8)) {
        for (dot, four) in dots.iter_mut().zip(line.as_chunks::<4>().0) {
            for (j, &byte) in four.iter().enumerate() {
                *dot += i32::from(byte & 15) * i32::from(g[j])
                    + i32::from(byte >> 4) * i32::from(g[j + 4]);
            }
        }
    }
    dots
}

/// Appends the numbers of the rows of a block that can't be left out, given `sum(g c)`.
#[inline(always)]
fn keep(
    dim: usize,
    block: &[u8],
    query: &NibbleQuery,
    dots: &[i32; ROWS],
    first: u32,
    out: &mut Vec<u32>,
) {
    let factors = block[block.len() - FACTORS..].as_chunks::<2>().0;
    let unit = (1u32 << shift(dim)) as f32;
    let mut excess = [0.0f32; ROWS];
    let mut any = false;
    for i in 0..ROWS {
        let scale = wide(u16::from_le_bytes(factors[i]));
        let squares = f32::from(u16::from_le_bytes(factors[ROWS + i])) * unit;
        let error = wide(u16::from_le_bytes(factors[2 * ROWS + i]));
        excess[i] = query.bound.excess(
            2 * dots[i] - query.offset,
            scale,
            scale * scale * squares,
            error,
        );
        // NaN is not above zero: it keeps the row.
        any |= !matches!(
            excess[i].partial_cmp(&0.0),
            Some(std::cmp::Ordering::Greater)
        );
    }
    if any {
        for (i, &e) in excess.iter().enumerate() {
            if !matches!(e.partial_cmp(&0.0), Some(std::cmp::Ordering::Greater)) {
                out.push(first + i as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests;
