//! The bytes of a forest file. Nothing else in the crate knows where a number lies.
//!
//! ```text
//! 0    magic "annoyfst"                     48   n: rows, u64
//! 8    version, u32                         56   trees, u32
//! 12   features, u32 (none yet: 0)          60   sections, u32
//! 16   length of the file, u64              64   seed, u64
//! 24   checksum of header and table, u64    72   largest norm, f64 (dot, l2)
//! 32   metric, u32                          80   splits, u64
//! 36   dim, u32                             88   degenerate splits, u64
//! 40   leaf: rows a leaf should hold, u32   96   list bits (0: no lists), u32; 100  copies, u32
//! 44   store: 0 f32, 1 f16, 2 none, u32     104  hardness, f32 [4], see hardness.rs; then 8 bytes of zeros
//!                                           128  section table, 32 bytes each:
//!                                                kind u32, 0 u32, offset u64, length u64, checksum u64
//! then the sections, each at a multiple of 64 and zero up to the next:
//! 1  mean        f32 [work]         work = dim, one more for dot; see space.rs
//! 2  trees       u32 [trees + 2]    first leaf of each tree; leaves are padded to whole blocks of sixteen; then the
//!                                   first of the means of tree 0's blocks (leaves without rows), and their end
//! 3  leaf codes  i8  [leaves / 16][stride / 4][16][4]         stride = work, up to a multiple of 4
//! 4  leaf scale  f32 [leaves]
//! 5  leaf norm   f32 [leaves]       infinite where a leaf only pads
//! 6  leaf sum    i32 [leaves]
//! 7  leaf rows   u32 [leaves][2]    first and number, in positions (tree 0) or in the tree's own list
//! 8  codes       [n] of u8 [stride], scale f32, norm f32, error f32: in order of position, the leaf order of tree 0
//! 9  ids         i64 [n]            rowid by position
//! 10 by id       u32 [n]            position of the r-th smallest rowid
//! 11 lists       u32 [trees - 1][n] positions, leaf by leaf, of each further tree
//! 12 curve       f32 [points][4]    (k, recall, slots, kept), see calibrate.rs
//! 13 vectors     f32 [n][dim]       in order of position, as they came; f16 [n][dim], the same numbers (store 1); empty
//!                                   (store 2)
//! 14 list starts u32 [leaves of tree 0 + 1]                  first slot of each; multiples of sixteen
//! 15 list rows   u32 [slots]        position; 2^32 - 1 where a slot pads
//! 16 list codes  u8  [slots / 16][16 steps + 96]             see kernel/scan.rs; constant NaN where a slot pads
//! 17 plane       u8  [n / 32, rounded up][block bytes]        see kernel/nibble.rs; zeros where a block pads
//! 18 leaf radius f32 [leaves]       no row of the leaf is farther from its coded centroid; infinite beyond tree 0
//! (14 to 16 are empty, or one start, where an index has no lists)
//! ```
//!
//! Little-endian. The checksum of a section is XXH3-64 of its bytes with the zeros behind it, so no byte of the file
//! is outside every checksum; the header's covers header and table with its own field zero, and so identifies the
//! content of the whole file.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use xxhash_rust::xxh3::xxh3_64;

use super::build::MAX_TREES;
use super::hardness::Hardness;
use super::originals::{self, VectorStore};
use super::space::{Factors, work_dim};
use crate::kernel::codes::{LANES, stride};
use crate::kernel::nibble;
use crate::kernel::scan::{BLOCK, Bits, MAX_DIM_ONE_BIT};
use crate::vector::{MAX_DIM, Metric};

/// What every index file begins with.
pub const MAGIC: [u8; 8] = *b"annoyfst";
const VERSION: u32 = 3;
const HEADER: usize = 128;
const ENTRY: usize = 32;
const CHECKSUM_AT: usize = 24;
/// Alignment of sections.
pub(crate) const ALIGN: usize = 64;

