//! One tree: rows divided into leaves of near neighbours.
//!
//! 1. **Cut** ([`super::cut`]): a tree of cuts between two centres each gives the first leaves.
//! 2. **Settle.** The centroids of those leaves take over: every row goes to the leaf with the nearest centroid,
//!    centroids move to the mean of their rows, and again (Lloyd 1957), so leaves are cells around their centroids.
//! 3. **Assign.** With the centroids fixed and coded in bytes, every row goes to its leaf by the very score that ranks
//!    leaves for a query ([`codes::nearest_leaves`]). Whatever the query does, a row that is the query has its own
//!    leaf first. (With more than [`FEW`] leaves a row is compared with the [`NEAR`] leaves nearest to its own only,
//!    or the build would be quadratic; then a few rows in ten thousand have a leaf before their own.)
//! 4. **Thin out copies.** Rows with equal components in an overfull leaf are spread in order of rowid over several
//!    leaves with the same centroid: ties are answered by rowid, so the first of them are the answer.
//!
//! Work is on byte codes ([`super::space`]) in exact integers, sums are f32 in the order of the rows, and random
//! choices depend on (seed, tree, node): the result does not depend on threads or processor.

use std::borrow::Cow;

use anyhow::Result;
use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::centroids::Centroids;
use super::cut::split;
use super::shelf::Shelf;
use super::space::{Factors, Space};
use crate::job::Job;
use crate::kernel::dispatch::{self, Task};
use crate::kernel::{codes, level};

/// Rounds of assignment before the last one.
const SETTLE: usize = 3;
/// Rows handled between two looks at the job.
const CHUNK: usize = 1024;
/// Up to this many leaves every row is compared with every leaf.
pub(crate) const FEW: usize = 512;
/// Leaves that a row is compared with otherwise.
pub(crate) const NEAR: usize = 256;

/// The rows as codes, by row number (the rank of the rowid).
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) space: &'a Space,
    pub(crate) stride: usize,
    /// `[n, stride]`, by place.
    pub(crate) codes: &'a [u8],
    /// By place.
    pub(crate) factors: &'a [Factors],
    /// `[n, dim]`, by row number: the vectors themselves, to tell copies from rows that only share a code.
    pub(crate) vectors: &'a [f32],
    /// Place by row number; empty: the row number.
    pub(super) place: &'a [u32],
    pub(super) shelf: &'a Shelf<'a, 'a>,
}

impl Rows<'_> {
    pub(crate) fn len(&self) -> usize {
        self.factors.len()
    }

    /// Where a row lies.
    #[inline(always)]
    pub(crate) fn place(&self, row: u32) -> usize {
        self.place.get(row as usize).copied().unwrap_or(row) as usize
    }

    /// Where these rows lie.
    pub(super) fn places<'b>(&self, rows: &'b [u32]) -> Cow<'b, [u32]> {
        if self.place.is_empty() {
            Cow::Borrowed(rows)
        } else {
            rows.iter().map(|&row| self.place[row as usize]).collect()
        }
    }

    pub(crate) fn code(&self, row: u32) -> &[u8] {
        &self.codes[self.place(row) * self.stride..][..self.stride]
    }

    pub(crate) fn factors(&self, row: u32) -> &Factors {
        &self.factors[self.place(row)]
    }

    pub(crate) fn same_code(&self, a: u32, b: u32) -> bool {
        self.factors(a).scale == self.factors(b).scale && self.code(a) == self.code(b)
    }

    pub(crate) fn vector(&self, row: u32) -> &[f32] {
        let dim = self.space.dim;
        &self.vectors[row as usize * dim..][..dim]
    }

    /// The mean of the points of some rows, as their codes have them, added up in order.
    pub(crate) fn mean(&self, members: &[u32], out: &mut [f32]) {
        let rows = self;
        dispatch::run(level(), Mean { rows, members, out });
    }

    /// Adds the point of a row, as its code has it.
    #[inline(always)]
    pub(crate) fn add_to(&self, row: u32, sum: &mut [f32]) {
        let scale = self.factors(row).scale;
        for (s, &c) in sum.iter_mut().zip(self.code(row)) {
            *s += scale * (i32::from(c) - 128) as f32;
        }
    }
}

struct Mean<'a> {
    rows: &'a Rows<'a>,
    members: &'a [u32],
    out: &'a mut [f32],
}

