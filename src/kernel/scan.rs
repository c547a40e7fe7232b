//! Estimates from codes of one or two bits a dimension, sixteen rows at a time: the first look at a leaf.
//!
//! A code holds u, one level a dimension: -1, 1 (one bit) or -3, -1, 1, 3 (two bits). With c its bits as a number,
//! u = 2 c - m, m = 1 or 3, so <g, u> = 2 <g, c> - m sum(g) for a query code g. Sixteen rows are interleaved in rows
//! of 64 bytes:
//!
//! ```text
//! two bits   16 dimensions a row: bytes 4v..4v+4 belong to row v; bits 2j, 2j+1 of byte b are dimension 4j + b
//!            -> (row >> 2j) & 3 meets a broadcast of four bytes of g in one multiply-add of bytes
//! one bit    32 dimensions a row: byte 16 l + v holds dimensions 8l..8l+8 of row v
//!            -> each half byte looks up the sum of its four dimensions in a table of sixteen bytes (André, Kermarrec
//!               and Le Scouarnec 2015), scaled to seven bits, so that two sums fit a byte
//! ```
//!
//! A block is its lines, then sixteen `constant` and sixteen `gain` (f32): one sequential stream.
//!
//! The estimate of row v is `base + constant[v] - gain[v] * (unit * x)`, x = 2 <g, c> - m sum(g) for two bits and the sum
//! of table entries for one (`base` carries the rest). Sums are integers and the f32 steps are the same everywhere,
//! so all levels agree bit for bit.
#![allow(unsafe_code)]

use super::Level;
use super::dispatch::prefetch;

#[cfg(target_arch = "x86_64")]
mod x86;

/// Rows in a block.
pub const BLOCK: usize = 16;
/// Bytes in a row of a block.
const LINE: usize = 64;

/// How many bits a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Signs.
    One,
    /// Four levels.
    Two,
}

impl Bits {
    /// Dimensions in a row of 64 bytes.
    #[must_use]
    pub fn per_line(self) -> usize {
        match self {
            Bits::One => 32,
            Bits::Two => 16,
        }
    }

    /// Bytes of a block of sixteen codes.
    #[must_use]
    pub fn block_bytes(self, dim: usize) -> usize {
        (dim.div_ceil(self.per_line()) + 2) * LINE
    }

    /// Puts the two numbers of one row into its block of sixteen codes.
    pub fn put_factors(self, block: &mut [u8], row: usize, constant: f32, gain: f32) {
        let at = block.len() - 2 * LINE + 4 * row;
        block[at..at + 4].copy_from_slice(&constant.to_le_bytes());
        block[at + LINE..at + LINE + 4].copy_from_slice(&gain.to_le_bytes());
    }

    /// Puts a level (0..2 or 0..4) of one dimension of one row into its block, which must be zero there.
    pub fn put(self, block: &mut [u8], row: usize, dim: usize, level: u8) {
        let (line, d) = (dim / self.per_line() * LINE, dim % self.per_line());
        match self {
            Bits::One => block[line + d / 8 * 16 + row] |= level << (d % 8),
            Bits::Two => block[line + row * 4 + d % 4] |= level << (d / 4 * 2),
        }
    }
}

/// A query, prepared for codes of one kind.
#[derive(Debug, Default)]
pub struct ScanQuery {
    bits: Option<Bits>,
    lines: usize,
    /// Two bits: the query code, padded with zeros.
    code: Vec<i8>,
    /// One bit: for each line two times four tables of sixteen bytes.
    tables: Vec<u8>,
    /// Two bits: m sum(g). One bit: 0.
    shift: i32,
    /// What the integer is multiplied with.
    unit: f32,
    /// The smallest sum of the tables, as a value: one bit only.
    least: f32,
}

/// The largest dimension whose sums of table entries fit sixteen bits, two for each line: 129 lines of at most 508.
pub const MAX_DIM_ONE_BIT: usize = 129 * 32;

