//! Whether a file is what a build would have written: every checksum, and that its parts agree with one another.

use std::ops::Range;

use anyhow::{Result, ensure};

use super::file::Forest;
use super::format::{ALIGN, KINDS, Kind};
use crate::kernel::codes::LANES;
use crate::kernel::scan::factors;

impl<B: AsRef<[u8]>> Forest<B> {
    /// Where the sections lie that have at most so many bytes, those that touch as one.
    #[must_use]
    pub fn small_parts(&self, most: usize) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        for range in KINDS.map(|kind| self.layout.range(kind)) {
            if range.len() > most {
                continue;
            }
            match parts.last_mut() {
                Some(last) if range.start <= last.end.next_multiple_of(ALIGN) => {
                    last.end = range.end;
                }
                _ => parts.push(range),
            }
        }
        parts
    }

    /// Checks the checksums of those sections that have at most so many bytes: of a small file, all of it.
    ///
    /// # Errors
    /// When one does not match; the message says which.
    pub fn verify_sections(&self, most: usize) -> Result<()> {
        self.layout.verify(self.bytes.as_ref(), most)
    }

    /// Reads the whole file: every checksum, and whether its parts agree with one another.
    ///
    /// # Errors
    /// When anything does not fit; the message says what.
    pub fn verify(&self) -> Result<()> {
        self.verify_sections(usize::MAX)?;
        let n = self.len();
        let ids = self.ids();
        let by_id: &[u32] = self.section(Kind::ById);
        ensure!(
            by_id.iter().all(|&p| (p as usize) < n)
                && by_id.is_sorted_by(|&a, &b| ids[a as usize] < ids[b as usize]),
            "index file: its rowids are out of order"
        );
        for tree in 0..self.trees() {
            self.verify_tree(tree)?;
        }
        let (from, to) = self.tree(self.trees());
        let rows: &[[u32; 2]] = self.section(Kind::LeafRows);
        ensure!(
            rows[from..to].iter().all(|r| *r == [0, 0]),
            "index file: a mean of leaves has rows"
        );
        self.verify_lists()?;
        self.verify_plane()?;
        self.verify_radii()?;
        self.verify_rows()
    }

    fn verify_tree(&self, tree: usize) -> Result<()> {
        let n = self.len();
        let (from, to) = self.tree(tree);
        let blocks = self.blocks(from, to);
        let rows: &[[u32; 2]] = &self.section(Kind::LeafRows)[from..to];
        let mut at = 0u64;
        for (j, &[first, count]) in rows.iter().enumerate() {
            if blocks.norm[j].is_infinite() {
                ensure!(count == 0, "index file: tree {tree} has rows in no leaf");
                continue;
            }
            ensure!(
                u64::from(first) == at && count > 0,
                "index file: leaf {j} of tree {tree} does not follow the one before"
            );
            at += u64::from(count);
            let codes = &blocks.codes[j / LANES * LANES * blocks.stride..];
            let lane = |k: usize| i32::from(codes[k / 4 * 64 + j % LANES * 4 + k % 4]);
            let (sum, squares) = (0..blocks.stride).fold((0, 0i64), |(s, q), k| {
                (s + lane(k), q + i64::from(lane(k) * lane(k)))
            });
            let scale = f64::from(blocks.scale[j]);
            ensure!(
                sum == blocks.sum[j]
                    && ((scale * scale * squares as f64) as f32).to_bits()
                        == blocks.norm[j].to_bits(),
                "index file: the centroid of leaf {j} of tree {tree} is inconsistent"
            );
        }
        ensure!(
            at == n as u64,
            "index file: tree {tree} holds {at} of {n} rows"
        );
        if tree > 0 {
            let list = &self.section::<u32>(Kind::Lists)[(tree - 1) * n..][..n];
            let mut seen = vec![false; n];
            for &p in list {
                let fresh = seen
                    .get_mut(p as usize)
                    .is_some_and(|s| !std::mem::replace(s, true));
                ensure!(
                    fresh,
                    "index file: tree {tree} does not hold every row once"
                );
            }
        }
        Ok(())
    }

    fn verify_lists(&self) -> Result<()> {
        let Some(lists) = self.lists() else {
            return Ok(());
        };
        let slots = lists.rows.len() as u32;
        ensure!(
            lists.starts.first() == Some(&0)
                && lists.starts.last() == Some(&slots)
                && lists.starts.is_sorted()
                && lists
                    .starts
                    .iter()
                    .all(|s| (*s as usize).is_multiple_of(LANES)),
            "index file: its lists are out of order"
        );
        let leaves: &[[u32; 2]] = self.section(Kind::LeafRows);
        for (leaf, &[first, count]) in leaves[..lists.starts.len() - 1].iter().enumerate() {
            let list = &lists.rows[lists.slots(leaf)];
            let own = list.iter().zip(first..).take(count as usize);
            ensure!(
                list.len() >= count as usize && own.clone().all(|(&p, want)| p == want),
                "index file: the list of leaf {leaf} does not begin with its rows"
            );
            let rest = &list[count as usize..];
            ensure!(
                rest.is_sorted()
                    && rest
                        .iter()
                        .all(|&p| p == u32::MAX || (p as usize) < self.len()),
                "index file: the list of leaf {leaf} is out of order"
            );
            for (rows, group) in lists.groups(leaf) {
                for (row, &p) in rows.iter().enumerate() {
                    let (constant, gain) = factors(group, rows.len(), row);
                    ensure!(
                        constant.is_nan() == (p == u32::MAX) && gain.is_finite(),
                        "index file: a slot has no estimate"
                    );
                }
            }
        }
        Ok(())
    }

    /// Codes every vector that the file holds again and compares.
    fn verify_rows(&self) -> Result<()> {
        for p in 0..self.len() {
            let Some(vector) = self.vector_at(p) else {
                return Ok(());
            };
            ensure!(
                self.has_code(p, &vector),
                "index file: the code of rowid {} is not that of its vector",
                self.ids()[p]
            );
        }
        Ok(())
    }
}