/// What a section holds; the numbers are the file's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Mean = 1,
    Trees,
    LeafCodes,
    LeafScale,
    LeafNorm,
    LeafSum,
    LeafRows,
    Codes,
    Ids,
    ById,
    Lists,
    Curve,
    Vectors,
    ListStarts,
    ListRows,

    ListCodes,
    Plane,
    LeafRadius,
}

pub(crate) const KINDS: [Kind; 18] = [
    Kind::Mean,
    Kind::Trees,
    Kind::LeafCodes,
    Kind::LeafScale,
    Kind::LeafNorm,
    Kind::LeafSum,
    Kind::LeafRows,
    Kind::Codes,
    Kind::Ids,
    Kind::ById,
    Kind::Lists,
    Kind::Curve,
    Kind::Vectors,
    Kind::ListStarts,
    Kind::ListRows,
    Kind::ListCodes,
    Kind::Plane,
    Kind::LeafRadius,
];

/// The numbers of the header.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Header {
    pub(crate) metric: Metric,
    pub(crate) dim: usize,
    pub(crate) leaf: usize,
    pub(crate) store: VectorStore,
    pub(crate) n: usize,
    pub(crate) trees: usize,
    pub(crate) seed: u64,
    pub(crate) max_norm: f64,
    pub(crate) splits: u64,
    pub(crate) degenerate: u64,
    /// How lists are coded, and how many copies of a row they hold.
    pub(crate) lists: Option<(Bits, usize)>,
    pub(crate) hardness: Hardness,
}

impl Header {
    pub(crate) fn work(&self) -> usize {
        work_dim(self.metric, self.dim)
    }

    pub(crate) fn stride(&self) -> usize {
        stride(self.work())
    }
}

/// Where each section of [`KINDS`] lies.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) header: Header,
    pub(crate) checksum: u64,
    pub(crate) bytes: usize,
    /// Leaves of all trees, with those that pad.
    pub(crate) leaves: usize,
    ranges: Vec<Range<usize>>,
    checksums: Vec<u64>,
}

fn metric_number(metric: Metric) -> u32 {
    match metric {
        Metric::Cosine => 0,
        Metric::L2 => 1,
        Metric::Dot => 2,
        Metric::L1 => 3,
        Metric::Hamming => 4,
    }
}

/// Header and table of a file whose sections have these lengths and checksums (in the order of [`KINDS`]), the offset
/// of each section, and the length of the file.
pub(crate) fn compose(header: &Header, sections: &[(usize, u64)]) -> (Vec<u8>, usize) {
    let mut out = vec![0u8; (HEADER + ENTRY * sections.len()).next_multiple_of(ALIGN)];
    let mut at = out.len();
    for (i, (kind, &(len, checksum))) in KINDS.iter().zip(sections).enumerate() {
        let entry = &mut out[HEADER + ENTRY * i..][..ENTRY];
        entry[..4].copy_from_slice(&(*kind as u32).to_le_bytes());
        entry[8..16].copy_from_slice(&(at as u64).to_le_bytes());
        entry[16..24].copy_from_slice(&(len as u64).to_le_bytes());
        entry[24..32].copy_from_slice(&checksum.to_le_bytes());
        at += len.next_multiple_of(ALIGN);
    }
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC);
    put(8, &VERSION.to_le_bytes());
    put(16, &(at as u64).to_le_bytes());
    put(32, &metric_number(header.metric).to_le_bytes());
    put(36, &(header.dim as u32).to_le_bytes());
    put(40, &(header.leaf as u32).to_le_bytes());
    put(44, &(header.store as u32).to_le_bytes());
    put(48, &(header.n as u64).to_le_bytes());
    put(56, &(header.trees as u32).to_le_bytes());
    put(60, &(sections.len() as u32).to_le_bytes());
    put(64, &header.seed.to_le_bytes());
    put(72, &header.max_norm.to_le_bytes());
    put(80, &header.splits.to_le_bytes());
    put(88, &header.degenerate.to_le_bytes());
    if let Some((bits, copies)) = header.lists {
        let bits: u32 = match bits {
            Bits::One => 1,
            Bits::Two => 2,
        };
        put(96, &bits.to_le_bytes());
        put(100, &(copies as u32).to_le_bytes());
    }
    for (i, w) in header.hardness.0.iter().enumerate() {
        put(104 + 4 * i, &w.to_le_bytes());
    }
    let checksum = xxh3_64(&out);
    out[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&checksum.to_le_bytes());
    (out, at)
}

