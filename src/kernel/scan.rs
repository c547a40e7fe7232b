//! Estimates from codes of one or two bits a dimension, sixteen rows at a time: the first look at a leaf.
//!
//! A code holds u, one level a dimension: -1, 1 (one bit) or -3, -1, 1, 3 (two bits). With c its bits as a number,
//! u = 2 c - m, m = 1 or 3, so <g, u> = 2 <g, c> - m sum(g) for a query code g. Sixteen rows are interleaved:
//!
//! ```text
//! two bits   lines of 64 bytes, 16 dimensions: bytes 4v..4v+4 belong to row v; bits 2j, 2j+1 of byte b are dimension
//!            4j + b -> (line >> 2j) & 3 meets a broadcast of four bytes of g in one multiply-add of bytes;
//!            what is left over, in steps of 16 bytes and four dimensions: byte v, bits 2b, 2b+1 are dimension b
//! one bit    steps of 16 bytes, 8 dimensions: byte v, bit b is dimension b
//!            -> each half byte looks up the sum of its four dimensions in a table of sixteen bytes (André, Kermarrec
//!               and Le Scouarnec 2015), scaled to seven bits, so that two sums fit a byte; four steps at a time
//! ```
//!
//! A block is the codes of sixteen rows, their `constant` (f32), and their `gain` (bfloat16, the upper half of an f32): one
//! sequential stream without gaps, since reading it is what a search spends its time on. A gain is good to one part in
//! 256, where the estimate itself is good to one in twenty or so; constants cancel large numbers, and need all bits.
//!
//! The estimate of row v is `base + constant[v] - gain[v] * (unit * x)`, x = 2 <g, c> - m sum(g) for two bits and the sum
//! of table entries for one (`base` carries the rest). Sums are integers and the f32 steps are the same everywhere,
//! so all levels agree bit for bit.
#![allow(unsafe_code)]

use half::bf16;

use super::Level;
use super::dispatch::prefetch;

#[cfg(target_arch = "x86_64")]
mod x86;

/// Rows in a block.
pub const BLOCK: usize = 16;
/// Bytes of a line, and of the constants behind the codes.
const LINE: usize = 64;
/// Bytes of the two numbers of sixteen rows.
const FACTORS: usize = LINE + 2 * BLOCK;
/// Bytes of a step: one of each row.
const STEP: usize = BLOCK;

/// How many bits a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Signs.
    One,
    /// Four levels.
    Two,
}

impl Bits {
    /// Dimensions that one byte holds.
    #[must_use]
    pub fn per_byte(self) -> usize {
        match self {
            Bits::One => 8,
            Bits::Two => 4,
        }
    }

    /// Steps of a code.
    fn steps(self, dim: usize) -> usize {
        dim.div_ceil(self.per_byte())
    }

    /// Bytes of a block of sixteen codes.
    #[must_use]
    pub fn block_bytes(self, dim: usize) -> usize {
        self.steps(dim) * STEP + FACTORS
    }

    /// Puts the two numbers of one row into its block of sixteen codes.
    pub fn put_factors(self, block: &mut [u8], row: usize, constant: f32, gain: f32) {
        let (constants, gains) = block.split_at_mut(block.len() - 2 * BLOCK);
        let at = constants.len() - LINE + 4 * row;
        constants[at..at + 4].copy_from_slice(&constant.to_le_bytes());
        gains[2 * row..][..2].copy_from_slice(&bf16::from_f32(gain).to_le_bytes());
    }

    /// The two numbers of one row of a block: (constant, gain).
    #[must_use]
    #[inline(always)]
    pub fn factors(self, block: &[u8], row: usize) -> (f32, f32) {
        let (constants, gains) = block.split_at(block.len() - 2 * BLOCK);
        let c = &constants[constants.len() - LINE + 4 * row..][..4];
        let gain = bf16::from_le_bytes([gains[2 * row], gains[2 * row + 1]]);
        (
            f32::from_le_bytes([c[0], c[1], c[2], c[3]]),
            gain.to_f32_const(),
        )
    }