impl ScanQuery {
    /// Prepares the query code `g` (any length) with scale `scale`.
    pub fn prepare(&mut self, bits: Bits, g: &[i8], scale: f32) {
        self.bits = Some(bits);
        self.lines = g.len().div_ceil(bits.per_line());
        let sum: i32 = g.iter().map(|&g| i32::from(g)).sum();
        match bits {
            Bits::Two => {
                self.code.clear();
                self.code.extend_from_slice(g);
                self.code.resize(self.lines * bits.per_line(), 0);
                self.shift = 3 * sum;
                self.unit = scale;
                self.least = 0.0;
            }
            Bits::One => self.tables(g, sum, scale),
        }
    }

    fn tables(&mut self, g: &[i8], sum: i32, scale: f32) {
        assert!(
            g.len() <= MAX_DIM_ONE_BIT,
            "one-bit codes of {} dimensions",
            g.len()
        );
        self.tables.clear();
        self.tables.resize(self.lines * 2 * LINE, 0);
        self.shift = 0;
        let four = |i: usize| {
            std::array::from_fn::<i32, 4, _>(|k| g.get(4 * i + k).map_or(0, |&g| i32::from(g)))
        };
        let groups = g.len().div_ceil(4);
        let (mut least, mut widest) = (0, 1);
        for i in 0..groups {
            let (mut low, mut high) = (0, 0);
            for g in four(i) {
                low += g.min(0);
                high += g.max(0);
            }
            least += low;
            widest = widest.max(high - low);
        }
        // Entries are counted from the smallest of their table in steps of widest / 127.
        let step = widest as f32 / 127.0;
        let per = 1.0 / step;
        for i in 0..groups {
            let g = four(i);
            let low: i32 = g.iter().map(|g| (*g).min(0)).sum();
            // Group i: byte i / 2 of the row's bytes, low half first.
            let (line, byte) = (i / 8, i / 2 % 4);
            let table = &mut self.tables[line * 2 * LINE + (i % 2) * LINE + byte * 16..][..16];
            let mut sums = [0i32; 16];
            for (n, entry) in table.iter_mut().enumerate() {
                if n > 0 {
                    // The sum without the lowest bit that is set, and that bit's dimension.
                    sums[n] = sums[n & (n - 1)] + g[n.trailing_zeros() as usize];
                }
                *entry = ((sums[n] - low) as f32 * per + 0.5) as u8;
            }
        }
        self.unit = 2.0 * step * scale;
        self.least = (2 * least - sum) as f32 * scale;
    }
}