/// The checksum in a header.
pub(crate) fn checksum_of(head: &[u8]) -> u64 {
    u64_at(head, CHECKSUM_AT)
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

impl Layout {
    /// Reads header and table; checks everything that can be checked without reading the sections.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Layout> {
        ensure!(
            cfg!(target_endian = "little"),
            "index files are little-endian and this processor is not"
        );
        ensure!(
            bytes.len() >= HEADER && bytes[..8] == MAGIC,
            "not an index file: expected it to begin with \"annoyfst\""
        );
        let version = u32_at(bytes, 8);
        ensure!(
            version == VERSION && u32_at(bytes, 12) == 0,
            "index file of version {version}, features {:#x}: this build reads version {VERSION}; rebuild the index",
            u32_at(bytes, 12)
        );
        let length = u64_at(bytes, 16);
        ensure!(
            length == bytes.len() as u64,
            "index file of {} bytes: expected {length}; it was cut short or extended; rebuild the index",
            bytes.len()
        );
        ensure!(
            u32_at(bytes, 60) as usize == KINDS.len(),
            "index file with {} sections: expected {}",
            u32_at(bytes, 60),
            KINDS.len()
        );
        let table_end = (HEADER + ENTRY * KINDS.len()).next_multiple_of(ALIGN);
        ensure!(
            bytes.len() >= table_end,
            "index file ends within its header"
        );
        let mut head = bytes[..table_end].to_vec();
        head[CHECKSUM_AT..CHECKSUM_AT + 8].fill(0);
        let checksum = u64_at(bytes, CHECKSUM_AT);
        ensure!(
            xxh3_64(&head) == checksum,
            "index file is damaged: checksum of its header does not match; rebuild the index"
        );
        let header = Self::header(bytes)?;
        let mut layout = Layout {
            header,
            checksum,
            bytes: bytes.len(),
            leaves: 0,
            ranges: Vec::with_capacity(KINDS.len()),
            checksums: Vec::with_capacity(KINDS.len()),
        };
        let mut expected = table_end;
        for (i, &kind) in KINDS.iter().enumerate() {
            let entry = &bytes[HEADER + ENTRY * i..][..ENTRY];
            ensure!(
                u32_at(entry, 0) == kind as u32,
                "index file: section {i} is not {kind:?}"
            );
            let (offset, len) = (u64_at(entry, 8), u64_at(entry, 16));
            let end = offset.checked_add(len).filter(|&e| e <= bytes.len() as u64);
            let end =
                end.with_context(|| format!("index file: section {kind:?} lies outside it"))?;
            ensure!(
                offset as usize == expected,
                "index file: section {kind:?} is misplaced"
            );
            layout.ranges.push(expected..end as usize);
            layout.checksums.push(u64_at(entry, 24));
            expected = (end as usize).next_multiple_of(ALIGN);
        }
        ensure!(
            expected == bytes.len(),
            "index file: {} bytes behind its sections",
            bytes.len() as i128 - expected as i128
        );
        layout.check_lengths()?;
        Ok(layout)
    }

    fn header(bytes: &[u8]) -> Result<Header> {
        let metric = match u32_at(bytes, 32) {
            0 => Metric::Cosine,
            1 => Metric::L2,
            2 => Metric::Dot,
            other => bail!("index file: unknown metric {other}"),
        };
        let dim = u32_at(bytes, 36) as usize;
        let n = u64_at(bytes, 48);
        let trees = u32_at(bytes, 56);
        ensure!((1..=MAX_DIM).contains(&dim), "index file: dimension {dim}");
        ensure!(n <= u64::from(u32::MAX), "index file: {n} rows");
        ensure!(
            (1..=MAX_TREES).contains(&trees),
            "index file: {trees} trees"
        );
        let copies = u32_at(bytes, 100) as usize;
        let lists = match u32_at(bytes, 96) {
            0 => None,
            1 if work_dim(metric, dim) <= MAX_DIM_ONE_BIT => Some((Bits::One, copies)),
            2 => Some((Bits::Two, copies)),
            other => bail!("index file: lists of {other} bits"),
        };
        let max_norm = f64::from_bits(u64_at(bytes, 72));
        ensure!(
            max_norm.is_finite() && max_norm >= 0.0,
            "index file: largest norm {max_norm}"
        );
        let hardness = [104, 108, 112, 116].map(|at| f32::from_bits(u32_at(bytes, at)));
        ensure!(
            hardness.iter().all(|w| w.is_finite()),
            "index file: weights of hardness {hardness:?}"
        );
        Ok(Header {
            metric,
            dim,
            leaf: u32_at(bytes, 40) as usize,
            store: originals::numbered(u32_at(bytes, 44))?,
            n: n as usize,
            trees: trees as usize,
            seed: u64_at(bytes, 64),
            max_norm,
            splits: u64_at(bytes, 80),
            degenerate: u64_at(bytes, 88),
            lists,
            hardness: Hardness(hardness),
        })
    }

    fn check_lengths(&mut self) -> Result<()> {
        let h = &self.header;
        let (n, stride) = (h.n as u128, h.stride() as u128);
        self.leaves = self.range(Kind::LeafNorm).len() / 4;
        let leaves = self.leaves as u128;
        ensure!(
            self.leaves.is_multiple_of(LANES),
            "index file: {leaves} leaves"
        );
        let slots = self.range(Kind::ListRows).len() / 4;
        let block = h.lists.map_or(0, |(bits, _)| bits.block_bytes(h.work()));
        ensure!(slots.is_multiple_of(BLOCK), "index file: {slots} slots");
        for kind in KINDS {
            let expected = match kind {
                Kind::Mean => 4 * h.work() as u128,
                Kind::Trees => 4 * (h.trees as u128 + 2),
                Kind::LeafCodes => leaves * stride,
                Kind::LeafScale | Kind::LeafNorm | Kind::LeafSum => leaves * 4,
                Kind::LeafRows => leaves * 8,
                Kind::Codes => n * (stride + size_of::<Factors>() as u128),
                Kind::ById => n * 4,
                Kind::Ids => n * 8,
                Kind::Lists => (h.trees as u128 - 1) * n * 4,
                Kind::Curve => self.range(Kind::Curve).len().next_multiple_of(16) as u128,
                Kind::Vectors => n * (h.dim * h.store.width()) as u128,
                // As many as tree 0 has leaves: checked when its table has been read.
                Kind::ListStarts => self.range(kind).len().next_multiple_of(4) as u128,
                Kind::ListRows => slots as u128 * 4,
                Kind::Plane => {
                    (h.n.div_ceil(nibble::ROWS) as u128) * nibble::block_bytes(h.work()) as u128
                }
                Kind::LeafRadius => leaves * 4,
                Kind::ListCodes => (slots / BLOCK) as u128 * block as u128,
            };
            let got = self.range(kind).len() as u128;
            ensure!(
                got == expected,
                "index file: section {kind:?} has {got} bytes, expected {expected}"
            );
        }
        Ok(())
    }

    /// Where a section lies.
    pub(crate) fn range(&self, kind: Kind) -> Range<usize> {
        self.ranges[kind as usize - 1].clone()
    }

    /// Checks the checksum of every section that has at most so many bytes.
    pub(crate) fn verify(&self, bytes: &[u8], most: usize) -> Result<()> {
        for (kind, checksum) in KINDS.iter().zip(&self.checksums) {
            let range = self.range(*kind);
            if range.len() > most {
                continue;
            }
            let padded = range.start..range.end.next_multiple_of(ALIGN);
            ensure!(
                bytes.get(padded).is_some_and(|b| xxh3_64(b) == *checksum),
                "index file is damaged: checksum of section {kind:?} does not match; rebuild the index"
            );
        }
        Ok(())
    }
}