    /// Packs the levels (0..2 or 0..4) of sixteen rows, `[16][a multiple of the dimensions in a byte]`, into a block.
    /// Levels behind the last dimension must be 0.
    #[inline(always)]
    pub fn pack(self, levels: &[u8], block: &mut [u8]) {
        let width = levels.len() / BLOCK;
        let end = block.len() - FACTORS;
        let (codes, per) = (&mut block[..end], self.per_byte());
        match self {
            Bits::One => {
                for (v, row) in levels.chunks_exact(width).enumerate() {
                    for (step, d) in row.chunks_exact(per).take(end / STEP).enumerate() {
                        let bits = d.iter().enumerate().map(|(b, l)| l << b);
                        codes[step * STEP + v] = bits.fold(0, |a, b| a | b);
                    }
                }
            }
            Bits::Two => {
                let lines = end / LINE;
                for (v, row) in levels.chunks_exact(width).enumerate() {
                    let (whole, rest) = row.split_at(lines * LINE / 4);
                    for (line, d) in whole.chunks_exact(16).enumerate() {
                        let to = &mut codes[line * LINE + 4 * v..][..4];
                        for (b, to) in to.iter_mut().enumerate() {
                            *to = d[b] | d[4 + b] << 2 | d[8 + b] << 4 | d[12 + b] << 6;
                        }
                    }
                    for (step, d) in rest
                        .chunks_exact(4)
                        .take((end - lines * LINE) / STEP)
                        .enumerate()
                    {
                        codes[lines * LINE + step * STEP + v] =
                            d[0] | d[1] << 2 | d[2] << 4 | d[3] << 6;
                    }
                }
            }
        }
    }
}

/// A query, prepared for codes of one kind.
#[derive(Debug, Default)]
pub struct ScanQuery {
    bits: Option<Bits>,
    steps: usize,
    /// Two bits: the query code, padded with zeros to whole steps.
    code: Vec<i8>,
    /// One bit: for each line (four steps, the last perhaps in part) four tables for low halves, four for high ones.
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
    pub fn prepare(&mut self, level: Level, bits: Bits, g: &[i8], scale: f32) {
        self.bits = Some(bits);
        self.steps = bits.steps(g.len());
        let sum: i32 = g.iter().map(|&g| i32::from(g)).sum();
        self.code.clear();
        self.code.extend_from_slice(g);
        match bits {
            Bits::Two => {
                self.code.resize(self.steps * 4, 0);
                self.shift = 3 * sum;
                self.unit = scale;
                self.least = 0.0;
            }
            Bits::One => {
                assert!(
                    g.len() <= MAX_DIM_ONE_BIT,
                    "one-bit codes of {} dimensions",
                    g.len()
                );
                self.shift = 0;
                let lines = self.steps.div_ceil(4);
                self.code.resize(lines * 32, 0);
                self.tables.resize(lines * 2 * LINE, 0);
                // Entries are counted from the smallest of their table in steps of widest / 127.
                let (least, widest) = super::dispatch::run(level, Widest(&self.code));
                let step = widest as f32 / 127.0;
                match level {
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: two lines of tables for each 32 dimensions; the level was detected.
                    Level::Avx512 => unsafe {
                        x86::tables_avx512(&self.code, 1.0 / step, &mut self.tables);
                    },
                    _ => tables_any(&self.code, 1.0 / step, &mut self.tables),
                }
                self.unit = 2.0 * step * scale;
                self.least = (2 * least - sum) as f32 * scale;
            }
        }
    }

    fn block_bytes(&self) -> usize {
        self.steps * STEP + FACTORS
    }
}

/// Of the tables of a one-bit query: the sum of their smallest values, and the widest range.
struct Widest<'a>(&'a [i8]);

impl super::dispatch::Task for Widest<'_> {
    type Output = (i32, i32);
    #[inline(always)]
    fn run(self) -> (i32, i32) {
        let (mut least, mut widest) = (0i32, 1i32);
        for g in self.0.as_chunks::<4>().0 {
            let g = g.map(i32::from);
            least += (g[0].min(0) + g[1].min(0)) + (g[2].min(0) + g[3].min(0));
            widest = widest.max((g[0].abs() + g[1].abs()) + (g[2].abs() + g[3].abs()));
        }
        (least, widest)
    }
}

/// Fills the tables of a one-bit query, `[lines][low, high][step][16]` for `[lines * 32]` dimensions.
fn tables_any(code: &[i8], per: f32, tables: &mut [u8]) {
    for (line, tables) in code.chunks_exact(32).zip(tables.chunks_exact_mut(2 * LINE)) {
        for (i, g) in line.as_chunks::<4>().0.iter().enumerate() {
            let g = g.map(i32::from);
            let low: i32 = g.iter().map(|g| (*g).min(0)).sum();
            let table = &mut tables[(i % 2) * LINE + i / 2 * 16..][..16];
            for (n, entry) in table.iter_mut().enumerate() {
                let sum: i32 = (0..4).map(|k| g[k] & -((n >> k & 1) as i32)).sum();
                *entry = ((sum - low) as f32 * per + 0.5) as i32 as u8;
            }
        }
    }
}

