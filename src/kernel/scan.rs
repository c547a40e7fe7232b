//! Estimates from codes of one or two bits a dimension, sixteen rows at a time: the first look at a leaf.
//!
//! A code holds u, one level a dimension: -1, 1 (one bit) or -3, -1, 1, 3 (two bits). With c its bits as a number,
//! u = 2 c - m, m = 1 or 3, so <g, u> = 2 <g, c> - m sum(g) for a query code g. Sixteen rows are interleaved:
//!
//! ```text
//! two bits   lines of 64 bytes, 16 dimensions: bytes 4v..4v+4 belong to row v; bits 2j, 2j+1 of byte b are dimension
//!            4j + b -> (line >> 2j) & 3 meets a broadcast of four bytes of g in one multiply-add of bytes;
//!            what is left over, in steps of 16 bytes and four dimensions: byte v, bits 2b, 2b+1 are dimension b
//! one bit    groups of 64 rows (the last of a list of 16, 32 or 48), steps of a byte for each row, 8 dimensions: see
//!            signs.rs
//! ```
//!
//! A block is the codes of sixteen rows, their `constant` (f32), and their `gain` (bfloat16, the upper half of an f32), a
//! group the same of more rows: one sequential stream without gaps, since reading it is what a search spends its time
//! on. A gain is good to one part in 256, where the estimate itself is good to one in twenty or so; constants cancel
//! large numbers, and need all bits.
//!
//! The estimate of row v is `base + constant[v] - gain[v] * (unit * x)`, x = 2 <g, c> - m sum(g) for two bits and a sum
//! of table entries for one, less its least value. Sums are integers and the f32 steps are the same everywhere,
//! so all levels agree bit for bit.
#![allow(unsafe_code)]

use bytemuck::{Pod, Zeroable};
use half::bf16;

use super::Level;
use super::dispatch::prefetch;

mod signs;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use signs::MAX_DIM_ONE_BIT;