/// Writes the estimates of `out.len()` rows (a multiple of sixteen). `next` is what will be scanned after this: it is
/// brought near meanwhile.
///
/// # Panics
/// When lengths do not fit.
pub fn estimates(
    level: Level,
    query: &ScanQuery,
    codes: &[u8],
    next: &[u8],
    base: f32,
    out: &mut [f32],
) {
    let blocks = out.len() / BLOCK;
    assert!(out.len().is_multiple_of(BLOCK));
    assert_eq!(codes.len(), blocks * (query.lines + 2) * LINE);
    let Some(bits) = query.bits else { return };
    match (level, bits) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: lengths were checked above; the level was detected.
        (Level::Avx512, Bits::Two) => unsafe { x86::two_avx512(query, codes, next, base, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Level::Avx512, Bits::One) => unsafe { x86::one_avx512(query, codes, next, base, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Level::Avx2, Bits::Two) => unsafe { x86::two_avx2(query, codes, next, base, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Level::Avx2, Bits::One) => unsafe { x86::one_avx2(query, codes, next, base, out) },
        _ => {
            prefetch(next);
            for b in 0..blocks {
                let block = &codes[b * (query.lines + 2) * LINE..][..(query.lines + 2) * LINE];
                let sums = match bits {
                    Bits::One => one_any(query, block),
                    Bits::Two => two_any(query, block),
                };
                finish(query, &sums, block, base, &mut out[b * BLOCK..][..BLOCK]);
            }
        }
    }
}

/// From integers to estimates, for one block.
#[inline(always)]
fn finish(query: &ScanQuery, sums: &[i32; BLOCK], block: &[u8], base: f32, out: &mut [f32]) {
    let (constants, gains) = block[query.lines * LINE..].split_at(LINE);
    let float = |bytes: &[u8], v: usize| {
        f32::from_le_bytes([
            bytes[4 * v],
            bytes[4 * v + 1],
            bytes[4 * v + 2],
            bytes[4 * v + 3],
        ])
    };
    for (v, out) in out.iter_mut().enumerate() {
        let x = query.unit * sums[v] as f32 + query.least;
        *out = (base + float(constants, v)) - float(gains, v) * x;
    }
}

fn two_any(query: &ScanQuery, block: &[u8]) -> [i32; BLOCK] {
    let mut sums = [0i32; BLOCK];
    for (line, g) in block.chunks_exact(LINE).zip(query.code.chunks_exact(16)) {
        for (v, bytes) in line.chunks_exact(4).enumerate() {
            for (d, &g) in g.iter().enumerate() {
                sums[v] += i32::from((bytes[d % 4] >> (d / 4 * 2)) & 3) * i32::from(g);
            }
        }
    }
    sums.map(|s| 2 * s - query.shift)
}

fn one_any(query: &ScanQuery, block: &[u8]) -> [i32; BLOCK] {
    let mut sums = [0i32; BLOCK];
    for (line, tables) in block
        .chunks_exact(LINE)
        .zip(query.tables.chunks_exact(2 * LINE))
    {
        for (l, bytes) in line.chunks_exact(16).enumerate() {
            for (sum, &byte) in sums.iter_mut().zip(bytes) {
                *sum += i32::from(tables[l * 16 + usize::from(byte & 15)]);
                *sum += i32::from(tables[LINE + l * 16 + usize::from(byte >> 4)]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_the_same_bits_on_every_level_and_near_the_plain_sum() {
        let mut state = 5u64;
        let mut byte = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        for bits in [Bits::One, Bits::Two] {
            for dim in [
                1, 3, 4, 8, 15, 16, 17, 31, 32, 33, 50, 100, 128, 384, 785, 4128,
            ] {
                let n = 48;
                let g: Vec<i8> = (0..dim).map(|_| (byte() as i8).max(-127)).collect();
                let levels: Vec<u8> = (0..n * dim)
                    .map(|_| byte() & if bits == Bits::One { 1 } else { 3 })
                    .collect();
                let mut codes = vec![0u8; n / BLOCK * bits.block_bytes(dim)];
                for (row, levels) in levels.chunks(dim).enumerate() {
                    let block =
                        &mut codes[row / BLOCK * bits.block_bytes(dim)..][..bits.block_bytes(dim)];
                    for (d, &l) in levels.iter().enumerate() {
                        bits.put(block, row % BLOCK, d, l);
                    }
                }
                let constant: Vec<f32> = (0..n).map(|_| f32::from(byte())).collect();
                let gain: Vec<f32> = (0..n).map(|_| f32::from(byte()) / 300.0).collect();
                let mut query = ScanQuery::default();
                for (row, (&c, &g)) in constant.iter().zip(&gain).enumerate() {
                    let block =
                        &mut codes[row / BLOCK * bits.block_bytes(dim)..][..bits.block_bytes(dim)];
                    bits.put_factors(block, row % BLOCK, c, g);
                }
                query.prepare(bits, &g, 0.01);
                let mut all = Vec::new();
                for level in Level::ALL.into_iter().filter(|l| l.is_available()) {
                    let mut out = vec![0.0; n];
                    estimates(level, &query, &codes, &codes, 2.5, &mut out);
                    for (row, &got) in out.iter().enumerate() {
                        let u = |d: usize| match bits {
                            Bits::One => 2 * i32::from(levels[row * dim + d]) - 1,
                            Bits::Two => 2 * i32::from(levels[row * dim + d]) - 3,
                        };
                        let dot: i32 = (0..dim).map(|d| u(d) * i32::from(g[d])).sum();
                        let want = 2.5 + constant[row] - gain[row] * 0.01 * dot as f32;
                        // A table entry is off by half a step of 4: at most 2 * 2 for each four dimensions.
                        let off = if bits == Bits::One {
                            4.0 * dim.div_ceil(4) as f32
                        } else {
                            0.0
                        };
                        let tolerance = gain[row] * 0.01 * off + 1e-3;
                        assert!(
                            (got - want).abs() <= tolerance,
                            "{level:?} {bits:?} {dim}: {got} {want}"
                        );
                    }
                    all.push(out.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
                }
                assert!(all.windows(2).all(|w| w[0] == w[1]), "{bits:?} {dim}");
            }
        }
    }
}