impl Task for Mean<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.out.fill(0.0);
        for &row in self.members {
            self.rows.add_to(row, self.out);
        }
        let by = 1.0 / self.members.len() as f32;
        for p in self.out {
            *p *= by;
        }
    }
}

/// A finished tree.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) centroids: Centroids,
    /// `[leaves + 1]`: leaf `j` holds `rows[starts[j]..starts[j + 1]]`.
    pub(crate) starts: Vec<u32>,
    /// All row numbers, leaf by leaf, ascending within one.
    pub(crate) rows: Vec<u32>,
    /// `[leaves]`: whether a leaf holds only further copies of rows of the leaf before.
    pub(crate) surplus: Vec<bool>,
    pub(crate) splits: u64,
    pub(crate) degenerate: u64,
}

/// Grows tree number `tree` over all rows. `leaf` is the number of rows a leaf should hold.
pub(crate) fn grow(
    shelf: &mut Shelf,
    leaf: usize,
    seed: u64,
    tree: u64,
    job: &Job,
) -> Result<Tree> {
    if shelf.len() == 0 {
        return Ok(Tree {
            starts: vec![0],
            ..Tree::default()
        });
    }
    let work = shelf.space.work();
    let mut cut = split(shelf, leaf, seed, tree, job)?;
    shelf.arrange(&cut.rows, &cut.starts, job)?;
    let mut points = means(&shelf.rows(), &cut, None, job)?;
    for _ in 0..SETTLE {
        let centroids = Centroids::new(&points, work);
        let groups = group(
            &assign(&shelf.rows(), &centroids, &cut, job)?,
            points.len() / work,
        );
        (cut.starts, cut.rows) = groups;
        shelf.arrange(&cut.rows, &cut.starts, job)?;
        points = means(&shelf.rows(), &cut, Some(points), job)?;
    }
    let centroids = Centroids::new(&points, work);
    let leaves = points.len() / work;
    drop(points);
    let (starts, order) = group(&assign(&shelf.rows(), &centroids, &cut, job)?, leaves);
    finish(&shelf.rows(), leaf, &centroids, &starts, order, &cut)
}

/// Drops empty leaves and thins out copies.
fn finish(
    rows: &Rows,
    leaf: usize,
    centroids: &Centroids,
    starts: &[u32],
    mut order: Vec<u32>,
    cut: &Tree,
) -> Result<Tree> {
    let (mut from, mut surplus) = (Vec::new(), Vec::new());
    let mut ends = vec![0u32];
    for (j, range) in starts.windows(2).enumerate() {
        let (a, b) = (range[0] as usize, range[1] as usize);
        let members = &mut order[a..b];
        let first = if members.len() > 4 * leaf {
            spread_copies(rows, members, leaf)
        } else {
            members.len()
        };
        if members.is_empty() {
            continue;
        }
        from.push(j as u32);
        surplus.push(false);
        ends.push((a + first) as u32);
        for at in (a + first..b).step_by(leaf) {
            from.push(j as u32);
            surplus.push(true);
            ends.push((at + leaf).min(b) as u32);
        }
    }
    Ok(Tree {
        centroids: centroids.pick(&from),
        starts: ends,
        rows: order,
        surplus,
        splits: cut.splits,
        degenerate: cut.degenerate,
    })
}

/// Reorders the rows of a leaf: first those to keep in it (every row that differs from the others, and the first
/// `leaf` of each group of copies), then the surplus copies in order of row number. Returns how many to keep.
fn spread_copies(rows: &Rows, members: &mut [u32], leaf: usize) -> usize {
    let bits = |row: u32| -> &[u8] { bytemuck::cast_slice(rows.vector(row)) };
    let mut seen: FxHashMap<&[u8], usize> = FxHashMap::default();
    let (mut kept, mut surplus) = (Vec::with_capacity(members.len()), Vec::new());
    for &row in members.iter() {
        let copies = seen.entry(bits(row)).or_insert(0);
        *copies += 1;
        if *copies <= leaf {
            kept.push(row);
        } else {
            surplus.push(row);
        }
    }
    members[..kept.len()].copy_from_slice(&kept);
    members[kept.len()..].copy_from_slice(&surplus);
    kept.len()
}