/// Rows in a block: lists are padded to whole blocks.
pub const BLOCK: usize = 16;
/// Bytes of a line.
const LINE: usize = 64;
/// A line of a table. Aligned, since a load that crosses lines counts twice, and tables are what a scan loads most.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE]);
/// Bytes of the two numbers of a row.
const FACTORS: usize = 6;
/// Bytes of a step of a block: one of each row.
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

    /// Rows that are interleaved; the last group of a list may have fewer, but whole blocks.
    #[must_use]
    pub fn group(self) -> usize {
        match self {
            Bits::One => 4 * BLOCK,
            Bits::Two => BLOCK,
        }
    }

    /// Steps of a code.
    fn steps(self, dim: usize) -> usize {
        dim.div_ceil(self.per_byte())
    }

    /// Bytes of sixteen rows.
    #[must_use]
    pub fn block_bytes(self, dim: usize) -> usize {
        (self.steps(dim) + FACTORS) * BLOCK
    }

    /// Packs the levels (0..2 or 0..4) of `rows` rows, `[rows][a multiple of the dimensions in a byte]`, into a group.
    /// Levels behind the last dimension must be 0.
    #[inline(always)]
    pub fn pack(self, levels: &[u8], rows: usize, group: &mut [u8]) {
        let width = levels.len() / rows;
        let end = group.len() - FACTORS * rows;
        let (codes, per) = (&mut group[..end], self.per_byte());
        match self {
            Bits::One => {
                for (v, row) in levels.chunks_exact(width).enumerate() {
                    for (step, d) in row.chunks_exact(per).take(end / rows).enumerate() {
                        let bits = d.iter().enumerate().map(|(b, l)| l << b);
                        codes[step * rows + v] = bits.fold(0, |a, b| a | b);
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

/// Puts the two numbers of one row into its group of `rows`.
pub fn put_factors(group: &mut [u8], rows: usize, row: usize, constant: f32, gain: f32) {
    let (c, g) = places(group.len(), rows, row);
    group[c..c + 4].copy_from_slice(&constant.to_le_bytes());
    group[g..g + 2].copy_from_slice(&bf16::from_f32(gain).to_le_bytes());
}

/// Where the two numbers of a row stand in its group of `bytes` bytes and `rows` rows.
fn places(bytes: usize, rows: usize, row: usize) -> (usize, usize) {
    let constants = bytes - FACTORS * rows;
    (constants + 4 * row, constants + 4 * rows + 2 * row)
}

/// The two numbers of one row of a group of `rows`: (constant, gain).
#[inline(always)]
#[must_use]
pub fn factors(group: &[u8], rows: usize, row: usize) -> (f32, f32) {
    let (c, g) = places(group.len(), rows, row);
    let c = &group[c..c + 4];
    let gain = bf16::from_le_bytes([group[g], group[g + 1]]);
    (
        f32::from_le_bytes([c[0], c[1], c[2], c[3]]),
        gain.to_f32_const(),
    )
}

/// A query, prepared for codes of one kind.
#[derive(Debug, Default)]
pub struct ScanQuery {
    bits: Option<Bits>,
    steps: usize,
    /// The query code, padded with zeros to whole steps (two bits) or triples of steps (one bit, coarser).
    code: Vec<i8>,
    /// One bit: see [`signs`].
    tables: Vec<Line>,
    /// Two bits: m sum(g). One bit: 0.
    shift: i32,
    /// What the integer is multiplied with.
    unit: f32,
    /// The smallest sum of the tables, as a value: one bit only.
    least: f32,
}

impl ScanQuery {
    /// Prepares the query code `g` (any length) with scale `scale`.
    pub fn prepare(&mut self, level: Level, bits: Bits, g: &[i8], scale: f32) {
        self.bits = Some(bits);
        self.steps = bits.steps(g.len());
        match bits {
            Bits::Two => {
                self.code.clear();
                self.code.extend_from_slice(g);
                self.code.resize(self.steps * 4, 0);
                self.shift = 3 * g.iter().map(|&g| i32::from(g)).sum::<i32>();
                self.unit = scale;
                self.least = 0.0;
            }
            Bits::One => signs::prepare(self, level, g, scale),
        }
    }

    fn block_bytes(&self) -> usize {
        self.steps * STEP + FACTORS * BLOCK
    }
}

/// Writes the estimates of the rows of a list, `out.len()` of them (a multiple of sixteen).
///
/// # Panics
/// When lengths do not fit.
pub fn estimates(level: Level, query: &ScanQuery, codes: &[u8], base: f32, out: &mut [f32]) {
    let (mut slots, mut found) = (Vec::new(), Vec::new());
    assert_eq!(codes.len(), out.len() / BLOCK * query.block_bytes());
    let all = (base, f32::INFINITY);
    survivors(level, query, codes, &[], all, 0, &mut slots, &mut found);
    out.fill(f32::NAN);
    for (slot, x) in slots.into_iter().zip(found) {
        out[slot as usize] = x;
    }
}

/// Appends the rows of a list whose estimate is at most `limit`: their slots, from `first` on, to `slots` and the
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
    slots.reserve(rows);
    found.reserve(rows);
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
            let most = bits.group();
            for (i, group) in codes.chunks(most / BLOCK * size).enumerate() {
                let rows = group.len() / size * BLOCK;
                let mut sums = [0i32; 4 * BLOCK];
                let only = &group[..group.len() - FACTORS * rows];
                match bits {
                    Bits::One => signs::sums(query, only, &mut sums[..rows]),
                    Bits::Two => two_any(query, only, &mut sums[..rows]),
                }
                for (v, &sum) in sums[..rows].iter().enumerate() {
                    let (constant, gain) = factors(group, rows, v);
                    let x = query.unit * sum as f32 + query.least;
                    let x = (base + constant) - gain * x;
                    if x <= limit {
                        slots.push(first + (i * most + v) as u32);
                        found.push(x);
                    }
                }
            }
        }
    }
}

fn two_any(query: &ScanQuery, codes: &[u8], sums: &mut [i32]) {
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
    sums.iter_mut().for_each(|s| *s = 2 * *s - query.shift);
}

#[cfg(test)]
mod tests;
