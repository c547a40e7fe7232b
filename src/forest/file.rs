//! A forest over bytes: opening, verifying, asking what it is.
//!
//! [`Forest::open`] is cheap (header, table, bounds): a file that was cut, extended or belongs to another version is
//! found here. [`Forest::verify`] reads everything: all checksums, then whether the parts agree. A search on bytes that
//! were only opened may give wrong answers if they are damaged, but it never panics and never reads outside them: every
//! number it takes from the file is checked where it is used.

use anyhow::{Result, ensure};

use super::directory::Directory;
use super::format::{Kind, Layout};
use super::lists::View;
use super::space::{Factors, Space};
use crate::kernel::codes::{Blocks, LANES};
use crate::vector::Metric;

/// An index file in memory, at an address that suits every number in it.
#[derive(Debug, Clone)]
pub struct Bytes {
    words: Vec<u64>,
    len: usize,
}

impl Bytes {
    /// A copy of `bytes`.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Bytes {
            words,
            len: bytes.len(),
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

/// A forest over the bytes of a file. See the module page.
#[derive(Debug)]
pub struct Forest<B: AsRef<[u8]>> {
    pub(super) bytes: B,
    pub(super) layout: Layout,
    pub(super) space: Space,
}

/// One point of the calibration: what a search for `k` neighbours does to find this part of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// Neighbours wanted.
    pub k: usize,
    /// Part of the true neighbours found.
    pub recall: f32,
    /// Slots of lists scanned (a row may stand in two).
    pub slots: usize,
    /// Estimates looked at twice.
    pub kept: usize,
}

/// What a forest says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// Rows.
    pub items: usize,
    /// Components of a vector.
    pub dim: usize,
    /// What near means.
    pub metric: Metric,
    /// Trees.
    pub trees: usize,
    /// Leaves of all trees together.
    pub leaves: usize,
    /// Rows a leaf was meant to hold.
    pub leaf_size: usize,
    /// Rows in the largest leaf.
    pub largest_leaf: usize,
    /// Bytes of the file.
    pub bytes: usize,
    /// Bytes of the file without the original vectors.
    pub bytes_beside_vectors: usize,
    /// Cuts that were tried while the trees grew.
    pub splits: u64,
    /// Cuts that found nothing to tell rows apart.
    pub degenerate_splits: u64,
    /// The seed of the build.
    pub seed: u64,
}

impl<B: AsRef<[u8]>> Forest<B> {
    /// Opens a forest. `bytes` must start at an address divisible by 8 and stay where they are (a map, [`Bytes`]).
    ///
    /// # Errors
    /// When the bytes are not a whole index file of this version.
    pub fn open(bytes: B) -> Result<Self> {
        let b = bytes.as_ref();
        ensure!(
            b.as_ptr().addr() % 8 == 0,
            "an index must lie at an address divisible by 8: map the file, or copy it into forest::Bytes"
        );
        let layout = Layout::parse(b)?;
        let h = &layout.header;
        let mean: Vec<f32> = bytemuck::cast_slice(&b[layout.range(Kind::Mean)]).to_vec();
        ensure!(
            mean.iter().all(|m| m.is_finite()),
            "index file: its mean is not finite"
        );
        let first: &[u32] = bytemuck::cast_slice(&b[layout.range(Kind::Trees)]);
        ensure!(
            first.first() == Some(&0)
                && first.last() == Some(&(layout.leaves as u32))
                && first.is_sorted()
                && first.iter().all(|f| (*f as usize).is_multiple_of(LANES)),
            "index file: its table of trees is out of order"
        );
        let groups = layout.leaves - first[h.trees] as usize;
        ensure!(
            groups == (first[1] as usize / LANES).next_multiple_of(LANES),
            "index file: {groups} means of blocks of leaves"
        );
        let starts = layout.range(Kind::ListStarts).len() / 4;
        ensure!(
            starts == h.lists.map_or(0, |_| first[1] as usize + 1),
            "index file: {starts} starts of lists"
        );
        let space = Space::new(h.metric, h.dim, h.max_norm, mean, h.seed);
        Ok(Forest {
            bytes,
            layout,
            space,
        })
    }

