//! Codes of one bit a dimension: sums by table.
//!
//! A group is `[step][row]` bytes; bit b of a byte of step s is dimension 8 s + b. What the query g adds for some bits is
//! looked up (Andre, Kermarrec and Le Scouarnec 2015, "Cache locality is not enough"), for 64 rows at a time with AVX-512:
//! one permutation of bytes is a table of 64 entries, and takes six bits of each of 64 bytes as they are, the other two
//! ignored. These make up a fourth table in each **triple** of steps:
//!
//! ```text
//! dimensions of a triple   0..6    6 7   8..14   14 15   16..22   22 23
//! table                      0      3      1       3        2       3
//! ```
//!
//! AVX2 and the portable path look up half bytes. For all of them to have the same sums the query itself is made coarser:
//! integers whose sizes add up to at most 63 in each table, so that four entries fit a byte and sums sixteen bits. The
//! entries of a table count from its smallest. One part in sixty of a table's range is far less than what a sign leaves open.

use bytemuck::Zeroable;

use super::{Level, Line, ScanQuery};
use crate::kernel::dispatch::{self, Task};

/// Dimensions of a triple.
const TRIPLE: usize = 24;
/// The largest entry of a table of six dimensions.
const MOST: f32 = 63.0;
/// The largest dimension: 688 tables of at most 63 fit sixteen bits.
pub const MAX_DIM_ONE_BIT: usize = 172 * TRIPLE;

/// The dimensions of the four tables of a triple.
const TABLES: [[usize; 6]; 4] = [
    [0, 1, 2, 3, 4, 5],
    [8, 9, 10, 11, 12, 13],
    [16, 17, 18, 19, 20, 21],
    [6, 7, 14, 15, 22, 23],
];

pub(super) fn prepare(query: &mut ScanQuery, level: Level, g: &[i8], scale: f32) {
    assert!(
        g.len() <= MAX_DIM_ONE_BIT,
        "one-bit codes of {} dimensions",
        g.len()
    );
    query.code.clear();
    query.code.extend_from_slice(g);
    let triples = g.len().div_ceil(TRIPLE);
    query.code.resize(triples * TRIPLE, 0);
    let (step, least, sum) = dispatch::run(level, Coarser(&mut query.code));
    query.shift = 0;
    query.unit = 2.0 * step * scale;
    query.least = (2 * least - sum) as f32 * (step * scale);
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            query.tables.resize(triples * 4, Line::zeroed());
            // SAFETY: four tables for each triple; the level was detected.
            unsafe { super::x86::tables_avx512(&query.code, &mut query.tables) }
        }
        _ => half_tables(query),
    }
}

/// The dimensions of table `t` of a triple, from its query code.
#[inline(always)]
pub(super) fn of_table(triple: &[i8; TRIPLE], t: usize) -> [i8; 6] {
    TABLES[t].map(|d| triple[d])
}

/// Makes the code coarser; returns (step, the sum of the smallest entries, the sum of the code).
struct Coarser<'a>(&'a mut [i8]);

impl Task for Coarser<'_> {
    type Output = (f32, i32, i32);
    #[inline(always)]
    fn run(self) -> Self::Output {
        let mut widest = 0i32;
        for triple in self.0.as_chunks::<TRIPLE>().0 {
            for t in 0..4 {
                let sizes = of_table(triple, t).map(|g| i32::from(g).abs());
                widest = widest.max(sizes.iter().sum());
            }
        }
        // Rounding adds half a step for each of six.
        let step = (widest as f32 / (MOST - 3.0)).max(1.0 / 64.0);
        let per = 1.0 / step;
        // Adding and taking off 1.5 * 2^23 rounds to the nearest integer, ties to even, with additions alone.
        const ROUND: f32 = 12_582_912.0;
        let (mut least, mut sum) = (0, 0);
        for g in self.0.iter_mut() {
            let x = ((f32::from(*g) * per + ROUND) - ROUND) as i32;
            *g = x as i8;
            least += x.min(0);
            sum += x;
        }
        (step, least, sum)
    }
}

/// For each step of eight dimensions sixteen sums for the low half of a byte, and sixteen for the high one.
fn half_tables(query: &mut ScanQuery) {
    let (code, _) = query.code.as_chunks::<4>();
    query.tables.resize(code.len().div_ceil(4), Line::zeroed());
    let (tables, _) = bytemuck::cast_slice_mut::<Line, u8>(&mut query.tables).as_chunks_mut::<16>();
    for (g, table) in code.iter().zip(tables) {
        let least: i32 = g.iter().map(|&g| i32::from(g).min(0)).sum();
        for (n, entry) in table.iter_mut().enumerate() {
            let set = |k: usize| i32::from(g[k]) & -((n >> k & 1) as i32);
            *entry = (set(0) + set(1) + set(2) + set(3) - least) as u8;
        }
    }
}

/// The sums of a group, `[step][row]`, by the half tables.
pub(super) fn sums(query: &ScanQuery, codes: &[u8], sums: &mut [i32]) {
    let tables: &[[[u8; 16]; 2]] = bytemuck::cast_slice(&query.tables);
    for (step, [low, high]) in codes.chunks_exact(sums.len()).zip(tables) {
        for (sum, &byte) in sums.iter_mut().zip(step) {
            *sum +=
                i32::from(low[usize::from(byte & 15)]) + i32::from(high[usize::from(byte >> 4)]);
        }
    }
}