/// Writes the estimates of `out.len()` rows (a multiple of sixteen).
///
/// # Panics
/// When lengths do not fit.
pub fn estimates(level: Level, query: &ScanQuery, codes: &[u8], base: f32, out: &mut [f32]) {
    assert!(out.len().is_multiple_of(BLOCK));
    assert_eq!(codes.len(), out.len() / BLOCK * query.block_bytes());
    let Some(bits) = query.bits else { return };
    match (level, bits) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: lengths were checked above; the level was detected.
        (Level::Avx512, Bits::Two) => unsafe {
            x86::estimates_avx512::<2>(query, codes, base, out);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Level::Avx512, Bits::One) => unsafe {
            x86::estimates_avx512::<1>(query, codes, base, out);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Level::Avx2, Bits::Two) => unsafe {
            x86::estimates_avx2::<2>(query, codes, base, out);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Level::Avx2, Bits::One) => unsafe {
            x86::estimates_avx2::<1>(query, codes, base, out);
        },
        _ => {
            for (block, out) in codes
                .chunks_exact(query.block_bytes())
                .zip(out.chunks_exact_mut(BLOCK))
            {
                out.copy_from_slice(&one_block(query, bits, block, base));
            }
        }
    }
}

/// Appends the rows of a leaf whose estimate is at most `limit`: their slots, from `first` on, to `slots` and the
/// estimates to `found`. `next` is what will be scanned after this: it is brought near meanwhile.
///
/// # Panics
/// When lengths do not fit.
#[allow(clippy::too_many_arguments)]
pub fn survivors(
    level: Level,
    query: &ScanQuery,
    codes: &[u8],
    next: &[u8],
    (base, limit): (f32, f32),
    first: u32,
    slots: &mut Vec<u32>,
    found: &mut Vec<f32>,
) {
    let size = query.block_bytes();
    assert!(codes.len().is_multiple_of(size));
    let rows = codes.len() / size * BLOCK;
    let Some(bits) = query.bits else { return };
    // A store of sixteen needs sixteen free places, however few of them count.
    slots.reserve(rows + BLOCK);
    found.reserve(rows + BLOCK);
    match (level, bits) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: whole blocks, and the room was just reserved; the level was detected.
        (Level::Avx512, Bits::Two) => unsafe {
            x86::survivors_avx512::<2>(query, codes, next, (base, limit), first, slots, found);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Level::Avx512, Bits::One) => unsafe {
            x86::survivors_avx512::<1>(query, codes, next, (base, limit), first, slots, found);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Level::Avx2, Bits::Two) => unsafe {
            x86::survivors_avx2::<2>(query, codes, next, (base, limit), first, slots, found);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Level::Avx2, Bits::One) => unsafe {
            x86::survivors_avx2::<1>(query, codes, next, (base, limit), first, slots, found);
        },
        _ => {
            prefetch(next);
            for (b, block) in codes.chunks_exact(size).enumerate() {
                for (v, x) in one_block(query, bits, block, base).into_iter().enumerate() {
                    if x <= limit {
                        slots.push(first + (b * BLOCK + v) as u32);
                        found.push(x);
                    }
                }
            }
        }
    }
}

/// The estimates of one block.
#[inline(always)]
fn one_block(query: &ScanQuery, bits: Bits, block: &[u8], base: f32) -> [f32; BLOCK] {
    let codes = &block[..block.len() - FACTORS];
    let sums = match bits {
        Bits::One => one_any(query, codes),
        Bits::Two => two_any(query, codes),
    };
    std::array::from_fn(|v| {
        let (constant, gain) = bits.factors(block, v);
        let x = query.unit * sums[v] as f32 + query.least;
        (base + constant) - gain * x
    })
}

fn two_any(query: &ScanQuery, codes: &[u8]) -> [i32; BLOCK] {
    let mut sums = [0i32; BLOCK];
    let (lines, rest) = codes.as_chunks::<LINE>();
    let (in_lines, left) = query.code.split_at(lines.len() * 16);
    for (line, g) in lines.iter().zip(in_lines.chunks_exact(16)) {
        for (v, bytes) in line.chunks_exact(4).enumerate() {
            for (d, &g) in g.iter().enumerate() {
                sums[v] += i32::from((bytes[d % 4] >> (d / 4 * 2)) & 3) * i32::from(g);
            }
        }
    }
    for (step, g) in rest.chunks_exact(STEP).zip(left.chunks_exact(4)) {
        for (sum, &byte) in sums.iter_mut().zip(step) {
            for (b, &g) in g.iter().enumerate() {
                *sum += i32::from((byte >> (2 * b)) & 3) * i32::from(g);
            }
        }
    }
    sums.map(|s| 2 * s - query.shift)
}

fn one_any(query: &ScanQuery, codes: &[u8]) -> [i32; BLOCK] {
    let mut sums = [0i32; BLOCK];
    for (i, step) in codes.chunks_exact(STEP).enumerate() {
        let tables = &query.tables[i / 4 * 2 * LINE + i % 4 * 16..];
        for (sum, &byte) in sums.iter_mut().zip(step) {
            *sum += i32::from(tables[usize::from(byte & 15)]);
            *sum += i32::from(tables[LINE + usize::from(byte >> 4)]);
        }
    }
    sums
}

#[cfg(test)]
mod tests;