    pub(super) fn section<T: bytemuck::AnyBitPattern>(&self, kind: Kind) -> &[T] {
        bytemuck::cast_slice(&self.bytes.as_ref()[self.layout.range(kind)])
    }

    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layout.header.n
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Components of a vector.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.layout.header.dim
    }

    /// What near means.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.layout.header.metric
    }

    /// Number of trees.
    #[must_use]
    pub fn trees(&self) -> usize {
        self.layout.header.trees
    }

    /// Identifies the content: two files with the same checksum are the same.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        self.layout.checksum
    }

    /// Rowids by position (the order of the vectors in the file), not sorted.
    #[must_use]
    pub fn ids(&self) -> &[i64] {
        self.section(Kind::Ids)
    }

    /// At most `n` rowids and their positions, the smallest and the largest among them, the others evenly between.
    pub fn spread(&self, n: usize) -> impl Iterator<Item = (i64, u32)> + '_ {
        let (ids, by_id) = (self.ids(), self.section::<u32>(Kind::ById));
        let (last, steps) = (by_id.len().saturating_sub(1), n.max(2) - 1);
        let ranks = (0..=steps.min(last)).map(move |i| i * last / steps.min(last).max(1));
        ranks.filter_map(|r| {
            let position = *by_id.get(r)?;
            Some((*ids.get(position as usize)?, position))
        })
    }

    /// Whether a row is in the index.
    #[must_use]
    pub fn contains(&self, rowid: i64) -> bool {
        self.position(rowid).is_some()
    }

    /// Where a row lies in the file: it touches a page for each halving of the rowids.
    #[must_use]
    pub fn position(&self, rowid: i64) -> Option<u32> {
        let ids = self.ids();
        let by_id = self.section::<u32>(Kind::ById);
        let id = |p: u32| ids.get(p as usize).copied();
        let at = by_id.partition_point(|&p| id(p).is_some_and(|i| i < rowid));
        by_id.get(at).copied().filter(|&p| id(p) == Some(rowid))
    }

    /// What the forest says about itself.
    #[must_use]
    pub fn info(&self) -> Info {
        let h = &self.layout.header;
        let rows: &[[u32; 2]] = self.section(Kind::LeafRows);
        Info {
            items: h.n,
            dim: h.dim,
            metric: h.metric,
            trees: h.trees,
            leaves: rows.iter().filter(|r| r[1] > 0).count(),
            leaf_size: h.leaf,
            largest_leaf: rows.iter().map(|r| r[1] as usize).max().unwrap_or(0),
            bytes: self.layout.bytes,
            bytes_beside_vectors: self.layout.bytes - self.layout.range(Kind::Vectors).len(),
            splits: h.splits,
            degenerate_splits: h.degenerate,
            seed: h.seed,
        }
    }

    /// First leaf and one past the last of a tree, with the leaves that pad. Behind the last tree: the means of the blocks
    /// of tree 0.
    pub(super) fn tree(&self, tree: usize) -> (usize, usize) {
        let first: &[u32] = self.section(Kind::Trees);
        (first[tree] as usize, first[tree + 1] as usize)
    }

    /// The centroids of leaves `from..to`, both multiples of sixteen.
    pub(super) fn blocks(&self, from: usize, to: usize) -> Blocks<'_> {
        let stride = self.space.stride();
        Blocks {
            stride,
            codes: &self.section(Kind::LeafCodes)[from * stride..to * stride],
            scale: &self.section(Kind::LeafScale)[from..to],
            norm: &self.section(Kind::LeafNorm)[from..to],
            sum: &self.section(Kind::LeafSum)[from..to],
        }
    }

    /// The leaves of tree 0, to be ranked.
    pub(super) fn directory(&self) -> Directory<'_> {
        let trees = self.trees();
        let (from, to) = self.tree(trees);
        Directory {
            leaves: self.blocks(0, self.tree(0).1),
            groups: self.blocks(from, to),
        }
    }

    /// The lists of tree 0.
    pub(super) fn lists(&self) -> Option<View<'_>> {
        let (bits, _) = self.layout.header.lists?;
        Some(View {
            bits,
            block_bytes: bits.block_bytes(self.space.work()),
            starts: self.section(Kind::ListStarts),
            rows: self.section(Kind::ListRows),

            codes: self.section(Kind::ListCodes),
        })
    }

    /// How recall grows with work, as calibrated in the build: for some k from 10 to 1,000 the slots to scan and the estimates
    /// to look at twice.
    #[must_use]
    pub fn curve(&self) -> Vec<CurvePoint> {
        let points: &[[f32; 4]] = self.section(Kind::Curve);
        points
            .iter()
            .map(|&[k, recall, slots, kept]| CurvePoint {
                k: k as usize,
                recall,
                slots: slots as usize,
                kept: kept as usize,
            })
            .collect()
    }

    /// The code of a row, and what stands beside it.
    pub(super) fn code(&self, position: usize) -> (&[u8], Factors) {
        let width = self.space.record();
        Factors::split(&self.section::<u8>(Kind::Codes)[position * width..][..width])
    }
}