/// The leaf of every row. `tree` has the leaves before, in the same order.
fn assign(rows: &Rows, centroids: &Centroids, tree: &Tree, job: &Job) -> Result<Vec<u32>> {
    if tree.starts.len() - 1 > FEW {
        return assign_near(rows, centroids, tree, job);
    }
    let blocks = centroids.blocks();
    let mut leaf = vec![0u32; rows.len()];
    leaf.par_chunks_mut(CHUNK)
        .zip(rows.codes.par_chunks(CHUNK * rows.stride))
        .zip(rows.factors.par_chunks(CHUNK))
        .try_for_each(|((leaf, code), factors)| {
            job.check()?;
            let mut twice = [0.0f32; CHUNK];
            for (t, f) in twice.iter_mut().zip(factors) {
                *t = 2.0 * f.scale;
            }
            codes::nearest_leaves(level(), &blocks, code, &twice[..factors.len()], leaf);
            Ok::<_, anyhow::Error>(())
        })?;
    if rows.place.is_empty() {
        return Ok(leaf);
    }
    Ok(rows
        .place
        .iter()
        .map(|&place| leaf[place as usize])
        .collect())
}

/// As `assign`, each row compared with the leaves around its last one.
fn assign_near(rows: &Rows, centroids: &Centroids, tree: &Tree, job: &Job) -> Result<Vec<u32>> {
    let means = centroids.means();
    let neighbours = centroids.neighbours(&means);
    let mut leaf = vec![0u32; rows.len()];
    for (_, leaves) in rows.spans(&tree.starts) {
        let parts = tree.starts[leaves.start..=leaves.end]
            .par_windows(2)
            .enumerate()
            .map(|(j, range)| {
                job.check()?;
                let members = &tree.rows[range[0] as usize..range[1] as usize];
                if members.is_empty() {
                    return Ok(Vec::new());
                }
                let near = neighbours.of(leaves.start + j, NEAR);
                let some = centroids.pick(&near);
                let mut code = Vec::with_capacity(members.len() * rows.stride);
                members
                    .iter()
                    .for_each(|&row| code.extend_from_slice(rows.code(row)));
                let twice: Vec<f32> = members
                    .iter()
                    .map(|&row| 2.0 * rows.factors(row).scale)
                    .collect();
                let mut leaf = vec![0u32; members.len()];
                codes::nearest_leaves(level(), &some.blocks(), &code, &twice, &mut leaf);
                leaf.iter_mut().for_each(|l| *l = near[*l as usize]);
                Ok(leaf)
            })
            .collect::<Result<Vec<_>>>()?;
        for (range, part) in tree.starts[leaves.start..=leaves.end].windows(2).zip(parts) {
            for (&row, l) in tree.rows[range[0] as usize..range[1] as usize]
                .iter()
                .zip(part)
            {
                leaf[row as usize] = l;
            }
        }
    }
    Ok(leaf)
}

/// Rows by leaf: (`starts`, row numbers), ascending within a leaf.
pub(super) fn group(leaf: &[u32], leaves: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; leaves + 1];
    for &l in leaf {
        starts[l as usize + 1] += 1;
    }
    for j in 0..leaves {
        starts[j + 1] += starts[j];
    }
    let mut next = starts.clone();
    let mut order = vec![0u32; leaf.len()];
    for (row, &l) in leaf.iter().enumerate() {
        let at = &mut next[l as usize];
        order[*at as usize] = row as u32;
        *at += 1;
    }
    (starts, order)
}

/// Mean point of every leaf, of unit norm where points are directions; an empty leaf keeps the one it had.
fn means(rows: &Rows, tree: &Tree, before: Option<Vec<f32>>, job: &Job) -> Result<Vec<f32>> {
    let work = rows.space.work();
    let leaves = tree.starts.len() - 1;
    let mut points = before.unwrap_or_else(|| vec![0.0; leaves * work]);
    for (_, span) in rows.spans(&tree.starts) {
        points[span.start * work..span.end * work]
            .par_chunks_mut(work)
            .zip(tree.starts[span.start..=span.end].par_windows(2))
            .with_min_len(8)
            .try_for_each(|(point, range)| {
                job.check()?;
                let members = &tree.rows[range[0] as usize..range[1] as usize];
                if !members.is_empty() {
                    rows.mean(members, point);
                    rows.space.normalise(point);
                }
                Ok::<_, anyhow::Error>(())
            })?;
    }
    Ok(points)
}
